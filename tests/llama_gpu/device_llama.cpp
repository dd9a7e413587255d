// What a stack has on a device alone: steps that are recorded, memory that ends, types of weights, whole decoders.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "device_kind.hpp"
#include "llama/trial.hpp"

namespace rw = ropewalk;
namespace llama = ropewalk::llama;

namespace {

using test::difference, test::encoded, test::stack_rounding;
using machine = test::stack_machine;

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

/// The same numbers as f32.
llama::model_weights widened(const llama::model_config& config, llama::model_weights weights) {
    const auto widen = [&](llama::matrix& w) {
        const auto count = static_cast<std::size_t>(w.rows * w.columns);
        auto numbers = std::make_shared<std::vector<float>>(count);
        for (std::size_t i = 0; i < count; ++i) {
            (*numbers)[i] = w.type == rw::element_type::f32 ? static_cast<const float*>(w.data)[i]
                            : w.type == rw::element_type::f16
                                ? static_cast<float>(static_cast<const rw::f16*>(w.data)[i])
                                : static_cast<float>(static_cast<const rw::bf16*>(w.data)[i]);
        }
        w.data = numbers->data(), w.type = rw::element_type::f32;
        weights.owners.push_back(std::move(numbers));
    };
    llama::for_each_weight(config, weights, [&](llama::matrix& w, const std::string&, auto, auto) { widen(w); });
    return weights;
}

/// A decoder, and its twin in float64.
struct decoder {
    llama::model_config config;
    llama::model_weights weights, wide;
    machine device;
    llama::device_model<machine> model;
    test::reference_stack reference;

    decoder(const llama::model_config& shape, rw::element_type type, const std::string& policy,
            const llama::device_options& chosen = stack_kind::small)
        : config(shape),
          weights(llama::synthetic_weights(config, type, 5)),
          wide(widened(config, weights)),
          model(device, config, weights, encoded(config, policy), chosen),
          reference(config, wide) {}

    /// Logits behind the last of some more tokens.
    test::numbers theirs(const std::vector<std::int32_t>& ids, const test::reference_scheme& scheme) {
        std::vector<float> hidden;
        const auto* const rows = static_cast<const float*>(wide.embedding.data);
        for (const std::int32_t id : ids)
            hidden.insert(hidden.end(), rows + id * config.hidden_size, rows + (id + 1) * config.hidden_size);
        const test::numbers states = reference.forward(hidden, scheme);
        test::numbers last(states.end() - config.hidden_size, states.end());
        const double squares = std::inner_product(last.begin(), last.end(), last.begin(), 0.0);
        const double size = std::sqrt(squares / static_cast<double>(config.hidden_size) + config.rms_norm_eps);
        test::numbers logits(static_cast<std::size_t>(config.vocabulary));
        const auto* const head = static_cast<const float*>(wide.head.data);
        for (std::size_t i = 0; i < logits.size(); ++i)
            for (std::size_t c = 0; c < last.size(); ++c)
                logits[i] += last[c] / size * static_cast<double>(head[i * last.size() + c]);
        return logits;
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
        llama::device_cache<machine> cache(one.device, config, {rw::cache_type::f32, 8});
        const int sequence = cache.add_sequence();
        const auto tokens = one.model.generate(prompt_of(21), 12, cache, sequence, 9);
        REQUIRE(tokens.size() == 12);
        test::numbers logits = one.theirs(prompt_of(21), test::plain_scheme(config, 4));
        for (const std::int32_t token : tokens) {
            CHECK(token == std::max_element(logits.begin(), logits.end()) - logits.begin());
            logits = one.theirs({token}, test::plain_scheme(config, 4));
        }
        CHECK(cache.tokens(sequence) == 32);
        CHECK(one.device.problem() == "");
    }
}

TEST_CASE("ragged batches of token ids, in every type of weights", "[llama_gpu][device]") {
    for (const auto& [type, bound] :
         {std::pair(rw::element_type::f32, stack_rounding), std::pair(rw::element_type::f16, 3e-3),
          std::pair(rw::element_type::bf16, 3e-2)}) {
        INFO(rw::to_string(type));
        const llama::model_config config = shape(2);
        decoder one(config, type, "default");
        llama::device_cache<machine> cache(one.device, config, {rw::cache_type::f16, 8});
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
        const double room = std::max(bound, 1e-3);  // of the cache
        CHECK(difference(row(0), one.theirs(whole, test::plain_scheme(config, 1))) < room);
        one.reference = test::reference_stack(config, one.wide);
        whole.assign(ids.begin(), ids.begin() + 6);
        whole.push_back(50);
        CHECK(difference(row(1), one.theirs(whole, test::plain_scheme(config, 1))) < room);
        CHECK(one.device.problem() == "");
    }
}

TEST_CASE("steps of single tokens are recorded once, and anew where something else has changed",
          "[llama_gpu][device]") {
    SEEDED(random);
    const llama::model_config config = shape(2);
    machine device;
    const auto weights = llama::synthetic_weights(config, rw::element_type::f32, 7);
    llama::device_options plain = stack_kind::small;
    plain.records = false;
    llama::device_stack<machine> ours(device, config, weights, encoded(config, "default"), stack_kind::small),
        other(device, config, weights, encoded(config, "default"), plain);
    llama::device_cache<machine> cache(device, config, {rw::cache_type::f32, 4}),
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
    both(), both(), both(), both(), both();  // the second moves the pool: 13 tokens have 4 pages
    CHECK((device.records == 1 && device.replays == 3));
    both(), both();  // 17 tokens have 5 pages, which is a wider table
    CHECK((device.records == 2 && device.replays == 4));
    change("linear:8");
    both(), both(), both();
    CHECK((device.records == 3 && device.replays == 6));
    step({{sequences[1], 1}});  // another batch in between
    both();
    CHECK((device.records == 3 && device.replays == 7));
    change("dynamic:4,original_length=8");  // another encoding every time
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
    const auto exact = one.theirs(0, 20, test::plain_scheme(config, 1));
    for (auto* const each : {&cache, &other}) {
        std::vector<float> rows = one.part(0, 12);
        one.stack.forward({&prompt, 1}, rows, *each);
    }
    const int before = stack_kind::machine().replays;
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
    CHECK(stack_kind::machine().replays > before + 3);
    CHECK(stack_kind::machine().problem() == "");
}

TEST_CASE("a device whose memory ends leaves everything as it was", "[llama_gpu][device]") {
    SEEDED(random);
    const llama::model_config config = shape(2);
    test::stack_trial<stack_kind> one(random, config, encoded(config, "default"), 60);
    (void)one.ours(0, 10);
    const auto before = one.cache.bytes_held();
    std::vector<float> hidden = one.part(10, 60);
    const std::vector<float> untouched = hidden;
    const llama::segment more{one.sequence, 50};
    // The cache's pool, then what the stack needs of room for more tokens: at each of them once.
    int refused = 0;
    for (int left = 0; refused == left; ++left) {
        stack_kind::machine().allocations_left = left;
        const std::string problem = test::message_of([&] { one.stack.forward({&more, 1}, hidden, one.cache); });
        stack_kind::machine().allocations_left = -1;
        if (problem.empty()) break;
        ++refused;
        CHECK(test::holds(problem, {"no device memory for"}));
        CHECK(hidden == untouched);
        CHECK(one.cache.tokens(one.sequence) == 10);
        CHECK(one.cache.bytes_held() == before);
    }
    CHECK(refused >= 3);
    const test::numbers theirs = one.theirs(0, 60, test::plain_scheme(config, 1));
    CHECK(difference(hidden, test::numbers(theirs.begin() + 10 * 48, theirs.end())) < stack_rounding);
}

TEST_CASE("parts of a step are measured, recorded or not", "[llama_gpu][device]") {
    const llama::model_config config = shape(3);
    decoder one(config, rw::element_type::f32, "default", {.block_tokens = 8, .blocks = {16, 8}, .measures = true});
    llama::device_cache<machine> cache(one.device, config);
    const int sequence = cache.add_sequence();
    (void)one.model.generate(prompt_of(10), 5, cache, sequence);
    // A second every time that a part begins: two norms a layer, projections before and behind the attention.
    const llama::stack_seconds& spent = one.model.layers().seconds();
    CHECK((spent.norm == 5 * 6 && spent.projections == 5 * 6));
    CHECK((spent.rope == 5 * 3 && spent.attention == 5 * 3 && spent.mlp == 5 * 3));
    CHECK(one.device.replays == 3);
    one.model.layers().reset_seconds();
    CHECK(spent.norm == 0);
}

TEST_CASE("a cache of a stated length has its memory at once", "[llama_gpu][device]") {
    const llama::model_config config = shape(2);
    machine device;
    {
        llama::device_cache<machine> cache(device, config, {rw::cache_type::i8, 16, 100});
        const int first = cache.add_sequence(), second = cache.add_sequence();
        CHECK(device.bytes_held() == 0);
        cache.reserve(first, 1);
        CHECK(device.bytes_held() == 7 * cache.page_bytes());
        const void* const pool = cache.layer(0).k.data;
        cache.reserve(second, 90);
        CHECK(cache.layer(0).k.data == pool);
        CHECK_REFUSED(cache.reserve(first, 17), "17 tokens", "8 pages of 16");
        // Keys and values of the last layer and its scales end where the page does.
        const auto last = cache.layer(1);
        const auto* const end = static_cast<const char*>(pool) + cache.page_bytes();
        CHECK(reinterpret_cast<const char*>(last.v.scales + 2 * 16) == end);
        CHECK(last.v.scale_stride_page * 4 == cache.page_bytes());
        CHECK_REFUSED(llama::device_cache<machine>(device, config, {.type = rw::cache_type::f8e4m3}), "f8e4m3");
    }
    CHECK(device.bytes_held() == 0);
}

TEST_CASE("a device stack refuses what it cannot hold", "[llama_gpu][device][errors]") {
    const llama::model_config config = shape(2);
    decoder one(config, rw::element_type::f32, "default");
    llama::device_cache<machine> cache(one.device, config);
    const int sequence = cache.add_sequence();
    const std::int32_t ids[] = {3, 61};
    std::vector<float> logits(61);
    const llama::segment two{sequence, 2};
    auto& layers = one.model.layers();
    CHECK_REFUSED(layers.predict({&two, 1}, ids, logits, cache), "token id 61", "61 of the vocabulary");
    CHECK_REFUSED(layers.predict({&two, 1}, std::span(ids).first(1), logits, cache), "1 token ids and 61 logits");
    CHECK_REFUSED(layers.predict({&two, 1}, ids, std::span(logits).first(60), cache), "2 token ids and 60 logits");
    CHECK_REFUSED(one.model.prefill({}, cache, sequence), "a prompt needs a token");
    llama::model_weights mixed = one.weights;
    mixed.layers[1].o.type = rw::element_type::f16;
    CHECK_REFUSED(llama::device_stack<machine>(one.device, config, mixed, encoded(config, "default")), "layer 1", "f16",
                  "f32");
    llama::model_config bare = config;
    bare.vocabulary = 0;
    CHECK_REFUSED(llama::device_model<machine>(one.device, bare, one.weights, encoded(config, "default")),
                  "without a vocabulary");
    llama::device_stack<machine> drawing(one.device, config, one.weights, encoded(config, "randomized_sorted:64"));
    std::vector<float> hidden(2 * 48);
    CHECK_REFUSED(drawing.forward({&two, 1}, hidden, cache), "needs its length");
    CHECK(cache.tokens(sequence) == 0);
}
