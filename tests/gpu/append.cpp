#include "fused_trial.hpp"
#include "support/catch.hpp"
#include "support/effort.hpp"
#include "backend.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace {

/// Heads of real models, and some whose parts nothing divides.
constexpr rw::Geometry geometries[] = {{.head_dim = 128},
                                       {.head_dim = 64},
                                       {.head_dim = 80},
                                       {.head_dim = 256, .rotary_dim = 64},
                                       {.head_dim = 192, .rotary_dim = 64, .rotary_offset = 128},
                                       {.head_dim = 100, .rotary_dim = 94, .rotary_offset = 4},
                                       {.head_dim = 99, .rotary_dim = 36, .rotary_offset = 7},
                                       {.head_dim = 512}};

test::fused_trial random_trial(test::random& numbers, rw::element_type type, rw::layout_kind layout) {
    test::fused_trial one;
    one.type = type, one.layout = layout;
    one.by = test::random_twin(numbers, geometries[numbers.integer(0, std::ssize(geometries) - 1)]);
    one.kv_heads = numbers.integer(1, 3);
    one.q = {numbers.integer(1, 3), numbers.integer(1, 9), one.kv_heads * numbers.integer(1, 4),
             one.by.ours.geometry.head_dim};
    one.v_dim = numbers.coin() ? one.q.head_dim : numbers.one_of<std::int64_t>({64, 128, 33});
    // Wide heads want wide accesses.
    const bool wide = one.q.head_dim > 256;
    if (wide) one.v_dim = 512;
    one.where_in_memory = wide ? test::order::bshd : test::all_orders[numbers.integer(0, 4)];
    one.in_place = numbers.coin(), one.k_output = numbers.coin(), one.v_output = numbers.coin();
    one.cache_axes = wide ? test::cache_order::hnd : static_cast<test::cache_order>(numbers.integer(0, 3));
    one.page_size = numbers.one_of<std::int64_t>({1, 16, 32, 5});
    one.slots = test::all_slot_kinds[numbers.integer(0, std::ssize(test::all_slot_kinds) - 1)];
    if (one.slots == test::slot_kind::table_ragged) one.q.batch = 1;
    one.first = numbers.integer(-100000, 100000);
    one.device = test::random_device(numbers);
    return one;
}

}  // namespace

TEST_CASE("appending rotates q, and writes k and v to their slots in the type of the cache", "[gpu][append]") {
    SEEDED(numbers);
    for (const auto layout : test::all_layouts) {
        for (const auto type : test::all_types) {
            for (const auto k_type : test::all_cache_types) {
                for (std::int64_t i = 0; i < test::cases(40); ++i) {
                    test::fused_trial one = random_trial(numbers, type, layout);
                    one.k_cache = k_type, one.v_cache = test::all_cache_types[numbers.integer(0, 4)];
                    REQUIRE(test::problem_of(one, numbers) == "");
                }
            }
        }
    }
}

TEST_CASE("every kind of slot serves every order of a cache", "[gpu][append]") {
    SEEDED(numbers);
    for (const auto slots : test::all_slot_kinds) {
        for (const int axes : {0, 1, 2, 3}) {
            test::fused_trial one;
            one.by = test::plain_twin({.head_dim = 64});
            one.type = rw::element_type::bf16;
            one.q = {slots == test::slot_kind::table_ragged ? 1 : 3, 7, 4, 64};
            one.slots = slots, one.cache_axes = static_cast<test::cache_order>(axes);
            one.k_cache = gpu::cache_type::i8, one.v_cache = gpu::cache_type::f8e4m3;
            REQUIRE(test::problem_of(one, numbers) == "");
        }
    }
}

TEST_CASE("keys alone, values to a tensor, queries absent", "[gpu][append]") {
    SEEDED(numbers);
    for (const auto type : test::all_types) {
        test::fused_trial one;
        one.type = type, one.by = test::plain_twin({.head_dim = 64});
        one.k_cache = gpu::cache_type::f16;
        REQUIRE(test::problem_of(one, numbers) == "");
        one.q.heads = 0;
        REQUIRE(test::problem_of(one, numbers) == "");
        one.k_cache.reset(), one.v_cache = gpu::cache_type::bf16;
        REQUIRE(test::problem_of(one, numbers) == "");
    }
}

TEST_CASE("models' heads take the widest accesses, and misaligned memory single elements", "[gpu][append]") {
    SEEDED(numbers);
    for (const auto layout : test::all_layouts) {
        for (const auto type : test::all_types) {
            const auto element = static_cast<int>(rw::size_of(type));
            for (const std::int64_t head_dim : {64, 80, 96, 128, 256}) {
                for (const std::int64_t misalignment : {0, 1}) {
                    test::fused_trial one;
                    one.type = type, one.layout = layout, one.by = test::plain_twin({.head_dim = head_dim});
                    one.q.head_dim = head_dim, one.v_dim = head_dim, one.misalignment = misalignment;
                    one.k_cache = gpu::cache_type::f8e4m3, one.v_cache = gpu::cache_type::i8;
                    int bytes = 0;
                    REQUIRE(test::problem_of(one, numbers, &bytes) == "");
                    CHECK(bytes == (misalignment == 0 ? 16 : element));
                }
            }
        }
    }
}

TEST_CASE("xPos magnitudes reach the cache", "[gpu][append]") {
    SEEDED(numbers);
    for (const auto type : test::all_types) {
        test::fused_trial one;
        one.type = type, one.by = test::xpos_twin({.head_dim = 64}, {.length = 2000}), one.first = 700;
        one.k_cache = gpu::cache_type::f32;
        REQUIRE(test::problem_of(one, numbers) == "");
    }
}
