// Orders of the loops. They depend on where the data fits: 1 MiB and 16 MiB are the limits of the profile `zen4`.
#include <ropewalk/cpu/plan.hpp>

#include "calls.hpp"
#include "support/effort.hpp"

namespace rw = ropewalk;

namespace sizes_tests {
namespace {

using words = std::vector<std::uint16_t>;

/// Numbers between 1 and 2 in either type of 16 bits, or in f32 when read in pairs.
words random_words(test::random& numbers, std::int64_t count, rw::element_type type) {
    words result(static_cast<std::size_t>(count));
    const auto exponent = static_cast<std::uint16_t>(type == rw::element_type::f16 ? 0x3c00 : 0x3f80);
    const auto mask = static_cast<std::uint16_t>(type == rw::element_type::f16 ? 0x83ff : 0x807f);
    std::uint64_t state = numbers.bits();
    for (auto& word : result) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        word = static_cast<std::uint16_t>(exponent | (static_cast<std::uint16_t>(state >> 48) & mask));
    }
    return result;
}

rw::tensor over(words& memory, rw::element_type type, std::int64_t tokens, std::int64_t heads, std::int64_t dim,
                bool heads_first = false) {
    rw::tensor t = rw::thd(static_cast<float*>(nullptr), tokens, heads, dim);
    if (heads_first) t = rw::bhsd(static_cast<float*>(nullptr), 1, heads, tokens, dim);
    t.data = memory.data();
    t.type = type;
    return t;
}

void rotate(rw::layout_kind layout, const rw::tensor& q, const rw::tensor& k, const rw::Encoding& e,
            std::int64_t first = 0) {
    rw::dispatch::rotate(layout, q, k, q, k, e, rw::offset{first}, test::zen4_options());
}

/// The same rotation in calls of one token and 16 heads, whose data stays in the first-level cache.
void rotate_in_parts(rw::layout_kind layout, const rw::tensor& x, const rw::Encoding& e) {
    for (std::int64_t token = 0; token < x.tokens; ++token) {
        for (std::int64_t head = 0; head < x.heads; head += 16) {
            rw::tensor part = x;
            part.tokens = 1, part.heads = std::min<std::int64_t>(16, x.heads - head);
            part.data = static_cast<char*>(x.data) + (token * x.stride_token + head * x.stride_head) *
                                                         static_cast<std::int64_t>(rw::size_of(x.type));
            rotate(layout, part, {}, e, token);
        }
    }
}

/// Calls f(type, layout) for every element type and layout.
template <class F>
void for_each_kernel(const F& f) {
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            INFO(rw::to_string(type) << ' ' << rw::to_string(layout));
            f(type, layout);
        }
    }
}

void check_size(test::random& numbers, std::int64_t bytes, const rw::Geometry& g, bool heads_first) {
    const rw::Encoding e = rw::make_encoding(g);
    for_each_kernel([&](rw::element_type type, rw::layout_kind layout) {
        const auto size = static_cast<std::int64_t>(rw::size_of(type));
        const std::int64_t heads = 67, tokens = bytes / (heads * g.head_dim * size) + 2;
        words whole = random_words(numbers, tokens * heads * g.head_dim * size / 2, type), parts = whole, output(whole);
        const auto view = [&](words& memory) { return over(memory, type, tokens, heads, g.head_dim, heads_first); };
        rw::dispatch::rotate(layout, view(whole), {}, view(output), {}, e, rw::offset{0}, test::zen4_options());
        rotate(layout, view(whole), {}, e);
        rotate_in_parts(layout, view(parts), e);
        INFO("head_dim " << g.head_dim << ", " << bytes << " bytes");
        CHECK((whole == parts));
        CHECK((whole == output));
    });
}

/// Compares queries and keys in one call, which alternates by a few heads from 16 MiB on, with two calls.
void check_together(test::random& numbers, std::int64_t q_heads, std::int64_t k_heads, const rw::Encoding& e) {
    const std::int64_t dim = e.geometry.head_dim;
    for_each_kernel([&](rw::element_type type, rw::layout_kind layout) {
        const auto size = static_cast<std::int64_t>(rw::size_of(type));
        const std::int64_t tokens = (std::int64_t{17} << 20) / ((q_heads + k_heads) * dim * size);
        words q = random_words(numbers, tokens * q_heads * dim * size / 2, type), q_alone = q;
        words k = random_words(numbers, tokens * k_heads * dim * size / 2, type), k_alone = k;
        const auto view = [&](words& memory, std::int64_t heads) { return over(memory, type, tokens, heads, dim); };
        const rw::tensor both[] = {view(q, q_heads), view(k, k_heads)};
        REQUIRE(rw::cpu::make_plan(layout, both[0], both[1], both[0], both[1], e, rw::offset{0}, test::zen4_options())
                    .params.loop.alternating_heads >= 1);
        rotate(layout, both[0], both[1], e);
        rotate(layout, view(q_alone, q_heads), {}, e);
        rotate(layout, {}, view(k_alone, k_heads), e);
        INFO(q_heads << " and " << k_heads << " heads");
        CHECK((q == q_alone));
        CHECK((k == k_alone));
    });
}

}  // namespace

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

TEST_CASE("keys together with queries without heads rotate as they do alone", "[sizes]") {
    SEEDED(numbers);
    constexpr std::int64_t tokens = 4300, heads = 8;
    const rw::Encoding e = rw::make_encoding({.head_dim = 128});
    words together = random_words(numbers, tokens * heads * 256, rw::element_type::f32), alone = together;
    const rw::tensor k = over(together, rw::element_type::f32, tokens, heads, 128);
    std::uint64_t untouched = 0;
    rw::tensor q = k;
    q.data = &untouched, q.heads = 0;
    rotate(rw::layout_kind::half_split, q, k, e, 5);
    rotate(rw::layout_kind::half_split, {}, over(alone, rw::element_type::f32, tokens, heads, 128), e, 5);
    CHECK((together == alone));
    CHECK(untouched == 0);
}

}  // namespace sizes_tests
