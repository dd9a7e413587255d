// NaN, infinities, large and subnormal numbers through the conversions from every type to every type of a cache.
#include <cstring>

#include "cases/fused_case.hpp"
#include "cases/values.hpp"
#include "support/fp8.hpp"

namespace rw = ropewalk;
using rw::cache_type;

namespace fused_value_cases {
namespace {

double f8_number(const oracle::fp8& format, std::uint32_t code) {
    if (static_cast<int>(code & 127) > format.largest) return std::numeric_limits<double>::quiet_NaN();
    return oracle::fp8_number(format, static_cast<int>(code & 127)) * ((code & 128) != 0 ? -1 : 1);
}

/// Returns whether an element of 8 bits is the conversion of a number within `room` of x.
bool holds_f8(const rw::cache_tensor& cache, std::uint32_t code, double x, double room) {
    const oracle::fp8& format = cache.type == cache_type::f8e4m3 ? oracle::e4m3 : oracle::e5m2;
    const double got = f8_number(format, code);
    if (std::isnan(x)) return std::isnan(got);
    const float scale = cache.scale_at != nullptr ? *cache.scale_at : cache.scale;
    const auto stored = [&](double value) {
        return f8_number(format, oracle::fp8_code(format, static_cast<double>(static_cast<float>(value) / scale)));
    };
    // Infinities saturate.
    return std::isinf(x) ? got == stored(x) : stored(x - room) <= got && got <= stored(x + room);
}

/// Returns whether the integer and the scale of its head stand for a number within `room` of x.
bool holds_i8(double integer, float scale, double x, double room) {
    return std::fabs(integer * static_cast<double>(scale) - x) <= 0.501 * static_cast<double>(scale) + room + 0x1p-120;
}

bool is_finite(std::span<const double> head) {
    return std::all_of(head.begin(), head.end(), [](double x) { return std::isfinite(x); });
}

/// Compares a stored head. Returns the first problem, or "".
std::string problem_of(const rw::cache_tensor& cache, const test::cache_slot& slot, std::int64_t head,
                       std::span<const double> exact, std::span<const double> rooms) {
    const std::int64_t first =
        slot.page * cache.stride_page + slot.token * cache.stride_token + head * cache.stride_head;
    const std::int64_t size = rw::size_of(cache.type);
    float scale = 0;
    if (cache.type == cache_type::i8) {
        scale = cache.scales[slot.page * cache.scale_stride_page + slot.token * cache.scale_stride_token +
                             head * cache.scale_stride_head];
        if (std::isnan(scale) == is_finite(exact)) return "the scale of the head is " + std::to_string(scale);
        if (std::isnan(scale)) return {};
    }
    for (std::size_t i = 0; i < exact.size(); ++i) {
        const auto* const at =
            static_cast<const unsigned char*>(cache.data) + (first + static_cast<std::int64_t>(i)) * size;
        const oracle::format& f = cache.type == cache_type::f32   ? oracle::f32
                                  : cache.type == cache_type::f16 ? oracle::f16
                                                                  : oracle::bf16;
        const bool right = cache.type == cache_type::i8
                               ? holds_i8(static_cast<signed char>(*at), scale, exact[i], rooms[i])
                           : rw::is_f8(cache.type) ? holds_f8(cache, *at, exact[i], rooms[i])
                                                   : test::same_value(oracle::load(at, f), exact[i], rooms[i], f);
        if (!right) return "element " + std::to_string(i) + " does not hold " + std::to_string(exact[i]);
    }
    return {};
}

/// Compares the cache of keys (1) or values (2) of a call. Returns the first problem, or "".
std::string problem_of(test::fused_call& call, std::size_t part) {
    const std::vector<double> exact = call.exact(part);
    const test::extents& size = call.memories[call.parts[part].memory].in.size();
    const auto dim = static_cast<std::size_t>(size.head_dim), heads = static_cast<std::size_t>(size.heads);
    const oracle::shape shape = test::shape_of(size, call.setup.encoding.ours.geometry, call.setup.layout);
    const std::vector<double> before = call.memories[call.parts[part].memory].before.values();
    for (std::size_t row = 0; row * dim < exact.size(); ++row) {
        if (!call.slots.of_token[row / heads]) continue;
        std::vector<double> rooms(dim, 0.0);
        for (std::int64_t pair = 0; part == 1 && pair < shape.width / 2; ++pair) {
            const auto a = static_cast<std::size_t>(shape.first(pair)),
                       b = static_cast<std::size_t>(shape.second(pair));
            rooms[a] = rooms[b] = 4e-7 * std::hypot(before[row * dim + a], before[row * dim + b]) + 0x1p-147;
        }
        const std::string problem =
            problem_of(call.caches[part - 1]->tensor(), *call.slots.of_token[row / heads],
                       static_cast<std::int64_t>(row % heads), std::span(exact).subspan(row * dim, dim), rooms);
        if (!problem.empty()) return std::string(1, "qkv"[part]) + " row " + std::to_string(row) + ": " + problem;
    }
    return {};
}

}  // namespace

TEST_CASE("caches of every type hold NaN, infinities, large and subnormal numbers", "[fused][values]") {
    SEEDED(numbers);
    for (const rw::layout_kind layout : test::all_layouts) {
        for (const rw::element_type type : test::all_types) {
            for (const cache_type cache : test::all_cache_types) {
                test::fused_case c;
                c.type = type, c.layout = layout, c.first = 3;
                c.q = {1, 6, 8, 64}, c.kv_heads = 4;
                c.k_cache = c.v_cache = cache;
                c.elements = test::special_heads(64);
                test::fused_call call = run(c, numbers);
                INFO(test::describe(c));
                CHECK(problem_of(call, 1) == "");
                CHECK(problem_of(call, 2) == "");
            }
        }
    }
}

}  // namespace fused_value_cases
