// expect: positions keep a pointer to the numbers: give the temporary container a name
// errors: 1
#include <ropewalk/core/positions.hpp>
#include <vector>
namespace rw = ropewalk;
const std::vector<std::int32_t> make_starts();
void use() {
#ifdef RW_FAIL
    (void)rw::cu_seqlens(make_starts(), 5);
#else
    const std::vector<std::int32_t>& named = make_starts();
    (void)rw::cu_seqlens(named, 5);
#endif
}
