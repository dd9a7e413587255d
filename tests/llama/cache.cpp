#include <ropewalk/llama/kv_cache.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "llama/cached.hpp"
#include "support/errors.hpp"
#include "support/rounding.hpp"

namespace rw = ropewalk;
namespace llama = ropewalk::llama;

namespace {

/// Stores rows in a cache and loads them again. Sets params.rows.
std::vector<float> stored_and_loaded(std::vector<float> rows, llama::cpu::cache_params params, int threads = 0) {
    params.rows = rows.data();
    rw::dispatch::llama_kernels().store_rows(params, threads);
    std::fill(rows.begin(), rows.end(), std::nanf(""));
    rw::dispatch::llama_kernels().load_rows(params, threads);
    return rows;
}

/// The first `tokens` tokens of sequence 0 in layer 0.
llama::cpu::cache_params rows_of(const llama::kv_cache& cache, std::int64_t tokens, bool keys = true) {
    return {nullptr, {0, tokens, 0, cache.pages(0)}, cache.layout(0), keys};
}

/// A head as int8, from the definition: round(x · 127 / m) · m / 127, where m is the largest magnitude.
std::vector<float> int8_head(const float* head, std::int64_t width) {
    float largest = 0;
    for (std::int64_t i = 0; i < width; ++i) largest = std::max(largest, std::fabs(head[i]));
    const volatile float factor = 127.0F / largest, scale = largest / 127.0F;
    std::vector<float> result;
    for (std::int64_t i = 0; i < width; ++i) {
        const volatile float product = head[i] * factor;  // rounded before the rounding to an integer
        result.push_back(std::nearbyint(product) * scale);
    }
    return result;
}

std::vector<float> rounded(const std::vector<float>& rows, rw::cache_type type, std::int64_t width) {
    std::vector<float> result;
    const oracle::format& f = type == rw::cache_type::f16    ? oracle::f16
                              : type == rw::cache_type::bf16 ? oracle::bf16
                                                             : oracle::f32;
    for (std::size_t i = 0; i < rows.size(); i += static_cast<std::size_t>(width)) {
        if (type == rw::cache_type::i8) {
            const std::vector<float> head = int8_head(rows.data() + i, width);
            result.insert(result.end(), head.begin(), head.end());
            continue;
        }
        for (std::size_t e = i; e < i + static_cast<std::size_t>(width); ++e)
            result.push_back(static_cast<float>(oracle::rounded(static_cast<double>(rows[e]), f)));
    }
    return result;
}

std::vector<float> random_rows(test::random& numbers, std::int64_t count) {
    std::vector<float> rows(static_cast<std::size_t>(count));
    for (float& x : rows) {
        const double magnitude = numbers.coin() ? 1 : numbers.logarithmic(1e-9, 1e5);
        x = static_cast<float>(numbers.normal() * magnitude);
    }
    return rows;
}

constexpr llama::model_config small{.hidden_size = 32, .layers = 3, .heads = 4, .kv_heads = 2, .head_dim = 8};

}  // namespace

TEST_CASE("a cache rounds rows to its type, in every layer", "[cache]") {
    SEEDED(numbers);
    for (const auto type : {rw::cache_type::f32, rw::cache_type::f16, rw::cache_type::bf16, rw::cache_type::i8}) {
        for (const std::int64_t width : {1, 3, 8, 20, 33, 64, 80, 128}) {
            const test::attention_shape shape{.heads = 3, .kv_heads = 3, .head_dim = width};
            llama::kv_cache cache(shape.config(2),
                                  {.type = type, .page_tokens = numbers.one_of<std::int64_t>({1, 3, 16, 256})});
            const int sequence = cache.add_sequence();
            const std::int64_t past = numbers.integer(0, 20), tokens = numbers.integer(1, 40);
            cache.reserve(sequence, past + tokens);
            INFO(to_string(type) << ", heads of " << width << ", " << past << "+" << tokens << " tokens");
            std::vector<std::vector<float>> stored;
            const auto params = [&](std::int64_t i) {
                const llama::cpu::paged_rows part{0, tokens, past, cache.pages(sequence)};
                return llama::cpu::cache_params{nullptr, part, shape.layout(cache, i / 2), i % 2 == 0};
            };
            for (std::int64_t i = 0; i < 4; ++i) {
                stored.push_back(random_rows(numbers, tokens * 3 * width));
                CHECK(stored_and_loaded(stored.back(), params(i)) == rounded(stored.back(), type, width));
            }
            // Layers, keys and values do not overlap.
            for (std::int64_t i = 0; i < 4; ++i) {
                std::vector<float> rows(stored[0].size());
                llama::cpu::cache_params again = params(i);
                again.rows = rows.data();
                rw::dispatch::llama_kernels().load_rows(again, 1);
                CHECK(rows == rounded(stored[static_cast<std::size_t>(i)], type, width));
            }
        }
    }
}

TEST_CASE("stored rows do not depend on the number of threads", "[cache]") {
    SEEDED(numbers);
    const llama::model_config config{.hidden_size = 64, .layers = 1, .heads = 8, .kv_heads = 8, .head_dim = 64};
    for (const auto type : {rw::cache_type::f16, rw::cache_type::i8}) {
        const std::vector<float> rows = random_rows(numbers, 400 * 8 * 64);
        std::vector<float> first;
        for (const int threads : {1, 2, 3}) {
            llama::kv_cache cache(config, {.type = type});
            cache.reserve(cache.add_sequence(), 400);
            const std::vector<float> got = stored_and_loaded(rows, rows_of(cache, 400), threads);
            if (first.empty()) first = got;
            CHECK(got == first);
        }
    }
}

TEST_CASE("int8 heads of tiny numbers become zeros, heads with infinities or NaNs become NaNs", "[cache]") {
    llama::kv_cache cache({.hidden_size = 8, .layers = 1, .heads = 1, .kv_heads = 1, .head_dim = 4},
                          {.type = rw::cache_type::i8});
    cache.reserve(cache.add_sequence(), 1);
    const float infinite = std::numeric_limits<float>::infinity();
    for (const float tiny : {0.0F, 1e-40F, 0x1p-121F})
        CHECK(stored_and_loaded({tiny, -tiny, 0, tiny}, rows_of(cache, 1)) == std::vector<float>(4));
    for (const float bad : {infinite, -infinite, std::nanf("")}) {
        for (const float x : stored_and_loaded({1, bad, 2, 3}, rows_of(cache, 1, false))) CHECK(std::isnan(x));
    }
}

TEST_CASE("narrow caches keep within the bounds of their types", "[cache]") {
    SEEDED(numbers);
    const std::vector<float> rows = random_rows(numbers, 50 * 2 * 64);
    struct bound {
        rw::cache_type type;
        double of_element, of_largest;
    };
    for (const bound p : {bound{rw::cache_type::f16, 0x1p-11, 0x1p-24}, bound{rw::cache_type::bf16, 0x1p-8, 0},
                          bound{rw::cache_type::i8, 0, 0.5 / 127 + 1e-6}}) {
        llama::kv_cache cache({.hidden_size = 64, .layers = 1, .heads = 2, .kv_heads = 2, .head_dim = 64},
                              {.type = p.type});
        cache.reserve(cache.add_sequence(), 50);
        const std::vector<float> got = stored_and_loaded(rows, rows_of(cache, 50));
        std::int64_t beyond = 0;
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const std::size_t head = i / 64 * 64;
            double largest = 1;
            for (std::size_t e = head; e < head + 64; ++e)
                largest = std::max(largest, std::fabs(static_cast<double>(rows[e])));
            const double x = static_cast<double>(rows[i]), error = std::fabs(static_cast<double>(got[i]) - x);
            const bool too_large = p.type == rw::cache_type::f16 && std::fabs(x) > 65504;
            if (!too_large && !(error <= p.of_element * std::fabs(x) + p.of_largest * largest)) ++beyond;
        }
        INFO(to_string(p.type));
        CHECK(beyond == 0);
    }
}

TEST_CASE("Llama-2-13B needs 800 KiB per token in f16", "[cache]") {
    CHECK(llama::kv_cache(llama::llama2_13b()).bytes_per_token() == 800 * 1024);
    CHECK(llama::kv_cache(llama::llama2_13b(), {.type = rw::cache_type::f32}).bytes_per_token() == 1600 * 1024);
    CHECK(llama::kv_cache(llama::llama2_13b(), {.type = rw::cache_type::i8}).bytes_per_token() ==
          2 * 40 * 40 * (128 + 4));
    CHECK(llama::kv_cache(llama::llama2_70b()).bytes_per_token() == 2 * 80 * 8 * 128 * 2);
}

TEST_CASE("sequences take pages as they grow and reuse released ones", "[cache]") {
    llama::kv_cache cache(small, {.type = rw::cache_type::f32, .page_tokens = 16});
    const std::int64_t page = 3 * 2 * 2 * 16 * 8 * 4;
    CHECK(cache.bytes_held() == 0);
    const int a = cache.add_sequence(), b = cache.add_sequence();
    CHECK(a != b);
    cache.reserve(a, 1);
    CHECK(cache.bytes_held() == page);
    CHECK(cache.tokens(a) == 0);
    std::byte* const first = cache.pages(a)[0];
    cache.reserve(a, 16);
    CHECK(cache.bytes_held() == page);
    cache.reserve(a, 40);
    CHECK(cache.bytes_held() == 3 * page);
    CHECK(cache.pages(a)[0] == first);
    cache.advance_to(a, 40);
    const std::vector<std::byte*> held(cache.pages(a), cache.pages(a) + 3);

    cache.truncate(a, 17);
    CHECK(cache.tokens(a) == 17);
    CHECK(cache.bytes_held() == 2 * page);
    cache.reserve(b, 5);
    CHECK(cache.pages(b)[0] == held[2]);
    cache.advance_to(b, 5);
    cache.release(a);
    CHECK(cache.bytes_held() == page);
    cache.reserve(b, 48);
    CHECK(cache.bytes_held() == 3 * page);
    for (std::int64_t i = 0; i < 3; ++i) CHECK(std::count(held.begin(), held.end(), cache.pages(b)[i]) == 1);
    CHECK(cache.tokens(b) == 5);
    // Released numbers are reused, so that a long-running server does not run out of them.
    CHECK(cache.add_sequence() == a);
    CHECK(cache.add_sequence() > b);
}

TEST_CASE("layers of a page do not overlap and begin on cache lines", "[cache]") {
    for (const auto type : {rw::cache_type::f32, rw::cache_type::f16, rw::cache_type::bf16, rw::cache_type::i8}) {
        const llama::model_config odd{.hidden_size = 18, .layers = 4, .heads = 3, .kv_heads = 3, .head_dim = 6};
        llama::kv_cache cache(odd, {.type = type, .page_tokens = 7});
        cache.reserve(cache.add_sequence(), 7);
        const std::int64_t elements = 3 * 7 * 6 * size_of(type), scales = type == rw::cache_type::i8 ? 3 * 7 * 4 : 0;
        std::vector<int> owners(static_cast<std::size_t>(cache.bytes_held()));
        for (std::int64_t layer = 0; layer < 4; ++layer) {
            const llama::page_layout l = cache.layout(layer);
            CHECK((l.k % 64 == 0 && l.v % 64 == 0));
            const auto own = [&](std::int64_t from, std::int64_t bytes) {
                REQUIRE(from + bytes <= cache.bytes_held());
                for (std::int64_t i = 0; i < bytes; ++i) ++owners[static_cast<std::size_t>(from + i)];
            };
            own(l.k, elements), own(l.v, elements), own(l.k_scales, scales), own(l.v_scales, scales);
        }
        CHECK(*std::max_element(owners.begin(), owners.end()) == 1);
    }
}

TEST_CASE("a cache refuses what it cannot hold, with the numbers", "[cache]") {
    llama::kv_cache cache(small, {.page_tokens = 16, .most_tokens = 64});
    const int a = cache.add_sequence(), b = cache.add_sequence();
    cache.reserve(a, 40);
    const std::int64_t held = cache.bytes_held();
    CHECK_REFUSED(cache.reserve(b, 33), "33 tokens", "16 tokens", "64 tokens");
    CHECK(cache.bytes_held() == held);
    cache.reserve(b, 16);
    CHECK_REFUSED(cache.reserve(b, 17), "17 tokens");
    cache.release(a);
    cache.reserve(b, 64);

    CHECK_REFUSED(cache.tokens(a), "no sequence 0");
    CHECK_REFUSED(cache.pages(7), "no sequence 7");
    CHECK_REFUSED(cache.release(-1), "no sequence -1");
    CHECK_REFUSED(cache.truncate(b, 1), "sequence 1", "0 tokens", "keep 1");
    CHECK_REFUSED(llama::kv_cache(small, {.type = rw::cache_type::f8e4m3}), "f8e4m3");
    CHECK_REFUSED(llama::kv_cache(small, {.page_tokens = 0}), "page_tokens", "0");
    CHECK_REFUSED(llama::kv_cache(small, {.page_tokens = 1, .most_tokens = -5}), "-5");
}

TEST_CASE("a cache refuses sizes that overflow 64 bits", "[cache][errors]") {
    constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
    for (const std::int64_t page_tokens : {1, 16}) {
        llama::kv_cache cache(small, {.page_tokens = page_tokens}),
            full(small, {.page_tokens = page_tokens, .most_tokens = 64}),
            any(small, {.page_tokens = page_tokens, .most_tokens = largest});
        for (llama::kv_cache* const each : {&cache, &full, &any}) {
            const int a = each->add_sequence(), b = each->add_sequence();
            each->reserve(a, 32);
            const std::int64_t held = each->bytes_held();
            for (const int sequence : {a, b})
                CHECK_REFUSED(each->reserve(sequence, largest), "needs 9223372036854775807 tokens", "64 bits");
            CHECK_REFUSED(each->reserve(b, -1), "sequence 1 cannot hold -1 tokens");
            CHECK(each->bytes_held() == held);
            each->reserve(b, 0);
            CHECK(each->bytes_held() == held);
        }
    }
    const llama::kv_cache cache(small, {.page_tokens = 16});
    CHECK(cache.pages_for(largest) == (std::int64_t{1} << 59));
    CHECK((cache.pages_for(0) == 0 && cache.pages_for(1) == 1 && cache.pages_for(16) == 1));
    constexpr std::int64_t large = std::int64_t{1} << 24;
    const llama::model_config wide{
        .hidden_size = 1, .layers = large, .heads = large, .kv_heads = large, .head_dim = 1 << 10};
    CHECK_REFUSED(llama::kv_cache(wide), "256 tokens in 16777216 layers of 16777216 heads of 1024", "2^56");
}

TEST_CASE("a long sequence with one page per token grows fast", "[cache]") {
    llama::kv_cache cache({.hidden_size = 1, .layers = 1, .heads = 1, .kv_heads = 1, .head_dim = 2},
                          {.page_tokens = 1});
    const int sequence = cache.add_sequence();
    for (std::int64_t token = 1; token <= 20000; ++token) cache.reserve(sequence, token);
    CHECK(cache.bytes_held() == 20000 * 128);
}
