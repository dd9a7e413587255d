#include "trial.hpp"

namespace rw = ropewalk;

namespace test {

std::string counts_problem(const std::vector<std::uint8_t>& counts, array& memory, const oracle::shape& s,
                           std::uint8_t turning, std::uint8_t beside) {
    const rw::tensor t = memory.tensor();
    const auto size = static_cast<std::int64_t>(rw::size_of(t.type));
    const std::int64_t base = static_cast<const unsigned char*>(t.data) - memory.bytes().data();
    std::vector<std::uint8_t> expected(counts.size(), 0);
    for (std::int64_t row = 0; row < t.batch * t.tokens * t.heads; ++row) {
        const std::int64_t head = row % t.heads, token = row / t.heads % t.tokens, batch = row / t.heads / t.tokens;
        const std::int64_t start = batch * t.stride_batch + token * t.stride_token + head * t.stride_head;
        for (std::int64_t i = 0; i < t.head_dim * size; ++i) {
            const std::int64_t element = i / size;
            const bool turns = element >= s.offset && element < s.offset + s.width;
            expected[static_cast<std::size_t>(base + start * size + i)] = turns ? turning : beside;
        }
    }
    for (std::size_t i = 0; i < counts.size(); ++i) {
        if (counts[i] != expected[i])
            return "byte " + std::to_string(i) + " was touched " + std::to_string(counts[i]) + " times, expected " +
                   std::to_string(expected[i]);
    }
    return {};
}

namespace {

/// q or k, its output, and the outputs of the CPU.
struct side {
    array in, out, cpu_in, cpu_out;
    std::vector<double> before;
    bool in_place = true;

    side(const trial& one, const extents& size, random& numbers)
        : in(one.type, size, numbers, one.where_in_memory),
          out(one.type, size, one.where_in_memory),
          before(in.values()),
          in_place(one.in_place) {
        cpu_in = in, cpu_out = out;
    }
    array& result() { return in_place ? in : out; }
    array& cpu_result() { return in_place ? cpu_in : cpu_out; }

    std::string problem(const trial& one, const memory_log& log, oracle::role who) {
        const oracle::shape shape = shape_of(in.size(), one.by.ours.geometry, one.layout);
        const auto exact = exact_result(one, in.size(), before, who);
        if (!(result() == cpu_result())) return "other bits than the CPU's kernels";
        if (!result().guards_intact()) return "bytes around the tensor changed";
        if (std::string wrong = compare(result(), exact, shape).first_problem; !wrong.empty()) return wrong;
        const std::uint8_t beside = in_place ? 0 : 1;
        if (std::string wrong = counts_problem(log.writes(result()), result(), shape, 1, beside); !wrong.empty())
            return "writes: " + wrong;
        if (std::string wrong = counts_problem(log.reads(in), in, shape, 1, beside); !wrong.empty())
            return "reads: " + wrong;
        return {};
    }
};

}  // namespace

std::string problem_of(const trial& one, random& numbers, int* bytes) {
    side q(one, one.q, numbers), k(one, {one.q.batch, one.q.tokens, one.k_heads, one.q.head_dim}, numbers);
    const auto keys = [&](array& memory) { return one.k_heads > 0 ? memory.tensor() : none(); };
    memory_log log;
    for (side* each : {&q, &k}) log.watch(each->in), log.watch(each->out);

    const rw::gpu::launch_plan prepared =
        rw::gpu::make_plan(one.layout, q.in.tensor(), keys(k.in), q.result().tensor(), keys(k.result()), one.by.ours,
                           one.where, one.options, one.device);
    if (bytes != nullptr) *bytes = prepared.shape.bytes;
    run_on_host(one.layout, prepared, log);
    rotate_on_cpu(one.layout, q.cpu_in.tensor(), keys(k.cpu_in), q.cpu_result().tensor(), keys(k.cpu_result()),
                  one.by.ours, one.where, one.options.direction, one.options.table);

    std::string problem = log.problem();
    if (problem.empty()) problem = q.problem(one, log, oracle::role::query);
    if (problem.empty() && one.k_heads > 0) {
        problem = k.problem(one, log, oracle::role::key);
        if (!problem.empty()) problem = "k: " + problem;
    }
    if (problem.empty()) return problem;
    const rw::gpu::launch_shape& shape = prepared.shape;
    return describe(one) + ", access " + std::to_string(shape.bytes) + ", " + std::to_string(shape.grid) +
           " blocks of " + std::to_string(shape.block) + ": " + problem;
}

}  // namespace test
