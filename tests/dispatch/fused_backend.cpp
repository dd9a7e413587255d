// The compiled CPU kernels as the backend of the fused cases. Their results must also equal those of norm and rotation
// one after the other to the bit, and must not depend on the number of threads or on preparation.
#include <ropewalk/dispatch.hpp>
#include <ropewalk/rotation/make_params.hpp>

#include "cases/fused_case.hpp"
#include "prepared_call.hpp"

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

/// Runs a call as a prepared one. Returns false where positions or destinations allow none. It is prepared for the
/// memory of `other`.
bool run_prepared(fused_call& call, fused_call& other) {
    const rw::fused_args args = call.args();
    const rw::tensor& heads = args.rotation.any();
    const rw::position_reader reader = rw::read_positions(*args.rotation.target, args.rotation.target_positions,
                                                          heads.batch, heads.tokens, rw::memory_space::host);
    const auto two_scales = [&](std::size_t i) {
        return call.quantised[i] && call.caches[i - 1] && call.quantised[i]->tensor().scales != nullptr &&
               call.caches[i - 1]->tensor().scales != nullptr;
    };
    if (reader.kind == rw::positions::kind::fixed || reader.axes > 1 || two_scales(1) || two_scales(2)) return false;
    std::vector<std::int64_t> positions, slots;
    for (std::int64_t i = 0; i < heads.batch * heads.tokens; ++i)
        positions.push_back(reader.index(i / heads.tokens, i % heads.tokens));
    if (args.with.slots.source != rw::cache_slots::kind::none) {
        const rw::cache_tensor& cache = args.with.cache.k.exists() ? args.with.cache.k : args.with.cache.v;
        for (const auto& slot : call.slots.of_token)
            slots.push_back(slot ? slot->page * cache.page_size + slot->token : -1);
    }
    rw::cpu::prepared_fused prepared = dispatch::prepare_fused(other.args());
    return prepared.run(addresses_of(args), positions, slots);
}

}  // namespace

fused_call run(const fused_case& c, random& numbers) {
    fused_case checked = c;
    checked.checked_slots = true;
    fused_call call(checked, numbers), threaded = call, other = call, prepared = call;
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
    if (run_prepared(prepared, other) && call.problem.empty() && !same_results(call, prepared))
        call.problem = "a prepared call gives another result";
    return call;
}

}  // namespace test
