#include "loops.inl"

namespace bench {
extern const bandwidth_loops neon_loops;
const bandwidth_loops neon_loops = loops_of<xsimd::neon64>("neon");
}  // namespace bench
