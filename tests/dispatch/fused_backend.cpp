// The compiled CPU kernels as the backend of the fused cases. Their results must also equal those of norm and rotation
// one after the other to the bit, and must not depend on the number of threads.
#include <ropewalk/dispatch.hpp>

#include "cases/fused_case.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace test {

namespace {

/// The heads of part i after norm and rotation as calls of their own, in float32.
std::vector<double> composed(fused_call& call, std::size_t i) {
    const array& before = call.memories[call.parts[i].memory].before;
    if (i == 2 || call.parts[i].heads == 0) return before.values();
    array floats(rw::element_type::f32, before.size());
    floats.set(before.values());
    const rw::tensor x = call.heads_of(floats.tensor(), i), none{};
    const rw::Encoding& encoding = call.setup.encoding.ours;
    const rw::fusion fusion = call.fusion();
    const rw::head_norm& norm = i == 0 ? fusion.q_norm : fusion.k_norm;
    if (norm.weight != nullptr) {
        // At position 0 an encoding without magnitudes changes nothing.
        const std::vector<std::int64_t> zeros(static_cast<std::size_t>(x.tokens), 0);
        const rw::Encoding plain = rw::make_encoding(encoding.geometry, rw::Default{});
        rw::fused_args args;
        args.rotation.layout = call.setup.layout, args.rotation.target = &plain;
        args.rotation.q_in = args.rotation.q_out = x;
        args.rotation.target_positions = rw::ids(std::span<const std::int64_t>(zeros));
        args.with.q_norm = norm;
        dispatch::fused(args);
    }
    const rw::tensor &q = i == 0 ? x : none, &k = i == 1 ? x : none;
    dispatch::rotate(call.setup.layout, q, k, q, k, encoding, call.positions.given);
    return floats.values();
}

/// The arguments of a call, whose tensors are those of `call`.
rw::fused_args args_of(fused_call& call) {
    rw::fused_args args;
    args.rotation.layout = call.setup.layout, args.rotation.target = &call.setup.encoding.ours;
    args.rotation.target_positions = call.positions.given;
    args.with = call.fusion();
    rw::tensor* const in[] = {&args.rotation.q_in, &args.rotation.k_in, &args.v_in};
    rw::tensor* const out[] = {&args.rotation.q_out, &args.rotation.k_out, &args.v_out};
    for (std::size_t i = 0; i < 3; ++i) {
        const fused_call::part& p = call.parts[i];
        fused_call::memory& m = call.memories[p.memory];
        *in[i] = call.heads_of(m.in.tensor(), i);
        if (p.has_output) *out[i] = p.in_place ? *in[i] : call.heads_of(m.out.tensor(), i);
    }
    return args;
}

bool same_results(const fused_call& a, const fused_call& b) {
    for (std::size_t m = 0; m < a.memories.size(); ++m) {
        if (a.memories[m].in.bytes() != b.memories[m].in.bytes()) return false;
        if (a.memories[m].out.bytes() != b.memories[m].out.bytes()) return false;
    }
    for (std::size_t i = 0; i < a.caches.size(); ++i) {
        if (!a.caches[i]) continue;
        if (a.caches[i]->bytes != b.caches[i]->bytes || a.caches[i]->scales != b.caches[i]->scales) return false;
    }
    return true;
}

}  // namespace

fused_call run(const fused_case& c, random& numbers) {
    fused_case checked = c;
    checked.checked_slots = true;
    fused_call call(checked, numbers), threaded = call;
    const std::array<std::vector<double>, 3> heads{composed(call, 0), composed(call, 1), composed(call, 2)};
    dispatch::fused(args_of(call), 1);
    rw::cpu::tuning_profile tuning = dispatch::tuning_profile();
    tuning.bytes_per_thread = 1;
    dispatch::fused(args_of(threaded), 2, &tuning);
    fused_call marked = call;
    call.problem = marked.compare(heads, true);
    if (call.problem.empty() && !same_results(call, threaded)) call.problem = "two threads give another result";
    return call;
}

}  // namespace test
