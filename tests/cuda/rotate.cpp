// Shapes, types and layouts.
#include "support/effort.hpp"
#include "trial.hpp"

namespace rw = ropewalk;

namespace {

constexpr std::int64_t widths[] = {2, 6, 20, 64, 80, 96, 128, 256, 512, 1024};

test::trial trial_at(const rw::Geometry& head, std::int64_t first) {
    test::trial one;
    one.by = test::plain_twin(head);
    one.q = {2, 3, 4, head.head_dim};
    one.where = rw::offset{first}, one.places = test::consecutive(one.q, first);
    return one;
}

}  // namespace

TEST_CASE("every type, layout, width and place of the part that turns, at position 10^6", "[cuda]") {
    SEEDED(numbers);
    for (const std::int64_t width : widths) {
        for (const rw::Geometry& head : test::heads_of_width(width)) {
            test::trial one = trial_at(head, 1000000);
            for (const rw::element_type type : test::all_types) {
                for (const rw::layout_kind layout : test::all_layouts) {
                    if (test::cases(100) < 100 && numbers.integer(0, 3) > 0) continue;
                    one.type = type, one.layout = layout, one.in_place = !one.in_place;
                    CHECK(test::problem_of(one, numbers) == "");
                    if (test::cases(100) < 100) continue;
                    one.in_place = !one.in_place;
                    CHECK(test::problem_of(one, numbers) == "");
                    one.in_place = !one.in_place;
                }
            }
        }
    }
}

TEST_CASE("every order of the axes and number of heads", "[cuda]") {
    SEEDED(numbers);
    for (std::int64_t i = 0; i < test::cases(400); ++i) {
        const std::int64_t width = numbers.one_of<std::int64_t>({6, 20, 64, 128});
        test::trial one = trial_at(
            numbers.one_of({rw::Geometry{.head_dim = width}, rw::Geometry{.head_dim = width + 8, .rotary_dim = width}}),
            70000);
        one.type = test::random_type(numbers), one.layout = test::random_layout(numbers);
        one.k_heads = numbers.integer(0, 5);
        one.q.batch = numbers.integer(1, 3), one.q.tokens = numbers.integer(1, 40);
        one.q.heads = one.k_heads == 0 ? numbers.integer(1, 40) : one.k_heads * numbers.integer(1, 8);
        one.has_q = one.k_heads == 0 || numbers.integer(0, 4) > 0;
        one.where_in_memory = test::all_orders[numbers.integer(0, 4)];
        one.in_place = numbers.coin();
        one.places = test::consecutive(one.q, 70000);
        CHECK(test::problem_of(one, numbers) == "");
    }
}

TEST_CASE("bases at every distance from an aligned one", "[cuda]") {
    SEEDED(numbers);
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            for (std::int64_t shift = 0; shift < 9; ++shift) {
                test::trial one = trial_at({.head_dim = 64}, 11);
                one.type = type, one.layout = layout, one.shift = shift, one.in_place = numbers.coin();
                CHECK(test::problem_of(one, numbers) == "");
            }
        }
    }
}

TEST_CASE("enough tokens for every size of the groups of heads", "[cuda]") {
    SEEDED(numbers);
    // From one block to many waves of a device with 132 multiprocessors of 2048 threads.
    for (const std::int64_t tokens : {1, 2, 7, 64, 500, 3000}) {
        if (tokens > 100 && test::cases(100) < 100) continue;
        for (const std::int64_t heads : {32, 40}) {
            test::trial one = trial_at({.head_dim = 128}, 5000);
            one.type = test::random_type(numbers), one.layout = test::random_layout(numbers);
            one.q = {1, tokens, heads, 128}, one.k_heads = heads / numbers.one_of<std::int64_t>({1, 4, 8});
            one.in_place = numbers.coin();
            one.places = test::consecutive(one.q, 5000);
            CHECK(test::problem_of(one, numbers) == "");
        }
    }
}

TEST_CASE("more than 2^31 elements", "[cuda][huge]") {
    SEEDED(numbers);
    // 40 heads of 128, 5 more tokens than reach element 2^31.
    constexpr std::int64_t heads = 40, head_dim = 128, tokens = (std::int64_t{1} << 31) / (heads * head_dim) + 6;
    constexpr std::size_t row_bytes = heads * head_dim * 2, bytes = tokens * row_bytes, guard = 1 << 16;
    if (!device::is_real() || test::cases(100) < 100) SKIP("the host's share of this is in tests/gpu");
    if (device::look().free < 2 * bytes) SKIP("needs " << (2 * bytes >> 20) << " MiB of free device memory");

    // Every token has the elements of the first: one rotation of that is all the oracle must know.
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
        std::vector<unsigned char> behind(guard);
        device::copy(behind.data(), static_cast<const char*>(all.data()) + bytes, guard);
        CHECK(std::count(behind.begin(), behind.end(), test::array::pattern) == std::ptrdiff_t{guard});
        row.set(values);
        device::copy(all.data(), row.tensor().data, row_bytes);
        device::repeat(all.data(), row_bytes, bytes);
    }
}
