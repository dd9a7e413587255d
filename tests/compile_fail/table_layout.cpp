// expect: Layout
#include <ropewalk/cpu/cos_sin.hpp>
namespace rw = ropewalk;
#ifdef RW_FAIL
using layout = float;
#else
using layout = rw::half_split;
#endif
void use(const rw::Encoding& e, std::span<float> out) { rw::cpu::cos_sin<layout>(e, rw::offset{0}, 1, 4, out, out); }
