// expect: pass a pointer, a std::span or a container: rw::thd\(v.data\(\), tokens, heads, head_dim\)
// errors: 1
#include <ropewalk/core/view.hpp>
namespace rw = ropewalk;
void use(float* data) {
#ifdef RW_FAIL
    (void)rw::thd(*data, 1, 2, 64);
#else
    (void)rw::thd(data, 1, 2, 64);
#endif
}
