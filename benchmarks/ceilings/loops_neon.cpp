#include "loops.inl"

namespace ceilings {
extern const loops neon_loops;
const loops neon_loops = loops_of<xsimd::neon64>("neon");
}  // namespace ceilings
