#include <ropewalk/core/view.hpp>

#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/errors.hpp"
#include "support/rounding.hpp"

namespace rw = ropewalk;

namespace {

/// Returns the offset of (batch, token, head) in elements.
std::int64_t offset_of(const rw::tensor& t, std::int64_t b, std::int64_t s, std::int64_t h) {
    return b * t.stride_batch + s * t.stride_token + h * t.stride_head;
}

}  // namespace

TEST_CASE("views have the order of axes in their names", "[view]") {
    constexpr std::int64_t B = 2, S = 3, H = 5, D = 8;
    float data[B * S * H * D];
    for (std::int64_t b = 0; b < B; ++b) {
        for (std::int64_t s = 0; s < S; ++s) {
            for (std::int64_t h = 0; h < H; ++h) {
                CHECK(offset_of(rw::bshd(data, B, S, H, D), b, s, h) == ((b * S + s) * H + h) * D);
                CHECK(offset_of(rw::bhsd(data, B, H, S, D), b, s, h) == ((b * H + h) * S + s) * D);
                CHECK(offset_of(rw::sbhd(data, S, B, H, D), b, s, h) == ((s * B + b) * H + h) * D);
                CHECK(offset_of(rw::thd(data, S, H, D), 0, s, h) == (s * H + h) * D);
            }
        }
    }
    for (const rw::tensor& t : {rw::tensor(rw::bshd(data, B, S, H, D)), rw::tensor(rw::bhsd(data, B, H, S, D)),
                                rw::tensor(rw::sbhd(data, S, B, H, D))}) {
        CHECK((t.batch == B && t.tokens == S && t.heads == H && t.head_dim == D && t.stride_element == 1));
        CHECK((t.data == data && t.exists() && t.elements() == B * S * H * D && t.type == rw::element_type::f32));
    }
}

TEST_CASE("a number of elements beyond 64 bits saturates", "[view]") {
    constexpr auto limit = std::numeric_limits<std::int64_t>::max();
    const auto count = [](std::int64_t b, std::int64_t s, std::int64_t h, std::int64_t d) {
        return rw::tensor{.batch = b, .tokens = s, .heads = h, .head_dim = d}.elements();
    };
    constexpr std::int64_t wide = std::int64_t{1} << 31;
    CHECK(count(1, wide - 1, 1, wide) == (wide - 1) * wide);
    CHECK(count(2, wide, 1, wide) == limit);
    CHECK(count(wide, wide, wide, wide) == limit);
    CHECK(count(limit, 1, 1, 1) == limit);
    CHECK(count(wide, wide, wide, 0) == 0);
    CHECK(count(32767, 32767, 32767, 32767) == 32767LL * 32767 * 32767 * 32767);
    CHECK(count(32768, 32768, 32768, 32767) == (32767LL << 45));
    CHECK(count(32768, 32768, 32768, 1 << 18) == limit);
    CHECK(count(-1, 2, 3, 4) == limit);
}

TEST_CASE("a strided view has the strides that are given, and contiguous ones where they are left out", "[view]") {
    std::vector<float> data(1000);
    const auto strides = [&](const rw::strided_shape& shape) {
        const rw::tensor t = rw::strided(data.data(), shape);
        CHECK((t.batch == shape.batch && t.tokens == 7 && t.heads == 3 && t.head_dim == 8 && t.stride_element == 1));
        return std::array{t.stride_batch, t.stride_token, t.stride_head};
    };
    using expected = std::array<std::int64_t, 3>;
    CHECK(strides({.tokens = 7, .heads = 3, .head_dim = 8}) == expected{168, 24, 8});
    // The keys of a packed qkv buffer of 5 + 3 + 3 heads.
    CHECK(strides({.tokens = 7, .heads = 3, .head_dim = 8, .stride_token = 88}) == expected{616, 88, 8});
    CHECK(strides({.batch = 2, .tokens = 7, .heads = 3, .head_dim = 8, .stride_head = 10}) == expected{210, 30, 10});
    CHECK(strides({.batch = 2, .tokens = 7, .heads = 3, .head_dim = 8, .stride_batch = 300}) == expected{300, 24, 8});
    // A stride of 0 is one that is given.
    CHECK(strides({.batch = 2, .tokens = 7, .heads = 3, .head_dim = 8, .stride_batch = 0}) == expected{0, 24, 8});
    CHECK(strides({.batch = 2,
                   .tokens = 7,
                   .heads = 3,
                   .head_dim = 8,
                   .stride_batch = 400,
                   .stride_token = 8,
                   .stride_head = 56}) == expected{400, 8, 56});
}

TEST_CASE("a strided view refuses to guess", "[view]") {
    float data[8];
    const auto message = [&](const rw::strided_shape& shape) {
        return test::message_of([&] { (void)rw::strided(&data[0], shape); });
    };
    CHECK(test::holds(message({.heads = 3, .head_dim = 8}), {"a strided view needs tokens"}));
    CHECK(test::holds(message({.tokens = 7, .head_dim = 8}), {"a strided view needs heads"}));
    CHECK(test::holds(message({.tokens = 7, .heads = 3}), {"a strided view needs head_dim"}));
    // Heads outside tokens: the next stride is not tokens · stride_token.
    CHECK(
        test::holds(message({.batch = 2, .tokens = 7, .heads = 3, .head_dim = 8, .stride_token = 8, .stride_head = 56}),
                    {"needs stride_batch", "stride is 8", "entry has 168 elements"}));
    CHECK(test::holds(message({.tokens = 7, .heads = 3, .head_dim = 8, .stride_head = 0}),
                      {"needs stride_token", "stride is 0", "entry has 8 elements"}));
}

TEST_CASE("a buffer shorter than its view is refused with both numbers", "[view]") {
    std::vector<float> data(64);
    const std::span<float> all(data);
    std::array<rw::bf16, 64> array{};
    float plain[64] = {};
    CHECK(rw::thd(data, 4, 2, 8).data == data.data());
    CHECK(rw::thd(array, 4, 2, 8).data == array.data());
    CHECK(rw::thd(plain, 4, 2, 8).data == plain);
    CHECK(rw::thd(std::as_const(data), 4, 2, 8).data == data.data());
    CHECK(rw::thd(all, 3, 2, 8).tokens == 3);  // further elements are not used
    CHECK(rw::thd(all.first(0), 0, 2, 8).elements() == 0);
    CHECK(rw::bshd(all, 2, 2, 2, 8) == rw::bshd(data.data(), 2, 2, 2, 8));
    CHECK(rw::bhsd(all, 2, 2, 2, 8) == rw::bhsd(data.data(), 2, 2, 2, 8));
    CHECK(rw::sbhd(all, 2, 2, 2, 8) == rw::sbhd(data.data(), 2, 2, 2, 8));
    const auto short_by_one = all.first(63);
    const std::string problem =
        "ropewalk: a view [batch 1, tokens 4, heads 2, head_dim 8] needs 64 elements, but its "
        "buffer has 63";
    CHECK_THROWS_WITH(rw::thd(short_by_one, 4, 2, 8), problem);
    CHECK_THROWS_WITH(rw::bshd(short_by_one, 1, 4, 2, 8), problem);
    CHECK_THROWS_WITH(rw::bhsd(short_by_one, 1, 2, 4, 8), problem);
    CHECK_THROWS_WITH(rw::sbhd(short_by_one, 4, 1, 2, 8), problem);
    CHECK_THROWS_WITH(rw::thd(all, -4, 2, 8),
                      "ropewalk: a view [batch 1, tokens -4, heads 2, head_dim 8]: no extent may be negative");

    // The last head ends at 3 · 20 + 1 · 8 + 4.
    const rw::strided_shape padded{.tokens = 4, .heads = 2, .head_dim = 4, .stride_token = 20, .stride_head = 8};
    CHECK(rw::strided(std::span(plain).first(64), {.tokens = 3, .heads = 2, .head_dim = 8, .stride_token = 24})
              .stride_token == 24);
    CHECK_THROWS_WITH(rw::strided(all, padded),
                      "ropewalk: a view [batch 1, tokens 4, heads 2, head_dim 4] needs 72 elements, but its buffer has "
                      "64");
    CHECK(rw::strided(std::vector<float>(72).data(), padded).stride_head == 8);
    CHECK_THROWS_WITH(rw::strided(all, {.tokens = 2, .heads = 1, .head_dim = 4, .stride_token = -4}),
                      "ropewalk: a view [batch 1, tokens 2, heads 1, head_dim 4] with the stride -4 begins before its "
                      "buffer");
    constexpr std::int64_t huge = std::int64_t{1} << 62;
    CHECK_THROWS_WITH(
        rw::strided(all,
                    {.batch = 3, .tokens = 3, .heads = 1, .head_dim = 4, .stride_batch = huge, .stride_token = huge}),
        "ropewalk: a view [batch 3, tokens 3, heads 1, head_dim 4] needs 9223372036854775807 elements, "
        "but its buffer has 64");
}

namespace {

/// An mdspan as C++23 and Kokkos have it.
template <class T, std::size_t Rank>
struct mdspan_like {
    T* data;
    std::array<int, Rank> extents, strides;
    [[nodiscard]] T* data_handle() const { return data; }
    [[nodiscard]] int extent(std::size_t axis) const { return extents[axis]; }
    [[nodiscard]] int stride(std::size_t axis) const { return strides[axis]; }
    static constexpr std::size_t rank() { return Rank; }
};

}  // namespace

TEST_CASE("a view of an mdspan has its extents and strides", "[view]") {
    float data[1];
    const rw::view<float> packed = rw::view_of(mdspan_like<float, 3>{data, {7, 3, 8}, {88, 8, 1}});
    CHECK(packed.data == data);
    CHECK((packed.batch == 1 && packed.tokens == 7 && packed.heads == 3 && packed.head_dim == 8));
    CHECK((packed.stride_token == 88 && packed.stride_head == 8 && packed.stride_element == 1));
    const rw::bf16 read_only[1] = {};
    const auto four = rw::view_of(mdspan_like<const rw::bf16, 4>{read_only, {2, 7, 3, 8}, {1, 16, 112, 2}});
    STATIC_REQUIRE(std::is_same_v<decltype(four), const rw::view<const rw::bf16>>);
    CHECK((four.batch == 2 && four.tokens == 7 && four.heads == 3 && four.head_dim == 8));
    CHECK((four.stride_batch == 1 && four.stride_token == 16 && four.stride_head == 112 && four.stride_element == 2));
}

TEST_CASE("16-bit memory of other libraries is viewed as f16 or bf16 once its format is named", "[view][element]") {
    std::vector<std::uint16_t> bits(16);
    bits[5] = 0x3c01;
    const auto f16_view = rw::thd(rw::as_f16(bits), 1, 2, 8);
    STATIC_REQUIRE(std::is_same_v<decltype(f16_view), const rw::view<rw::f16>>);
    CHECK(f16_view.data == bits.data());
    CHECK(static_cast<float>(rw::as_f16(bits.data())[5]) == 1 + 0x1p-10F);
    CHECK(static_cast<float>(rw::as_bf16(std::as_const(bits))[5]) == 0x1.02p-7F);
    const auto bf16_view = rw::bshd(rw::as_bf16(std::as_const(bits)), 1, 1, 2, 8);
    STATIC_REQUIRE(std::is_same_v<decltype(bf16_view), const rw::view<const rw::bf16>>);
    CHECK_THROWS_WITH(rw::thd(rw::as_f16(std::span(bits).first(15)), 1, 2, 8),
                      "ropewalk: a view [batch 1, tokens 1, heads 2, head_dim 8] needs 16 elements, but its buffer has "
                      "15");
#if defined(RW_FLOAT16)
    RW_FLOAT16 native[16] = {};
    native[5] = static_cast<RW_FLOAT16>(1 + 0x1p-10F);
    const auto view = rw::thd(native, 1, 2, 8);
    STATIC_REQUIRE(std::is_same_v<decltype(view), const rw::view<rw::f16>>);
    CHECK(static_cast<rw::f16*>(view.data)[5].bits == 0x3c01);
    STATIC_REQUIRE(
        std::is_same_v<decltype(rw::thd(std::declval<const RW_FLOAT16*>(), 1, 2, 8)), rw::view<const rw::f16>>);
#endif
#if defined(RW_BFLOAT16)
    STATIC_REQUIRE(std::is_same_v<decltype(rw::thd(std::declval<RW_BFLOAT16*>(), 1, 2, 8)), rw::view<rw::bf16>>);
#endif
}

TEST_CASE("a view has its element type and converts to read-only", "[view]") {
    rw::bf16 data[4];
    const rw::view<rw::bf16> v = rw::thd(data, 1, 2, 2);
    const rw::view<const rw::bf16> read = v;
    CHECK(read.type == rw::element_type::bf16);
    CHECK(read.data == data);
    CHECK(read.stride_token == 4);
    CHECK_FALSE(rw::view<float>{}.exists());
    CHECK(rw::view<rw::f16>(nullptr, 1, 1, 2).type == rw::element_type::f16);
}

TEST_CASE("element types have the size, name and largest number of their format", "[element]") {
    CHECK(rw::size_of(rw::element_type::f32) == 4);
    CHECK(rw::size_of(rw::element_type::f16) == 2);
    CHECK(rw::size_of(rw::element_type::bf16) == 2);
    CHECK(rw::to_string(rw::element_type::f32) == "f32");
    CHECK(rw::to_string(rw::element_type::f16) == "f16");
    CHECK(rw::to_string(rw::element_type::bf16) == "bf16");
    CHECK(rw::largest(rw::element_type::f32) == oracle::f32.largest);
    CHECK(rw::largest(rw::element_type::f16) == oracle::f16.largest);
    CHECK(rw::largest(rw::element_type::bf16) == oracle::bf16.largest);
    CHECK(rw::size_of(rw::element_type::f64) == 8);
    CHECK(rw::to_string(rw::element_type::f64) == "f64");
    CHECK(rw::largest(rw::element_type::f64) == oracle::f64.largest);
    static_assert(rw::ViewElement<double> && rw::ViewElement<float> && !rw::ViewElement<long double>);
    static_assert(rw::Element<float> && rw::Element<rw::f16> && rw::Element<rw::bf16>);
    static_assert(!rw::Element<double> && !rw::Element<const float> && !rw::Element<std::uint16_t>);
}
