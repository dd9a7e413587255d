#include "loops.inl"

namespace ceilings {
extern const loops avx512_loops;
const loops avx512_loops = loops_of<xsimd::avx512bw>("avx512");
}  // namespace ceilings
