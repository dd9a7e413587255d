// expect: positions keep a pointer to the numbers: give the temporary container a name
// errors: 1
#include <ropewalk/core/positions.hpp>
#include <vector>
namespace rw = ropewalk;
std::vector<int> make_ids();
void use() {
#ifdef RW_FAIL
    (void)rw::ids(make_ids());
#else
    const auto named = make_ids();
    (void)rw::ids(named);
#endif
}
