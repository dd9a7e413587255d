// expect: Layout
#include <ropewalk/core/layout.hpp>
#ifdef RW_FAIL
struct quarter_split {
    static constexpr std::int64_t first(std::int64_t pair, std::int64_t) { return pair; }
};
#else
using quarter_split = ropewalk::half_split;
#endif
constexpr auto kind = ropewalk::kind_of<quarter_split>;
