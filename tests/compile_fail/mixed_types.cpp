// expect: q, k and their outputs must have the same element type
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
namespace rw = ropewalk;
#ifdef RW_FAIL
using key = rw::bf16;
#else
using key = float;
#endif
void use(const rw::view<float>& q, const rw::view<key>& k, const rw::Encoding& e) {
    rw::cpu::rotate<rw::half_split>(q, k, e, rw::offset{0});
}
