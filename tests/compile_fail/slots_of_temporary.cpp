// expect: use of deleted function|call to deleted function
// errors: 1
#include <ropewalk/rotation/cache.hpp>
#include <vector>
namespace rw = ropewalk;
void use(const std::vector<std::int32_t>& named) {
#ifdef RW_FAIL
    (void)rw::by_mapping(std::vector<std::int32_t>(named));
#else
    (void)rw::by_mapping(named);
#endif
}
