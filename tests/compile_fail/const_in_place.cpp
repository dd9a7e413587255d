// expect: rotating in place writes: const elements need an output of their own
#include <ropewalk/cpu/rotate.hpp>
namespace rw = ropewalk;
#ifdef RW_FAIL
using element = const float;
#else
using element = float;
#endif
void use(const rw::view<element>& q, const rw::Encoding& e) { rw::cpu::rotate<rw::half_split>(q, e, rw::offset{0}); }
