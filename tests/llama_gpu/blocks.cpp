#include <ropewalk/llama/gpu/blocks.hpp>

#include "cache_contents.hpp"
#include "host_machine.hpp"
#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;
namespace llama = ropewalk::llama::gpu;

namespace {

constexpr gpu::cache_type cache_types[] = {gpu::cache_type::f32, gpu::cache_type::f16, gpu::cache_type::bf16,
                                           gpu::cache_type::f8e4m3, gpu::cache_type::i8};

/// What the host knows of a batch.
std::vector<llama::known_sequence> known_of(const test::batch_case& batch) {
    std::vector<llama::known_sequence> known;
    for (std::int64_t s = 0; s < batch.batch.count; ++s) {
        const std::int64_t tokens = batch.starts.empty() ? 1 : batch.start_of(s + 1) - batch.start_of(s);
        known.push_back({s, batch.start_of(s), tokens, batch.past_of(s)});
    }
    return known;
}

template <class T>
std::string problem_of(test::random& numbers) {
    const gpu::cache_type cached_as = cache_types[numbers.integer(0, std::ssize(cache_types) - 1)];
    const auto axes = numbers.one_of({test::cache_axes::nhd, test::cache_axes::hnd, test::cache_axes::padded});
    const std::int64_t dim = numbers.one_of<std::int64_t>({64, 80, 128, 33}), kv_heads = numbers.integer(1, 2);
    const std::int64_t heads = kv_heads * numbers.integer(1, 3), sequences = numbers.integer(1, 3);
    const bool table = numbers.coin(), in_place = numbers.coin();
    const std::int64_t page_size = table ? numbers.one_of<std::int64_t>({1, 16, 5}) : 60;
    const std::int64_t pages = table ? 60 / page_size : 1;
    test::batch_case batch = test::random_batch(sequences, 20, page_size, pages, table, numbers);
    test::array q(rw::type_of<T>, {1, batch.tokens, heads, dim}, numbers,
                  numbers.one_of({test::order::bshd, test::order::bhsd, test::order::padded}));
    test::array other(rw::type_of<T>, q.size(), test::order::padded);
    test::array& out = in_place ? q : other;
    test::cache_contents k(cached_as, {pages * sequences, page_size, kv_heads, dim}, axes, numbers);
    test::cache_contents v(cached_as, {pages * sequences, page_size, kv_heads, dim}, axes, numbers);
    const double scale = 1 / std::sqrt(static_cast<double>(dim));
    const auto exact = test::attention_of(q.values(), heads, k, v, batch, scale);

    const llama::block_sizes sizes{numbers.one_of<std::int64_t>({1, 7, 8, 64}),
                                   numbers.one_of<std::int64_t>({8, 16, 64})};
    const std::int64_t bytes = llama::make_block_room(nullptr, rw::type_of<T>, heads, kv_heads, dim, sizes).bytes;
    // NaNs, of which none may arrive.
    std::vector<float> room(static_cast<std::size_t>(bytes) / sizeof(float) + 64, std::nanf(""));
    auto* const aligned = reinterpret_cast<float*>((reinterpret_cast<std::uintptr_t>(room.data()) + 255) & ~255UL);
    test::memory_log log;
    log.watch(q), log.watch(other), log.watch(aligned, static_cast<std::size_t>(bytes)), k.watch(log), v.watch(log);
    const test::host_machine<T> machine(log);
    llama::attend_by_blocks(machine, q.tensor(), out.tensor(), {k.tensor(), v.tensor()}, batch.pages, sequences,
                            known_of(batch), scale, {aligned, bytes}, sizes);

    const double step = rw::type_of<T> == rw::element_type::f32   ? 0
                        : rw::type_of<T> == rw::element_type::f16 ? 0x1p-11
                                                                  : 0x1p-8;
    std::vector<double> near = exact.largest;
    for (double& each : near) each *= 5e-6 + 6 * step;
    std::string wrong = log.problem();
    if (wrong.empty()) wrong = test::first_wrong(out.values(), exact.rows, near, out.format());
    if (wrong.empty()) wrong = test::writes_problem(log, out);
    if (wrong.empty()) return wrong;
    return std::string(gpu::to_string(cached_as)) + " head_dim " + std::to_string(dim) + " heads " +
           std::to_string(heads) + "/" + std::to_string(kv_heads) + " blocks " + std::to_string(sizes.queries) + "," +
           std::to_string(sizes.keys) + (table ? " paged: " : ": ") + wrong;
}

}  // namespace

TEST_CASE("blocks of products are attention too", "[llama_gpu][blocks]") {
    SEEDED(numbers);
    for (std::int64_t i = 0; i < test::cases(100); ++i) {
        REQUIRE(problem_of<float>(numbers) == "");
        REQUIRE(problem_of<rw::f16>(numbers) == "");
        REQUIRE(problem_of<rw::bf16>(numbers) == "");
    }
}

TEST_CASE("the room of blocks does not follow the length", "[llama_gpu][blocks]") {
    const auto bytes = llama::make_block_room(nullptr, rw::element_type::bf16, 32, 32, 128, {}).bytes;
    CHECK(bytes == 2 * (32 * 512 * 128 * 2) + 32 * 512 * 512 * (4 + 2) + 32 * 512 * 128 * 4 + 32 * 512 * 2 * 4);
}

TEST_CASE("blocks are refused what they cannot do", "[llama_gpu][blocks]") {
    SEEDED(numbers);
    test::array q(rw::element_type::f32, {1, 6, 2, 64}, numbers);
    test::cache_contents k(gpu::cache_type::f32, {2, 16, 2, 64}, test::cache_axes::nhd, numbers), v = k;
    test::memory_log log;
    const test::host_machine<float> machine(log);
    const auto call = [&](const llama::known_sequence& one, const llama::block_sizes& sizes = {8, 8},
                          std::int64_t bytes = 1 << 20) {
        llama::attend_by_blocks(machine, q.tensor(), q.tensor(), {k.tensor(), v.tensor()}, {}, 2, std::span(&one, 1),
                                0.1, {q.tensor().data, bytes}, sizes);
        return 0;
    };
    CHECK_REFUSED(call({2, 0, 6, 0}), "sequence 2 of 2");
    CHECK_REFUSED(call({1, 1, 6, 0}), "rows [1, 1 + 6) of 6");
    CHECK_REFUSED(call({1, 0, 6, 11}), "entries from 11 on of 16");
    CHECK_REFUSED(call({1, 0, 6, 0}, {8, 7}), "8 queries and 7 keys");
    CHECK_REFUSED(call({1, 0, 6, 0}, {8, 8}, 100), "workspace", "got 100");
    CHECK(machine.launches == 0);
}
