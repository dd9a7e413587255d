// expect: constraints? (not satisfied|failure)|constraints? .*Element
#include <ropewalk/core/view.hpp>
#ifdef RW_FAIL
ropewalk::view<long double> v;
#else
ropewalk::view<const float> v;
#endif
