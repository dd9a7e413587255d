// Fused calls that are refused with their values.
#include "fused_host.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace {

/// A valid call, which a test makes invalid.
struct fused_args {
    test::array q{rw::element_type::f32, {2, 3, 4, 64}}, k{rw::element_type::f32, {2, 3, 2, 64}}, v = k, v_out = k;
    test::cache_memory k_cache{gpu::cache_type::i8, {8, 16, 2, 64}, test::cache_order::nhd};
    test::cache_memory v_cache{gpu::cache_type::f8e4m3, {8, 16, 2, 64}, test::cache_order::nhd, 0.5F};
    std::vector<std::int32_t> table = std::vector<std::int32_t>(8);
    test::fused_tensors in{q.tensor(), k.tensor(), v.tensor()}, out{q.tensor(), k.tensor(), v_out.tensor()};
    gpu::fusion fusion{.cache = {k_cache.tensor(), v_cache.tensor()},
                       .slots = gpu::by_page_table(table, 2, rw::offset{0})};
    gpu::options options{};
    rw::Encoding encoding = rw::make_encoding({.head_dim = 64}, rw::Default{});

    gpu::fused_plan plan() {
        return test::make_plan_of(rw::layout_kind::half_split, in, out, fusion, encoding, rw::offset{0}, options);
    }
};

std::string message_of(const std::function<void(fused_args&)>& change) {
    fused_args args;
    change(args);
    return test::message_of([&] { (void)args.plan(); });
}

/// Checks that the changed call is refused in a message that contains all parts.
void refuses(const std::function<void(fused_args&)>& change, std::initializer_list<const char*> parts) {
    const std::string text = message_of(change);
    INFO("message: '" << text << "'");
    CHECK(test::holds(text, parts));
}

}  // namespace

TEST_CASE("a valid fused call is accepted", "[gpu][fused]") {
    CHECK(message_of([](fused_args&) {}) == "");
    CHECK(message_of([](fused_args& c) { c.out.k = {}, c.out.v = {}; }) == "");
}

TEST_CASE("inputs, outputs and caches of a fused call must belong together", "[gpu][fused]") {
    refuses([](fused_args& c) { c.out.q = {}; }, {"q", "neither an output nor a cache"});
    refuses([](fused_args& c) { c.out.k = {}, c.fusion.cache.k = {}; }, {"k", "neither an output nor a cache"});
    refuses([](fused_args& c) { c.in.k = {}; }, {"k has an output but no input"});
    refuses([](fused_args& c) { c.in.v = {}, c.out.v = {}; }, {"a cache of v is given but no v"});
    refuses([](fused_args& c) { c.in.q = {}, c.out.q = {}, c.in.k = {}, c.out.k = {}, c.fusion.cache.k = {}; },
            {"v without q and k"});
    refuses([](fused_args& c) { c.fusion.slots = {}; }, {"no slots"});
    refuses([](fused_args& c) { c.fusion.cache = {}; }, {"no cache"});
    refuses([](fused_args& c) { c.options.direction = rw::direction::inverse; }, {"only direction::forward"});
}

TEST_CASE("shapes of a fused call that do not fit are refused with their values", "[gpu][fused]") {
    refuses([](fused_args& c) { c.in.v.heads = 1; }, {"v has 1 heads but k has 2"});
    refuses([](fused_args& c) { c.in.v.tokens = 2; }, {"tokens 2", "tokens 3"});
    refuses([](fused_args& c) { c.in.v.type = rw::element_type::bf16; }, {"v is bf16", "f32"});
    refuses([](fused_args& c) { c.out.v.stride_token = 0; }, {"v", "share memory"});
    refuses([](fused_args& c) { c.out.v.data = c.in.q.data; }, {"the output of v overlaps"});
    refuses([](fused_args& c) { c.out.v = c.in.k; }, {"the output of v overlaps"});
    refuses([](fused_args& c) { c.in.v = c.in.k; }, {"overlaps v"});
    refuses([](fused_args& c) { c.fusion.cache.k.heads = 4; }, {"heads 4", "heads 2"});
    refuses([](fused_args& c) { c.fusion.cache.v.head_dim = 32; }, {"head_dim 32", "head_dim 64"});
    refuses([](fused_args& c) { c.fusion.cache.v.page_size = 8; }, {"page_size 16", "page_size 8"});
    refuses([](fused_args& c) { c.fusion.cache.k.page_size = 0; }, {"page_size 0"});
    refuses([](fused_args& c) { c.fusion.cache.k.stride_head = 0; }, {"share memory"});
    refuses([](fused_args& c) { c.fusion.cache.k.data = c.fusion.cache.v.data; },
            {"the cache of v", "overlaps the cache of k"});
    refuses([](fused_args& c) { c.fusion.cache.k.data = c.q.tensor().data; }, {"the cache", "overlaps"});
}

TEST_CASE("scales of caches are checked", "[gpu][fused]") {
    refuses([](fused_args& c) { c.fusion.cache.k.scales = nullptr; }, {"i8", "needs scales"});
    refuses([](fused_args& c) { c.fusion.cache.k.scale_stride_token = 0; },
            {"scales of strides [32, 0, 1] share memory"});
    refuses([](fused_args& c) { c.fusion.cache.v.scales = c.fusion.cache.k.scales; },
            {"only i8 caches have scales per head"});
    refuses([](fused_args& c) { c.fusion.cache.v.scale = 0; }, {"scale must lie", "got 0"});
    refuses([](fused_args& c) { c.fusion.cache.v.scale = -1; }, {"scale must lie", "got -1"});
    refuses([](fused_args& c) { c.fusion.cache.v.scale = 1e30F; }, {"scale must lie"});
    refuses(
        [](fused_args& c) {
            c.fusion.cache.k.scales = reinterpret_cast<float*>(reinterpret_cast<char*>(c.fusion.cache.k.scales) + 2);
        },
        {"not aligned to the 4 bytes"});
}

TEST_CASE("divisors in memory and quantised outputs are checked", "[gpu][fused]") {
    static const float divisor = 2;
    const auto quantise = [](fused_args& c, gpu::cache_type type) {
        static std::vector<char> memory(4 * 2 * 3 * 4 * 64 + 4);
        c.out.q = {};
        auto& q = c.fusion.quantised.q = gpu::nhd_cache(reinterpret_cast<rw::f8e4m3*>(memory.data()), 2, 3, 4, 64);
        q.type = type;
    };
    refuses([](fused_args& c) { c.fusion.cache.k.scale_at = &divisor; }, {"only f8 caches have a scale in memory"});
    refuses(
        [](fused_args& c) {
            c.fusion.cache.v.scale_at = reinterpret_cast<const float*>(reinterpret_cast<const char*>(&divisor) + 1);
        },
        {"scale at", "not aligned to the 4 bytes of f32"});
    CHECK(message_of([&](fused_args& c) { quantise(c, gpu::cache_type::f8e5m2); }) == "");
    CHECK(message_of([&](fused_args& c) {
              quantise(c, gpu::cache_type::f8e4m3), c.fusion.quantised.q.scale_at = &divisor;
          }) == "");
    refuses([&](fused_args& c) { quantise(c, gpu::cache_type::i8); }, {"quantised output of q i8", "needs scales"});
    refuses([&](fused_args& c) { quantise(c, gpu::cache_type::bf16), c.out.q = c.in.q; }, {"q has two outputs"});
    refuses([&](fused_args& c) { quantise(c, gpu::cache_type::bf16), c.fusion.quantised.q.page_size = 2; },
            {"quantised output of q", "page_size 2", "tokens 3"});
    refuses([&](fused_args& c) { quantise(c, gpu::cache_type::bf16), c.fusion.quantised.q.heads = 3; },
            {"heads 3", "heads 4"});
    refuses([&](fused_args& c) { quantise(c, gpu::cache_type::bf16), c.fusion.quantised.q.data = c.in.k.data; },
            {"quantised output of q", "overlaps"});
    refuses(
        [&](fused_args& c) { quantise(c, gpu::cache_type::f8e4m3), c.fusion.quantised.q.data = c.fusion.cache.v.data; },
        {"the cache of v", "overlaps the quantised output of q"});
}

TEST_CASE("slots outside the cache are refused where the host knows them", "[gpu][fused]") {
    refuses([](fused_args& c) { c.fusion.slots.entries = rw::offset{62}; }, {"3 tokens from entry 62", "64 entries"});
    refuses([](fused_args& c) { c.fusion.slots.entries = rw::offset{-1}; }, {"from entry -1"});
    refuses([](fused_args& c) { c.fusion.slots = gpu::by_page_table(c.table, 4, rw::offset{0}); },
            {"4 rows for 2 sequences"});
    refuses([](fused_args& c) { c.fusion.slots.table = nullptr; }, {"page table [2, 4] is a null pointer"});
    refuses([](fused_args& c) { c.fusion.slots = gpu::by_sequence(rw::offset{14}); },
            {"3 tokens from entry 14", "16 entries"});
    refuses(
        [](fused_args& c) {
            c.fusion.slots = gpu::by_sequence(rw::offset{0});
            c.fusion.cache.k.pages = c.fusion.cache.v.pages = 1;
        },
        {"room for 1 sequences, there are 2"});
    refuses([](fused_args& c) { c.fusion.slots = gpu::by_mapping(std::span<const std::int32_t>(c.table)); },
            {"8 entries for 6 tokens"});
    refuses(
        [](fused_args& c) {
            c.fusion.slots = gpu::by_mapping(std::span<const std::int32_t>(c.table).first(6));
            c.fusion.slots.mapping = nullptr;
        },
        {"mapping of 6 tokens is a null pointer"});
    refuses([](fused_args& c) { c.fusion.slots = gpu::by_page_list(c.table, c.table, rw::offset{0}); },
            {"indptr has 8 entries for 2 sequences"});
    refuses([](fused_args& c) { c.fusion.slots.entries = rw::ids(std::span<const std::int32_t>(c.table).first(2)); },
            {"2 entries for 3 tokens"});
    refuses([](fused_args& c) { c.fusion.slots.entries.source = rw::positions::kind::fixed; }, {"whole numbers"});
    refuses([](fused_args& c) { c.fusion.slots.entries = rw::shift{3}; }, {"differ from token to token", "3"});
}

TEST_CASE("invalid norms and heads too wide for a warp are refused", "[gpu][fused]") {
    refuses([](fused_args& c) { c.fusion.q_norm = gpu::head_norm(static_cast<const float*>(c.q.tensor().data), -1); },
            {"epsilon", "-1"});
    refuses(
        [](fused_args& c) {
            c.fusion.k_norm.weight = static_cast<const char*>(c.q.tensor().data) + 1;
            c.fusion.k_norm.type = rw::element_type::f16;
        },
        {"not aligned to the 2 bytes of f16"});
    const auto plan = [](std::int64_t head_dim, test::order axes) {
        test::array q(rw::element_type::f32, {1, 2, 2, head_dim}, axes);
        const auto encoding = rw::make_encoding({.head_dim = head_dim, .rotary_dim = 64}, rw::Default{});
        return test::make_plan_of(rw::layout_kind::half_split, {q.tensor(), {}, {}}, {q.tensor(), {}, {}}, {}, encoding,
                                  rw::offset{0});
    };
    CHECK(plan(1024, test::order::bshd).shape.bytes == 16);
    CHECK_REFUSED(plan(1032, test::order::bshd), "1032", "1024");
    CHECK_REFUSED(plan(264, test::order::padded), "264", "16 bytes");
    CHECK(plan(256, test::order::padded).shape.bytes == 4);
}
