#include "ceilings.hpp"

#include <initializer_list>

#include <ropewalk/core/error.hpp>

namespace ceilings {

extern const loops baseline_loops;
extern const loops avx2_loops;
extern const loops avx512_loops;
extern const loops neon_loops;

const loops& loops_for(std::string_view instruction_set) {
#if defined(__x86_64__)
    const std::initializer_list<const loops*> known = {&baseline_loops, &avx2_loops, &avx512_loops};
#else
    const std::initializer_list<const loops*> known = {&neon_loops};
#endif
    for (const loops* one : known) {
        if (one->name == instruction_set) return *one;
    }
    ropewalk::detail::fail("no ceilings for the instruction set '{}'", instruction_set);
}

}  // namespace ceilings
