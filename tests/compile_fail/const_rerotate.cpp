// expect: rotating in place writes: const elements need an output of their own
#include <ropewalk/cpu/rotate.hpp>
namespace rw = ropewalk;
#ifdef RW_FAIL
using element = const rw::bf16;
#else
using element = rw::bf16;
#endif
void use(const rw::view<element>& k, const rw::Encoding& e) {
    rw::cpu::rerotate<rw::interleaved>(k, e, rw::offset{0}, e, rw::offset{1});
}
