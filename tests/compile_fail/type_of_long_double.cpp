// expect: Element
#include <ropewalk/core/element.hpp>
#ifdef RW_FAIL
constexpr auto type = ropewalk::type_of<long double>;
#else
constexpr auto type = ropewalk::type_of<ropewalk::bf16>;
#endif
