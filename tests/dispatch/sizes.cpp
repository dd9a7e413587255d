#include <dispatch/dispatch.hpp>

#include <cstring>
#include <vector>

#include <ropewalk/cpu/plan.hpp>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/tensors.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace {

/// Numbers between 1 and 2 in either type of 16 bits, or in f32 when read in pairs.
std::vector<std::uint16_t> random_words(test::random& numbers, std::int64_t count, rw::element_type type) {
    std::vector<std::uint16_t> words(static_cast<std::size_t>(count));
    const auto one = static_cast<std::uint16_t>(type == rw::element_type::f16 ? 0x3c00 : 0x3f80);
    const auto mask = static_cast<std::uint16_t>(type == rw::element_type::f16 ? 0x83ff : 0x807f);
    std::uint64_t state = numbers.bits();
    for (auto& word : words) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        word = static_cast<std::uint16_t>(one | (static_cast<std::uint16_t>(state >> 48) & mask));
    }
    return words;
}

rw::tensor over(std::vector<std::uint16_t>& memory, rw::element_type type, std::int64_t tokens, std::int64_t heads,
                std::int64_t dim, bool heads_first) {
    rw::tensor t = rw::thd<float>(nullptr, tokens, heads, dim);
    if (heads_first) t = rw::bhsd<float>(nullptr, 1, heads, tokens, dim);
    t.data = memory.data();
    t.type = type;
    return t;
}

/// The same call token by token: small enough for the path that keeps everything in cache.
void rotate_one_by_one(rw::layout_kind layout, const rw::tensor& x, const rw::Encoding& e) {
    for (std::int64_t token = 0; token < x.tokens; ++token) {
        for (std::int64_t head = 0; head < x.heads; head += 16) {
            rw::tensor part = x;
            part.tokens = 1, part.heads = std::min<std::int64_t>(16, x.heads - head);
            part.data = static_cast<char*>(x.data) + (token * x.stride_token + head * x.stride_head) *
                                                         static_cast<std::int64_t>(rw::size_of(x.type));
            dispatch::rotate(layout, part, test::none(), part, test::none(), e, rw::offset{token});
        }
    }
}

void check_size(test::random& numbers, std::int64_t bytes, const rw::Geometry& g, bool heads_first) {
    const rw::Encoding e = rw::make_encoding(g);
    for (const rw::element_type type : test::all_types) {
        const auto size = static_cast<std::int64_t>(rw::size_of(type));
        const std::int64_t heads = 67, tokens = bytes / (heads * g.head_dim * size) + 2;
        for (const rw::layout_kind layout : test::all_layouts) {
            auto whole = random_words(numbers, tokens * heads * g.head_dim * size / 2, type), parts = whole;
            const rw::tensor x = over(whole, type, tokens, heads, g.head_dim, heads_first),
                             y = over(parts, type, tokens, heads, g.head_dim, heads_first);
            auto elsewhere = std::vector<std::uint16_t>(whole.size());
            const rw::tensor out = over(elsewhere, type, tokens, heads, g.head_dim, heads_first);
            dispatch::rotate(layout, x, test::none(), out, test::none(), e, rw::offset{0});
            dispatch::rotate(layout, x, test::none(), x, test::none(), e, rw::offset{0});
            rotate_one_by_one(layout, y, e);
            INFO(rw::to_string(type) << ' ' << rw::to_string(layout) << " head_dim " << g.head_dim << ", " << bytes
                                     << " bytes");
            CHECK((whole == parts));
            CHECK((whole == elsewhere));
        }
    }
}

/// Queries and keys in one call, which alternate by a few heads from 16 MiB on, and in two.
void check_together(test::random& numbers, std::int64_t q_heads, std::int64_t k_heads, const rw::Encoding& e) {
    const std::int64_t dim = e.geometry.head_dim;
    for (const rw::element_type type : test::all_types) {
        const auto size = static_cast<std::int64_t>(rw::size_of(type));
        const std::int64_t tokens = (std::int64_t{17} << 20) / ((q_heads + k_heads) * dim * size);
        for (const rw::layout_kind layout : test::all_layouts) {
            auto q_words = random_words(numbers, tokens * q_heads * dim * size / 2, type), q_alone = q_words;
            auto k_words = random_words(numbers, tokens * k_heads * dim * size / 2, type), k_alone = k_words;
            const rw::tensor q = over(q_words, type, tokens, q_heads, dim, false),
                             k = over(k_words, type, tokens, k_heads, dim, false),
                             q_once = over(q_alone, type, tokens, q_heads, dim, false),
                             k_once = over(k_alone, type, tokens, k_heads, dim, false);
            const auto plan = rw::cpu::make_plan(layout, q, k, q, k, e, rw::offset{0}, {});
            REQUIRE(plan.params.loop.alternating_heads >= 1);
            dispatch::rotate(layout, q, k, q, k, e, rw::offset{0});
            dispatch::rotate(layout, q_once, test::none(), q_once, test::none(), e, rw::offset{0});
            dispatch::rotate(layout, test::none(), k_once, test::none(), k_once, e, rw::offset{0});
            INFO(rw::to_string(type) << ' ' << rw::to_string(layout) << ", " << q_heads << " and " << k_heads);
            CHECK((q_words == q_alone));
            CHECK((k_words == k_alone));
        }
    }
}

}  // namespace

// How the kernels order their loops depends on where the data fits: 1 MiB and 16 MiB are the borders.
TEST_CASE("the size of a call and its order of loops do not change a bit of the result", "[sizes]") {
    SEEDED(numbers);
    for (const bool heads_first : {false, true}) {
        for (const rw::Geometry g :
             {rw::Geometry{.head_dim = 128}, rw::Geometry{.head_dim = 76, .rotary_dim = 72, .rotary_offset = 4}}) {
            check_size(numbers, std::int64_t{1} << 19, g, heads_first);
            check_size(numbers, std::int64_t{2} << 20, g, heads_first);
            if (test::divisor == 1) check_size(numbers, std::int64_t{17} << 20, g, heads_first);
        }
    }
}

TEST_CASE("queries and keys that alternate do not change a bit of the result", "[sizes]") {
    if (test::divisor != 1) return;
    SEEDED(numbers);
    check_together(numbers, 40, 40, rw::make_encoding({.head_dim = 128}));
    check_together(numbers, 32, 8, rw::make_encoding({.head_dim = 128}, rw::XPos{.length = 8192}));
    check_together(numbers, 30, 1, rw::make_encoding({.head_dim = 72}));
}

TEST_CASE("keys beside queries without heads turn as they do alone", "[sizes]") {
    SEEDED(numbers);
    constexpr std::int64_t tokens = 4300, heads = 8;
    const rw::Encoding e = rw::make_encoding({.head_dim = 128});
    auto beside = random_words(numbers, tokens * heads * 256, rw::element_type::f32), alone = beside;
    const rw::tensor k = over(beside, rw::element_type::f32, tokens, heads, 128, false),
                     k_alone = over(alone, rw::element_type::f32, tokens, heads, 128, false);
    std::uint64_t nothing = 0;
    rw::tensor q = k;
    q.data = &nothing, q.heads = 0;
    for (const rw::tensor& queries : {q, test::none()}) {
        const rw::tensor& keys = queries.exists() ? k : k_alone;
        dispatch::rotate(rw::layout_kind::half_split, queries, keys, queries, keys, e, rw::offset{5});
    }
    CHECK((beside == alone));
    CHECK(nothing == 0);
}
