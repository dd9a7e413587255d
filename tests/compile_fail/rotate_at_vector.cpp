// expect: positions are rw::offset\{first\} or rw::ids\(v\)
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
#include <vector>
namespace rw = ropewalk;
void use(const rw::view<float>& q, const rw::Encoding& e, const std::vector<int>& where) {
#ifdef RW_FAIL
    rw::cpu::rotate<rw::half_split>(q, q, e, where);
#else
    rw::cpu::rotate<rw::half_split>(q, q, e, rw::ids(where));
#endif
}
