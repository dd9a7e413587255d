// expect: name the 16-bit format: pass rw::as_f16\(data\) or rw::as_bf16\(data\)
// errors: 1
#include <cstdint>
#include <ropewalk/core/view.hpp>
namespace rw = ropewalk;
void use(std::uint16_t* data) {
#ifdef RW_FAIL
    (void)rw::thd(data, 1, 2, 64);
#else
    (void)rw::thd(rw::as_bf16(data), 1, 2, 64);
#endif
}
