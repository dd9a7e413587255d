// Fused calls: norm, rotation and cache in one launch.
#include "cases/fused_case.hpp"

namespace rw = ropewalk;

namespace fused_cases {
namespace {

const rw::Geometry& any_head(test::random& numbers) {
    return test::fused_heads[numbers.integer(0, std::ssize(test::fused_heads) - 1)];
}

}  // namespace

TEST_CASE("norms, rotations and caches of every type, in every combination", "[fused]") {
    SEEDED(numbers);
    for (const rw::layout_kind layout : test::all_layouts) {
        for (const rw::element_type type : test::all_types) {
            for (const rw::cache_type cache : test::all_cache_types) {
                for (std::int64_t i = 0; i < test::cases(3); ++i) {
                    test::fused_case c = test::random_fused_case(numbers, any_head(numbers));
                    c.type = type, c.layout = layout;
                    if (c.k_cache) c.k_cache = cache;
                    CHECK_THAT(run(c, numbers), test::matches_oracle());
                }
            }
        }
    }
}

TEST_CASE("norm and rotation without a cache, for every order of the axes", "[fused]") {
    SEEDED(numbers);
    for (const rw::layout_kind layout : test::all_layouts) {
        for (const rw::element_type type : test::all_types) {
            for (const rw::Geometry& head : test::fused_heads) {
                for (const test::order axes : test::all_orders) {
                    if (numbers.integer(0, test::reduced() ? 8 : 2) > 0) continue;
                    test::fused_case c = test::random_fused_case(numbers, head);
                    c.type = type, c.layout = layout, c.packed = false, c.q_norm = true;
                    c.k_cache.reset(), c.v_cache.reset();
                    if (head.head_dim <= 256) c.axes = axes;
                    CHECK_THAT(run(c, numbers), test::matches_oracle());
                }
            }
        }
    }
}

TEST_CASE("every kind of slot in every order of a cache", "[fused]") {
    SEEDED(numbers);
    for (const auto slots : test::all_slot_kinds) {
        for (const auto axes : {test::cache_order::nhd, test::cache_order::hnd, test::cache_order::interleaved,
                                test::cache_order::padded}) {
            if (test::reduced() && numbers.integer(0, 2) > 0) continue;
            test::fused_case c;
            c.type = rw::element_type::bf16;
            c.q = {is_ragged(slots) ? 1 : 3, 7, 4, 64};
            c.slots = slots, c.cache_axes = axes;
            c.k_cache = rw::cache_type::i8, c.v_cache = rw::cache_type::f8e4m3;
            CHECK_THAT(run(c, numbers), test::matches_oracle());
        }
    }
}

TEST_CASE("outputs of every type, with and without a cache, and f8 divisors in memory", "[fused]") {
    SEEDED(numbers);
    for (const auto type : test::all_cache_types) {
        for (const bool in_memory : {false, true}) {
            test::fused_case c;
            c.type = rw::element_type::bf16, c.layout = test::all_layouts[numbers.integer(0, 1)];
            c.quantised[0] = type, c.scale_in_memory = in_memory;
            CHECK_THAT(run(c, numbers), test::matches_oracle());
            c.quantised[1] = type, c.q_norm = true;
            CHECK_THAT(run(c, numbers), test::matches_oracle());
            c.k_cache = rw::cache_type::f8e4m3, c.v_cache = type;
            CHECK_THAT(run(c, numbers), test::matches_oracle());
            c.quantised[2] = rw::cache_type::i8;
            CHECK_THAT(run(c, numbers), test::matches_oracle());
        }
    }
}

TEST_CASE("keys alone, values to a tensor, queries absent", "[fused]") {
    SEEDED(numbers);
    for (const auto type : test::all_types) {
        test::fused_case c;
        c.type = type, c.k_cache = rw::cache_type::f16;
        CHECK_THAT(run(c, numbers), test::matches_oracle());
        c.q.heads = 0;
        CHECK_THAT(run(c, numbers), test::matches_oracle());
        c.k_cache.reset(), c.v_cache = rw::cache_type::bf16;
        CHECK_THAT(run(c, numbers), test::matches_oracle());
    }
}

TEST_CASE("heads of models take the widest access, misaligned caches single elements", "[fused]") {
    SEEDED(numbers);
    for (const auto layout : test::all_layouts) {
        for (const auto type : test::all_types) {
            const auto element = static_cast<int>(rw::size_of(type));
            for (const std::int64_t head_dim : {64, 80, 96, 128, 256}) {
                for (const std::int64_t misalignment : {0, 1}) {
                    if (test::reduced() && numbers.integer(0, 2) > 0) continue;
                    test::fused_case c;
                    c.type = type, c.layout = layout, c.encoding = test::plain_twin({.head_dim = head_dim});
                    c.q.head_dim = head_dim, c.v_dim = head_dim, c.misalignment = misalignment;
                    c.k_cache = rw::cache_type::f8e4m3, c.v_cache = rw::cache_type::i8;
                    const test::fused_call call = run(c, numbers);
                    CHECK_THAT(call, test::matches_oracle());
                    if (call.access_bytes != 0) CHECK(call.access_bytes == (misalignment == 0 ? 16 : element));
                }
            }
        }
    }
}

TEST_CASE("xPos magnitudes reach the cache", "[fused]") {
    SEEDED(numbers);
    for (const auto type : test::all_types) {
        test::fused_case c;
        c.type = type, c.encoding = test::xpos_twin({.head_dim = 64}, {.length = 2000}), c.first = 700;
        c.k_cache = rw::cache_type::f32;
        CHECK_THAT(run(c, numbers), test::matches_oracle());
    }
}

}  // namespace fused_cases
