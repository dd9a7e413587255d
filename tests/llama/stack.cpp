#include <ropewalk/llama/stack.hpp>

#include <ropewalk/llama/cpu/native.hpp>
#include <ropewalk/llama/model.hpp>

#include "llama/cpu_kind.hpp"
#include "llama/greedy_cases.inl"
#include "llama/policy_cases.inl"
#include "llama/stack_cases.inl"

TEST_CASE("a stack gives the same bits for any number of threads", "[llama][stack]") {
    SEEDED(random);
    llama::model_config config = shape(2);
    config.hidden_size = 256, config.head_dim = 64, config.heads = 4, config.vocabulary = 300;
    const auto weights = llama::synthetic_weights(config, rw::element_type::bf16, 3);
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 2, 3}) {
        llama::model model(config, weights, encoded(config, "llama3:8,original_length=64"),
                           rw::dispatch::llama_kernels(), threads);
        llama::kv_cache cache(config, {rw::cache_type::i8, 16});
        const int sequence = cache.add_sequence();
        std::vector<std::int32_t> prompt;
        for (std::int32_t i = 0; i < 150; ++i) prompt.push_back(i * 7 % 300);
        std::vector<float> hidden(prompt.size() * 256), logits(300);
        model.embed(prompt, hidden);
        const llama::segment one{sequence, 150};
        model.layers().forward({&one, 1}, hidden, cache);
        model.logits(std::span(hidden).last(256), logits);
        hidden.insert(hidden.end(), logits.begin(), logits.end());
        results.push_back(hidden);
    }
    CHECK(results[0] == results[1]);
    CHECK(results[0] == results[2]);
    CHECK(std::all_of(results[0].begin(), results[0].end(), [](float x) { return std::isfinite(x); }));
    llama::model model(config, weights, encoded(config, "default"), rw::dispatch::llama_kernels());
    std::vector<float> row(256);
    const std::int32_t wrong = 300;
    CHECK_REFUSED(model.embed({&wrong, 1}, row), "token id 300", "300 of the vocabulary");
}

TEST_CASE("a seed gives the same weights, and errors name weights that do not match", "[llama][weights]") {
    const llama::model_config config = shape(2);
    const auto a = llama::synthetic_weights(config, rw::element_type::f32, 1);
    const auto b = llama::synthetic_weights(config, rw::element_type::f32, 1);
    const auto c = llama::synthetic_weights(config, rw::element_type::f32, 2);
    const auto first = [](const llama::model_weights& w) {
        const auto* const data = static_cast<const float*>(w.layers[1].down.data);
        return std::vector<float>(data, data + w.layers[1].down.rows * w.layers[1].down.columns);
    };
    CHECK(first(a) == first(b));
    CHECK(first(a) != first(c));
    llama::model_weights wrong = a;
    wrong.layers[1].up.rows = 41;
    CHECK_REFUSED(llama::check_weights(config, wrong), "model.layers.1.mlp.up_proj is [41, 48], expected [40, 48]");
    wrong = a;
    wrong.layers.pop_back();
    CHECK_REFUSED(llama::check_weights(config, wrong), "there are 1 layers, expected 2");
}

TEST_CASE("a stack refuses numbers of threads that no machine has", "[llama][stack]") {
    const llama::model_config config = shape(2);
    const auto weights = llama::synthetic_weights(config, rw::element_type::f32, 1);
    const auto with = [&](int threads) {
        return llama::stack(config, weights, encoded(config, "default"), rw::dispatch::llama_kernels(), threads);
    };
    CHECK_REFUSED(with(-1), "threads must not be negative, got -1");
    CHECK_REFUSED(with(4097), "threads must be at most 4096, got 4097");
    CHECK(with(4096).threads() == 4096);
}

TEST_CASE("native_kernels() has the instruction set in its type", "[llama][stack]") {
    SEEDED(random);
    // A plain function would be one symbol for files that are compiled for different instruction sets.
    const llama::cpu::kernel_table& native = llama::cpu::native_kernels<rw::cpu::native_arch>();
    CHECK(&native == &llama::cpu::native_kernels());
    const llama::model_config config = shape(2);
    trial one(random, config, encoded(config, "linear:4"), 20);
    llama::stack other(config, one.weights, encoded(config, "linear:4"), native);
    std::vector<float> hidden = one.part(0, 20);
    auto cache = stack_kind::make_cache(config, one.cache.options());
    const llama::segment whole{cache.add_sequence(), 20};
    other.forward({&whole, 1}, hidden, cache);
    CHECK(difference(one.ours(0, 20), hidden) < stack_rounding);
}
