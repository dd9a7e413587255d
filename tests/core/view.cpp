#include <ropewalk/core/view.hpp>

#include <cmath>
#include <limits>

#include "support/catch.hpp"
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
    static_assert(rw::Element<float> && rw::Element<rw::f16> && rw::Element<rw::bf16>);
    static_assert(!rw::Element<double> && !rw::Element<const float> && !rw::Element<std::uint16_t>);
}
