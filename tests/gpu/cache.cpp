#include <ropewalk/gpu/cache_store.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "host.hpp"
#include "support/effort.hpp"
#include "support/errors.hpp"
#include "support/fp8.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace {

/// V floats as a cache of one head stores them.
template <class E, int V>
std::vector<E> stored(const float (&x)[V], float scale = 1, float factor = 0) {
    std::vector<E> memory(16);
    gpu::detail::store_as<E, gpu::plain_access>(memory.data() + V, {scale, 1 / scale}, factor, x);
    return {memory.begin() + V, memory.begin() + 2 * V};
}

}  // namespace

TEST_CASE("strides of NHD and HND caches", "[gpu][cache]") {
    rw::bf16 element;
    const gpu::cache_tensor n = gpu::nhd_cache(&element, 10, 16, 4, 128), h = gpu::hnd_cache(&element, 10, 4, 16, 128);
    CHECK(n.type == gpu::cache_type::bf16);
    CHECK((n.stride_page == 8192 && n.stride_token == 512 && n.stride_head == 128));
    CHECK((h.stride_page == 8192 && h.stride_token == 128 && h.stride_head == 2048));
    CHECK((n.pages == 10 && n.page_size == 16 && n.heads == 4 && n.head_dim == 128));
    CHECK((h.pages == 10 && h.page_size == 16 && h.heads == 4 && h.head_dim == 128));
    std::int8_t byte = 0;
    float scale = 0;
    const gpu::cache_tensor ns = gpu::nhd_cache(&byte, 10, 16, 4, 128, &scale);
    const gpu::cache_tensor hs = gpu::hnd_cache(&byte, 10, 4, 16, 128, &scale);
    CHECK((ns.scale_stride_page == 64 && ns.scale_stride_token == 4 && ns.scale_stride_head == 1));
    CHECK((hs.scale_stride_page == 64 && hs.scale_stride_token == 1 && hs.scale_stride_head == 16));
    CHECK(gpu::cache_type_of<rw::f8e4m3>() == gpu::cache_type::f8e4m3);
    CHECK(gpu::to_string(ns.type) == "i8");
    const std::vector<std::int32_t> table(7);
    CHECK_REFUSED(gpu::by_page_table(table, 2, rw::offset{0}), "7", "2");
}

TEST_CASE("a quotient by a scale is rounded once", "[gpu][cache]") {
    SEEDED(numbers);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < test::cases(200000); ++i) {
        const auto scale = static_cast<float>(numbers.logarithmic(0x1p-64, 0x1p64));
        const auto x = static_cast<float>(numbers.normal() * numbers.logarithmic(0x1p-12, 0x1p8)) * scale;
        wrong += gpu::quotient_of(x, scale, 1 / scale) != x / scale;
    }
    CHECK(wrong == 0);
    CHECK(std::isnan(gpu::quotient_of(std::nanf(""), 2, 0.5F)));
    CHECK(gpu::quotient_of(HUGE_VALF, 2, 0.5F) == HUGE_VALF);
    CHECK(gpu::quotient_of(-3e38F, 0x1p-60F, 0x1p60F) == -HUGE_VALF);
}

TEST_CASE("a quotient by 127 is rounded once", "[gpu][cache]") {
    std::int64_t wrong = 0;
    for (const float power : {0x1p-120F, 0x1p-119F, 0x1p0F, 0x1p127F}) {
        const auto first = std::bit_cast<std::uint32_t>(power);
        const auto stride = static_cast<std::uint32_t>(std::max<std::int64_t>(1, (1 << 23) / test::cases(1 << 21)));
        for (std::uint32_t i = 0; i < 1U << 23; i += stride) {
            const auto x = std::bit_cast<float>(first + i);
            wrong += rw::detail::quotient_by_127(x) != x / 127.0F;
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("a divisor in memory replaces the one in the arguments", "[gpu][cache]") {
    const float in_memory = 3;
    gpu::cache_sink sink{.scale = 0.7F, .inverse_scale = 1 / 0.7F};
    CHECK((gpu::f8_divisor::of(sink).value == 0.7F && gpu::f8_divisor::of(sink).reciprocal == 1 / 0.7F));
    sink.scale_at = &in_memory;
    CHECK((gpu::f8_divisor::of(sink).value == 3 && gpu::f8_divisor::of(sink).reciprocal == 1.0F / 3));
}

TEST_CASE("divisors in memory that no host can check give a code for every number", "[gpu][cache]") {
    for (const float divisor : {0.0F, 1e-45F, 1e38F, HUGE_VALF, std::nanf("")}) {
        const gpu::cache_sink sink{.scale_at = &divisor};
        const gpu::f8_divisor read = gpu::f8_divisor::of(sink);
        std::vector<rw::f8e4m3> memory(3);
        const float one[1] = {-3.0F};
        gpu::detail::store_as<rw::f8e4m3, gpu::plain_access>(&memory[1], read, 0, one);
        INFO("divisor " << divisor);
        CHECK((memory[0].bits == 0 && memory[2].bits == 0));
        if (std::isnan(divisor)) CHECK(memory[1].bits == 0x7f);
    }
}

TEST_CASE("int8 heads use -127 to 127, and mark numbers that they cannot represent", "[gpu][cache]") {
    SEEDED(numbers);
    for (int i = 0; i < 1000; ++i) {
        const auto m = static_cast<float>(numbers.logarithmic(1e-35, 1e38));
        const auto scale = gpu::int8_scale::of(gpu::magnitude_bits(m));
        CHECK(scale.stored == m / 127);
        const float x[4] = {m, -m, 0, static_cast<float>(numbers.uniform(-1, 1)) * m};
        const auto bytes = stored<std::int8_t>(x, 1, scale.factor);
        CHECK((bytes[0] == 127 && bytes[1] == -127 && bytes[2] == 0));
        CHECK(std::fabs(bytes[3] * scale.stored - x[3]) <= 0.50001F * scale.stored);
    }
    for (const float m : {HUGE_VALF, std::nanf("")})
        CHECK(std::isnan(gpu::int8_scale::of(gpu::magnitude_bits(m)).stored));
    for (const float m : {0.0F, 1e-45F, 0x1p-121F}) {
        const auto scale = gpu::int8_scale::of(gpu::magnitude_bits(m));
        CHECK((scale.stored == 0 && scale.factor == 0));
    }
    const auto least = gpu::int8_scale::of(gpu::magnitude_bits(0x1p-120F));
    CHECK((std::isfinite(least.factor) && least.stored > 0));
}

TEST_CASE("elements are stored in the type of the cache", "[gpu][cache]") {
    const float x[8] = {1.0F, -2.5F, 0.1F, 1e-9F, 500.0F, -1e9F, 3.14159265F, -0.0F};
    const auto floats = stored<float>(x);
    const auto halves = stored<rw::f16>(x);
    const auto brains = stored<rw::bf16>(x);
    const auto eighths = stored<rw::f8e4m3>(x, 2);
    const auto wide_eighths = stored<rw::f8e5m2>(x, 2);
    for (std::size_t i = 0; i < 8; ++i) {
        CHECK(floats[i] == x[i]);
        const auto exact = static_cast<double>(x[i]);
        CHECK(halves[i].bits == oracle::encode(oracle::rounded(exact, oracle::f16), oracle::f16));
        CHECK(brains[i].bits == oracle::encode(oracle::rounded(exact, oracle::bf16), oracle::bf16));
        CHECK(eighths[i].bits == oracle::fp8_code(oracle::e4m3, exact / 2));
        CHECK(wide_eighths[i].bits == oracle::fp8_code(oracle::e5m2, exact / 2));
    }
    const float one[1] = {-3.0F};
    CHECK(stored<rw::f8e4m3>(one)[0].bits == oracle::fp8_code(oracle::e4m3, -3));
    CHECK(stored<std::int8_t>(one, 1, 2)[0] == -6);
}

TEST_CASE("slots outside a cache are skipped for any contents of device memory", "[gpu][cache]") {
    const std::vector<std::int64_t> wide{0, 47, 48, -1, std::int64_t{1} << 40, INT64_MIN, INT64_MAX};
    gpu::slot_reader slots;
    slots.source = gpu::cache_slots::kind::mapping64, slots.mapping = wide.data(), slots.pages = 3,
    slots.page_size = 16;
    const auto page = [&](std::int64_t token) { return gpu::slot_of_token(slots, 0, token, 7).page; };
    CHECK((page(0) == 0 && page(1) == 2));
    for (std::int64_t token = 2; token < 7; ++token) CHECK(page(token) == -1);
    CHECK(gpu::slot_of_token(slots, 0, 1, 7).entry == 15);

    const std::vector<std::int32_t> table{2, -1, 3, INT32_MIN, INT32_MAX, 0};
    const std::vector<std::int64_t> entries{5, 16, 32, 48, -1, INT64_MAX, INT64_MIN, 40};
    slots.source = gpu::cache_slots::kind::page_table, slots.table = table.data(), slots.sequences = 2;
    slots.max_pages = 3, slots.stride_sequence = 3;
    slots.entry_reader = {.kind = rw::positions::kind::ids64, .data = entries.data()};
    const auto place = [&](std::int64_t row, std::int64_t token) { return gpu::slot_of_token(slots, row, token, 8); };
    CHECK((place(0, 0).page == 2 && place(0, 0).entry == 5));
    for (std::int64_t token = 1; token < 8; ++token) CHECK(place(0, token).page == -1);
    CHECK((place(1, 7).page == 0 && place(1, 7).entry == 8));
    CHECK(place(2, 0).page == -1);

    slots.source = gpu::cache_slots::kind::by_sequence;
    CHECK((place(1, 0).page == 1 && place(1, 0).entry == 5));
    CHECK((place(1, 1).page == -1 && place(1, 4).page == -1 && place(3, 0).page == -1));
}

TEST_CASE("the sequence of a token of a ragged batch is its page", "[gpu][cache]") {
    const std::vector<std::int32_t> starts{0, 3, 3, 7};
    gpu::slot_reader slots;
    slots.source = gpu::cache_slots::kind::by_sequence, slots.pages = 3, slots.page_size = 16;
    slots.entry_reader = {.kind = rw::positions::kind::cu_seqlens32, .first = 10, .data = starts.data(), .count = 4};
    for (std::int64_t token = 0; token < 7; ++token) {
        const auto place = gpu::slot_of_token(slots, 0, token, 7);
        CHECK(place.page == (token < 3 ? 0 : 2));
        CHECK(place.entry == 10 + (token < 3 ? token : token - 3));
    }
}
