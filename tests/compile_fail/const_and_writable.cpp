// expect: rotating in place writes: const elements need an output of their own
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
namespace rw = ropewalk;
#ifdef RW_FAIL
using query = const float;
#else
using query = float;
#endif
void use(const rw::view<query>& q, const rw::view<float>& k, const rw::Encoding& e) {
    rw::cpu::rotate<rw::half_split>(q, k, e, rw::offset{0});
}
