// Positions of every kind, tables, directions and magnitudes.
#include <span>

#include "support/effort.hpp"
#include "support/position_trials.hpp"
#include "support/tables.hpp"
#include "trial.hpp"

namespace rw = ropewalk;
using rw::direction;

namespace {

test::trial random_trial(test::random& numbers, const test::twin& by) {
    return test::random_rotation<test::trial>(numbers, by, 20);
}

}  // namespace

TEST_CASE("offsets near and far", "[cuda]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin({.head_dim = 128});
    for (const std::int64_t first :
         {std::int64_t{0}, std::int64_t{1000000}, (std::int64_t{1} << 31) - 3, -(std::int64_t{1} << 31),
          numbers.integer(-(std::int64_t{1} << 33), std::int64_t{1} << 33)}) {
        for (const rw::element_type type : test::all_types) {
            test::trial one = random_trial(numbers, t);
            one.type = type, one.where = rw::offset{first}, one.places = test::consecutive(one.q, first);
            CHECK(test::problem_of(one, numbers) == "");
        }
    }
}

TEST_CASE("ids of 32 and 64 bits, and one row of them for every batch row", "[cuda]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin({.head_dim = 96});
    for (std::int64_t i = 0; i < test::cases(60); ++i) test::check_ids(random_trial(numbers, t), numbers);
}

TEST_CASE("positions between the tokens", "[cuda]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin({.head_dim = 80});
    for (std::int64_t i = 0; i < test::cases(30); ++i)
        test::check_fractions(random_trial(numbers, t), numbers, test::least_id, test::most_id);
}

TEST_CASE("ragged batches, empty sequences among them", "[cuda]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin({.head_dim = 64});
    for (std::int64_t i = 0; i < test::cases(60); ++i) test::check_ragged(random_trial(numbers, t), numbers, 30, 9);
}

TEST_CASE("cu_seqlens that make no sense are read within their bounds", "[cuda]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin({.head_dim = 64});
    for (const std::vector<std::int64_t>& starts : test::senseless_starts()) {
        test::array q(rw::element_type::f32, {1, 9, 2, 64}, numbers);
        test::device_array there(q);
        const test::device_positions where(rw::cu_seqlens(std::span<const std::int64_t>(starts)));
        const device::tensors both{.q = there.tensor(), .k = {}, .v = {}};
        device::with_calls(q.type(), rw::layout_kind::half_split,
                           [&](auto calls) { calls.rotate(both, both, t.ours, where.get(), {}); });
        device::finish();
        there.fetch();
        CHECK(q.guards_intact());
    }
}

TEST_CASE("several positions a token, each pair following its own", "[cuda]") {
    SEEDED(numbers);
    const test::twin t = test::three_axes();
    for (std::int64_t i = 0; i < test::cases(30); ++i) test::check_axes(random_trial(numbers, t), numbers);
}

TEST_CASE("every direction, with factors and magnitudes", "[cuda]") {
    SEEDED(numbers);
    // 512: more pairs than the small kernel parameters hold.
    for (const test::twin& t :
         test::twins_of({{.head_dim = 72, .rotary_dim = 64, .rotary_offset = 8}, {.head_dim = 512}})) {
        for (const rw::element_type type : test::all_types) {
            test::trial one = random_trial(numbers, t);
            one.type = type;
            test::check_directions(one, numbers);
        }
    }
}

TEST_CASE("tables of others, by index and by token, rows outside them taken as the nearest", "[cuda]") {
    SEEDED(numbers);
    using rows_are = rw::cos_sin_table::rows_are;
    const test::twin t = test::plain_twin({.head_dim = 44, .rotary_dim = 40, .rotary_offset = 3});
    for (std::int64_t i = 0; i < test::cases(80); ++i) {
        test::trial one = random_trial(numbers, t);
        one.q.tokens = numbers.integer(1, 25);
        const rw::element_type type = numbers.coin() ? rw::element_type::f32 : rw::element_type::bf16;
        const test::foreign_table foreign(numbers, type, one.layout, 30, 20, numbers.coin());
        const bool by_index = numbers.coin();
        one.options.table = foreign.table(by_index ? rows_are::by_index : rows_are::by_token);
        one.options.direction = numbers.coin() ? direction::forward : direction::adjoint;
        std::vector<std::int64_t> ids;
        for (std::int64_t token = 0; token < test::tokens_of(one); ++token) ids.push_back(numbers.integer(-9, 40));
        one.where = rw::ids(std::span<const std::int64_t>(ids), one.q.batch);
        one.map = [&](std::int64_t pair, std::int64_t token, oracle::role /*who*/) {
            const std::int64_t row =
                by_index ? std::clamp<std::int64_t>(ids[static_cast<std::size_t>(token)], 0, 29) : token % one.q.tokens;
            const auto at = static_cast<std::size_t>(row * 20 + pair);
            const double sine = foreign.sin[at];
            return oracle::unit{foreign.cos[at], one.options.direction == direction::forward ? sine : -sine};
        };
        CHECK(test::problem_of(one, numbers) == "");
    }
}

TEST_CASE("rerotate moves keys to another encoding and position", "[cuda]") {
    SEEDED(numbers);
    const rw::Geometry head{.head_dim = 72, .rotary_dim = 64, .rotary_offset = 8};
    const test::twin twins[] = {
        test::plain_twin(head),
        {rw::make_encoding(head, rw::Linear{.factor = 8}), oracle::encode(oracle::linear(oracle::plain(10000, 64), 8))},
        test::xpos_twin(head, {.length = 2048})};
    for (std::int64_t i = 0; i < test::cases(80); ++i) {
        const test::twin &from = twins[numbers.integer(0, 2)], &to = twins[numbers.integer(0, 2)];
        const rw::layout_kind layout = test::random_layout(numbers);
        const test::extents size{2, 9, 3, head.head_dim};
        const std::int64_t was = numbers.integer(0, 3000), is = numbers.integer(0, 3000);
        std::vector<std::int32_t> ids;
        for (std::int64_t token = 0; token < size.tokens; ++token) ids.push_back(static_cast<std::int32_t>(is + token));
        const test::device_positions new_ids(rw::ids(std::span<const std::int32_t>(ids)));
        test::array k(test::random_type(numbers), size, numbers,
                      numbers.one_of({test::order::bshd, test::order::padded}));
        const auto shape = test::shape_of(size, head, layout);
        const auto raw = oracle::rotate(shape, k.values(), from.exact, test::consecutive(size, was), oracle::role::key,
                                        oracle::direction::inverse);
        const auto exact = oracle::rotate(shape, raw, to.exact, test::consecutive(size, is), oracle::role::key);
        test::device_array there(k);
        device::with_calls(k.type(), layout, [&](auto calls) {
            calls.rerotate(there.tensor(), from.ours, rw::offset{was}, to.ours, new_ids.get(), {});
        });
        device::finish();
        there.fetch();
        INFO(from.ours.expression << " at " << was << " to " << to.ours.expression << " at " << is << ", "
                                  << rw::to_string(k.type()) << ' ' << rw::to_string(layout));
        CHECK(k.guards_intact());
        CHECK(test::compare(k, exact, shape).first_problem == "");
    }
}
