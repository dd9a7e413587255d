// Re-encoding of cached keys by the kernels of a backend.
#include "cases/rerotate_cache_case.hpp"
#include "support/catch.hpp"
#include "support/effort.hpp"

namespace rw = ropewalk;
using test::matches_rerotated_cache;

namespace {

constexpr rw::Geometry heads[] = {{.head_dim = 128},
                                  {.head_dim = 64},
                                  {.head_dim = 80},
                                  {.head_dim = 256, .rotary_dim = 64},
                                  {.head_dim = 576, .rotary_dim = 64, .rotary_offset = 512},  // latent attention
                                  {.head_dim = 100, .rotary_dim = 94, .rotary_offset = 4},
                                  {.head_dim = 99, .rotary_dim = 36, .rotary_offset = 7},
                                  {.head_dim = 512}};

/// Wide int8 heads need wide accesses on a GPU.
void keep_aligned(test::rerotate_cache_case& c) {
    if (c.type != rw::cache_type::i8 || c.source.ours.geometry.head_dim <= 256) return;
    if (c.axes == test::cache_order::padded) c.axes = test::cache_order::interleaved;
}

}  // namespace

TEST_CASE("cached keys of every type are re-encoded in their slots", "[rerotate_cache]") {
    SEEDED(numbers);
    for (const rw::cache_type type : test::all_cache_types) {
        for (const rw::Geometry& head : heads) {
            for (std::int64_t i = 0; i < test::cases(3); ++i) {
                test::rerotate_cache_case c = test::random_rerotate_cache_case(numbers, head, type);
                keep_aligned(c);
                CHECK_THAT(test::run(c, numbers), matches_rerotated_cache());
            }
        }
    }
}

TEST_CASE("cached keys are re-encoded in every order and by every kind of slots", "[rerotate_cache]") {
    SEEDED(numbers);
    for (const rw::cache_type type : test::all_cache_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            for (int axes = 0; axes < 4; ++axes) {
                for (const test::slot_kind slots : test::all_slot_kinds) {
                    if (numbers.integer(0, test::reduced() ? 9 : 1) > 0) continue;
                    test::rerotate_cache_case c = test::random_rerotate_cache_case(numbers, {.head_dim = 64}, type);
                    c.layout = layout, c.axes = static_cast<test::cache_order>(axes), c.slots = slots;
                    if (test::is_ragged(slots)) c.batch = 1;
                    CHECK_THAT(test::run(c, numbers), matches_rerotated_cache());
                }
            }
        }
    }
}

TEST_CASE("cached keys at odd addresses are re-encoded", "[rerotate_cache]") {
    SEEDED(numbers);
    for (const rw::cache_type type : test::all_cache_types) {
        test::rerotate_cache_case c = test::random_rerotate_cache_case(numbers, {.head_dim = 128}, type);
        c.misalignment = 1;
        CHECK_THAT(test::run(c, numbers), matches_rerotated_cache());
    }
}

TEST_CASE("a call without tokens changes nothing", "[rerotate_cache]") {
    SEEDED(numbers);
    test::rerotate_cache_case c;
    c.checked_slots = test::checks_slots();
    c.tokens = 0;
    CHECK_THAT(test::run(c, numbers), matches_rerotated_cache());
}
