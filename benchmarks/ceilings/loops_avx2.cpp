#include "loops_inl.hpp"

namespace ceilings {
extern const loops avx2_loops;
const loops avx2_loops = loops_of<xsimd::fma3<xsimd::avx2>>("avx2");
}  // namespace ceilings
