// Cases of greedy decoding that fails, for the decoders of the CPU and of a device. Include after a stack_kind.

#include <limits>
#include <span>
#include <stdexcept>
#include <vector>

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
    stack_kind::decoder model;
    stack_kind::cache cache;
    int sequence;
    int chunks = 0;  ///< calls of progress()

    explicit speaker(std::int64_t most_tokens = 0, const char* policy = "default")
        : model(stack_kind::make_decoder(config, llama::synthetic_weights(config, rw::element_type::f32, 3),
                                         test::encoded(config, policy))),
          cache(stack_kind::make_cache(config, {rw::cache_type::f32, 1, most_tokens})),
          sequence(cache.add_sequence()) {}

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

}  // namespace

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
