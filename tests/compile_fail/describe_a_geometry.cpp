// expect: no matching function for call to '?describe
#include <ropewalk/policy/describe.hpp>
#include <ropewalk/policy/linear.hpp>
#ifdef RW_FAIL
const std::string text = ropewalk::describe(ropewalk::Geometry{});
#else
const std::string text = ropewalk::describe(ropewalk::Linear{});
#endif
