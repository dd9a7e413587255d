#include <ropewalk/attention/stack.hpp>

#include <algorithm>
#include <cmath>
#include <memory>

#include <ropewalk/attention/llama.hpp>
#include <ropewalk/attention/synthetic.hpp>
#include <runtime/attention/attention.hpp>

#include "attention/reference.hpp"
#include "support/catch.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

namespace {

namespace rw = ropewalk;
namespace attention = ropewalk::attention;

constexpr double rounding = 1e-5;

attention::llama_config shape(std::int64_t layers) {
    return {.hidden_size = 48,
            .layers = layers,
            .heads = 6,
            .kv_heads = 2,
            .head_dim = 16,
            .intermediate_size = 40,
            .base = 500.0};
}

/// A model, its twin in float64, and tokens for both.
class trial {
public:
    trial(test::random& random, const attention::llama_config& config, const rw::Encoding& encoding,
          std::int64_t tokens, attention::cache_options cached = {rw::cache_type::f32, 8})
        : config_(config),
          weights_(attention::synthetic_weights(config, rw::element_type::f32, 7)),
          stack(config, weights_, encoding, rw::runtime::attention_kernels()),
          cache(config, cached),
          sequence(cache.add_sequence()),
          reference(config, weights_),
          hidden_(static_cast<std::size_t>(tokens * config.hidden_size)) {
        for (float& x : hidden_) x = static_cast<float>(random.normal());
    }

    /// The tokens [first, last), through the stack.
    std::vector<float> ours(std::int64_t first, std::int64_t last) {
        std::vector<float> rows(given(first, last).begin(), given(first, last).end());
        const attention::segment one{sequence, last - first};
        stack.forward({&one, 1}, rows, cache);
        return rows;
    }
    test::numbers theirs(std::int64_t first, std::int64_t last, const test::reference_scheme& scheme) {
        return reference.forward(given(first, last), scheme);
    }
    [[nodiscard]] std::span<const float> given(std::int64_t first, std::int64_t last) const {
        return std::span(hidden_).subspan(static_cast<std::size_t>(first * config_.hidden_size),
                                          static_cast<std::size_t>((last - first) * config_.hidden_size));
    }

private:
    attention::llama_config config_;
    attention::llama_weights weights_;

public:
    attention::stack stack;
    attention::kv_cache cache;
    int sequence;
    test::reference_stack reference;

private:
    std::vector<float> hidden_;
};

template <class T>
double difference(const std::vector<float>& ours, const T& theirs) {
    REQUIRE(ours.size() == theirs.size());
    double most = 0, size = 0;
    for (std::size_t i = 0; i < ours.size(); ++i) {
        most = std::max(most, std::abs(static_cast<double>(ours[i]) - static_cast<double>(theirs[i])));
        size = std::max(size, std::abs(static_cast<double>(theirs[i])));
    }
    return std::isfinite(most) ? most / size : INFINITY;
}

rw::Encoding encoded(const attention::llama_config& config, const std::string& policy, std::int64_t length = 0) {
    rw::Geometry geometry = config.geometry();
    geometry.sequence_length = length;
    return rw::make_encoding(geometry, policy);
}

/// At once, in chunks, and token by token behind a prompt.
void check_stack(test::random& random, const attention::llama_config& config, const std::string& policy,
                 const test::reference_scheme& scheme) {
    constexpr std::int64_t tokens = 37;
    for (const auto& ends : {std::vector<std::int64_t>{37}, {20, 33, 37}, {33, 34, 35, 36, 37}}) {
        trial one(random, config, encoded(config, policy), tokens);
        std::int64_t start = 0;
        for (const std::int64_t end : ends) {
            INFO(policy << ", tokens " << start << " to " << end);
            CHECK(difference(one.ours(start, end), one.theirs(start, end, scheme)) < rounding);
            start = end;
        }
    }
}

}  // namespace

TEST_CASE("the stack agrees with float64 in both layouts, with and without an MLP", "[attention][stack]") {
    SEEDED(random);
    for (const auto layout : {rw::layout_kind::half_split, rw::layout_kind::interleaved}) {
        for (const std::int64_t inner : {0, 40}) {
            attention::llama_config config = shape(3);
            config.layout = layout, config.intermediate_size = inner;
            check_stack(random, config, "default", test::plain_scheme(config, 1));
            check_stack(random, config, "linear:8", test::plain_scheme(config, 8));
        }
    }
}

TEST_CASE("xPos inside the stack, while the cache grows", "[attention][stack]") {
    SEEDED(random);
    const attention::llama_config config = shape(3);
    test::reference_scheme scheme = test::plain_scheme(config, 1);
    // arXiv 2212.10554, §3.2, with a scale_base that makes 37 tokens a long way. The centre cancels.
    scheme.stretch = [&](std::int64_t index, std::int64_t pair) {
        const double zeta = (2.0 * static_cast<double>(pair) / static_cast<double>(config.head_dim) + 0.4) / 1.4;
        return std::pow(zeta, static_cast<double>(index) / 16);
    };
    check_stack(random, config, "xpos:16", scheme);
    check_stack(random, config, "xpos:16,length=64", scheme);
}

TEST_CASE("randomized positions inside the stack", "[attention][stack]") {
    SEEDED(random);
    const attention::llama_config config = shape(3);
    for (const std::string policy : {"randomized:128,seed=3", "randomized:64,seed=3,draw=5"}) {
        const rw::Encoding encoding = encoded(config, policy);
        auto drawn =
            std::make_shared<std::vector<rw::fixed_position>>(static_cast<std::size_t>(encoding.placed_tokens));
        encoding.place(0, *drawn);
        const test::reference_scheme plain = test::plain_scheme(config, 1);
        test::reference_scheme scheme;
        scheme.angle = [=](std::int64_t index, std::int64_t pair) {
            return std::ldexp(static_cast<double>((*drawn)[static_cast<std::size_t>(index)].value), -32) *
                   plain.angle(1, pair);
        };
        check_stack(random, config, policy, scheme);
    }
}

TEST_CASE("a scheme that changes in the middle takes the cached keys along", "[attention][stack]") {
    SEEDED(random);
    constexpr std::int64_t before = 21, after = 34;
    for (const auto& [type, bound] : {std::pair(rw::cache_type::f32, rounding), std::pair(rw::cache_type::f16, 3e-3)}) {
        const attention::llama_config config = shape(1);
        trial changed(random, config, encoded(config, "linear:4"), after, {type, 8});
        (void)changed.ours(0, before);
        changed.stack.set_rope(encoded(config, "linear:8"));
        const std::vector<float> ours = changed.ours(before, after);

        changed.stack.set_rope(encoded(config, "linear:8"));
        changed.cache.truncate(changed.sequence, 0);
        const std::vector<float> afresh = changed.ours(0, after);
        const std::vector<float> last(afresh.end() - static_cast<std::ptrdiff_t>(ours.size()), afresh.end());
        CHECK(difference(ours, last) < bound);
    }
    // Deeper layers have seen hidden states of the old scheme: the keys of those, in the new one.
    const attention::llama_config config = shape(3);
    trial deep(random, config, encoded(config, "linear:4"), after);
    (void)deep.ours(0, before), (void)deep.theirs(0, before, test::plain_scheme(config, 4));
    deep.stack.set_rope(encoded(config, "linear:8"));
    for (std::int64_t token = before; token < after; ++token) {
        const auto theirs = deep.theirs(token, token + 1, test::plain_scheme(config, 8));
        CHECK(difference(deep.ours(token, token + 1), theirs) < rounding);
    }
}

TEST_CASE("a scheme that follows the length grows token by token", "[attention][stack]") {
    SEEDED(random);
    const attention::llama_config config = shape(1);
    constexpr std::int64_t tokens = 30;
    const std::string policy = "dynamic:4,original_length=12";
    trial growing(random, config, encoded(config, policy), tokens);
    (void)growing.ours(0, 9);
    for (std::int64_t token = 9; token < tokens; ++token) {
        // The base of a sequence of so many tokens, which Transformers takes from its length too.
        const double beyond = static_cast<double>(std::max<std::int64_t>(token + 1, 12));
        const double alpha = 4 * beyond / 12 - 3, width = static_cast<double>(config.head_dim);
        const double base = config.base * std::pow(alpha, width / (width - 2));
        test::reference_scheme scheme;
        scheme.angle = [=](std::int64_t index, std::int64_t pair) {
            return static_cast<double>(index) * std::pow(base, -2.0 * static_cast<double>(pair) / width);
        };
        trial& t = growing;
        test::reference_stack afresh(config, t.stack.weights());
        const test::numbers whole = afresh.forward(t.given(0, token + 1), scheme);
        const test::numbers last(whole.end() - config.hidden_size, whole.end());
        CHECK(difference(t.ours(token, token + 1), last) < rounding);
    }
}

TEST_CASE("sequences of a batch do not see each other", "[attention][stack]") {
    SEEDED(random);
    const attention::llama_config config = shape(2);
    trial one(random, config, encoded(config, "yarn:4,original_length=16"), 40);
    const int second = one.cache.add_sequence(), third = one.cache.add_sequence();
    const auto rows_of = [&](std::int64_t first, std::int64_t last) {
        const auto rows = one.given(first, last);
        return std::vector<float>(rows.begin(), rows.end());
    };
    std::vector<float> alone = rows_of(0, 20);
    const attention::segment whole{third, 20};
    one.stack.forward({&whole, 1}, alone, one.cache);
    one.cache.release(third);

    const attention::segment steps[][2] = {{{one.sequence, 13}, {second, 4}}, {{second, 9}, {one.sequence, 7}}};
    std::vector<float> first = rows_of(0, 13);
    const std::vector<float> other = rows_of(20, 24), more = rows_of(24, 33), rest = rows_of(13, 20);
    first.insert(first.end(), other.begin(), other.end());
    one.stack.forward(steps[0], first, one.cache);
    std::vector<float> next = more;
    next.insert(next.end(), rest.begin(), rest.end());
    one.stack.forward(steps[1], next, one.cache);
    std::vector<float> joined(first.begin(), first.begin() + 13 * config.hidden_size);
    joined.insert(joined.end(), next.begin() + 9 * config.hidden_size, next.end());
    CHECK(difference(joined, alone) < rounding);
    CHECK(one.cache.tokens(second) == 13);
}

TEST_CASE("what cannot be done leaves everything as it was", "[attention][stack][errors]") {
    SEEDED(random);
    const attention::llama_config config = shape(2);
    trial one(random, config, encoded(config, "default"), 40, {rw::cache_type::f32, 8, 24});
    (void)one.ours(0, 10);
    const std::int64_t held = one.cache.bytes_held();
    const int second = one.cache.add_sequence();
    std::vector<float> rows(static_cast<std::size_t>(20 * config.hidden_size), 1.0F);
    const std::vector<float> untouched = rows;
    const auto run = [&](std::vector<attention::segment> batch) { one.stack.forward(batch, rows, one.cache); };
    CHECK_REFUSED(run({{one.sequence, 8}, {second, 12}}), "needs 12 tokens", "24 tokens in all");
    CHECK_REFUSED(run({{one.sequence, 10}, {one.sequence, 10}}), "sequence 0 comes twice");
    CHECK_REFUSED(run({{one.sequence, 19}}), "hidden has 960 numbers, 19 tokens of 48 need 912");
    CHECK_REFUSED(run({{5, 20}}), "no sequence 5");
    CHECK_REFUSED(run({{one.sequence, 20, 25}}), "sequence 0 has 10 tokens and gets 20", "25");
    CHECK_REFUSED(one.stack.set_rope(rw::make_encoding(rw::Geometry{.head_dim = 32}, "default")), "head_dim 32", "16");
    // Beyond 126 / 0.5 tokens xPos leaves f32. Keys that are cached stay in the encoding that they have.
    trial far(random, config, encoded(config, "default"), 600);
    (void)far.ours(0, 550);
    far.stack.set_rope(encoded(config, "xpos:4"));
    CHECK_REFUSED(far.ours(550, 551), "xpos");
    CHECK(far.cache.tokens(far.sequence) == 550);
    far.stack.set_rope(encoded(config, "default"));
    test::reference_stack afresh(config, far.stack.weights());
    const test::numbers whole = afresh.forward(far.given(0, 551), test::plain_scheme(config, 1));
    CHECK(difference(far.ours(550, 551), test::numbers(whole.end() - config.hidden_size, whole.end())) < rounding);

    CHECK(rows == untouched);
    CHECK(one.cache.bytes_held() == held);
    CHECK(one.cache.tokens(one.sequence) == 10);
    CHECK(one.cache.tokens(second) == 0);
}

TEST_CASE("a stack is the same to the bit for any number of threads", "[attention][stack]") {
    SEEDED(random);
    attention::llama_config config = shape(2);
    config.hidden_size = 256, config.head_dim = 64, config.heads = 4, config.vocabulary = 300;
    const auto weights = attention::synthetic_weights(config, rw::element_type::bf16, 3);
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 2, 3}) {
        attention::llama model(config, weights, encoded(config, "llama3:8,original_length=64"),
                               rw::runtime::attention_kernels(), threads);
        attention::kv_cache cache(config, {rw::cache_type::i8, 16});
        const int sequence = cache.add_sequence();
        std::vector<std::int32_t> prompt;
        for (std::int32_t i = 0; i < 150; ++i) prompt.push_back(i * 7 % 300);
        std::vector<float> hidden(prompt.size() * 256), logits(300);
        model.embed(prompt, hidden);
        const attention::segment one{sequence, 150};
        model.layers().forward({&one, 1}, hidden, cache);
        model.logits(std::span(hidden).last(256), logits);
        hidden.insert(hidden.end(), logits.begin(), logits.end());
        results.push_back(hidden);
    }
    CHECK(results[0] == results[1]);
    CHECK(results[0] == results[2]);
    CHECK(std::all_of(results[0].begin(), results[0].end(), [](float x) { return std::isfinite(x); }));
    attention::llama model(config, weights, encoded(config, "default"), rw::runtime::attention_kernels());
    std::vector<float> row(256);
    const std::int32_t wrong = 300;
    CHECK_REFUSED(model.embed({&wrong, 1}, row), "token id 300", "300 of the vocabulary");
}

TEST_CASE("made-up weights are the same for a seed, and those that do not fit are named", "[attention][weights]") {
    const attention::llama_config config = shape(2);
    const auto a = attention::synthetic_weights(config, rw::element_type::f32, 1);
    const auto b = attention::synthetic_weights(config, rw::element_type::f32, 1);
    const auto c = attention::synthetic_weights(config, rw::element_type::f32, 2);
    const auto first = [](const attention::llama_weights& w) {
        const auto* const data = static_cast<const float*>(w.layers[1].down.data);
        return std::vector<float>(data, data + w.layers[1].down.rows * w.layers[1].down.columns);
    };
    CHECK(first(a) == first(b));
    CHECK(first(a) != first(c));
    attention::llama_weights wrong = a;
    wrong.layers[1].up.rows = 41;
    CHECK_REFUSED(attention::check_weights(config, wrong), "layer 1: mlp.up_proj is [41, 48], expected [40, 48]");
    wrong = a;
    wrong.layers.pop_back();
    CHECK_REFUSED(attention::check_weights(config, wrong), "there are 1 layers, expected 2");
}
