#include <algorithm>
#include <cmath>
#include <vector>

#include "llama/cached.hpp"
#include "support/effort.hpp"
#include "support/same_bits.hpp"

namespace rw = ropewalk;

namespace {

constexpr rw::cache_type every_type[] = {rw::cache_type::f32, rw::cache_type::f16, rw::cache_type::bf16,
                                         rw::cache_type::i8};

/// Bound relative to the largest value, for scores of a few units.
constexpr double bound = 1e-6;

void check(const test::cached_batch& batch, double within = bound) {
    INFO(batch.describe());
    CHECK(batch.worst_error(batch.attend()) <= within);
}

test::attention_shape random_shape(test::random& numbers) {
    test::attention_shape shape;
    shape.kv_heads = numbers.one_of<std::int64_t>({1, 2, 3});
    shape.heads = shape.kv_heads * numbers.one_of<std::int64_t>({1, 2, 5, 8, 13});
    shape.head_dim = numbers.coin() ? numbers.one_of<std::int64_t>({64, 80, 128}) : numbers.integer(1, 140);
    shape.type = numbers.one_of({rw::cache_type::f32, rw::cache_type::f16, rw::cache_type::bf16, rw::cache_type::i8});
    shape.page_tokens = numbers.one_of<std::int64_t>({1, 3, 16, 100, 256, 1024});
    return shape;
}

}  // namespace

TEST_CASE("attention agrees with float64 at every edge of tiles and blocks", "[attend]") {
    SEEDED(numbers);
    for (const std::int64_t tokens : {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 200}) {
        for (const std::int64_t past : {0, 1, 255, 1000}) {
            const std::int64_t group = numbers.one_of<std::int64_t>({1, 2, 8});
            const auto type = numbers.one_of({rw::cache_type::f32, rw::cache_type::f16});
            check({numbers, {.heads = group, .kv_heads = 1, .head_dim = 64, .type = type}, {{past, tokens}}});
        }
    }
}

TEST_CASE("attention agrees with float64 for every width of a head", "[attend]") {
    SEEDED(numbers);
    for (const auto type : every_type) {
        for (const std::int64_t width : {1, 2, 3, 5, 8, 15, 16, 17, 31, 40, 64, 80, 96, 100, 128, 133, 192, 256}) {
            check({numbers, {.heads = 2, .kv_heads = 1, .head_dim = width, .type = type}, {{130, 1}, {0, 19}, {5, 3}}});
        }
    }
}

TEST_CASE("attention agrees with float64 for MHA, GQA and MQA over every type and size of page", "[attend]") {
    SEEDED(numbers);
    struct sharing {
        std::int64_t heads, kv_heads;
    };
    for (const sharing s : {sharing{4, 4}, {16, 2}, {12, 1}, {40, 1}}) {
        for (const auto type : every_type) {
            for (const std::int64_t page : {1, 3, 16, 256}) {
                check({numbers,
                       {.heads = s.heads, .kv_heads = s.kv_heads, .head_dim = 32, .type = type, .page_tokens = page},
                       {{0, 37}, {150, 1}, {255, 2}, {300, 9}}});
            }
        }
    }
}

TEST_CASE("attention agrees with float64 for random shapes and batches", "[attend]") {
    SEEDED(numbers);
    for (std::int64_t i = test::cases(60); i > 0; --i) {
        std::vector<test::cached_sequence> sequences;
        for (std::int64_t n = numbers.integer(1, 4); n > 0; --n)
            sequences.push_back({numbers.coin() ? 0 : numbers.integer(0, 300), numbers.integer(0, 40)});
        check({numbers, random_shape(numbers), sequences});
    }
}

TEST_CASE("split keys of a long sequence are merged", "[attend]") {
    SEEDED(numbers);
    for (const auto type : every_type) {
        for (const std::int64_t past : {1023, 1024, 2047, 5000}) {
            check({numbers, {.heads = 2, .kv_heads = 2, .head_dim = 64, .type = type}, {{past, 1}, {past, 3}}});
            check({numbers, {.heads = 24, .kv_heads = 1, .head_dim = 20, .type = type}, {{past, 2}}});
        }
    }
}

TEST_CASE("results depend neither on threads nor on other sequences", "[attend]") {
    SEEDED(numbers);
    for (std::int64_t i = test::cases(20); i > 0; --i) {
        const std::vector<test::cached_sequence> sequences{
            {numbers.integer(0, 300), numbers.integer(1, 200)}, {numbers.integer(2000, 4000), 1}, {0, 150}, {900, 4}};
        const test::cached_batch batch(numbers, random_shape(numbers), sequences);
        INFO(batch.describe());
        const std::vector<float> one = batch.attend(1);
        CHECK(test::same_bits(one, batch.attend(2)));
        CHECK(test::same_bits(one, batch.attend(3)));
        std::vector<float> alone;
        for (std::size_t s = 0; s < sequences.size(); ++s) {
            const std::vector<float> rows = batch.attend_alone(s, sequences[s].tokens);
            alone.insert(alone.end(), rows.begin(), rows.end());
        }
        CHECK(test::same_bits(one, alone));
    }
}

TEST_CASE("a prompt in chunks equals the whole prompt up to rounding", "[attend]") {
    SEEDED(numbers);
    for (std::int64_t i = test::cases(12); i > 0; --i) {
        const test::cached_batch batch(numbers, random_shape(numbers), {{numbers.integer(0, 200), 150}});
        INFO(batch.describe());
        const std::vector<float> whole = batch.attend();
        for (const std::int64_t step : {1, 7, 64}) CHECK(batch.worst_error(batch.attend_alone(0, step)) <= bound);
        CHECK(batch.worst_error(whole) <= bound);
    }
}

TEST_CASE("scores of ten thousand neither overflow nor give NaNs", "[attend]") {
    SEEDED(numbers);
    for (const std::int64_t tokens : {1, 5, 100}) {
        for (const auto type : {rw::cache_type::f32, rw::cache_type::bf16, rw::cache_type::i8}) {
            const test::cached_batch batch(numbers, {.heads = 8, .kv_heads = 2, .head_dim = 64, .type = type},
                                           {{300, tokens}}, 1e4);
            INFO(batch.describe());
            // float32 rounds a score of 10^4 to 5·10^-4, and 64 additions to a multiple of that.
            CHECK(batch.worst_error(batch.attend()) <= 2e-2);
        }
    }
}

TEST_CASE("equal scores give the mean of the values", "[attend]") {
    SEEDED(numbers);
    for (const std::int64_t tokens : {1, 4, 90}) {
        test::cached_batch batch(numbers, {.heads = 4, .kv_heads = 2, .head_dim = 48}, {{700, tokens}});
        std::fill(batch.q().begin(), batch.q().end(), 0.0F);
        check(batch, 2e-7);
    }
}

TEST_CASE("a call without tokens does nothing", "[attend]") {
    SEEDED(numbers);
    CHECK(test::cached_batch(numbers, {}, {{5, 0}}).attend().empty());
    CHECK(test::cached_batch(numbers, {}, {}).attend().empty());
    check({numbers, {}, {{5, 0}, {3, 2}, {9, 0}}});
}
