#include "loops.inl"

namespace ceilings {
extern const loops avx2_loops;
const loops avx2_loops = loops_of<xsimd::fma3<xsimd::avx2>>("avx2");
}  // namespace ceilings
