// Calls that are too large for the host.
#include "cases/fused_case.hpp"
#include "device_array.hpp"

namespace rw = ropewalk;

TEST_CASE("enough tokens for every size of the groups of heads", "[cuda]") {
    SEEDED(numbers);
    // One block to many waves of a device with 132 multiprocessors of 2048 threads.
    for (const std::int64_t tokens : {1, 2, 7, 64, 500, 3000}) {
        if (tokens > 100 && test::reduced()) continue;
        for (const std::int64_t heads : {32, 40}) {
            test::rotation_case c = test::random_case(numbers, test::plain_twin({.head_dim = 128}));
            c.axes = test::order::bshd;
            c.q = {1, tokens, heads, 128}, c.k_heads = heads / numbers.one_of<std::int64_t>({1, 4, 8});
            c.target.positions = test::from_offset(c.q, 5000);
            CHECK_THAT(rotate(c, numbers), matches(c));
        }
    }
}

TEST_CASE("a long append in one launch", "[cuda][fused]") {
    SEEDED(numbers);
    if (test::reduced()) SKIP("long");
    for (const rw::gpu::cache_type type :
         {rw::gpu::cache_type::bf16, rw::gpu::cache_type::f8e4m3, rw::gpu::cache_type::i8}) {
        test::fused_case c = test::random_fused_case(numbers, {.head_dim = 128});
        c.type = rw::element_type::bf16, c.packed = true, c.axes = test::order::bshd;
        c.q = {1, 600, 32, 128}, c.kv_heads = 8, c.v_dim = 128, c.k_cache = c.v_cache = type;
        CHECK_THAT(run(c, numbers), test::matches_oracle());
    }
}

TEST_CASE("more than 2^31 elements", "[cuda][huge]") {
    SEEDED(numbers);
    // 40 heads of 128, with 5 tokens after element 2^31.
    constexpr std::int64_t heads = 40, head_dim = 128, tokens = (std::int64_t{1} << 31) / (heads * head_dim) + 6;
    constexpr std::size_t row_bytes = heads * head_dim * 2, bytes = tokens * row_bytes, guard = 1 << 16;
    if (!device::is_real() || test::reduced()) SKIP("needs a device; tests/gpu/huge.cpp covers the host code");
    if (device::look().free < 2 * bytes) SKIP("needs " << (2 * bytes >> 20) << " MiB of free device memory");

    // All tokens have the elements of the first, so that the oracle needs only one row.
    const test::twin t = test::plain_twin({.head_dim = head_dim});
    test::array row(rw::element_type::bf16, {1, 1, heads, head_dim}, numbers);
    const auto values = row.values();
    const device::memory all(bytes + guard);
    device::fill(all.data(), test::array::pattern, bytes + guard);
    device::copy(all.data(), row.tensor().data, row_bytes);
    device::repeat(all.data(), row_bytes, bytes);

    for (const rw::layout_kind layout : test::all_layouts) {
        device::tensors both;
        both.q = rw::thd(static_cast<rw::bf16*>(all.data()), tokens, heads, head_dim);
        const std::int64_t first = 2000000000;
        device::with_calls(rw::element_type::bf16, layout,
                           [&](auto calls) { calls.rotate(both, both, t.ours, rw::offset{first}, {}); });
        device::finish();
        const auto shape = test::shape_of(row.size(), t.ours.geometry, layout);
        const std::int64_t last = tokens - 1;
        for (const std::int64_t token : {std::int64_t{0}, std::int64_t{1}, tokens / 2, last - 6, last - 5, last - 1,
                                         last, numbers.integer(0, last), numbers.integer(0, last)}) {
            device::copy(row.tensor().data, static_cast<const char*>(all.data()) + token * std::int64_t{row_bytes},
                         row_bytes);
            const auto exact = oracle::rotate(shape, values, t.exact, {{first + token, 0}});
            INFO("token " << token);
            CHECK(test::compare(row, exact, shape).first_problem == "");
        }
        std::vector<unsigned char> after(guard);
        device::copy(after.data(), static_cast<const char*>(all.data()) + bytes, guard);
        CHECK(std::count(after.begin(), after.end(), test::array::pattern) == std::ptrdiff_t{guard});
        row.set(values);
        device::copy(all.data(), row.tensor().data, row_bytes);
        device::repeat(all.data(), row_bytes, bytes);
    }
}
