// expect: positions keep a pointer to the numbers: give the temporary container a name
// errors: 1
#include <ropewalk/core/positions.hpp>
#include <vector>
namespace rw = ropewalk;
void use(const std::vector<std::int64_t>& named) {
#ifdef RW_FAIL
    (void)rw::ids(std::vector<std::int64_t>(named), 2);
#else
    (void)rw::ids(named, 2);
#endif
}
