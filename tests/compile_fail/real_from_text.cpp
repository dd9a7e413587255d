// expect: no matching function|cannot convert|could not convert|no matching constructor|no viable conversion
#include <ropewalk/core/real.hpp>
#ifdef RW_FAIL
const ropewalk::real half("0.5");
#else
const ropewalk::real half(0.5);
#endif
