// The bodies of the GPU kernels on the host as the backend of the common cases. Their results must also equal those of
// the CPU kernels to the bit, and they must read and write every element once.
#include "backend.hpp"

#include <dispatch/kernels.hpp>

#include <ropewalk/cpu/execute.hpp>
#include <ropewalk/cpu/plan.hpp>

#include "support/errors.hpp"

namespace rw = ropewalk;

namespace test {

std::string counts_problem(const std::vector<std::uint8_t>& counts, array& memory, const oracle::shape& s,
                           std::uint8_t rotary, std::uint8_t other) {
    const rw::tensor t = memory.tensor();
    const auto size = static_cast<std::int64_t>(rw::size_of(t.type));
    const std::int64_t base = static_cast<const unsigned char*>(t.data) - memory.bytes().data();
    std::vector<std::uint8_t> expected(counts.size(), 0);
    for (std::int64_t row = 0; row < t.batch * t.tokens * t.heads; ++row) {
        const std::int64_t head = row % t.heads, token = row / t.heads % t.tokens, batch = row / t.heads / t.tokens;
        const std::int64_t start = batch * t.stride_batch + token * t.stride_token + head * t.stride_head;
        for (std::int64_t i = 0; i < t.head_dim * size; ++i) {
            const std::int64_t element = i / size;
            const bool is_rotary = element >= s.offset && element < s.offset + s.width;
            expected[static_cast<std::size_t>(base + start * size + i)] = is_rotary ? rotary : other;
        }
    }
    for (std::size_t i = 0; i < counts.size(); ++i) {
        if (counts[i] != expected[i])
            return "byte " + std::to_string(i) + " was accessed " + std::to_string(counts[i]) + " times, expected " +
                   std::to_string(expected[i]);
    }
    return {};
}

namespace {

/// Executes the same call by the CPU kernels of the narrowest instruction set, which round as the GPU bodies do on the
/// host: without fused multiply-add.
void rotate_on_cpu(const rotation_case& c, rotated& r) {
    const auto& [target, at, axes] = c.target;
    const rw::cpu::rotate_plan plan =
        c.source ? rw::cpu::make_rerotation_plan(c.layout, r.k.input(), r.k.output(), c.source->encoding.ours,
                                                 c.source->positions.given, target.ours, at.given)
                 : rw::cpu::make_plan(c.layout, r.q.input(), r.k.input(), r.q.output(), r.k.output(), target.ours,
                                      at.given, {.direction = c.direction, .table = c.table});
#if defined(__x86_64__)
    const rw::dispatch::kernel_set& kernels = rw::dispatch::baseline_kernels;
#else
    const rw::dispatch::kernel_set& kernels = rw::dispatch::neon_kernels;
#endif
    rw::cpu::execute(plan.params, kernels.rotate(plan.params.any().type, c.layout).run, 1);
}

std::string problem_of(const rotation_case& c, operand& x, operand& on_cpu, const memory_log& log) {
    if (!x.exists()) return {};
    const oracle::shape shape = shape_of(x.in.size(), c.geometry(), c.layout);
    if (c.host_validates && !(x.result() == on_cpu.result())) return "other bits than the CPU kernels";
    const std::uint8_t other = x.in_place ? 0 : 1;
    std::string problem = counts_problem(log.writes(x.result()), x.result(), shape, 1, other);
    if (!problem.empty()) return "writes: " + problem;
    problem = counts_problem(log.reads(x.in), x.in, shape, 1, other);
    return problem.empty() ? problem : "reads: " + problem;
}

}  // namespace

std::span<const rw::element_type> types_of_backend() { return all_types; }

rotated rotate(const rotation_case& c, random& numbers) {
    rotated r(c, numbers), on_cpu = r;
    memory_log log;
    for (operand* each : {&r.q, &r.k}) log.watch(each->in), log.watch(each->out);
    const auto& [target, at, axes] = c.target;
    const rw::gpu::device_shape device = random_device(numbers);
    const auto plan =
        c.source ? rw::gpu::make_rerotation_plan(c.layout, r.k.input(), r.k.output(), c.source->encoding.ours,
                                                 c.source->positions.given, target.ours, at.given, {}, device)
                 : rw::gpu::make_plan(c.layout, r.q.input(), r.k.input(), r.q.output(), r.k.output(), target.ours,
                                      at.given, {.direction = c.direction, .table = c.table}, device);
    r.access_bytes = plan.shape.bytes;
    run_on_host(c.layout, plan, log);
    if (c.host_validates) rotate_on_cpu(c, on_cpu);
    r.problem = log.problem();
    if (r.problem.empty()) r.problem = problem_of(c, r.q, on_cpu.q, log);
    if (r.problem.empty()) r.problem = problem_of(c, r.k, on_cpu.k, log);
    return r;
}

std::string refusal(const rw::rotate_args& args) {
    return message_of([&] { (void)rw::gpu::make_plan(args); });
}

}  // namespace test
