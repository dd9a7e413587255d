// Kernels of a Llama's layers, executed by the host with every access recorded, and the arguments that they refuse.
#include <ropewalk/llama/gpu/blocks.hpp>

#include "cache_contents.hpp"
#include "host_backend.hpp"
#include "support/errors.hpp"

namespace {

/// Returns a problem unless every element of an array, and nothing else in its memory, was written once.
std::string writes_problem(const test::memory_log& log, test::array& memory) {
    const ropewalk::tensor t = memory.tensor();
    const auto size = static_cast<std::int64_t>(ropewalk::size_of(t.type));
    const std::vector<std::uint8_t>& writes = log.writes(memory);
    std::vector<std::uint8_t> expected(writes.size(), 0);
    const std::int64_t base = static_cast<const unsigned char*>(t.data) - memory.bytes().data();
    for (std::int64_t row = 0; row < t.tokens * t.heads; ++row) {
        const std::int64_t start = row / t.heads * t.stride_token + row % t.heads * t.stride_head;
        for (std::int64_t i = 0; i < t.head_dim * size; ++i)
            expected[static_cast<std::size_t>(base + start * size + i)] = 1;
    }
    return writes == expected ? "" : "an element was not written once, or another byte was written";
}

/// Watches arrays, each once, and their output among them.
struct watched_call {
    test::memory_log log;
    test::array& out;

    watched_call(std::initializer_list<test::array*> inputs, test::array& output) : out(output) {
        for (test::array* const input : inputs) log.watch(*input);
        for (test::array* const input : inputs)
            if (input == &out) return;
        log.watch(out);
    }
    /// Runs f(backend) and returns the first problem of its accesses.
    template <class F>
    std::string run(const F& f, bool complete = true) {
        f(test::host_backend(log));
        if (!log.problem().empty() || !complete) return log.problem();
        return writes_problem(log, out);
    }
};

struct kernel_kind {
    static constexpr double tolerance = 1;

    static std::string attend(test::array& q, test::array& out, test::cache_contents& k, test::cache_contents& v,
                              const test::batch_case& batch, double scale, std::int64_t splits, bool complete) {
        const std::int64_t bytes =
            ropewalk::llama::gpu::attend_workspace_bytes(batch.tokens, q.size().heads, q.size().head_dim, splits);
        // NaNs, which must not reach the output.
        std::vector<float> space(static_cast<std::size_t>(bytes) / sizeof(float) + 64, std::nanf(""));
        watched_call call({&q}, out);
        call.log.watch(test::aligned(space), static_cast<std::size_t>(bytes));
        k.watch(call.log), v.watch(call.log);
        return call.run(
            [&](const test::host_backend& backend) {
                const auto plan =
                    ropewalk::llama::gpu::make_attend(q.tensor(), out.tensor(), {k.tensor(), v.tensor()},
                                                      batch.on_host(), scale, splits, {test::aligned(space), bytes});
                backend.run(plan.attend), backend.run(plan.merge);
            },
            complete);
    }
    static std::string rms_norm(test::array& x, test::array& weight, double epsilon, test::array& y) {
        return watched_call({&x, &weight}, y).run([&](const test::host_backend& backend) {
            backend.run(ropewalk::llama::gpu::make_rms_norm(test::matrix_of(x), test::matrix_of(weight), epsilon,
                                                            test::matrix_of(y)));
        });
    }
    static std::string silu(test::array& gate, test::array& up, test::array& out) {
        return watched_call({&gate, &up}, out).run([&](const test::host_backend& backend) {
            backend.run(
                ropewalk::llama::gpu::make_silu(test::matrix_of(gate), test::matrix_of(up), test::matrix_of(out)));
        });
    }
};

}  // namespace

#include "kernel_cases.inl"

namespace gpu = ropewalk::llama::gpu;

namespace {

std::string problem_of_blocks(rw::element_type type, test::random& numbers) {
    attend_trial trial = random_trial(numbers);
    trial.type = type;
    trial.head_dim = numbers.one_of<std::int64_t>({64, 80, 128, 33}), trial.kv_heads = numbers.integer(1, 2);
    trial.shared = numbers.integer(1, 3), trial.sequences = numbers.integer(1, 3), trial.most_tokens = 20;
    trial.page_size = trial.table ? numbers.one_of<std::int64_t>({1, 16, 5}) : 60;
    trial.pages = trial.table ? 60 / trial.page_size : 1;
    attend_memory m(trial, numbers);
    const double scale = 1 / std::sqrt(static_cast<double>(trial.head_dim));
    const auto exact = m.exact(scale);
    std::vector<rw::llama::sequence_rows> known;
    for (std::int64_t s = 0; s < trial.sequences; ++s)
        known.push_back({m.batch.start_of(s), m.batch.tokens_of(s), m.batch.past_of(s)});
    const gpu::block_sizes sizes{numbers.one_of<std::int64_t>({1, 7, 8, 64}),
                                 numbers.one_of<std::int64_t>({8, 16, 64})};
    const std::int64_t bytes =
        gpu::block_buffers(nullptr, type, trial.heads(), trial.kv_heads, trial.head_dim, sizes).bytes;
    // NaNs, which must not reach the output.
    std::vector<float> space(static_cast<std::size_t>(bytes) / sizeof(float) + 64, std::nanf(""));
    watched_call call({&m.q}, m.result());
    call.log.watch(test::aligned(space), static_cast<std::size_t>(bytes)), m.k.watch(call.log), m.v.watch(call.log);
    std::string problem = call.run([&](const test::host_backend& backend) {
        gpu::attend_by_blocks(backend, m.q.tensor(), m.result().tensor(), {m.k.tensor(), m.v.tensor()},
                              m.batch.on_host(), known, scale, {test::aligned(space), bytes}, sizes);
    });
    const double step = type == rw::element_type::f32 ? 0 : type == rw::element_type::f16 ? 0x1p-11 : 0x1p-8;
    std::vector<double> bounds = exact.largest;
    for (double& bound : bounds) bound *= 5e-6 + 6 * step;
    if (problem.empty()) problem = first_problem(m.result(), exact.rows, bounds);
    if (problem.empty()) return problem;
    return describe(trial) + "blocks " + std::to_string(sizes.queries) + "," + std::to_string(sizes.keys) + ": " +
           problem;
}

}  // namespace

TEST_CASE("attention by blocks over caches of every type and order", "[llama_gpu][blocks]") {
    SEEDED(numbers);
    for (std::int64_t i = 0; i < test::cases(100); ++i) {
        for (const rw::element_type type : test::all_types) REQUIRE(problem_of_blocks(type, numbers) == "");
    }
}

TEST_CASE("the buffers of blocks do not depend on the length", "[llama_gpu][blocks]") {
    const auto bytes = gpu::block_buffers(nullptr, rw::element_type::bf16, 32, 32, 128, {}).bytes;
    CHECK(bytes == 2 * (32 * 512 * 128 * 2) + 32 * 512 * 512 * (4 + 2) + 32 * 512 * 128 * 4 + 32 * 512 * 2 * 4);
}

TEST_CASE("attention by blocks refuses wrong arguments", "[llama_gpu][blocks][errors]") {
    SEEDED(numbers);
    test::array q(rw::element_type::f32, {1, 6, 2, 64}, numbers);
    test::cache_contents k(rw::cache_type::f32, {2, 16, 2, 64}, test::cache_axes::nhd, numbers), v = k;
    test::memory_log log;
    const test::host_backend backend(log);
    const std::int32_t starts[] = {0, 6, 6};
    const auto call = [&](const std::vector<rw::llama::sequence_rows>& known, const gpu::block_sizes& sizes = {8, 8},
                          std::int64_t bytes = 1 << 20) {
        gpu::attend_by_blocks(backend, q.tensor(), q.tensor(), {k.tensor(), v.tensor()}, {starts, nullptr, 2, 6, {}},
                              known, 0.1, {q.tensor().data, bytes}, sizes);
        return 0;
    };
    CHECK_REFUSED(call({{0, 6, 0}}), "rows of 1 sequences", "the batch has 2");
    CHECK_REFUSED(call({{0, 0, 0}, {1, 6, 0}}), "sequence 1 of 2", "rows [1, 1 + 6) of 6");
    CHECK_REFUSED(call({{0, 6, 11}, {6, 0, 0}}), "entries from 11 on of 16");
    CHECK_REFUSED(call({{0, 6, 0}, {6, 0, 0}}, {8, 7}), "8 queries and 7 keys");
    CHECK_REFUSED(call({{0, 6, 0}, {6, 0, 0}}, {8, 8}, 100), "workspace", "got 100");
    CHECK(backend.launches == 0);
}

TEST_CASE("splits depend on what the host knows, and fill a device", "[llama_gpu][attend]") {
    const auto splits = [](std::int64_t count, std::int64_t tokens, std::int64_t kv_heads, std::int64_t most_keys) {
        return gpu::splits_for({nullptr, nullptr, count, tokens, {}}, 32, kv_heads, most_keys, {132, 2048});
    };
    CHECK(splits(1, 1, 32, 4096) == 32);
    CHECK(splits(1, 1, 32, 100) == 1);
    CHECK(splits(64, 1, 32, 4096) == 1);
    CHECK(splits(1, 4096, 8, 4096) == 1);
}

TEST_CASE("attention refuses wrong arguments, with the values", "[llama_gpu][attend][errors]") {
    const auto heads = [](std::int64_t tokens, std::int64_t count, std::int64_t dim, std::uintptr_t address = 0x10000) {
        rw::view<rw::bf16> v(nullptr, tokens, count, dim);
        v.data = reinterpret_cast<void*>(address);
        return static_cast<rw::tensor>(v);
    };
    const auto cache = [](std::int64_t count, std::int64_t dim, std::uintptr_t address = 0x1000000) {
        return rw::gpu::nhd_cache(reinterpret_cast<rw::bf16*>(address), 4, 16, count, dim);
    };
    const gpu::kv_cache kv{cache(2, 128), cache(2, 128, 0x2000000)};
    const auto plan = [&](const rw::tensor& q, const gpu::kv_cache& with, std::int64_t sequences = 4,
                          std::int64_t splits = 1, double scale = 0.1) {
        return gpu::make_attend(q, q, with, {nullptr, nullptr, sequences, 1, {}}, scale, splits);
    };
    CHECK(plan(heads(4, 8, 128), kv).attend.threads == 4 * 2 * 32);
    CHECK_REFUSED(plan(heads(4, 7, 128), kv), "7 query heads", "2 key heads");
    CHECK_REFUSED(plan(heads(4, 8, 64), kv), "head_dim 128", "head_dim 64");
    CHECK_REFUSED(plan(heads(5, 8, 128), kv), "4 sequences", "5 tokens");
    CHECK_REFUSED(plan(heads(4, 8, 128), {cache(2, 128), {}}), "cache of keys and one of values");
    CHECK_REFUSED(plan(heads(4, 8, 128), kv, 4, 3), "3 splits", "workspace of 49920 bytes, got 0");
    CHECK_REFUSED(plan(heads(5, 8, 128), kv, 5), "4 pages", "5 sequences");
    CHECK_REFUSED(plan(heads(4, 2, 264), {cache(2, 264), cache(2, 264, 0x2000000)}), "264", "256");
    CHECK_REFUSED(plan(heads(4, 8, 128, 0x1000000), kv), "overlaps a cache");
    CHECK_REFUSED(plan(heads(4, 8, 128), kv, 4, 1, NAN), "scale", "nan");
}

TEST_CASE("rows that do not fit are refused, with their shapes", "[llama_gpu][rows][errors]") {
    const auto rows = [](std::int64_t count, std::int64_t width, std::uintptr_t address = 0x10000) {
        return gpu::matrix_view{reinterpret_cast<void*>(address), rw::element_type::bf16, count, width, width};
    };
    CHECK_REFUSED(gpu::make_rms_norm(rows(3, 64), rows(1, 63), 1e-5, rows(3, 64)), "[1, 63]", "[3, 64]");
    CHECK_REFUSED(gpu::make_rms_norm(rows(3, 64), rows(1, 64), 1e-5, rows(2, 64)), "y bf16 [2, 64]", "[3, 64]");
    CHECK_REFUSED(gpu::make_rms_norm(rows(3, 64), rows(1, 64), -1.0, rows(3, 64)), "epsilon", "-1");
    CHECK_REFUSED(gpu::make_rms_norm(rows(3, 64), rows(1, 64), 1e-5, rows(3, 64, 0x10080)), "overlaps");
    CHECK_REFUSED(gpu::make_rms_norm(rows(3, 64, 0x10001), rows(1, 64), 1e-5, rows(3, 64)), "not aligned");
    CHECK_REFUSED(gpu::make_rms_norm(rows(3, 64, 0), rows(1, 64), 1e-5, rows(3, 64)), "no memory");
    CHECK_REFUSED(gpu::make_silu(rows(3, 64), rows(3, 32, 0x20000), rows(3, 64)), "[3, 32]", "[3, 64]");
}
