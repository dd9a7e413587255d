// Command line of giraffe_13b.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ropewalk/core/cache_type.hpp>
#include <ropewalk/core/error.hpp>
#include <ropewalk/cpu/threads.hpp>

namespace giraffe {

namespace rw = ropewalk;

struct options {
    std::string config = "13b", weights, scaling, json, perplexity, device = "cpu";
    std::int64_t layers = 0;   ///< 0: all
    std::int64_t context = 0;  ///< tokens
    std::int64_t chunk = 512, decode = 8, generate = 0, seed = 1;
    int threads = 0;
    bool whole = false;  ///< the whole decoder, not only attention
    std::optional<rw::element_type> dtype;
    std::optional<rw::cache_type> cache;
    std::vector<std::int32_t> prompt;
    std::vector<std::int64_t> turns;  ///< tokens per call with --perplexity; empty: one call
};

inline constexpr const char* usage =
    R"(giraffe_13b: prefill and decode of a Llama with any rotary encoding, on the CPU or a GPU

  --device cpu|cuda          cuda needs nvcc and cuBLAS at build time                              [cpu]
  --config FILE|7b|13b|70b   Hugging Face's config.json or its folder, or a Llama-2 by size        [13b]
  --weights DIR              folder with safetensors and config.json          [generated from --seed]
  --scaling EXPRESSION       linear:8, power:0.5, truncated:4096, xpos:512, yarn:8,original_length=4096, …
                             [from the configuration]
  --layers N                 only the first N layers                                               [all]
  --dtype f32|bf16|f16       type of the weights in memory                   [as stored; generated: bf16]
  --cache f32|f16|bf16|i8    type of the cache  [f32 for f32 weights or length-dependent scaling, else f16]
  --context N                tokens of the generated prompt, or limit of the sequence with --prompt-ids [4096]
  --chunk N                  tokens per prefill chunk                                              [512]
  --decode N                 tokens to decode in the measurement                                   [8]
  --whole                    include MLP, embedding and head; implied by --weights and --generate
  --prompt-ids 1,5,9         token ids of the prompt
  --generate N               decode N tokens greedily after the prompt
  --perplexity FILE          losses of the tokens of a text, by position: a JSON list of token ids, or an object with
                             such a list as "tokens"
  --turns N,N,…              with --perplexity, tokens per call, as in a conversation; the last number repeats. Cached
                             keys follow length-dependent scaling from call to call            [one call]
  --seed N  --threads N  --json FILE
)";

/// Largest number of tokens. The bytes of their states, at most 2^24 floats each (model_config::validate), fit in 64
/// bits.
template <class T>
inline constexpr T largest_number =
    static_cast<T>(std::min(static_cast<std::uint64_t>(std::numeric_limits<T>::max()), std::uint64_t{1} << 36));

template <class T>
T number(std::string_view flag, std::string_view text, T least, T largest = largest_number<T>) {
    T value{};
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    RW_EXPECTS(problem == std::errc{} && end == text.data() + text.size() && value >= least && value <= largest,
               "{} needs a whole number from {} to {}, got '{}'", flag, least, largest, text);
    return value;
}

/// Numbers separated by commas.
template <class T>
std::vector<T> numbers(std::string_view flag, std::string_view text, T least = 0) {
    std::vector<T> values;
    while (true) {
        const std::size_t comma = text.find(',');
        values.push_back(number<T>(flag, text.substr(0, comma), least));
        if (comma == std::string_view::npos) return values;
        text.remove_prefix(comma + 1);
    }
}

inline rw::element_type element_type_of(std::string_view text) {
    for (const auto type : {rw::element_type::f32, rw::element_type::bf16, rw::element_type::f16})
        if (text == rw::to_string(type)) return type;
    rw::detail::fail("--dtype must be f32, bf16 or f16, got '{}'", text);
}

inline rw::cache_type cache_type_of(std::string_view text) {
    using enum rw::cache_type;
    for (const auto type : {f32, f16, bf16, i8})
        if (text == rw::to_string(type)) return type;
    rw::detail::fail("--cache must be f32, f16, bf16 or i8, got '{}'", text);
}

inline std::string device_of(std::string_view text) {
    RW_EXPECTS(text == "cpu" || text == "cuda", "--device must be cpu or cuda, got '{}'", text);
    return std::string(text);
}

/// Returns nothing for --help. Throws ropewalk::error for an invalid option.
inline std::optional<options> read_options(int argc, char** argv) {
    options o;
    bool has_decode = false;
    for (int i = 1; i < argc; ++i) {
        const std::string_view flag = argv[i];
        if (flag == "--help" || flag == "-h") return {};
        if (flag == "--whole") {
            o.whole = true;
            continue;
        }
        const char* const value = i + 1 < argc ? argv[i + 1] : nullptr;
        const auto text = [&]() -> std::string_view {
            // An unset shell variable must not select the default.
            RW_EXPECTS(value != nullptr && *value != '\0', "{} needs a value{}", flag,
                       value == nullptr ? "" : ", got ''");
            ++i;
            return value;
        };
        if (flag == "--device")
            o.device = device_of(text());
        else if (flag == "--config")
            o.config = text();
        else if (flag == "--weights")
            o.weights = text();
        else if (flag == "--scaling")
            o.scaling = text();
        else if (flag == "--json")
            o.json = text();
        else if (flag == "--dtype")
            o.dtype = element_type_of(text());
        else if (flag == "--cache")
            o.cache = cache_type_of(text());
        else if (flag == "--layers")
            o.layers = number<std::int64_t>(flag, text(), 1);
        else if (flag == "--context")
            o.context = number<std::int64_t>(flag, text(), 1);
        else if (flag == "--chunk")
            o.chunk = number<std::int64_t>(flag, text(), 1);
        else if (flag == "--decode")
            o.decode = number<std::int64_t>(flag, text(), 0), has_decode = true;
        else if (flag == "--generate")
            o.generate = number<std::int64_t>(flag, text(), 1);
        else if (flag == "--seed")
            o.seed = number<std::int64_t>(flag, text(), 0, std::numeric_limits<std::int64_t>::max());
        else if (flag == "--threads")
            o.threads = number<int>(flag, text(), 0, rw::cpu::most_threads);
        else if (flag == "--prompt-ids")
            o.prompt = numbers<std::int32_t>(flag, text());
        else if (flag == "--perplexity")
            o.perplexity = text();
        else if (flag == "--turns")
            o.turns = numbers<std::int64_t>(flag, text(), 1);
        else
            rw::detail::fail("unknown option '{}'; --help lists them", flag);
    }
    if (!o.perplexity.empty()) {
        for (const auto& [given, flag] :
             {std::pair(o.generate > 0, "--generate"), {has_decode, "--decode"}, {!o.prompt.empty(), "--prompt-ids"}})
            RW_EXPECTS(!given, "--perplexity reads the tokens of a file and cannot be combined with {}", flag);
        o.decode = 0;
    }
    RW_EXPECTS(o.turns.empty() || !o.perplexity.empty(), "--turns needs --perplexity");
    // The default of --decode must not exceed --context.
    const std::int64_t room = o.context - static_cast<std::int64_t>(o.prompt.size());
    if (!has_decode && !o.prompt.empty() && o.context > 0) o.decode = std::clamp<std::int64_t>(room, 0, o.decode);
    return o;
}

}  // namespace giraffe
