#include "loops.hpp"

#include <initializer_list>

#include <ropewalk/core/error.hpp>

namespace bench {

extern const bandwidth_loops baseline_loops;
extern const bandwidth_loops avx2_loops;
extern const bandwidth_loops avx512_loops;
extern const bandwidth_loops neon_loops;

const bandwidth_loops& loops_for(std::string_view instruction_set) {
#if defined(__x86_64__)
    const std::initializer_list<const bandwidth_loops*> known = {&baseline_loops, &avx2_loops, &avx512_loops};
#else
    const std::initializer_list<const bandwidth_loops*> known = {&neon_loops};
#endif
    for (const bandwidth_loops* loops : known) {
        if (loops->instruction_set == instruction_set) return *loops;
    }
    ropewalk::detail::fail("no bandwidth loops for the instruction set '{}'", instruction_set);
}

}  // namespace bench
