// expect: q, k and their outputs must have the same element type
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
namespace rw = ropewalk;
#ifdef RW_FAIL
using output = rw::f16;
#else
using output = float;
#endif
void use(const rw::view<const float>& q, const rw::view<output>& out, const rw::Encoding& e) {
    rw::cpu::rotate<rw::half_split>(q, q, out, out, e, rw::offset{0});
}
