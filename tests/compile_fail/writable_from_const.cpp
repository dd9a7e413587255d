// expect: could not convert|no viable conversion|conversion from
#include <ropewalk/core/view.hpp>
namespace rw = ropewalk;
#ifdef RW_FAIL
rw::view<float> widened(const rw::view<const float>& v) { return v; }
#else
rw::view<const float> narrowed(const rw::view<float>& v) { return v; }
#endif
