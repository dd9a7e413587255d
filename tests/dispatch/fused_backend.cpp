// The compiled CPU kernels as the backend of the fused cases. Their results must also equal those of norm and rotation
// one after the other to the bit, and must not depend on the number of threads.
#include <ropewalk/dispatch.hpp>

#include "cases/fused_case.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace test {

namespace {

bool same_results(fused_call& a, fused_call& b) {
    for (std::size_t m = 0; m < a.memories.size(); ++m) {
        if (a.memories[m].in.bytes() != b.memories[m].in.bytes()) return false;
        if (a.memories[m].out.bytes() != b.memories[m].out.bytes()) return false;
    }
    const auto of_a = a.written(), of_b = b.written();
    for (std::size_t i = 0; i < of_a.size(); ++i)
        if (of_a[i]->bytes != of_b[i]->bytes || of_a[i]->scales != of_b[i]->scales) return false;
    return true;
}

}  // namespace

fused_call run(const fused_case& c, random& numbers) {
    fused_case checked = c;
    checked.checked_slots = true;
    fused_call call(checked, numbers), threaded = call;
    const auto alone = [&](std::size_t i) {
        return composed(
            call, i, [](const rw::fused_args& args) { dispatch::fused(args); },
            [&](const rw::tensor& q, const rw::tensor& k) {
                dispatch::rotate(c.layout, q, k, q, k, c.encoding.ours, call.positions.given);
            });
    };
    const std::array<std::vector<double>, 3> heads{alone(0), alone(1), alone(2)};
    dispatch::fused(call.args(), 1);
    rw::cpu::tuning_profile tuning = dispatch::tuning_profile();
    tuning.bytes_per_thread = 1;
    dispatch::fused(threaded.args(), 2, &tuning);
    fused_call marked = call;
    call.problem = marked.compare(heads, true);
    if (call.problem.empty() && !same_results(call, threaded)) call.problem = "two threads give another result";
    return call;
}

}  // namespace test
