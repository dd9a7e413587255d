// expect: pass rw::thd\(v.data\(\), tokens, heads, head_dim\)
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
#include <vector>
namespace rw = ropewalk;
void use(std::vector<float>& k, const rw::Encoding& e) {
#ifdef RW_FAIL
    rw::cpu::rerotate<rw::half_split>(k, e, rw::offset{0}, e, rw::offset{1});
#else
    rw::cpu::rerotate<rw::half_split>(rw::thd(k, 1, 2, 64), e, rw::offset{0}, e, rw::offset{1}, 2);
#endif
}
