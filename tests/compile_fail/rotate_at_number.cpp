// expect: positions are rw::offset\{first\} or rw::ids\(v\)
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
namespace rw = ropewalk;
void use(const rw::view<float>& q, const rw::Encoding& e, int past) {
#ifdef RW_FAIL
    rw::cpu::rotate<rw::half_split>(q, e, past);
#else
    rw::cpu::rotate<rw::half_split>(q, e, rw::offset{past});
#endif
}
