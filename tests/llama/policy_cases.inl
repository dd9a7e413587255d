// Cases of every policy in a stack, and of its cache: see stack_cases.inl.

#include "llama/trial.hpp"
#include "support/registry.hpp"

namespace {

namespace rw = ropewalk;
namespace llama = ropewalk::llama;

using test::difference, test::joined, test::stack_rounding, test::tail;
using trial = test::stack_trial<stack_kind>;

llama::model_config plain_shape(std::int64_t layers, std::int64_t head_dim = 16) {
    return {.hidden_size = 48, .layers = layers, .heads = 4, .kv_heads = 2, .head_dim = head_dim, .base = 500.0};
}

/// Exact values of a policy at the first `tokens` indices, from its own functions.
template <class P>
test::reference_policy reference_policy_of(const test::definition<P>& exact, std::int64_t tokens) {
    const auto places = exact.places({1, tokens, 1, exact.geometry.head_dim}, 0);
    test::reference_policy exact_policy;
    exact_policy.angle = [=](std::int64_t index, std::int64_t pair) {
        const oracle::unit u = oracle::cos_sin(exact.turns(pair), places[static_cast<std::size_t>(index)]);
        return std::atan2(u.sin, u.cos);
    };
    exact_policy.magnitude = [=](std::int64_t index, std::int64_t pair) {
        return exact.magnitude(pair, places[static_cast<std::size_t>(index)]);
    };
    exact_policy.score = exact.factor() * exact.factor();
    if constexpr (rw::SoftmaxFactorPolicy<P>) exact_policy.score *= exact.policy.softmax_factor(exact.geometry);
    return exact_policy;
}

}  // namespace

TEST_CASE("the stack agrees with float64 for every registered policy", "[llama][policies]") {
    SEEDED(random);
    constexpr std::int64_t tokens = 26, prompt = 19;
    llama::model_config config = plain_shape(2, 64);
    test::for_each_policy([&]<class P>() {
        for (const rw::layout_kind layout : {rw::layout_kind::half_split, rw::layout_kind::interleaved}) {
            config.layout = layout;
            rw::Geometry geometry = config.geometry();
            geometry.sequence_length = tokens;
            const test::definition<P> exact{geometry, test::example_for<P>(geometry)};
            const rw::Encoding encoding = rw::make_encoding(geometry, exact.policy);
            INFO(encoding.expression << ' ' << rw::to_string(layout));
            trial one(random, config, encoding, tokens);
            const test::numbers theirs = one.exact(0, tokens, reference_policy_of(exact, tokens));
            CHECK(difference(one.afresh(0, tokens), theirs) < stack_rounding);
            std::vector<float> ours = one.ours(0, prompt);
            for (std::int64_t token = prompt; token < tokens; ++token) ours = joined(ours, one.ours(token, token + 1));
            CHECK(difference(ours, theirs) < stack_rounding);
        }
    });
}

namespace {

/// A policy that is not registered.
struct Halved {
    double factor = 2;

    static constexpr std::string_view name = "halved";
    static constexpr auto parameters = std::tuple{rw::parameter<Halved, double>{"factor", &Halved::factor}};
    constexpr void validate(const rw::Geometry& /*geometry*/) const {}
    constexpr rw::real operator()(const rw::real& theta, std::int64_t /*pair*/, const rw::Geometry& /*g*/) const {
        return theta / rw::real(factor);
    }
};

}  // namespace

TEST_CASE("the stack takes a policy of the user", "[llama][policies]") {
    SEEDED(random);
    const llama::model_config config = plain_shape(2);
    trial one(random, config, rw::make_encoding(config.geometry(), Halved{}), 20);
    CHECK(difference(one.ours(0, 20), one.exact(0, 20, test::linear_policy(config, 2))) < stack_rounding);
}

TEST_CASE("LongRoPE changes its factors after the original length", "[llama][policies]") {
    SEEDED(random);
    const llama::model_config config = plain_shape(1);
    rw::LongRope policy = rw::LongRope::example(config.geometry());
    policy.original_length = 12;
    trial one(random, config, rw::make_encoding(config.geometry(), policy), 20);
    (void)one.ours(0, 10);
    for (std::int64_t token = 10; token < 20; ++token)
        CHECK(difference(one.ours(token, token + 1), one.afresh(token, token + 1)) < stack_rounding);
}

TEST_CASE("each sequence of a batch has the encoding of its own length", "[llama][policies]") {
    SEEDED(random);
    const llama::model_config config = plain_shape(1);
    trial one(random, config, rw::make_encoding(config.geometry(), "dynamic:4,original_length=8"), 60);
    const std::int64_t lengths[] = {23, 6, 31};
    std::vector<llama::segment> batch;
    for (const std::int64_t length : lengths) batch.push_back({one.cache.add_sequence(), length - 2});
    // Rows [length − from, length − to) of every sequence; from 0 means all.
    const auto rows_of_all = [&](std::int64_t from, std::int64_t to) {
        std::vector<float> rows;
        std::int64_t start = 0;
        for (const std::int64_t length : lengths) {
            rows = joined(rows, one.part(start + (from == 0 ? 0 : length - from), start + length - to));
            start += length;
        }
        return rows;
    };
    std::vector<float> hidden = rows_of_all(0, 2);
    one.stack.forward(batch, hidden, one.cache);
    for (llama::segment& each : batch) each.tokens = 1;
    batch.push_back({one.sequence, 0});  // a segment may be empty
    for (const std::int64_t left : {2, 1}) {
        hidden = rows_of_all(left, left - 1);
        one.stack.forward(batch, hidden, one.cache);
    }
    std::int64_t start = 0;
    for (std::size_t i = 0; i < 3; ++i) {
        auto alone = stack_kind::make_cache(config, one.cache.options());
        const auto rows = one.run(alone, alone.add_sequence(), one.part(start, start + lengths[i]));
        const auto last = hidden.begin() + static_cast<std::ptrdiff_t>(i) * config.hidden_size;
        CHECK(difference({last, last + config.hidden_size}, tail(rows, config.hidden_size)) < stack_rounding);
        CHECK(one.cache.tokens(batch[i].sequence) == lengths[i]);
        start += lengths[i];
    }
    CHECK(one.cache.tokens(one.sequence) == 0);
}

TEST_CASE("drawn positions change with the length", "[llama][policies]") {
    SEEDED(random);
    const llama::model_config config = plain_shape(1);
    const auto drawn = [&](std::int64_t length) {
        rw::Geometry geometry = config.geometry();
        geometry.sequence_length = length;
        return rw::make_encoding(geometry, "randomized_sorted:512,seed=2");
    };
    trial one(random, config, drawn(64), 20);
    (void)one.ours(0, 12);
    one.stack.set_rope(drawn(128));
    CHECK(difference(one.ours(12, 20), one.afresh(12, 20)) < stack_rounding);
}

TEST_CASE("cached keys cannot move to another rotary part", "[llama][policies][errors]") {
    SEEDED(random);
    const llama::model_config config = plain_shape(1);
    const auto part = [&](std::int64_t offset) {
        rw::Geometry geometry = config.geometry();
        geometry.rotary_dim = 8, geometry.rotary_offset = offset;
        return rw::make_encoding(geometry, "default");
    };
    trial one(random, config, part(0), 20);
    (void)one.ours(0, 12);
    one.stack.set_rope(part(8));
    CHECK_REFUSED(one.ours(12, 13), "both encodings must rotate the same elements", "at 0 and 8");
    CHECK(one.cache.tokens(one.sequence) == 12);
}

TEST_CASE("narrow caches stay within the rounding of their types", "[llama][policies]") {
    SEEDED(random);
    const llama::model_config config = plain_shape(3);
    for (const auto& [type, bound] : {std::pair(rw::cache_type::f16, 1e-3), std::pair(rw::cache_type::bf16, 8e-3),
                                      std::pair(rw::cache_type::i8, 1.5e-2)}) {
        trial one(random, config, rw::make_encoding(config.geometry(), "linear:4"), 50, {type, 16});
        (void)one.ours(0, 49);
        const double error = difference(one.ours(49, 50), one.exact(49, 50, test::linear_policy(config, 4)));
        INFO(rw::to_string(type) << ": " << error);
        CHECK(error < bound);
        CHECK(error > 1e-6);
    }
}

TEST_CASE("xPos is refused beyond the range of the cache", "[llama][policies][errors]") {
    SEEDED(random);
    const llama::model_config config = plain_shape(1);
    for (const std::string policy : {"xpos:16", "xpos:16,length=100|randomized:400,seed=1"}) {
        const rw::Encoding encoding = rw::make_encoding(config.geometry(), policy);
        trial wide(random, config, encoding, 300), half = trial(random, config, encoding, 300, {rw::cache_type::f16});
        half.rows = wide.rows;
        const auto far = wide.ours(0, 300);
        CHECK(std::all_of(far.begin(), far.end(), [](float x) { return std::isfinite(x); }));

        const std::int64_t fits = policy == "xpos:16" ? encoding.reach(8.0) + 1 : 50;
        INFO(policy << ", " << fits << " tokens fit");
        const std::vector<float> near(far.begin(), far.begin() + fits * config.hidden_size);
        CHECK(difference(half.ours(0, fits), near) < 1e-3);
        std::vector<float> hidden = half.part(fits, 300);
        const std::vector<float> before = hidden;
        const std::int64_t held = half.cache.bytes_held();
        const llama::segment more{half.sequence, 300 - fits};
        CHECK_REFUSED(half.stack.forward({&more, 1}, hidden, half.cache), "xpos:16", "f16 cache", "holds 70 around");
        CHECK((hidden == before));
        CHECK(half.cache.bytes_held() == held);
        CHECK(half.cache.tokens(half.sequence) == fits);
    }
}

TEST_CASE("the bytes of a cache are proportional to its tokens", "[llama][policies]") {
    SEEDED(random);
    const llama::model_config config = plain_shape(2);
    trial one(random, config, rw::make_encoding(config.geometry(), "default"), 64, {rw::cache_type::f16, 16});
    (void)one.ours(0, 64);
    const std::int64_t held = one.cache.bytes_held();
    CHECK(held == 64 * one.cache.bytes_per_token());
    for (int more = 0; more < 3; ++more) (void)one.ours(0, 64);
    CHECK(one.cache.tokens(one.sequence) == 256);
    CHECK(one.cache.bytes_held() == 4 * held);
}
