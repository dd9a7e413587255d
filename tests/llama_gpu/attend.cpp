#include <ropewalk/llama/gpu/attend_plan.hpp>

#include "cache_contents.hpp"
#include "host_device.hpp"
#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;
namespace llama = ropewalk::llama::gpu;

namespace {

constexpr gpu::cache_type cache_types[] = {gpu::cache_type::f32, gpu::cache_type::f16, gpu::cache_type::bf16,
                                           gpu::cache_type::f8e4m3, gpu::cache_type::i8};

struct attend_trial {
    rw::element_type type = rw::element_type::f32;
    gpu::cache_type cached_as = gpu::cache_type::f32;
    test::cache_axes axes = test::cache_axes::nhd;
    test::order where_in_memory = test::order::bshd;
    std::int64_t head_dim = 64, kv_heads = 2, shared = 1;
    std::int64_t sequences = 2, most_tokens = 5, page_size = 16, pages = 3;
    bool table = true, in_place = false;
    std::int64_t splits = 1;
};

attend_trial random_trial(test::random& numbers) {
    attend_trial one;
    one.type = test::all_types[numbers.integer(0, std::ssize(test::all_types) - 1)];
    one.cached_as = cache_types[numbers.integer(0, std::ssize(cache_types) - 1)];
    one.axes = numbers.one_of({test::cache_axes::nhd, test::cache_axes::hnd, test::cache_axes::padded});
    one.where_in_memory = numbers.one_of({test::order::bshd, test::order::bhsd, test::order::padded});
    one.head_dim = numbers.one_of<std::int64_t>({64, 80, 128, 64, 128, 8, 33, 256});
    one.kv_heads = numbers.integer(1, 3), one.shared = numbers.one_of<std::int64_t>({1, 1, 2, 3, 4, 8});
    one.sequences = numbers.integer(1, 4), one.most_tokens = numbers.one_of<std::int64_t>({1, 1, 2, 5, 9, 20});
    one.page_size = numbers.one_of<std::int64_t>({1, 16, 5, 64});
    one.table = numbers.coin();
    one.pages = one.table ? 1 + 70 / one.page_size : 1;
    one.in_place = numbers.coin();
    one.splits = numbers.one_of<std::int64_t>({1, 1, 2, 3, 7});
    return one;
}

std::string describe(const attend_trial& one) {
    return std::string(rw::to_string(one.type)) + " cache " + std::string(gpu::to_string(one.cached_as)) + " axes " +
           std::to_string(static_cast<int>(one.axes)) + " head_dim " + std::to_string(one.head_dim) + " heads " +
           std::to_string(one.kv_heads * one.shared) + "/" + std::to_string(one.kv_heads) + ", " +
           std::to_string(one.sequences) + " sequences of at most " + std::to_string(one.most_tokens) + " tokens, " +
           std::to_string(one.pages) + " pages of " + std::to_string(one.page_size) + ", " +
           std::to_string(one.splits) + " splits: ";
}

/// Everything that a trial's kernels touch.
struct memory {
    test::batch_case batch;
    test::array q, out;
    test::cache_contents k, v;
    std::vector<float> room;

    memory(const attend_trial& one, test::random& numbers)
        : batch(test::random_batch(one.sequences, one.most_tokens, one.page_size, one.pages, one.table, numbers)),
          q(one.type, {1, batch.tokens, one.kv_heads * one.shared, one.head_dim}, numbers, one.where_in_memory),
          out(one.type, q.size(), one.where_in_memory),
          k(one.cached_as, {one.pages * one.sequences, one.page_size, one.kv_heads, one.head_dim}, one.axes, numbers),
          v(one.cached_as, {one.pages * one.sequences, one.page_size, one.kv_heads, one.head_dim}, one.axes, numbers) {}

    [[nodiscard]] test::array& result(const attend_trial& one) { return one.in_place ? q : out; }

    /// Executes both kernels.
    test::memory_log run(const attend_trial& one, double scale) {
        const std::int64_t bytes =
            llama::attend_workspace_bytes(batch.tokens, one.kv_heads * one.shared, one.head_dim, one.splits);
        room.assign(static_cast<std::size_t>(bytes) / sizeof(float) + 4, std::numeric_limits<float>::quiet_NaN());
        const auto plan = llama::make_attend(q.tensor(), result(one).tensor(), {k.tensor(), v.tensor()}, batch.pages,
                                             batch.batch, scale, one.splits, {room.data(), bytes});
        test::memory_log log;
        log.watch(q), log.watch(out);
        log.watch(room.data(), static_cast<std::size_t>(bytes));
        k.watch(log), v.watch(log);
        test::run_on_host(plan.attend, log);
        test::run_on_host(plan.merge, log);
        return log;
    }
};

std::string problem_of(const attend_trial& one, test::random& numbers) {
    memory m(one, numbers);
    const double scale = 1 / std::sqrt(static_cast<double>(one.head_dim));
    const auto exact = test::attention_of(m.q.values(), one.kv_heads * one.shared, m.k, m.v, m.batch, scale);
    const test::memory_log log = m.run(one, scale);
    std::vector<double> room = exact.largest;
    for (double& each : room) each *= 5e-6;
    std::string wrong = log.problem();
    if (wrong.empty()) wrong = test::first_wrong(m.result(one).values(), exact.rows, room, m.q.format());
    if (wrong.empty()) wrong = test::writes_problem(log, m.result(one));
    return wrong.empty() ? wrong : describe(one) + wrong;
}

}  // namespace

TEST_CASE("attention over caches of every type and order, ragged, shared and split", "[llama_gpu][attend]") {
    SEEDED(numbers);
    for (std::int64_t i = 0; i < test::cases(600); ++i) REQUIRE(problem_of(random_trial(numbers), numbers) == "");
}

TEST_CASE("every edge of a step, a page and a split", "[llama_gpu][attend]") {
    SEEDED(numbers);
    // Steps are of 8, 16 and 4 keys.
    for (const std::int64_t head_dim : {128, 64, 256}) {
        for (std::int64_t tokens = 1; tokens <= (test::divisor == 1 ? 40 : 9); ++tokens) {
            attend_trial one;
            one.head_dim = head_dim, one.kv_heads = 1, one.sequences = 1, one.most_tokens = tokens;
            one.type = rw::element_type::bf16, one.cached_as = gpu::cache_type::bf16;
            one.page_size = numbers.one_of<std::int64_t>({1, 16}), one.pages = 40 / one.page_size + 1;
            one.splits = numbers.integer(1, 4);
            REQUIRE(problem_of(one, numbers) == "");
        }
    }
}

TEST_CASE("keys of later tokens never reach a row, whatever they are", "[llama_gpu][attend]") {
    SEEDED(numbers);
    for (const gpu::cache_type type : cache_types) {
        attend_trial one;
        one.cached_as = type, one.sequences = 1, one.most_tokens = 1, one.shared = 2, one.table = false;
        one.page_size = 24;
        memory m(one, numbers);
        m.batch.starts = {0, 1}, m.batch.past = {9};
        m.batch.tokens = 1, m.batch.batch.starts = m.batch.starts.data(), m.batch.batch.past = m.batch.past.data();
        m.q = test::array(one.type, {1, 1, 4, one.head_dim}, numbers), m.out = test::array(one.type, m.q.size());
        const auto exact = test::attention_of(m.q.values(), 4, m.k, m.v, m.batch, 0.125);
        for (std::int64_t token = 10; token < 24; ++token) m.k.poison(0, token), m.v.poison(0, token);
        CHECK(m.run(one, 0.125).problem().empty());
        CHECK(test::first_wrong(m.out.values(), exact.rows, std::vector<double>(exact.rows.size(), 2e-5),
                                oracle::f32) == "");
        // One that it does see makes it a NaN.
        m.k.poison(0, 9);
        m.run(one, 0.125);
        CHECK(std::isnan(m.out.values()[5]));
    }
}

TEST_CASE("rows of one tile see their own keys only", "[llama_gpu][attend]") {
    SEEDED(numbers);
    attend_trial one;
    one.sequences = 1, one.most_tokens = 4, one.table = false, one.page_size = 8, one.kv_heads = 1;
    memory m(one, numbers);
    m.batch.starts = {0, 4}, m.batch.past = {0}, m.batch.tokens = 4;
    m.batch.batch.starts = m.batch.starts.data(), m.batch.batch.past = m.batch.past.data();
    m.q = test::array(one.type, {1, 4, 1, one.head_dim}, numbers), m.out = test::array(one.type, m.q.size());
    const auto exact = test::attention_of(m.q.values(), 1, m.k, m.v, m.batch, 0.125);
    m.k.poison(0, 3), m.v.poison(0, 3);
    m.run(one, 0.125);
    const std::vector<double> got = m.out.values();
    const std::vector<double> three(got.begin(), got.begin() + 3 * one.head_dim);
    CHECK(test::first_wrong(three, {exact.rows.begin(), exact.rows.begin() + 3 * one.head_dim},
                            std::vector<double>(three.size(), 2e-5), oracle::f32) == "");
    CHECK(std::isnan(got.back()));
}

TEST_CASE("whatever device memory holds, nothing beside the call's memory is touched", "[llama_gpu][attend]") {
    SEEDED(numbers);
    for (std::int64_t i = 0; i < test::cases(100); ++i) {
        attend_trial one = random_trial(numbers);
        memory m(one, numbers);
        const auto spoil = [&](std::vector<std::int32_t>& values) {
            for (std::int32_t& value : values)
                if (numbers.integer(0, 2) == 0)
                    value =
                        static_cast<std::int32_t>(numbers.one_of<std::int64_t>({-1, -2147483648, 2147483647, 7, 1000}));
        };
        spoil(m.batch.starts), spoil(m.batch.past), spoil(m.batch.table);
        CHECK(m.run(one, 0.1).problem().empty());
    }
}

TEST_CASE("pages that do not exist count as keys that are not there", "[llama_gpu][attend]") {
    SEEDED(numbers);
    attend_trial one;
    one.sequences = 2, one.most_tokens = 1, one.page_size = 4, one.pages = 5, one.splits = 2;
    memory m(one, numbers);
    m.batch.starts = {0, 1, 2}, m.batch.past = {18, 3}, m.batch.tokens = 2;
    m.batch.batch.starts = m.batch.starts.data(), m.batch.batch.past = m.batch.past.data();
    m.q = test::array(one.type, {1, 2, 2, one.head_dim}, numbers), m.out = test::array(one.type, m.q.size());
    // Sequence 0 lacks two of its pages, sequence 1 the only one: its row becomes zeros.
    m.batch.table[1] = -1, m.batch.table[3] = 1000, m.batch.table[5] = -7;
    const auto exact = test::attention_of(m.q.values(), 2, m.k, m.v, m.batch, 0.125);
    CHECK(m.run(one, 0.125).problem().empty());
    CHECK(test::first_wrong(m.out.values(), exact.rows, std::vector<double>(exact.rows.size(), 2e-5), oracle::f32) ==
          "");
    CHECK(m.out.values().back() == 0);
}

TEST_CASE("splits follow what the host knows, and fill a device", "[llama_gpu][attend]") {
    const llama::sequences one{nullptr, nullptr, 1, 1, 0};
    CHECK(llama::splits_for(one, 32, 32, 4096, {132, 2048}) == 32);
    CHECK(llama::splits_for(one, 32, 32, 100, {132, 2048}) == 1);
    CHECK(llama::splits_for({nullptr, nullptr, 64, 1, 0}, 32, 32, 4096, {132, 2048}) == 1);
    CHECK(llama::splits_for({nullptr, nullptr, 1, 4096, 0}, 32, 8, 4096, {132, 2048}) == 1);
}

TEST_CASE("what attention cannot do is refused, with the values", "[llama_gpu][attend]") {
    const auto heads = [](std::int64_t tokens, std::int64_t count, std::int64_t dim, std::uintptr_t address = 0x10000) {
        rw::view<rw::bf16> v(nullptr, tokens, count, dim);
        v.data = reinterpret_cast<void*>(address);
        return static_cast<rw::tensor>(v);
    };
    const auto cache = [](std::int64_t count, std::int64_t dim, std::uintptr_t address = 0x1000000) {
        return gpu::nhd_cache(reinterpret_cast<rw::bf16*>(address), 4, 16, count, dim);
    };
    const gpu::kv_cache kv{cache(2, 128), cache(2, 128, 0x2000000)};
    const llama::sequences batch{nullptr, nullptr, 4, 1, 0};
    const auto plan = [&](const rw::tensor& q, const gpu::kv_cache& with, const llama::sequences& of,
                          std::int64_t splits = 1) { return llama::make_attend(q, q, with, {}, of, 0.1, splits); };
    CHECK(plan(heads(4, 8, 128), kv, batch).attend.threads == 4 * 2 * 32);
    CHECK_REFUSED(plan(heads(4, 7, 128), kv, batch), "7 query heads", "2 key heads");
    CHECK_REFUSED(plan(heads(4, 8, 64), kv, batch), "head_dim 128", "head_dim 64");
    CHECK_REFUSED(plan(heads(5, 8, 128), kv, batch), "4 sequences", "5 tokens");
    CHECK_REFUSED(plan(heads(4, 8, 128), {cache(2, 128), {}}, batch), "cache of keys and one of values");
    CHECK_REFUSED(plan(heads(4, 8, 128), kv, batch, 3), "3 splits", "workspace of 49920 bytes, got 0");
    CHECK_REFUSED(plan(heads(5, 8, 128), kv, {nullptr, nullptr, 5, 1, 0}), "4 pages", "5 sequences");
    CHECK_REFUSED(plan(heads(4, 2, 264), {cache(2, 264), cache(2, 264, 0x2000000)}, batch), "264", "256");
    CHECK_REFUSED(plan(heads(4, 8, 128, 0x1000000), kv, batch), "overlaps a cache");
    CHECK_REFUSED(llama::make_attend(heads(4, 8, 128), heads(4, 8, 128), kv, {}, batch, NAN), "scale", "nan");
}
