// expect: AnyAxis
#include <ropewalk/policy/compose.hpp>
#include <ropewalk/policy/linear.hpp>
#ifdef RW_FAIL
ropewalk::Composed<ropewalk::Geometry> one;
#else
ropewalk::Composed<ropewalk::Linear> one;
#endif
