// expect: no match for '?operator\||invalid operands to binary expression
#include <ropewalk/encoding.hpp>
namespace rw = ropewalk;
#ifdef RW_FAIL
const auto both = rw::Linear{.factor = 2} | 4;
#else
const auto both = rw::Linear{.factor = 2} | rw::Power{.k = 4};
#endif
