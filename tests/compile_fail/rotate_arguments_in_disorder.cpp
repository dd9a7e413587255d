// expect: the arguments are rotate<layout>\(q, k, encoding, positions, options\)
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
namespace rw = ropewalk;
void use(const rw::view<float>& q, const rw::Encoding& e) {
#ifdef RW_FAIL
    rw::cpu::rotate<rw::half_split>(e, q, q, rw::offset{0});
#else
    rw::cpu::rotate<rw::half_split>(q, q, e, rw::offset{0});
#endif
}
