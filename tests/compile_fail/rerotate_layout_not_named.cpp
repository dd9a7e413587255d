// expect: name the layout: rotate<rw::half_split>
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
namespace rw = ropewalk;
void use(const rw::view<float>& k, const rw::Encoding& e) {
#ifdef RW_FAIL
    rw::cpu::rerotate(k, e, rw::offset{0}, e, rw::offset{1});
#else
    rw::cpu::rerotate<rw::half_split>(k, e, rw::offset{0}, e, rw::offset{1});
#endif
}
