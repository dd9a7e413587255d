// expect: pass an encoding: rw::make_encoding\(geometry, \\?"linear:8\\?"\)
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
namespace rw = ropewalk;
void use(const rw::view<float>& q, const rw::Encoding& e) {
#ifdef RW_FAIL
    rw::cpu::rotate<rw::half_split>(q, q, "linear:8", rw::offset{0});
    (void)e;
#else
    rw::cpu::rotate<rw::half_split>(q, q, e, rw::offset{0});
#endif
}
