#include <functional>

#include "fused_trial.hpp"
#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace {

/// A call that is right until a test breaks it.
struct call_of {
    test::array q{rw::element_type::f32, {2, 3, 4, 64}}, k{rw::element_type::f32, {2, 3, 2, 64}}, v = k, v_out = k;
    test::cache_memory k_cache{gpu::cache_type::i8, {8, 16, 2, 64}, test::cache_order::nhd};
    test::cache_memory v_cache{gpu::cache_type::f8e4m3, {8, 16, 2, 64}, test::cache_order::nhd, 0.5F};
    std::vector<std::int32_t> table = std::vector<std::int32_t>(8);
    test::fused_arrays arrays{q.tensor(), k.tensor(), v.tensor(), q.tensor(), k.tensor(), v_out.tensor()};
    gpu::fusion with{.cache = {k_cache.tensor(), v_cache.tensor()},
                     .slots = gpu::by_page_table(table, 2, rw::offset{0})};
    gpu::options chosen{};
    rw::Encoding by = rw::make_encoding({.head_dim = 64}, rw::Default{});

    gpu::fused_plan plan() {
        return test::make_plan_of(rw::element_type::f32, rw::layout_kind::half_split, arrays, with, by, rw::offset{0},
                                  chosen);
    }
};

std::string message_of(const std::function<void(call_of&)>& change) {
    call_of one;
    change(one);
    return test::message_of([&] { (void)one.plan(); });
}

/// Checks that a change makes a call that is refused, in a message that holds every part.
void refuses(const std::function<void(call_of&)>& change, std::initializer_list<const char*> parts) {
    const std::string text = message_of(change);
    INFO("message: '" << text << "'");
    CHECK(test::holds(text, parts));
}

}  // namespace

TEST_CASE("a fused call that is right is taken", "[gpu][fused]") {
    CHECK(message_of([](call_of&) {}) == "");
    CHECK(message_of([](call_of& c) { c.arrays.k_out = {}, c.arrays.v_out = {}; }) == "");
}

TEST_CASE("parts of a fused call must belong together", "[gpu][fused]") {
    refuses([](call_of& c) { c.arrays.q_out = {}; }, {"q", "neither an output nor a cache"});
    refuses([](call_of& c) { c.arrays.k_out = {}, c.with.cache.k = {}; }, {"k", "neither an output nor a cache"});
    refuses([](call_of& c) { c.arrays.k = {}; }, {"k has an output but no input"});
    refuses([](call_of& c) { c.arrays.v = {}, c.arrays.v_out = {}; }, {"a cache of v is given but no v"});
    refuses(
        [](call_of& c) {
            c.arrays.q = {}, c.arrays.q_out = {}, c.arrays.k = {}, c.arrays.k_out = {}, c.with.cache.k = {};
        },
        {"values alone"});
    refuses([](call_of& c) { c.with.slots = {}; }, {"no slots"});
    refuses([](call_of& c) { c.with.cache = {}; }, {"no cache"});
    refuses([](call_of& c) { c.chosen.direction = rw::direction::inverse; }, {"use rotate()"});
}

TEST_CASE("shapes of a fused call that do not fit are named with their values", "[gpu][fused]") {
    refuses([](call_of& c) { c.arrays.v.heads = 1; }, {"v has 1 heads but k has 2"});
    refuses([](call_of& c) { c.arrays.v.tokens = 2; }, {"tokens 2", "tokens 3"});
    refuses([](call_of& c) { c.arrays.v.type = rw::element_type::bf16; }, {"v is bf16", "f32"});
    refuses([](call_of& c) { c.arrays.v_out.stride_token = 0; }, {"v", "share memory"});
    refuses([](call_of& c) { c.arrays.v_out.data = c.arrays.q.data; }, {"the output of v overlaps"});
    refuses([](call_of& c) { c.arrays.v_out = c.arrays.k; }, {"the output of v overlaps"});
    refuses([](call_of& c) { c.arrays.v = c.arrays.k; }, {"overlaps v"});
    refuses([](call_of& c) { c.with.cache.k.heads = 4; }, {"heads 4", "heads 2"});
    refuses([](call_of& c) { c.with.cache.v.head_dim = 32; }, {"head_dim 32", "head_dim 64"});
    refuses([](call_of& c) { c.with.cache.v.page_size = 8; }, {"page_size 16", "page_size 8"});
    refuses([](call_of& c) { c.with.cache.k.page_size = 0; }, {"page_size 0"});
    refuses([](call_of& c) { c.with.cache.k.stride_head = 0; }, {"share memory"});
    refuses([](call_of& c) { c.with.cache.k.data = c.with.cache.v.data; }, {"cannot share the cache"});
    refuses([](call_of& c) { c.with.cache.k.data = c.q.tensor().data; }, {"the cache", "overlaps"});
}

TEST_CASE("scales of caches are checked", "[gpu][fused]") {
    refuses([](call_of& c) { c.with.cache.k.scales = nullptr; }, {"i8", "needs scales"});
    refuses([](call_of& c) { c.with.cache.k.scale_stride_token = 0; }, {"scales of strides [32, 0, 1] share memory"});
    refuses([](call_of& c) { c.with.cache.v.scales = c.with.cache.k.scales; }, {"only i8 caches have scales per head"});
    refuses([](call_of& c) { c.with.cache.v.scale = 0; }, {"scale must lie", "got 0"});
    refuses([](call_of& c) { c.with.cache.v.scale = -1; }, {"scale must lie", "got -1"});
    refuses([](call_of& c) { c.with.cache.v.scale = 1e30F; }, {"scale must lie"});
    refuses(
        [](call_of& c) {
            c.with.cache.k.scales = reinterpret_cast<float*>(reinterpret_cast<char*>(c.with.cache.k.scales) + 2);
        },
        {"not aligned to the 4 bytes"});
}

TEST_CASE("slots that the host knows to lie outside the cache are refused", "[gpu][fused]") {
    refuses([](call_of& c) { c.with.slots.entries = rw::offset{62}; }, {"3 tokens from entry 62", "64 entries"});
    refuses([](call_of& c) { c.with.slots.entries = rw::offset{-1}; }, {"from entry -1"});
    refuses([](call_of& c) { c.with.slots = gpu::by_page_table(c.table, 4, rw::offset{0}); },
            {"4 rows for 2 sequences"});
    refuses([](call_of& c) { c.with.slots.table = nullptr; }, {"page table [2, 4] is a null pointer"});
    refuses([](call_of& c) { c.with.slots = gpu::by_sequence(rw::offset{14}); },
            {"3 tokens from entry 14", "16 entries"});
    refuses(
        [](call_of& c) {
            c.with.slots = gpu::by_sequence(rw::offset{0});
            c.with.cache.k.pages = c.with.cache.v.pages = 1;
        },
        {"room for 1 sequences, there are 2"});
    refuses([](call_of& c) { c.with.slots = gpu::by_mapping(std::span<const std::int32_t>(c.table)); },
            {"8 entries for 6 tokens"});
    refuses(
        [](call_of& c) {
            c.with.slots = gpu::by_mapping(std::span<const std::int32_t>(c.table).first(6));
            c.with.slots.mapping = nullptr;
        },
        {"mapping of 6 tokens is a null pointer"});
    refuses([](call_of& c) { c.with.slots.entries = rw::ids(std::span<const std::int32_t>(c.table).first(2)); },
            {"2 entries for 3 tokens"});
    refuses([](call_of& c) { c.with.slots.entries.source = rw::positions::kind::fixed; }, {"whole numbers"});
}

TEST_CASE("norms are checked, and heads too wide for a warp", "[gpu][fused]") {
    refuses([](call_of& c) { c.with.q_norm = gpu::head_norm(static_cast<const float*>(c.q.tensor().data), -1); },
            {"epsilon", "-1"});
    refuses(
        [](call_of& c) {
            c.with.k_norm.weight = static_cast<const char*>(c.q.tensor().data) + 1;
            c.with.k_norm.type = rw::element_type::f16;
        },
        {"not aligned to the 2 bytes of f16"});
    const auto plan = [](std::int64_t head_dim, test::order order) {
        test::array q(rw::element_type::f32, {1, 2, 2, head_dim}, order);
        const auto by = rw::make_encoding({.head_dim = head_dim, .rotary_dim = 64}, rw::Default{});
        return test::make_plan_of(rw::element_type::f32, rw::layout_kind::half_split,
                                  {q.tensor(), {}, {}, q.tensor(), {}, {}}, {}, by, rw::offset{0});
    };
    CHECK(plan(1024, test::order::bshd).shape.bytes == 16);
    CHECK_REFUSED(plan(1032, test::order::bshd), "1032", "1024");
    CHECK_REFUSED(plan(264, test::order::padded), "264", "16 bytes");
    CHECK(plan(256, test::order::padded).shape.bytes == 4);
}
