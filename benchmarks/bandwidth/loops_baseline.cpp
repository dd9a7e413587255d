#include "loops.inl"

namespace bench {
extern const bandwidth_loops baseline_loops;
const bandwidth_loops baseline_loops = loops_of<xsimd::sse2>("baseline");
}  // namespace bench
