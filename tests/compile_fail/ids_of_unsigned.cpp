// expect: positions are a span, an array or a container of std::int32_t or std::int64_t
// errors: 1
#include <ropewalk/core/positions.hpp>
#include <vector>
namespace rw = ropewalk;
#ifdef RW_FAIL
using id = unsigned;
#else
using id = int;
#endif
void use(const std::vector<id>& values) { (void)rw::ids(values, 2); }
