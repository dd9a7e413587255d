// Cases of losses, and of greedy decoding that fails, for the decoders of the CPU and of a device. Include after a
// stack_kind.

#include <cmath>
#include <limits>
#include <span>
#include <stdexcept>
#include <vector>

#include "llama/reference_model.hpp"
#include "llama/trial.hpp"

namespace {

namespace rw = ropewalk;
namespace llama = ropewalk::llama;

/// A decoder with a vocabulary of 37, and a cache of at most `most_tokens` tokens with one sequence.
struct speaker {
    llama::model_config config{.hidden_size = 32,
                               .layers = 2,
                               .heads = 2,
                               .kv_heads = 1,
                               .head_dim = 16,
                               .intermediate_size = 24,
                               .vocabulary = 37};
    llama::model_weights weights;
    stack_kind::decoder model;
    stack_kind::cache cache;
    int sequence;
    int chunks = 0;  ///< calls of progress()

    using choice = const llama::matrix& (*)(const llama::model_weights&);

    explicit speaker(std::int64_t most_tokens = 0, const char* policy = "default")
        : speaker(nullptr, 0, 0, most_tokens, policy) {}
    /// Element `index` of the chosen weights has another value.
    speaker(choice choose, float value, std::int64_t index = 3, std::int64_t most_tokens = 0,
            const char* policy = "default")
        : weights(weights_with(config, choose, value, index)),
          model(stack_kind::make_decoder(config, weights, test::encoded(config, policy))),
          cache(stack_kind::make_cache(config, {rw::cache_type::f32, 1, most_tokens})),
          sequence(cache.add_sequence()) {}

    static llama::model_weights weights_with(const llama::model_config& config, choice choose, float value,
                                             std::int64_t index) {
        llama::model_weights weights = llama::synthetic_weights(config, rw::element_type::f32, 3);
        if (choose != nullptr) static_cast<float*>(const_cast<void*>(choose(weights).data))[index] = value;
        return weights;
    }
    std::int32_t read(std::span<const std::int32_t> ids, std::int64_t chunk) {
        return model.prefill(ids, cache, sequence, chunk, [this](std::int64_t /*tokens*/) { ++chunks; });
    }
    std::vector<std::int32_t> say(std::span<const std::int32_t> ids, std::int64_t count) {
        return model.generate(ids, count, cache, sequence, 3);
    }
    /// Checks tokens and pages. A page holds one token.
    void check_holds(std::int64_t tokens) const {
        CHECK(cache.tokens(sequence) == tokens);
        CHECK(cache.bytes_held() == tokens * cache.page_bytes());
    }
};

const std::vector<std::int32_t> prompt{1, 5, 9, 2, 7, 30, 36, 0, 4};

/// Cross-entropies in float64 of next[i] after ids[0 … i].
test::numbers exact_losses(const speaker& one, std::span<const std::int32_t> ids, std::span<const std::int32_t> next,
                           double factor) {
    test::reference_model reference(one.config, one.weights);
    const test::numbers states = reference.forward({ids.begin(), ids.end()}, test::linear_policy(one.config, factor));
    test::numbers losses;
    for (std::size_t i = 0; i < next.size(); ++i) {
        const auto end = states.begin() + static_cast<std::ptrdiff_t>(i + 1) * one.config.hidden_size;
        const test::numbers logits = reference.logits({states.begin(), end});
        double sum = 0;
        for (const double logit : logits) sum += std::exp(logit);
        losses.push_back(std::log(sum) - logits[static_cast<std::size_t>(next[i])]);
    }
    return losses;
}

}  // namespace

TEST_CASE("losses equal those of float64 in chunks of any size and after other tokens", "[llama][greedy]") {
    const std::span<const std::int32_t> ids(prompt), next = ids.subspan(1);
    for (const std::int64_t chunk : {1, 4, 9, 100}) {
        for (const std::size_t past : {0, 1, 5}) {
            speaker one(0, "linear:4");
            if (past > 0) (void)one.read(ids.first(past), 2);
            const auto ours = one.model.losses(ids.subspan(past), next.subspan(past), one.cache, one.sequence, chunk);
            const auto exact = exact_losses(one, ids, next, 4);
            REQUIRE(ours.size() == next.size() - past);
            for (std::size_t i = 0; i < ours.size(); ++i) CHECK(std::abs(ours[i] - exact[past + i]) < 1e-5);
            one.check_holds(9);
        }
    }
    // Tokens without a next one are added, and generation continues after them.
    speaker one, other;
    CHECK(one.model.losses(ids, next.first(2), one.cache, one.sequence, 4).size() == 2);
    CHECK(one.model.losses(ids, {}, other.cache, other.sequence).empty());
    one.check_holds(9), other.check_holds(9);
    CHECK(one.model.decode(3, one.cache, one.sequence) == one.model.decode(3, other.cache, other.sequence));
}

TEST_CASE("losses refuse wrong tokens and logits that are not finite", "[llama][greedy][errors]") {
    speaker one(9);
    const std::span<const std::int32_t> ids(prompt);
    const std::int32_t wrong[] = {1, 37};
    CHECK_REFUSED(one.model.losses(ids.first(2), ids.first(3), one.cache, one.sequence), "3 next tokens for 2 tokens");
    CHECK_REFUSED(one.model.losses(ids.first(2), wrong, one.cache, one.sequence), "token id 37",
                  "37 of the vocabulary");
    CHECK_REFUSED(one.model.losses(wrong, ids.first(1), one.cache, one.sequence), "token id 37",
                  "37 of the vocabulary");
    CHECK_REFUSED(one.model.losses({}, {}, one.cache, one.sequence), "prompt must not be empty");
    one.check_holds(0);
    const auto embedding = [](const llama::model_weights& w) -> const llama::matrix& { return w.embedding; };
    speaker broken(embedding, std::numeric_limits<float>::infinity(), 30 * 32);  // of the id at position 5
    (void)broken.read(ids.first(2), 2);
    CHECK_REFUSED(broken.model.losses(ids.subspan(2), ids.subspan(3), broken.cache, broken.sequence, 3),
                  "the hidden state of the token at position 5 is not finite before layer 0");
    broken.check_holds(2);
}

TEST_CASE("weights that are not finite are reported with layer and position", "[llama][greedy][errors]") {
    const float infinite = std::numeric_limits<float>::infinity();
    struct fault {
        speaker::choice weight;
        const char* on_cpu;
        const char* on_device;
    };
    const fault faults[] = {
        {[](const llama::model_weights& w) -> const llama::matrix& { return w.layers[0].v; },
         "after the attention of layer 0", "after layer 0"},
        {[](const llama::model_weights& w) -> const llama::matrix& { return w.layers[0].attention_norm; },
         "after the attention of layer 0", "after layer 0"},
        {[](const llama::model_weights& w) -> const llama::matrix& { return w.layers[0].down; }, "after layer 0",
         "after layer 0"},
        {[](const llama::model_weights& w) -> const llama::matrix& { return w.layers[1].o; },
         "after the attention of layer 1", "after layer 1"},
        {[](const llama::model_weights& w) -> const llama::matrix& { return w.layers[1].down; }, "after layer 1",
         "after layer 1"},
        {[](const llama::model_weights& w) -> const llama::matrix& { return w.final_norm; },
         "finite after the last layer", "finite after the last layer"},
        {[](const llama::model_weights& w) -> const llama::matrix& { return w.head; }, "for token id 0",
         "for token id 0"},
    };
    for (const fault& f : faults) {
        for (const float value : {infinite, -infinite, std::numeric_limits<float>::quiet_NaN()}) {
            speaker one(f.weight, value);
            const char* const place = stack_kind::checks_every_layer ? f.on_cpu : f.on_device;
            const char* const first = std::string_view(place).starts_with("after") ? "position 0 " : "position 8 ";
            CHECK_REFUSED(one.read(prompt, 9), place, first, "not finite");
            CHECK_REFUSED(one.say(prompt, 2), place, "not finite");
            one.check_holds(0);
            CHECK_REFUSED(one.model.losses(prompt, std::span(prompt).subspan(1), one.cache, one.sequence, 4), place,
                          "position 0 ");
            one.check_holds(0);
        }
    }
    if (!stack_kind::checks_every_layer) return;
    // Finite, but the squares overflow.
    speaker large(faults[2].weight, 1e38F), larger(faults[4].weight, 1e38F);
    CHECK_REFUSED(large.say(prompt, 2), "after layer 0", "too large to be squared");
    CHECK_REFUSED(larger.say(prompt, 2), "after layer 1", "too large to be squared");
}

TEST_CASE("a failed prompt leaves its sequence unchanged", "[llama][greedy][errors]") {
    for (const std::int64_t past : {0, 2}) {
        speaker one(8 + past);
        const auto begin = std::span(prompt).first(static_cast<std::size_t>(past));
        if (past > 0) (void)one.read(begin, 1);
        one.chunks = 0;
        for (const std::int32_t id : {37, -1}) {
            const std::int32_t ids[] = {1, 2, id};
            CHECK_REFUSED(one.read(ids, 2), "token id", "37 of the vocabulary");
            CHECK_REFUSED(one.say(ids, 1), "token id", "37 of the vocabulary");
        }
        CHECK_REFUSED(one.read(prompt, 3), past == 0 ? "needs 9 tokens" : "needs 11 tokens", "tokens in all");
        CHECK(one.chunks == 0);
        one.check_holds(past);
        // An exception in the middle.
        const auto stop = [](std::int64_t tokens) {
            if (tokens == 4) throw std::runtime_error("enough");
        };
        const auto some = std::span(prompt).first(8);
        CHECK_THROWS_AS(one.model.prefill(some, one.cache, one.sequence, 2, stop), std::runtime_error);
        one.check_holds(past);
        speaker afresh;
        if (past > 0) (void)afresh.read(begin, 1);
        CHECK(one.read(some, 3) == afresh.read(some, 3));
        CHECK(one.chunks == 3);
        one.check_holds(8 + past);
    }
    // The encoding draws 8 positions.
    speaker drawn(0, "randomized:8,seed=3");
    CHECK_REFUSED(drawn.read(prompt, 3), "randomized");
    CHECK(drawn.chunks == 2);
    drawn.check_holds(0);
}

TEST_CASE("generation adds all tokens or none", "[llama][greedy][errors]") {
    constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
    speaker one(8), unlimited;
    const auto three = std::span(prompt).first(3);
    CHECK_REFUSED(one.say(three, 7), "sequence 0 needs 9 tokens", "8 tokens in all");
    CHECK_REFUSED(one.say(three, largest), "9223372036854775807 tokens after the 3", "64 bits");
    CHECK_REFUSED(unlimited.say(three, largest - 3), "needs 9223372036854775806 tokens", "64 bits");
    CHECK_REFUSED(one.say({}, 2), "prompt must not be empty");
    one.check_holds(0), unlimited.check_holds(0);
    const std::vector<std::int32_t> said = one.say(three, 6);  // the cache lacks the last one
    one.check_holds(8);
    CHECK(said.size() == 6);
    CHECK(said == unlimited.say(three, 6));
    CHECK_REFUSED(one.say(three, 1), "needs 11 tokens");
    CHECK_REFUSED(one.model.decode(1, one.cache, one.sequence), "needs 9 tokens");
    one.check_holds(8);
    speaker drawn(0, "randomized:8,seed=3");
    CHECK_REFUSED(drawn.say(three, 10), "randomized");
    drawn.check_holds(0);
}
