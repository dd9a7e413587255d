// Cases for the stacks of the CPU and of a device. Include after a stack_kind.

#include "llama/trial.hpp"

namespace {

namespace rw = ropewalk;
namespace llama = ropewalk::llama;

using test::difference, test::encoded, test::joined, test::stack_rounding, test::tail;
using trial = test::stack_trial<stack_kind>;

llama::model_config shape(std::int64_t layers) {
    return {.hidden_size = 48,
            .layers = layers,
            .heads = 6,
            .kv_heads = 2,
            .head_dim = 16,
            .intermediate_size = 40,
            .base = 500.0};
}

/// Compares with float64 all tokens at once, in chunks, and token by token after a prompt.
void check_stack(test::random& random, const llama::model_config& config, const std::string& policy,
                 const test::reference_policy& exact_policy) {
    constexpr std::int64_t tokens = 37;
    for (const auto& ends : {std::vector<std::int64_t>{37}, {20, 33, 37}, {33, 34, 35, 36, 37}}) {
        trial one(random, config, encoded(config, policy), tokens);
        std::int64_t start = 0;
        for (const std::int64_t end : ends) {
            INFO(policy << ", tokens " << start << " to " << end);
            CHECK(difference(one.ours(start, end), one.theirs(start, end, exact_policy)) < stack_rounding);
            start = end;
        }
    }
}

}  // namespace

TEST_CASE("the stack agrees with float64 in both layouts, with and without an MLP", "[llama][stack]") {
    SEEDED(random);
    for (const auto layout : {rw::layout_kind::half_split, rw::layout_kind::interleaved}) {
        for (const std::int64_t inner : {0, 40}) {
            llama::model_config config = shape(3);
            config.layout = layout, config.intermediate_size = inner;
            check_stack(random, config, "default", test::linear_policy(config, 1));
            check_stack(random, config, "linear:8", test::linear_policy(config, 8));
        }
    }
}

TEST_CASE("the stack agrees with float64 for xPos while the cache grows", "[llama][stack]") {
    SEEDED(random);
    const llama::model_config config = shape(3);
    test::reference_policy exact_policy = test::linear_policy(config, 1);
    // arXiv 2212.10554, §3.2. With scale_base 16, 37 tokens are far apart. The centre cancels.
    exact_policy.magnitude = [&](std::int64_t index, std::int64_t pair) {
        const double zeta = (2.0 * static_cast<double>(pair) / static_cast<double>(config.head_dim) + 0.4) / 1.4;
        return std::pow(zeta, static_cast<double>(index) / 16);
    };
    check_stack(random, config, "xpos:16", exact_policy);
    check_stack(random, config, "xpos:16,length=64", exact_policy);
}

TEST_CASE("the stack agrees with float64 for randomized positions", "[llama][stack]") {
    SEEDED(random);
    const llama::model_config config = shape(3);
    for (const std::string policy : {"randomized:128,seed=3", "randomized:64,seed=3,draw=5"}) {
        const rw::Encoding encoding = encoded(config, policy);
        auto drawn = std::make_shared<std::vector<rw::fixed_position>>(static_cast<std::size_t>(encoding.drawn_tokens));
        encoding.draw_positions(0, *drawn);
        const test::reference_policy plain = test::linear_policy(config, 1);
        test::reference_policy exact_policy;
        exact_policy.angle = [=](std::int64_t index, std::int64_t pair) {
            return std::ldexp(static_cast<double>((*drawn)[static_cast<std::size_t>(index)].value), -32) *
                   plain.angle(1, pair);
        };
        check_stack(random, config, policy, exact_policy);
    }
}

TEST_CASE("a change of the policy re-rotates cached keys", "[llama][stack]") {
    SEEDED(random);
    constexpr std::int64_t before = 21, after = 34;
    for (const auto& [type, bound] :
         {std::pair(rw::cache_type::f32, stack_rounding), std::pair(rw::cache_type::f16, 3e-3)}) {
        const llama::model_config config = shape(1);
        trial changed(random, config, encoded(config, "linear:4"), after, {type, 8});
        (void)changed.ours(0, before);
        changed.stack.set_rope(encoded(config, "linear:8"));
        const std::vector<float> ours = changed.ours(before, after);

        changed.stack.set_rope(encoded(config, "linear:8"));
        changed.cache.truncate(changed.sequence, 0);
        CHECK(difference(ours, tail(changed.ours(0, after), std::ssize(ours))) < bound);
    }
    // Keys of deeper layers come from hidden states of the old policy, and are re-rotated too.
    const llama::model_config config = shape(3);
    trial deep(random, config, encoded(config, "linear:4"), after);
    (void)deep.ours(0, before), (void)deep.theirs(0, before, test::linear_policy(config, 4));
    deep.stack.set_rope(encoded(config, "linear:8"));
    for (std::int64_t token = before; token < after; ++token) {
        const auto theirs = deep.theirs(token, token + 1, test::linear_policy(config, 8));
        CHECK(difference(deep.ours(token, token + 1), theirs) < stack_rounding);
    }
}

TEST_CASE("a policy that depends on the length changes with every token", "[llama][stack]") {
    SEEDED(random);
    const llama::model_config config = shape(1);
    constexpr std::int64_t tokens = 30;
    const std::string policy = "dynamic:4,original_length=12";
    trial growing(random, config, encoded(config, policy), tokens);
    (void)growing.ours(0, 9);
    for (std::int64_t token = 9; token < tokens; ++token) {
        // The base for this length, as in Transformers.
        const double beyond = static_cast<double>(std::max<std::int64_t>(token + 1, 12));
        const double alpha = 4 * beyond / 12 - 3, width = static_cast<double>(config.head_dim);
        const double base = config.base * std::pow(alpha, width / (width - 2));
        test::reference_policy exact_policy;
        exact_policy.angle = [=](std::int64_t index, std::int64_t pair) {
            return static_cast<double>(index) * std::pow(base, -2.0 * static_cast<double>(pair) / width);
        };
        const auto exact = growing.exact(token, token + 1, exact_policy);
        CHECK(difference(growing.ours(token, token + 1), exact) < stack_rounding);
    }
}

TEST_CASE("sequences of a batch are independent", "[llama][stack]") {
    SEEDED(random);
    const llama::model_config config = shape(2);
    trial one(random, config, encoded(config, "yarn:4,original_length=16"), 40);
    const int second = one.cache.add_sequence();
    const std::vector<float> alone = one.afresh(0, 20);

    const llama::segment steps[][2] = {{{one.sequence, 13}, {second, 4}}, {{second, 9}, {one.sequence, 7}}};
    std::vector<float> first = joined(one.part(0, 13), one.part(20, 24)),
                       next = joined(one.part(24, 33), one.part(13, 20));
    one.stack.forward(steps[0], first, one.cache);
    one.stack.forward(steps[1], next, one.cache);
    first.resize(static_cast<std::size_t>(13 * config.hidden_size));
    CHECK(difference(joined(first, tail(next, 7 * config.hidden_size)), alone) < stack_rounding);
    CHECK(one.cache.tokens(second) == 13);
}

TEST_CASE("a refused call changes nothing", "[llama][stack][errors]") {
    SEEDED(random);
    const llama::model_config config = shape(2);
    trial one(random, config, encoded(config, "default"), 40, {rw::cache_type::f32, 8, 24});
    (void)one.ours(0, 10);
    const std::int64_t held = one.cache.bytes_held();
    const int second = one.cache.add_sequence();
    std::vector<float> rows(static_cast<std::size_t>(20 * config.hidden_size), 1.0F);
    const std::vector<float> untouched = rows;
    const auto run = [&](std::vector<llama::segment> batch) { one.stack.forward(batch, rows, one.cache); };
    CHECK_REFUSED(run({{one.sequence, 8}, {second, 12}}), "needs 12 tokens", "24 tokens in all");
    CHECK_REFUSED(run({{one.sequence, 10}, {one.sequence, 10}}), "sequence 0 comes twice");
    CHECK_REFUSED(run({{one.sequence, 19}}), "hidden has 960 numbers, 19 tokens of 48 need 912");
    CHECK_REFUSED(run({{5, 20}}), "no sequence 5");
    CHECK_REFUSED(run({{one.sequence, 20, 25}}), "sequence 0 has 10 tokens and cannot add 20", "25");
    // Errors of overflows have the true values.
    constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
    CHECK_REFUSED(run({{second, largest}}), "960 numbers, 9223372036854775807 tokens of 48 need 4.427218577690292");
    CHECK_REFUSED(run({{one.sequence, largest}}), "sequence 0 has 10 tokens; 9223372036854775807 more", "64 bits");
    CHECK_REFUSED(run({{one.sequence, 8}, {second, largest}}), "9223372036854775807 more, after 8 others");
    CHECK_REFUSED(run({{one.sequence, 20, -largest - 1}}), "sequence 0 has 10 tokens and cannot add 20",
                  "-9223372036854775808");
    CHECK_REFUSED(run({{one.sequence, -1}}), "sequence 0 has 10 tokens and cannot add -1");
    CHECK_REFUSED(one.stack.set_rope(rw::make_encoding(rw::Geometry{.head_dim = 32}, "default")), "head_dim 32", "16");
    // xPos overflows f32 at 126 / 0.5 tokens. Cached keys keep their encoding.
    trial far(random, config, encoded(config, "default"), 600);
    (void)far.ours(0, 550);
    far.stack.set_rope(encoded(config, "xpos:4"));
    CHECK_REFUSED(far.ours(550, 551), "xpos");
    CHECK(far.cache.tokens(far.sequence) == 550);
    far.stack.set_rope(encoded(config, "default"));
    CHECK(difference(far.ours(550, 551), far.exact(550, 551, test::linear_policy(config, 1))) < stack_rounding);

    CHECK(rows == untouched);
    CHECK(one.cache.bytes_held() == held);
    CHECK(one.cache.tokens(one.sequence) == 10);
    CHECK(one.cache.tokens(second) == 0);
}

TEST_CASE("keys that were re-rotated before a failure keep the new encoding", "[llama][stack][errors]") {
    SEEDED(random);
    const llama::model_config config = shape(1);
    trial one(random, config, encoded(config, "linear:4"), 310);
    (void)one.ours(0, 10);
    const int far = one.cache.add_sequence();
    (void)one.run(one.cache, far, one.part(10, 310));
    // At 0.45 bits per token, xPos re-rotates the first sequence and refuses the second.
    one.stack.set_rope(encoded(config, "xpos:4"));
    std::vector<float> rows = one.part(10, 11);
    const llama::segment both[] = {{one.sequence, 1}, {far, 0}};
    CHECK_REFUSED(one.stack.forward(both, rows, one.cache), "xpos");
    CHECK((rows == one.part(10, 11)));
    CHECK((one.cache.tokens(one.sequence) == 10 && one.cache.tokens(far) == 300));
    CHECK_REFUSED(one.afresh(0, 300), "xpos", "cannot hold position 299 in f32");
    one.stack.set_rope(encoded(config, "linear:8"));
    CHECK(difference(one.ours(10, 20), one.afresh(10, 20)) < stack_rounding);
    // The keys of the second are unchanged.
    auto alone = stack_kind::make_cache(config, one.cache.options());
    const auto all = one.run(alone, alone.add_sequence(), joined(one.part(10, 310), one.part(0, 1)));
    CHECK(difference(one.run(one.cache, far, one.part(0, 1)), tail(all, config.hidden_size)) < stack_rounding);
}
