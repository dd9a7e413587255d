#include "loops.inl"

namespace ceilings {
extern const loops baseline_loops;
const loops baseline_loops = loops_of<xsimd::sse2>("baseline");
}  // namespace ceilings
