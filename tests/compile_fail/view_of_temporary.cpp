// expect: a view of a temporary container dangles
// errors: 1
#include <ropewalk/core/view.hpp>
#include <vector>
namespace rw = ropewalk;
void use() {
#ifdef RW_FAIL
    (void)rw::thd(std::vector<float>(128), 1, 2, 64);
#else
    std::vector<float> named(128);
    (void)rw::thd(named, 1, 2, 64);
#endif
}
