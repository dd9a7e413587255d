// Cases of a device alone: recorded steps, memory that runs out, types of weights, and whole decoders.
#include <algorithm>

#include "device_kind.hpp"
#include "llama/reference_model.hpp"
#include "llama/trial.hpp"

namespace rw = ropewalk;
namespace llama = ropewalk::llama;

namespace {

using test::difference, test::encoded, test::stack_rounding;
using device_type = test::simulated_device;

llama::model_config shape(std::int64_t layers) {
    return {.hidden_size = 48,
            .layers = layers,
            .heads = 4,
            .kv_heads = 2,
            .head_dim = 16,
            .intermediate_size = 40,
            .vocabulary = 61,
            .base = 500.0};
}

/// A decoder and the same decoder in float64.
struct decoder {
    llama::model_config config;
    llama::model_weights weights;
    device_type device;
    llama::device_model<device_type> model;
    test::reference_model reference;

    decoder(const llama::model_config& shape, rw::element_type type, const std::string& policy,
            const llama::device_options& options = stack_kind::small)
        : config(shape),
          weights(llama::synthetic_weights(config, type, 5)),
          model(device, config, weights, encoded(config, policy), options),
          reference(config, weights) {}

    /// Returns the exact logits that follow the last of some more tokens.
    test::numbers theirs(const std::vector<std::int32_t>& ids, const test::reference_policy& exact_policy) {
        return reference.logits(reference.forward(ids, exact_policy));
    }
};

std::vector<std::int32_t> prompt_of(std::int32_t tokens) {
    std::vector<std::int32_t> ids;
    for (std::int32_t i = 0; i < tokens; ++i) ids.push_back(i * 7 % 61);
    return ids;
}

}  // namespace

TEST_CASE("a decoder on a device generates what float64 does", "[llama_gpu][device]") {
    for (const bool tied : {false, true}) {
        llama::model_config config = shape(2);
        config.tied_embeddings = tied;
        decoder one(config, rw::element_type::f32, "linear:4");
        llama::device_cache<device_type> cache(one.device, config, {rw::cache_type::f32, 8});
        const int sequence = cache.add_sequence();
        const auto tokens = one.model.generate(prompt_of(21), 12, cache, sequence, 9);
        REQUIRE(tokens.size() == 12);
        test::numbers logits = one.theirs(prompt_of(21), test::linear_policy(config, 4));
        for (const std::int32_t token : tokens) {
            CHECK(token == std::max_element(logits.begin(), logits.end()) - logits.begin());
            logits = one.theirs({token}, test::linear_policy(config, 4));
        }
        CHECK(cache.tokens(sequence) == 32);
        CHECK(one.device.problem() == "");
    }
}

TEST_CASE("ragged batches of token ids with weights of every type", "[llama_gpu][device]") {
    for (const auto& [type, bound] :
         {std::pair(rw::element_type::f32, stack_rounding), std::pair(rw::element_type::f16, 3e-3),
          std::pair(rw::element_type::bf16, 3e-2)}) {
        INFO(rw::to_string(type));
        const llama::model_config config = shape(2);
        decoder one(config, type, "default");
        llama::device_cache<device_type> cache(one.device, config, {rw::cache_type::f16, 8});
        const int first = cache.add_sequence(), second = cache.add_sequence(), idle = cache.add_sequence();
        std::vector<std::int32_t> ids = prompt_of(19);
        std::vector<float> logits(3 * 61);
        const llama::segment prompts[] = {{second, 6}, {idle, 0}, {first, 13}};
        one.model.layers().predict(prompts, ids, logits, cache);
        const llama::segment steps[] = {{first, 1}, {second, 1}};
        const std::int32_t next[] = {40, 50};
        one.model.layers().predict(steps, next, std::span(logits).first(2 * 61), cache);
        const auto row = [&](std::ptrdiff_t i) {
            return std::vector<float>(logits.begin() + i * 61, logits.begin() + (i + 1) * 61);
        };
        std::vector<std::int32_t> whole(ids.begin() + 6, ids.end());
        whole.push_back(40);
        const double room = std::max(bound, 1e-3);  // the rounding of the cache
        CHECK(difference(row(0), one.theirs(whole, test::linear_policy(config, 1))) < room);
        one.reference.restart();
        whole.assign(ids.begin(), ids.begin() + 6);
        whole.push_back(50);
        CHECK(difference(row(1), one.theirs(whole, test::linear_policy(config, 1))) < room);
        CHECK(one.device.problem() == "");
    }
}

TEST_CASE("steps of single tokens are recorded once, and again after another change", "[llama_gpu][device]") {
    SEEDED(random);
    const llama::model_config config = shape(2);
    device_type device;
    const auto weights = llama::synthetic_weights(config, rw::element_type::f32, 7);
    llama::device_options plain = stack_kind::small;
    plain.records = false;
    llama::device_stack<device_type> ours(device, config, weights, encoded(config, "default"), stack_kind::small),
        other(device, config, weights, encoded(config, "default"), plain);
    llama::device_cache<device_type> cache(device, config, {rw::cache_type::f32, 4}),
        same(device, config, {rw::cache_type::f32, 4});
    const int sequences[] = {cache.add_sequence(), cache.add_sequence()};
    same.add_sequence(), same.add_sequence();
    const auto step = [&](std::vector<llama::segment> batch) {
        std::int64_t tokens = 0;
        for (const llama::segment& one : batch) tokens += one.tokens;
        std::vector<float> hidden(static_cast<std::size_t>(tokens * config.hidden_size));
        for (float& x : hidden) x = static_cast<float>(random.normal());
        std::vector<float> twin = hidden;
        ours.forward(batch, hidden, cache), other.forward(batch, twin, same);
        CHECK(hidden == twin);
    };
    const auto both = [&] { step({{sequences[0], 1}, {sequences[1], 1}}); };
    const auto change = [&](const std::string& policy) {
        ours.set_rope(encoded(config, policy)), other.set_rope(encoded(config, policy));
    };
    step({{sequences[0], 5}, {sequences[1], 11}});
    both(), both(), both(), both(), both();  // the second step moves the pool: 13 tokens have 4 pages
    CHECK((device.records == 1 && device.replays == 3));
    both(), both();  // 17 tokens have 5 pages, which need a wider table
    CHECK((device.records == 2 && device.replays == 4));
    change("linear:8");
    both(), both(), both();
    CHECK((device.records == 3 && device.replays == 6));
    step({{sequences[1], 1}});  // a different batch in between
    both();
    CHECK((device.records == 3 && device.replays == 7));
    change("dynamic:4,original_length=8");  // a new encoding for every step
    both(), both(), both();
    CHECK((device.records == 3 && device.replays == 7));
    change("randomized:256,seed=2");
    both(), both(), both();
    CHECK((device.records == 4 && device.replays == 9));
    CHECK(device.problem() == "");
}

TEST_CASE("a recorded step serves the cache that it was recorded with", "[llama_gpu][device]") {
    SEEDED(random);
    const llama::model_config config = shape(2);
    test::stack_trial<stack_kind> one(random, config, encoded(config, "default"), 20);
    const llama::cache_options fixed{rw::cache_type::f32, 8, 40};
    auto cache = stack_kind::make_cache(config, fixed), other = stack_kind::make_cache(config, fixed);
    const llama::segment prompt{cache.add_sequence(), 12}, step{other.add_sequence(), 1};
    const auto exact = one.theirs(0, 20, test::linear_policy(config, 1));
    for (auto* const each : {&cache, &other}) {
        std::vector<float> rows = one.part(0, 12);
        one.stack.forward({&prompt, 1}, rows, *each);
    }
    const int before = stack_kind::device().replays;
    for (std::int64_t token = 12; token < 20; ++token) {
        for (auto* const each : {&cache, &other}) {
            if (each == &other && token % 4 != 3) continue;  // rarely
            const std::int64_t at = each->tokens(step.sequence);
            std::vector<float> rows = one.part(at, at + 1);
            one.stack.forward({&step, 1}, rows, *each);
            const test::numbers theirs(exact.begin() + at * 48, exact.begin() + (at + 1) * 48);
            CHECK(difference(rows, theirs) < stack_rounding);
        }
    }
    CHECK(stack_kind::device().replays > before + 3);
    CHECK(stack_kind::device().problem() == "");
}

TEST_CASE("a device that runs out of memory leaves everything as it was", "[llama_gpu][device]") {
    SEEDED(random);
    const llama::model_config config = shape(2);
    test::stack_trial<stack_kind> one(random, config, encoded(config, "default"), 60);
    (void)one.ours(0, 10);
    const auto before = one.cache.bytes_held();
    std::vector<float> hidden = one.part(10, 60);
    const std::vector<float> untouched = hidden;
    const llama::segment more{one.sequence, 50};
    // Every allocation fails once: the pool of the cache, then the buffers of the stack for more tokens.
    int refused = 0;
    for (int left = 0; refused == left; ++left) {
        stack_kind::device().allocations_left = left;
        const std::string problem = test::message_of([&] { one.stack.forward({&more, 1}, hidden, one.cache); });
        stack_kind::device().allocations_left = -1;
        if (problem.empty()) break;
        ++refused;
        CHECK(test::holds(problem, {"no device memory for"}));
        CHECK(hidden == untouched);
        CHECK(one.cache.tokens(one.sequence) == 10);
        CHECK(one.cache.bytes_held() == before);
    }
    CHECK(refused >= 3);
    const test::numbers theirs = one.theirs(0, 60, test::linear_policy(config, 1));
    CHECK(difference(hidden, test::numbers(theirs.begin() + 10 * 48, theirs.end())) < stack_rounding);
}

TEST_CASE("the parts of recorded and other steps are measured", "[llama_gpu][device]") {
    const llama::model_config config = shape(3);
    decoder one(config, rw::element_type::f32, "default", {.block_tokens = 8, .blocks = {16, 8}, .measures = true});
    llama::device_cache<device_type> cache(one.device, config);
    const int sequence = cache.add_sequence();
    (void)one.model.generate(prompt_of(10), 5, cache, sequence);
    // One second per beginning of a part. A layer has two norms, and projections before and after the attention.
    const llama::stack_seconds& spent = one.model.layers().seconds();
    CHECK((spent.norm == 5 * 6 && spent.projections == 5 * 6));
    CHECK((spent.rope == 5 * 3 && spent.attention == 5 * 3 && spent.mlp == 5 * 3));
    CHECK(one.device.replays == 3);
    one.model.layers().reset_seconds();
    CHECK(spent.norm == 0);
}

TEST_CASE("a cache with most_tokens allocates its memory at once", "[llama_gpu][device]") {
    const llama::model_config config = shape(2);
    device_type device;
    {
        llama::device_cache<device_type> cache(device, config, {rw::cache_type::i8, 16, 100});
        const int first = cache.add_sequence(), second = cache.add_sequence();
        CHECK(device.bytes_held() == 0);
        cache.reserve(first, 1);
        CHECK(device.bytes_held() == 7 * cache.page_bytes());
        const void* const pool = cache.layer(0).k.data;
        cache.reserve(second, 90);
        CHECK(cache.layer(0).k.data == pool);
        CHECK_REFUSED(cache.reserve(first, 17), "17 tokens", "8 pages of 16");
        // The scales of the last layer end at the end of the page.
        const auto last = cache.layer(1);
        const auto* const end = static_cast<const char*>(pool) + cache.page_bytes();
        CHECK(reinterpret_cast<const char*>(last.v.scales + 2 * 16) == end);
        CHECK(last.v.scale_stride_page * 4 == cache.page_bytes());
        CHECK_REFUSED(llama::device_cache<device_type>(device, config, {.type = rw::cache_type::f8e4m3}), "f8e4m3");
    }
    CHECK(device.bytes_held() == 0);
}

TEST_CASE("a device stack refuses wrong arguments", "[llama_gpu][device][errors]") {
    const llama::model_config config = shape(2);
    decoder one(config, rw::element_type::f32, "default");
    llama::device_cache<device_type> cache(one.device, config);
    const int sequence = cache.add_sequence();
    const std::int32_t ids[] = {3, 61};
    std::vector<float> logits(61);
    const llama::segment two{sequence, 2};
    auto& layers = one.model.layers();
    CHECK_REFUSED(layers.predict({&two, 1}, ids, logits, cache), "token id 61", "61 of the vocabulary");
    CHECK_REFUSED(layers.predict({&two, 1}, std::span(ids).first(1), logits, cache), "1 token ids and 61 logits");
    CHECK_REFUSED(layers.predict({&two, 1}, ids, std::span(logits).first(60), cache), "2 token ids and 60 logits");
    CHECK_REFUSED(one.model.prefill({}, cache, sequence), "prompt must not be empty");
    llama::model_weights mixed = one.weights;
    mixed.layers[1].o.type = rw::element_type::f16;
    CHECK_REFUSED(llama::device_stack<device_type>(one.device, config, mixed, encoded(config, "default")),
                  "model.layers.1.self_attn.o_proj", "f16", "f32");
    llama::model_weights narrow = one.weights;
    narrow.layers[1].down.columns = 41;
    CHECK_REFUSED(llama::device_stack<device_type>(one.device, config, narrow, encoded(config, "default")),
                  "model.layers.1.mlp.down_proj", "[48, 41]", "[48, 40]");
    llama::model_config bare = config;
    bare.vocabulary = 0;
    CHECK_REFUSED(llama::device_model<device_type>(one.device, bare, one.weights, encoded(config, "default")),
                  "without a vocabulary");
    llama::device_stack<device_type> drawing(one.device, config, one.weights, encoded(config, "randomized_sorted:64"));
    std::vector<float> hidden(2 * 48);
    CHECK_REFUSED(drawing.forward({&two, 1}, hidden, cache), "needs its length");
    CHECK(cache.tokens(sequence) == 0);
}
