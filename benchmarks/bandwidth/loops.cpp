#include "loops.hpp"

#include <initializer_list>

#include <ropewalk/core/error.hpp>

namespace bench {

extern const bandwidth_loops baseline_loops;
extern const bandwidth_loops avx2_loops;
extern const bandwidth_loops avx512_loops;
extern const bandwidth_loops neon_loops;

const bandwidth_loops& loops_for(std::string_view instruction_set) {
#define RW_SET(name) &name##_loops,
    for (const bandwidth_loops* loops : {ROPEWALK_COMPILED_SETS}) {
#undef RW_SET
        if (loops->instruction_set == instruction_set) return *loops;
    }
    ropewalk::detail::fail("no bandwidth loops for the instruction set '{}'", instruction_set);
}

}  // namespace bench
