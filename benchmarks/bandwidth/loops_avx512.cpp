#include "loops.inl"

namespace bench {
extern const bandwidth_loops avx512_loops;
const bandwidth_loops avx512_loops = loops_of<xsimd::avx512bw>("avx512");
}  // namespace bench
