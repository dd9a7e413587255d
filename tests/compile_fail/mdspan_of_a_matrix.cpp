// expect: an mdspan is \[tokens, heads, head_dim\] or \[batch, tokens, heads, head_dim\]
// errors: 1
#include <cstddef>
#include <ropewalk/core/view.hpp>
namespace rw = ropewalk;
struct mdspan {
#ifdef RW_FAIL
    static constexpr std::size_t rank() { return 2; }
#else
    static constexpr std::size_t rank() { return 3; }
#endif
    float* data_handle() const { return nullptr; }
    int extent(std::size_t) const { return 0; }
    int stride(std::size_t) const { return 1; }
};
void use() { (void)rw::view_of(mdspan{}); }
