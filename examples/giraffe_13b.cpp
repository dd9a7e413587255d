// Llama-2-13B's attention at long contexts, with any rotary encoding: prefill and decode on the CPU, where their time
// goes, and with a checkpoint, text.
//
//     build/examples/giraffe_13b --layers 1 --context 4096 --scaling linear:8
//     build/examples/giraffe_13b --weights Giraffe-13b-32k --prompt-ids 1,15043 --generate 64
//
// Without --weights they are made up from a seed, and without --generate the layers are attention alone.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include <sys/resource.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <ropewalk/attention/checkpoint.hpp>
#include <ropewalk/attention/llama.hpp>
#include <runtime/attention/attention.hpp>
#include <runtime/runtime.hpp>

#include "giraffe_options.hpp"

namespace {

namespace rw = ropewalk;
namespace attention = ropewalk::attention;
using giraffe::options;

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::int64_t peak_memory_bytes() {
    // Linux counts what started this program as its past in getrusage().
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        std::int64_t kibibytes = 0;
        if (word == "VmHWM:" && status >> kibibytes) return kibibytes * 1024;
    }
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

/// A line that fills up, where somebody is looking.
class progress_bar {
public:
    progress_bar(const char* what, std::int64_t whole) : what_(what), whole_(whole) {}
    ~progress_bar() {
        if (shown_) std::fputs("\r\033[K", stderr);
    }
    progress_bar(const progress_bar&) = delete;
    progress_bar& operator=(const progress_bar&) = delete;

    void reach(std::int64_t done) {
        if (isatty(STDERR_FILENO) == 0) return;
        constexpr std::int64_t width = 40;
        const std::string bar(static_cast<std::size_t>(width * done / whole_), '#');
        std::fprintf(stderr, "\r%s [%-40s] %lld/%lld tokens", what_, bar.c_str(), static_cast<long long>(done),
                     static_cast<long long>(whole_));
        shown_ = true;
    }

private:
    const char* what_;
    std::int64_t whole_;
    bool shown_ = false;
};

attention::model_description describe(const options& o) {
    attention::model_description model;
    const bool named = o.config == "7b" || o.config == "13b" || o.config == "70b";
    if (!named || !o.weights.empty()) {
        model = attention::read_model_config(named ? o.weights : o.config, o.scaling);
    } else {
        model.config = o.config == "7b"    ? attention::llama2_7b()
                       : o.config == "13b" ? attention::llama2_13b()
                                           : attention::llama2_70b();
        model.encoding = rw::make_encoding(model.config.geometry(), o.scaling.empty() ? "default" : o.scaling);
    }
    if (o.layers > 0) {
        RW_EXPECTS(o.layers <= model.config.layers, "--layers {}: the model has {}", o.layers, model.config.layers);
        model.config.layers = o.layers;
    }
    if (!o.whole && o.weights.empty() && o.generate == 0 && o.prompt.empty())
        model.config.intermediate_size = model.config.vocabulary = 0;
    return model;
}

/// Hidden states of variance 1, for layers without an embedding.
std::vector<float> made_up_states(std::int64_t tokens, std::int64_t width, std::uint64_t seed) {
    std::vector<float> states(static_cast<std::size_t>(tokens * width));
    attention::detail::fill_uniform(states.data(), {nullptr, rw::element_type::f32, tokens, width}, seed, 0);
    const float scale = std::sqrt(static_cast<float>(width));
    for (float& one : states) one *= scale;
    return states;
}

std::vector<std::int32_t> made_up_prompt(std::int64_t tokens, std::int64_t vocabulary, std::uint64_t seed) {
    std::vector<std::int32_t> prompt(static_cast<std::size_t>(tokens));
    for (std::size_t i = 0; i < prompt.size(); ++i)
        prompt[i] = static_cast<std::int32_t>(rw::random_bits(seed, 0, 1, i) % static_cast<std::uint64_t>(vocabulary));
    return prompt;
}

struct measurement {
    attention::stack_seconds parts;
    double seconds = 0;
    std::int64_t tokens = 0;
};

/// Runs `work` and says how long the parts of the stack took.
template <class Work>
measurement measure(attention::stack& layers, std::int64_t tokens, const Work& work) {
    layers.reset_seconds();
    const double start = seconds_now();
    work();
    return {layers.seconds(), seconds_now() - start, tokens};
}

struct outcome {
    measurement prefill, decode;
    std::vector<std::int32_t> tokens;
};

outcome run_layers(attention::stack& layers, const options& o, std::int64_t context, attention::kv_cache& cache) {
    const int sequence = cache.add_sequence();
    const std::int64_t width = layers.config().hidden_size;
    outcome found;
    const auto add = [&](std::int64_t tokens, std::uint64_t seed) {
        std::vector<float> hidden = made_up_states(tokens, width, seed);
        const attention::segment one{sequence, tokens, std::max(context, cache.tokens(sequence) + tokens)};
        layers.forward({&one, 1}, hidden, cache);
    };
    const auto seed = static_cast<std::uint64_t>(o.seed);
    found.prefill = measure(layers, context, [&] {
        progress_bar bar("prefill", context);
        for (std::int64_t done = 0; done < context; done += o.chunk) {
            add(std::min(o.chunk, context - done), seed);
            bar.reach(std::min(done + o.chunk, context));
        }
    });
    found.decode = measure(layers, o.decode, [&] {
        progress_bar bar("decode", o.decode);
        for (std::int64_t done = 0; done < o.decode; ++done) {
            add(1, seed);
            bar.reach(done + 1);
        }
    });
    return found;
}

outcome run_decoder(attention::llama& model, const options& o, const std::vector<std::int32_t>& prompt,
                    attention::kv_cache& cache) {
    const int sequence = cache.add_sequence();
    const auto length = static_cast<std::int64_t>(prompt.size());
    outcome found;
    std::int32_t next = 0;
    found.prefill = measure(model.layers(), length, [&] {
        progress_bar bar("prefill", length);
        next = model.prefill(prompt, cache, sequence, o.chunk, [&](std::int64_t done) { bar.reach(done); });
    });
    found.tokens.push_back(next);
    const std::int64_t steps = o.generate > 0 ? o.generate - 1 : o.decode;
    found.decode = measure(model.layers(), steps, [&] {
        progress_bar bar("decode", steps);
        for (std::int64_t step = 0; step < steps; ++step) {
            found.tokens.push_back(model.decode(found.tokens.back(), cache, sequence));
            bar.reach(step + 1);
        }
    });
    if (o.generate == 0) found.tokens.clear();
    return found;
}

void print_row(const char* name, const measurement& m) {
    const attention::stack_seconds& p = m.parts;
    const double whole = m.seconds > 0 ? m.seconds : 1;
    const auto percent = [whole](double seconds) { return 100 * seconds / whole; };
    std::printf("%-8s %8lld tokens %9.3f s %10.1f tokens/s   %5.1f %%  %6.2f %%  %5.1f %%  %5.1f %%  %5.1f %%\n", name,
                static_cast<long long>(m.tokens), m.seconds, static_cast<double>(m.tokens) / whole,
                percent(p.projections), percent(p.rope), percent(p.attention), percent(p.cache + p.norm),
                percent(p.mlp));
}

void print_report(const outcome& found, const attention::kv_cache& cache, std::int64_t weight_bytes) {
    std::printf("%-53s %s\n", "", "projections   RoPE  attention  cache, norm   MLP");
    print_row("prefill", found.prefill);
    if (found.decode.tokens > 0) print_row("decode", found.decode);
    constexpr double gib = 1024.0 * 1024 * 1024;
    std::printf("memory: weights %.2f GiB, cache %.1f KiB a token (%.2f GiB held), peak %.2f GiB\n",
                static_cast<double>(weight_bytes) / gib, static_cast<double>(cache.bytes_per_token()) / 1024,
                static_cast<double>(cache.bytes_held()) / gib, static_cast<double>(peak_memory_bytes()) / gib);
    if (found.tokens.empty()) return;
    for (std::size_t i = 0; i < found.tokens.size(); ++i) std::printf("%s%d", i == 0 ? "" : ",", found.tokens[i]);
    std::printf("\n");
}

nlohmann::json parts_of(const measurement& m) {
    return {{"tokens", m.tokens},
            {"seconds", m.seconds},
            {"projections", m.parts.projections},
            {"rope", m.parts.rope},
            {"attention", m.parts.attention},
            {"cache", m.parts.cache},
            {"norm", m.parts.norm},
            {"mlp", m.parts.mlp}};
}

/// Seconds of each part over prefill and decode, and again of each of them.
void write_json(const options& o, const attention::llama_config& config, const rw::Encoding& encoding,
                const outcome& found, const attention::kv_cache& cache) {
    const attention::stack_seconds &a = found.prefill.parts, &b = found.decode.parts;
    const nlohmann::json report = {{"scaling", encoding.expression},
                                   {"layers", config.layers},
                                   {"instruction_set", std::string(rw::runtime::instruction_set())},
                                   {"projections", a.projections + b.projections},
                                   {"rope", a.rope + b.rope},
                                   {"attention", a.attention + b.attention},
                                   {"mlp", a.mlp + b.mlp},
                                   {"prefill", found.prefill.seconds},
                                   {"decode", found.decode.seconds},
                                   {"peak_memory_bytes", peak_memory_bytes()},
                                   {"cache_bytes_per_token", cache.bytes_per_token()},
                                   {"prefill_parts", parts_of(found.prefill)},
                                   {"decode_parts", parts_of(found.decode)},
                                   {"tokens", found.tokens}};
    std::ofstream file(o.json);
    file << report.dump(2) << '\n';
    RW_EXPECTS(file.flush(), "cannot write {}", o.json);
}

void run(const options& o) {
    const attention::model_description model = describe(o);
    const attention::llama_config& config = model.config;
    auto weights = o.weights.empty() ? attention::synthetic_weights(config, o.dtype.value_or(rw::element_type::bf16),
                                                                    static_cast<std::uint64_t>(o.seed))
                                     : attention::read_weights(o.weights, config, o.dtype);
    const rw::element_type stored = weights.layers.front().q.type;
    const std::int64_t weight_bytes = weights.bytes();
    const auto usual = stored == rw::element_type::f32 ? rw::cache_type::f32 : rw::cache_type::f16;
    const auto prompt_length = static_cast<std::int64_t>(o.prompt.size());
    const std::int64_t context = o.context > 0 ? o.context : prompt_length > 0 ? prompt_length : 4096;
    const std::int64_t most =
        std::max(context, o.prompt.empty() || o.context == 0 ? context + std::max(o.generate, o.decode) : o.context);
    attention::kv_cache cache(config, {o.cache.value_or(usual), 256, most});
    std::printf("%s: %lld layers of %lld, %lld heads of %lld (%lld of keys), %s weights, %s cache, %s, %s\n",
                o.weights.empty() ? "made-up weights" : o.weights.c_str(), static_cast<long long>(config.layers),
                static_cast<long long>(config.hidden_size), static_cast<long long>(config.heads),
                static_cast<long long>(config.head_dim), static_cast<long long>(config.kv_heads),
                std::string(rw::to_string(stored)).c_str(), std::string(rw::to_string(cache.options().type)).c_str(),
                model.encoding.expression.c_str(), std::string(rw::runtime::instruction_set()).c_str());
    outcome found;
    if (config.vocabulary == 0) {
        attention::stack layers(config, std::move(weights), model.encoding, rw::runtime::attention_kernels(),
                                o.threads);
        found = run_layers(layers, o, context, cache);
    } else {
        attention::llama decoder(config, std::move(weights), model.encoding, rw::runtime::attention_kernels(),
                                 o.threads);
        const auto prompt = o.prompt.empty()
                                ? made_up_prompt(context, config.vocabulary, static_cast<std::uint64_t>(o.seed))
                                : o.prompt;
        found = run_decoder(decoder, o, prompt, cache);
    }
    print_report(found, cache, weight_bytes);
    if (!o.json.empty()) write_json(o, config, model.encoding, found, cache);
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const auto chosen = giraffe::read_options(argc, argv);
        if (chosen)
            run(*chosen);
        else
            std::fputs(giraffe::usage, stdout);
    } catch (const std::exception& problem) {
        std::fprintf(stderr, "giraffe_13b: %s\n", problem.what());
        return 1;
    }
}
