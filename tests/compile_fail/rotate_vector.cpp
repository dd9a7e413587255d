// expect: pass rw::thd\(v.data\(\), tokens, heads, head_dim\)
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
#include <vector>
namespace rw = ropewalk;
void use(std::vector<float>& q, const rw::Encoding& e) {
#ifdef RW_FAIL
    rw::cpu::rotate<rw::half_split>(q, e, rw::offset{0});
#else
    rw::cpu::rotate<rw::half_split>(rw::thd(q, 1, 2, 64), e, rw::offset{0});
#endif
}
