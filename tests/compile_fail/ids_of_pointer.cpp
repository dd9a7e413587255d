// expect: positions are a span, an array or a container of std::int32_t or std::int64_t
// errors: 1
#include <ropewalk/core/positions.hpp>
#include <vector>
namespace rw = ropewalk;
void use(const int* values, std::size_t count) {
#ifdef RW_FAIL
    (void)rw::ids(values, static_cast<std::int64_t>(count));
#else
    (void)rw::ids({values, count}, 1);
#endif
}
