// The bodies of the fused kernels on the host as the backend of the fused cases. Their results must also equal those of
// norm and rotation one after the other to the bit, and they must read and write every element once.
#include "fused_host.hpp"

#include "backend.hpp"

namespace rw = ropewalk;

namespace test {

namespace {

/// A log that records accesses but reports none.
memory_log& unchecked_log() {
    static memory_log log;
    return log;
}

void run_unchecked(const rw::fused_args& args) {
    run_on_host(args.rotation.layout, rw::gpu::make_fused_plan(args), unchecked_log());
}

/// Compares the accesses of every byte of an array with one read per element of its parts and one write per element of
/// their outputs.
std::string counts_problem(const fused_call& call, std::size_t memory, const memory_log& log) {
    const fused_call::memory& m = call.memories[memory];
    std::vector<std::uint8_t> reads(m.in.bytes().size()), in_place(reads), outputs(reads);
    for (std::size_t i = 0; i < 3; ++i) {
        const fused_call::part& p = call.parts[i];
        if (p.memory != memory || p.heads == 0) continue;
        const rw::Geometry& g = call.setup.encoding.ours.geometry;
        const bool normed = i < 2 && !call.weights[i].bytes().empty();
        array copy = m.in;
        const rw::tensor t = call.heads_of(copy.tensor(), i);
        const auto size = static_cast<std::int64_t>(rw::size_of(t.type));
        const auto base = static_cast<const unsigned char*>(t.data) - copy.bytes().data();
        for (std::int64_t row = 0; row < t.batch * t.tokens * t.heads; ++row) {
            const std::int64_t start = row / t.heads / t.tokens * t.stride_batch +
                                       row / t.heads % t.tokens * t.stride_token + row % t.heads * t.stride_head;
            for (std::int64_t byte = 0; byte < t.head_dim * size; ++byte) {
                const auto at = static_cast<std::size_t>(base + start * size + byte);
                const std::int64_t element = byte / size;
                const bool is_rotary = element >= g.rotary_offset && element < g.rotary_offset + g.width();
                ++reads[at];
                if (!p.has_output) continue;
                // In place, elements that are neither normed nor rotated are not written.
                if (!p.in_place) ++outputs[at];
                if (p.in_place && (is_rotary || normed)) ++in_place[at];
            }
        }
    }
    if (log.reads(m.in) != reads) return "not every element was read once";
    if (log.writes(m.in) != in_place) return "the input was not written once per element";
    return log.writes(m.out) == outputs ? "" : "the output was not written once per element";
}

}  // namespace

rw::gpu::fused_plan make_plan_of(rw::layout_kind layout, const fused_tensors& in, const fused_tensors& out,
                                 const rw::gpu::fusion& fusion, const rw::Encoding& encoding,
                                 const rw::positions& positions, const rw::gpu::options& options,
                                 const rw::gpu::device_shape& device) {
    rw::fused_args args;
    args.rotation.layout = layout, args.rotation.target = &encoding, args.rotation.target_positions = positions;
    args.rotation.q_in = in.q, args.rotation.k_in = in.k, args.rotation.q_out = out.q, args.rotation.k_out = out.k;
    args.rotation.direction = options.direction, args.rotation.table = options.table;
    args.v_in = in.v, args.v_out = out.v, args.with = fusion;
    return rw::gpu::make_fused_plan(args, rw::gpu::detail::with_heads_of(options, device));
}

void norm_on_host(rw::layout_kind layout, const rw::tensor& x, const rw::gpu::head_norm& norm,
                  const rw::Encoding& encoding) {
    norm_alone(layout, x, norm, encoding, run_unchecked);
}

fused_call run(const fused_case& c, random& numbers) {
    fused_call call(c, numbers);
    memory_log log;
    for (const auto& m : call.memories) log.watch(m.in), log.watch(m.out);
    for (const array& w : call.weights) {
        if (!w.bytes().empty()) log.watch(w);
    }
    for (const cache_memory* const each : call.written()) {
        log.watch(each->bytes.data(), each->bytes.size());
        if (!each->scales.empty()) log.watch(each->scales.data(), each->scales.size());
    }
    const auto alone = [&](std::size_t i) {
        return composed(call, i, run_unchecked, [&](const rw::tensor& q, const rw::tensor& k) {
            run_on_host(c.layout, rw::gpu::make_plan(c.layout, q, k, q, k, c.encoding.ours, call.positions.given, {}),
                        unchecked_log());
        });
    };
    const std::array<std::vector<double>, 3> heads{alone(0), alone(1), alone(2)};
    const rw::gpu::fused_plan plan = rw::gpu::make_fused_plan(call.args(), random_device(numbers));
    call.access_bytes = plan.shape.bytes;
    run_on_host(c.layout, plan, log);

    call.problem = log.problem();
    if (call.problem.empty()) {
        fused_call marked = call;
        call.problem = marked.compare(heads, true);
        const auto written = call.written(), expected = marked.written();
        for (std::size_t i = 0; i < written.size() && call.problem.empty(); ++i) {
            if (log.writes(written[i]->bytes.data()) != expected[i]->named() ||
                (!written[i]->scales.empty() && log.writes(written[i]->scales.data()) != expected[i]->named_scales()))
                call.problem = "not every byte of a cache or a quantised output was written once";
        }
    }
    for (std::size_t m = 0; m < call.memories.size() && call.problem.empty(); ++m)
        call.problem = counts_problem(call, m, log);
    return call;
}

}  // namespace test
