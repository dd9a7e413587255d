// expect: name the 16-bit format: pass rw::thd\(rw::as_f16\(data\), tokens, heads, head_dim\), or rw::as_bf16
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
namespace rw = ropewalk;
void use(std::uint16_t* q, const rw::Encoding& e) {
#ifdef RW_FAIL
    rw::cpu::rotate<rw::half_split>(q, e, rw::offset{0});
#else
    rw::cpu::rotate<rw::half_split>(rw::thd(rw::as_bf16(q), 1, 2, 64), e, rw::offset{0});
#endif
}
