// Runs and measurements of giraffe_13b, for the stack on the CPU and the stack on a device.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include <unistd.h>

#include <ropewalk/encoding.hpp>
#include <ropewalk/llama/batch.hpp>
#include <ropewalk/llama/kv_cache.hpp>
#include <ropewalk/llama/synthetic.hpp>

#include "options.hpp"

namespace giraffe {

namespace llama = ropewalk::llama;

struct run_params {
    giraffe::options options;
    llama::model_config config;
    rw::Encoding encoding;
    llama::cache_options cache;
    std::int64_t context = 0;  ///< tokens of the prompt
};

struct measurement {
    llama::stack_seconds parts;
    double seconds = 0;
    std::int64_t tokens = 0;
};

struct outcome {
    measurement prefill, decode;
    std::vector<std::int32_t> tokens;
    std::vector<double> losses;  ///< of the tokens after the first, with --perplexity
    std::int64_t cache_bytes_per_token = 0, cache_bytes_held = 0, peak_memory_bytes = 0;
};

inline double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Progress on a terminal.
class progress_bar {
public:
    progress_bar(const char* name, std::int64_t whole) : name_(name), whole_(whole) {}
    ~progress_bar() {
        if (shown_) std::fputs("\r\033[K", stderr);
    }
    progress_bar(const progress_bar&) = delete;
    progress_bar& operator=(const progress_bar&) = delete;

    void reach(std::int64_t done) {
        if (isatty(STDERR_FILENO) == 0) return;
        constexpr std::int64_t width = 40;
        const std::string bar(static_cast<std::size_t>(width * done / whole_), '#');
        std::fprintf(stderr, "\r%s [%-40s] %lld/%lld tokens", name_, bar.c_str(), static_cast<long long>(done),
                     static_cast<long long>(whole_));
        shown_ = true;
    }

private:
    const char* name_;
    std::int64_t whole_;
    bool shown_ = false;
};

inline std::vector<std::int32_t> synthetic_prompt(std::int64_t tokens, std::int64_t vocabulary, std::uint64_t seed) {
    std::vector<std::int32_t> prompt(static_cast<std::size_t>(tokens));
    for (std::size_t i = 0; i < prompt.size(); ++i)
        prompt[i] = static_cast<std::int32_t>(rw::random_bits(seed, 0, 1, i) % static_cast<std::uint64_t>(vocabulary));
    return prompt;
}

/// Calls run() and measures the parts of the stack.
template <class Stack, class Run>
measurement measure(Stack& layers, std::int64_t tokens, const Run& run) {
    layers.reset_seconds();
    const double start = seconds_now();
    run();
    return {layers.seconds(), seconds_now() - start, tokens};
}

template <class Stack, class Cache>
outcome run_layers(Stack& layers, const run_params& params, Cache& cache) {
    const options& o = params.options;
    const int sequence = cache.add_sequence();
    const std::int64_t width = params.config.hidden_size, context = params.context;
    outcome result;
    const auto add = [&](std::int64_t tokens, std::uint64_t seed) {
        std::vector<float> hidden = llama::synthetic_states(tokens, width, seed);
        const llama::segment one{sequence, tokens, std::max(context, cache.tokens(sequence) + tokens)};
        layers.forward({&one, 1}, hidden, cache);
    };
    const auto seed = static_cast<std::uint64_t>(o.seed);
    result.prefill = measure(layers, context, [&] {
        progress_bar bar("prefill", context);
        for (std::int64_t done = 0; done < context; done += o.chunk) {
            add(std::min(o.chunk, context - done), seed);
            bar.reach(std::min(done + o.chunk, context));
        }
    });
    result.decode = measure(layers, o.decode, [&] {
        progress_bar bar("decode", o.decode);
        for (std::int64_t done = 0; done < o.decode; ++done) {
            add(1, seed);
            bar.reach(done + 1);
        }
    });
    return result;
}

template <class Model, class Cache>
outcome run_decoder(Model& model, const run_params& params, Cache& cache) {
    const options& o = params.options;
    const std::vector<std::int32_t> prompt =
        o.prompt.empty()
            ? synthetic_prompt(params.context, params.config.vocabulary, static_cast<std::uint64_t>(o.seed))
            : o.prompt;
    const int sequence = cache.add_sequence();
    const auto length = static_cast<std::int64_t>(prompt.size());
    outcome result;
    std::int32_t next = 0;
    result.prefill = measure(model.layers(), length, [&] {
        progress_bar bar("prefill", length);
        next = model.prefill(prompt, cache, sequence, o.chunk, [&](std::int64_t done) { bar.reach(done); });
    });
    result.tokens.push_back(next);
    const std::int64_t steps = o.generate > 0 ? o.generate - 1 : o.decode;
    result.decode = measure(model.layers(), steps, [&] {
        progress_bar bar("decode", steps);
        for (std::int64_t step = 0; step < steps; ++step) {
            result.tokens.push_back(model.decode(result.tokens.back(), cache, sequence));
            bar.reach(step + 1);
        }
    });
    if (o.generate == 0) result.tokens.clear();
    return result;
}

/// Losses of the tokens of a text, in one call or in turns.
template <class Model, class Cache>
outcome run_losses(Model& model, const run_params& params, Cache& cache) {
    const options& o = params.options;
    const std::span<const std::int32_t> ids(o.prompt);
    const int sequence = cache.add_sequence();
    outcome result;
    result.prefill = measure(model.layers(), std::ssize(ids), [&] {
        progress_bar bar("perplexity", std::ssize(ids));
        std::size_t start = 0;
        for (std::size_t turn = 0; start < ids.size(); ++turn) {
            const std::size_t left = ids.size() - start;
            const std::size_t count =
                o.turns.empty() ? left
                                : std::min(left, static_cast<std::size_t>(o.turns[std::min(turn, o.turns.size() - 1)]));
            const auto next = ids.subspan(start + 1, std::min(count, left - 1));
            const std::vector<double> losses =
                model.losses(ids.subspan(start, count), next, cache, sequence, o.chunk,
                             [&](std::int64_t done) { bar.reach(static_cast<std::int64_t>(start) + done); });
            result.losses.insert(result.losses.end(), losses.begin(), losses.end());
            start += count;
        }
    });
    return result;
}

/// Runs the layers that make_layers() returns, or the decoder of make_decoder() if the model has a vocabulary.
template <class Cache, class MakeLayers, class MakeDecoder>
outcome run_model(const run_params& params, Cache& cache, const MakeLayers& make_layers,
                  const MakeDecoder& make_decoder) {
    const auto run = [&] {
        if (params.config.vocabulary == 0) {
            auto layers = make_layers();
            return run_layers(layers, params, cache);
        }
        auto decoder = make_decoder();
        return params.options.perplexity.empty() ? run_decoder(decoder, params, cache)
                                                 : run_losses(decoder, params, cache);
    };
    outcome result = run();
    result.cache_bytes_per_token = cache.bytes_per_token(), result.cache_bytes_held = cache.bytes_held();
    return result;
}

}  // namespace giraffe
