#include "trial.hpp"

#include <set>

#include "support/catch.hpp"
#include "support/effort.hpp"

namespace rw = ropewalk;

namespace {

constexpr std::int64_t widths[] = {2, 6, 20, 64, 80, 96, 128, 256, 512};

test::trial plain_trial(rw::element_type type, rw::layout_kind layout, const rw::Geometry& head) {
    test::trial one;
    one.type = type, one.layout = layout, one.by = test::plain_twin(head);
    one.q = {2, 3, 4, head.head_dim};
    one.where = rw::offset{70000}, one.places = test::consecutive(one.q, 70000);
    return one;
}

}  // namespace

TEST_CASE("every type, layout, width and place of the part that turns", "[gpu]") {
    SEEDED(numbers);
    std::set<int> accesses;
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            for (const std::int64_t width : widths) {
                for (const rw::Geometry& head : test::heads_of_width(width)) {
                    test::trial one = plain_trial(type, layout, head);
                    one.device = test::random_device(numbers);
                    for (const bool in_place : {true, false}) {
                        one.in_place = in_place;
                        int bytes = 0;
                        CHECK(test::problem_of(one, numbers, &bytes) == "");
                        accesses.insert(bytes);
                    }
                }
            }
        }
    }
    CHECK(accesses == std::set<int>{2, 4, 8, 16});
}

TEST_CASE("every order of the axes, number of heads and size of their groups", "[gpu]") {
    SEEDED(numbers);
    for (std::int64_t i = 0; i < test::cases(400); ++i) {
        const std::int64_t width = numbers.one_of<std::int64_t>({6, 20, 64, 128}), k_heads = numbers.integer(0, 5);
        test::trial one = plain_trial(test::random_type(numbers), test::random_layout(numbers),
                                      numbers.one_of({rw::Geometry{.head_dim = width},
                                                      rw::Geometry{.head_dim = width + 8, .rotary_dim = width}}));
        one.k_heads = k_heads;
        one.q.batch = numbers.integer(1, 3), one.q.tokens = numbers.integer(1, 9);
        one.q.heads = k_heads == 0 ? numbers.integer(1, 40) : k_heads * numbers.integer(1, 8);
        one.where_in_memory = test::all_orders[numbers.integer(0, 4)];
        one.in_place = numbers.coin();
        one.device = test::random_device(numbers);
        one.places = test::consecutive(one.q, 70000);
        CHECK(test::problem_of(one, numbers) == "");
    }
}

TEST_CASE("k alone, and calls without tokens or heads", "[gpu]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin({.head_dim = 64});
    const test::extents size{1, 5, 3, 64};
    test::array k(rw::element_type::f16, size, numbers);
    const auto before = k.values();
    test::memory_log log;
    log.watch(k);
    const auto layout = rw::layout_kind::interleaved;
    test::run_on_host(
        layout,
        rw::gpu::make_plan(layout, test::none(), k.tensor(), test::none(), k.tensor(), t.ours, rw::offset{7}, {}), log);
    const auto shape = test::shape_of(size, t.ours.geometry, layout);
    CHECK(test::compare(k, oracle::rotate(shape, before, t.exact, test::consecutive(size, 7)), shape).first_problem ==
          "");

    for (const test::extents& empty :
         {test::extents{0, 3, 2, 64}, test::extents{2, 0, 2, 64}, test::extents{2, 3, 0, 64}}) {
        test::array nothing(rw::element_type::f16, empty, numbers);
        const auto prepared = rw::gpu::make_plan(layout, nothing.tensor(), test::none(), nothing.tensor(), test::none(),
                                                 t.ours, rw::offset{7}, {});
        CHECK(prepared.shape.threads == 0);
        CHECK(prepared.shape.grid == 0);
    }
}

TEST_CASE("a base that is not aligned falls to a narrower access and stays right", "[gpu]") {
    SEEDED(numbers);
    constexpr std::int64_t room = 8;
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            for (std::int64_t shift = 0; shift < room; ++shift) {
                // A head of 64 elements somewhere in one of 72: the oracle's shape knows it as an offset.
                const test::twin t = test::plain_twin({.head_dim = 64});
                const test::extents size{1, 4, 3, 64 + room};
                test::array memory(type, size, numbers);
                const auto before = memory.values();
                rw::tensor q = memory.tensor();
                q.head_dim = 64;
                const auto element = static_cast<std::int64_t>(rw::size_of(type));
                q.data = static_cast<unsigned char*>(q.data) + shift * element;
                test::memory_log log;
                log.watch(memory);
                const auto prepared =
                    rw::gpu::make_plan(layout, q, test::none(), q, test::none(), t.ours, rw::offset{11}, {});
                test::run_on_host(layout, prepared, log);
                const auto shape =
                    test::shape_of(size, {.head_dim = 64 + room, .rotary_dim = 64, .rotary_offset = shift}, layout);
                const auto exact = oracle::rotate(shape, before, t.exact, test::consecutive(size, 11));
                INFO(rw::to_string(type) << ' ' << rw::to_string(layout) << " shift " << shift);
                CHECK(log.problem() == "");
                CHECK(test::compare(memory, exact, shape).first_problem == "");
                CHECK(test::counts_problem(log.writes(memory), memory, shape, 1, 0) == "");
                const std::int64_t address = shift * element;
                CHECK(prepared.shape.bytes == (address % 16 == 0  ? 16
                                               : address % 8 == 0 ? 8
                                               : address % 4 == 0 ? 4
                                                                  : 2));
            }
        }
    }
}
