// expect: name the positions after the encoding: rw::offset\{0\} counts from 0
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
namespace rw = ropewalk;
void use(const rw::view<float>& q, const rw::Encoding& e) {
#ifdef RW_FAIL
    rw::cpu::rotate<rw::half_split>(q, q, e);
#else
    rw::cpu::rotate<rw::half_split>(q, q, e, rw::offset{0});
#endif
}
