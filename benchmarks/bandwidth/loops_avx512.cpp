#include "loops.inl"
#include "rotation_avx2.inl"

namespace bench {
extern const bandwidth_loops avx512_loops;
const bandwidth_loops avx512_loops = loops_of<xsimd::avx512bw>("avx512", avx2_rotation<xsimd::avx512bw>);
}  // namespace bench
