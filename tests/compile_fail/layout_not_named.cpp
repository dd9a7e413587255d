// expect: name the layout: rotate<rw::half_split>
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
namespace rw = ropewalk;
// The layout is never a default: it must be named in every call.
void use(const rw::view<float>& q, const rw::Encoding& e) {
#ifdef RW_FAIL
    rw::cpu::rotate(q, e, rw::offset{0});
#else
    rw::cpu::rotate<rw::half_split>(q, e, rw::offset{0});
#endif
}
