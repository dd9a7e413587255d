#include "loops.inl"
#include "rotation_avx2.inl"

namespace bench {
extern const bandwidth_loops avx2_loops;
const bandwidth_loops avx2_loops = loops_of<xsimd::fma3<xsimd::avx2>>("avx2", avx2_rotation<xsimd::fma3<xsimd::avx2>>);
}  // namespace bench
