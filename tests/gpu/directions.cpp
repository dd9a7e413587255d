#include "trial.hpp"

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/position_trials.hpp"

namespace rw = ropewalk;
using rw::direction;

namespace {

constexpr rw::Geometry head{.head_dim = 72, .rotary_dim = 64, .rotary_offset = 8};
/// More pairs than the kernel parameters of a plain rotation hold.
constexpr rw::Geometry wide_head{.head_dim = 528};

std::vector<test::twin> twins() { return test::twins_of({head, wide_head}); }

}  // namespace

TEST_CASE("every direction, with factors and magnitudes", "[gpu]") {
    SEEDED(numbers);
    for (const test::twin& t : twins()) {
        for (const rw::element_type type : test::all_types) {
            for (const rw::layout_kind layout : test::all_layouts) {
                test::trial one = test::random_trial(numbers, t);
                one.type = type, one.layout = layout;
                test::check_directions(one, numbers);
            }
        }
    }
}

TEST_CASE("the adjoint of the inverse is the inverse of the adjoint", "[gpu]") {
    SEEDED(numbers);
    for (const test::twin& t : twins()) {
        // Pair by pair, the transposed inverse turns as forward does and undoes the magnitude.
        test::trial one;
        one.by = t, one.options.direction = direction::inverse_adjoint, one.q = {1, 4, 4, t.ours.geometry.head_dim},
        one.k_heads = 0;
        one.where = rw::offset{900};
        one.map = [&](std::int64_t pair, std::int64_t token, oracle::role /*who*/) {
            const auto back =
                oracle::pair_map(t.exact, pair, {900 + token, 0}, oracle::role::query, oracle::direction::inverse);
            return oracle::unit{back.cos, -back.sin};
        };
        CHECK(test::problem_of(one, numbers) == "");
    }
}

TEST_CASE("magnitudes at positions between the tokens", "[gpu]") {
    SEEDED(numbers);
    test::trial one;
    one.by = test::xpos_twin(head, {.length = 512}), one.q = {1, 5, 4, 72};
    test::check_fractions(one, numbers, -200, 900);
}

TEST_CASE("rerotate moves keys to another encoding and position", "[gpu]") {
    SEEDED(numbers);
    const std::vector<test::twin> all = twins();
    for (std::int64_t i = 0; i < test::cases(80); ++i) {
        // Both of one geometry: the first three or the last three.
        const std::size_t family = numbers.coin() ? 0 : 3;
        const test::twin& from = all[family + static_cast<std::size_t>(numbers.integer(0, 2))];
        const test::twin& to = all[family + static_cast<std::size_t>(numbers.integer(0, 2))];
        const rw::element_type type = test::random_type(numbers);
        const rw::layout_kind layout = test::random_layout(numbers);
        const rw::Geometry& geometry = from.ours.geometry;
        const test::extents size{2, 4, 3, geometry.head_dim};
        const std::int64_t was = numbers.integer(0, 3000), is = numbers.integer(-1000, 3000);
        const std::vector<std::int64_t> ids{is, is + 1, is + 2, is + 3};
        const rw::positions where =
            numbers.coin() ? rw::positions(rw::offset{is}) : rw::ids(std::span<const std::int64_t>(ids));

        test::array k(type, size, numbers), cpu(k);
        const auto shape = test::shape_of(size, geometry, layout);
        const auto raw = oracle::rotate(shape, k.values(), from.exact, test::consecutive(size, was), oracle::role::key,
                                        oracle::direction::inverse);
        const auto exact = oracle::rotate(shape, raw, to.exact, test::consecutive(size, is), oracle::role::key);
        test::memory_log log;
        log.watch(k);
        test::run_on_host(layout,
                          rw::gpu::make_rerotation_plan(layout, k.tensor(), k.tensor(), from.ours, rw::offset{was},
                                                        to.ours, where, {}, test::random_device(numbers)),
                          log);
        test::rerotate_on_cpu(layout, cpu.tensor(), cpu.tensor(), from.ours, rw::offset{was}, to.ours, where);
        INFO(from.ours.expression << " at " << was << " to " << to.ours.expression << " at " << is << ", "
                                  << rw::to_string(type) << ' ' << rw::to_string(layout));
        CHECK(k == cpu);
        CHECK(log.problem() == "");
        CHECK(test::counts_problem(log.writes(k), k, shape, 1, 0) == "");
        CHECK(test::compare(k, exact, shape).first_problem == "");
    }
}

TEST_CASE("rerotate of several positions a token", "[gpu]") {
    SEEDED(numbers);
    const rw::Geometry geometry{.head_dim = 96};
    const rw::Encoding from = rw::make_encoding(geometry, "mrope:[16,16,16]"),
                       to = rw::make_encoding(geometry, "linear:2|mrope:[8,20,20]");
    std::vector<std::int64_t> was, is;
    for (int i = 0; i < 3 * 5; ++i) was.push_back(numbers.integer(0, 90000)), is.push_back(numbers.integer(0, 90000));
    const auto old_places = rw::axis_ids(std::span<const std::int64_t>(was)),
               new_places = rw::axis_ids(std::span<const std::int64_t>(is));
    test::array k(rw::element_type::bf16, {1, 5, 3, 96}, numbers), cpu(k);
    test::memory_log log;
    log.watch(k);
    const auto layout = rw::layout_kind::interleaved;
    test::run_on_host(
        layout, rw::gpu::make_rerotation_plan(layout, k.tensor(), k.tensor(), from, old_places, to, new_places, {}),
        log);
    test::rerotate_on_cpu(layout, cpu.tensor(), cpu.tensor(), from, old_places, to, new_places);
    CHECK(k == cpu);
}
