// A batch of tokens for a stack of layers, and the checks that every stack makes of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/cache_type.hpp"
#include "ropewalk/encoding.hpp"
#include "ropewalk/llama/config.hpp"

namespace ropewalk::llama {

/// Tokens that a call adds to one sequence of the cache.
struct segment {
    int sequence = 0;
    std::int64_t tokens = 0;
    /// Tokens of the sequence when its prompt is complete. A policy that depends on the length encodes every chunk for
    /// this length. 0: the length after this call.
    std::int64_t whole = 0;
};

/// Rows [first, first + tokens) of a call's tensors belong to one sequence, which has `past` tokens in the cache.
struct sequence_rows {
    std::int64_t first = 0, tokens = 0, past = 0;
};

/// Seconds spent since the stack was created or reset_seconds() was called.
struct stack_seconds {
    double projections = 0;  ///< q, k, v and o
    double rope = 0;
    double cache = 0;  ///< storing keys and values; 0 where the rotation stores them
    double attention = 0;
    double mlp = 0;
    double norm = 0;
};

namespace detail {

using ropewalk::detail::bit_cast, ropewalk::detail::fail;

inline void check_encoding(const model_config& config, const Encoding& encoding) {
    RW_EXPECTS(encoding.geometry.head_dim == config.head_dim,
               "the encoding is for head_dim {}, the model has heads of {}", encoding.geometry.head_dim,
               config.head_dim);
    RW_EXPECTS(!encoding.geometry.layout || *encoding.geometry.layout == config.layout,
               "the encoding is for the layout {}, the model's weights for {}",
               to_string(encoding.geometry.layout.value_or(config.layout)), to_string(config.layout));
}

/// Checks a batch against the cache and returns the number of its tokens.
template <class Cache>
std::int64_t check_segments(const model_config& config, std::span<const segment> batch, const Cache& cache) {
    const auto layout = cache.layout(0);
    RW_EXPECTS(
        cache.layers() == config.layers && layout.kv_heads == config.kv_heads && layout.head_dim == config.head_dim,
        "the cache is for {} layers of {} heads of {} elements, the model has {} layers of {} heads of {} elements",
        cache.layers(), layout.kv_heads, layout.head_dim, config.layers, config.kv_heads, config.head_dim);
    std::int64_t tokens = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const auto [sequence, added, whole] = batch[i];
        const std::int64_t past = cache.tokens(sequence);
        RW_EXPECTS(added <= std::numeric_limits<std::int64_t>::max() - std::max(past, tokens),
                   "sequence {} has {} tokens; {} more, after {} others in the batch, overflow 64 bits", sequence, past,
                   added, tokens);
        RW_EXPECTS(added >= 0 && (whole == 0 || whole >= past + added),
                   "sequence {} has {} tokens and cannot add {} for a whole of {}", sequence, past, added, whole);
        for (std::size_t before = 0; before < i; ++before)
            RW_EXPECTS(batch[before].sequence != sequence, "sequence {} comes twice in one batch", sequence);
        tokens += added;
    }
    return tokens;
}

inline void check_hidden(const model_config& config, std::int64_t tokens, std::size_t numbers) {
    const auto width = static_cast<std::size_t>(config.hidden_size);
    // The product may overflow 64 bits. As a double it is exact for all sizes that fit in memory.
    RW_EXPECTS(numbers % width == 0 && numbers / width == static_cast<std::size_t>(tokens),
               "hidden has {} numbers, {} tokens of {} need {}", numbers, tokens, width,
               static_cast<double>(tokens) * static_cast<double>(width));
}

inline void check_ids(const model_config& config, std::span<const std::int32_t> token_ids) {
    for (const std::int32_t id : token_ids)
        RW_EXPECTS(id >= 0 && id < config.vocabulary, "token id {} is not among the {} of the vocabulary", id,
                   config.vocabulary);
}

/// Returns the index of the first number that is infinite or NaN, or −1.
inline std::int64_t first_not_finite(std::span<const float> numbers) {
    // One more in the exponent: infinity and NaN get the top bit, and no branch is needed per number.
    const auto marked = [](const float& x) { return (bit_cast<std::uint32_t>(x) & 0x7fffffffU) + 0x00800000U; };
    std::uint32_t marks = 0;
    for (const float& x : numbers) marks |= marked(x);
    if (marks >> 31 == 0) return -1;
    return std::find_if(numbers.begin(), numbers.end(), [&](const float& x) { return marked(x) >> 31 != 0; }) -
           numbers.begin();
}

/// Throws that a token is not finite at a place such as "after" layer 3.
[[noreturn]] inline void fail_not_finite(std::int64_t position, std::string_view place, std::int64_t layer) {
    fail(
        "the hidden state of the token at position {} is not finite {} layer {}: a number is infinite, NaN or too "
        "large "
        "to be squared in float32",
        position, place, layer);
}

/// Throws that logits [rows, vocabulary] of the tokens from position `first` on are not finite. Their hidden states
/// are.
inline void check_logits(std::span<const float> logits, std::int64_t vocabulary, std::int64_t first) {
    const std::int64_t wrong = first_not_finite(logits);
    RW_EXPECTS(
        wrong < 0,
        "the logits of the token at position {} are not finite, {} for token id {}, although its hidden state is "
        "finite after the last layer: check the final norm and the head",
        first + wrong / vocabulary,
        static_cast<double>(logits[static_cast<std::size_t>(std::max<std::int64_t>(wrong, 0))]), wrong % vocabulary);
}

/// Checks that keys with xPos magnitudes fit in an f16 cache, with 2^8 left for keys of up to 255. The rotation checks
/// its own type, and that there are enough drawn positions.
inline void check_keys(const Encoding& encoding, std::int64_t tokens, cache_type type) {
    const bool drawn = encoding.draw_positions != nullptr;
    if (type != cache_type::f16 || !encoding.has_magnitude() || (drawn && tokens > encoding.drawn_tokens)) return;
    std::int64_t lowest = 0, highest = tokens - 1;
    if (drawn) {
        std::vector<fixed_position> positions(static_cast<std::size_t>(encoding.drawn_tokens));
        encoding.draw_positions(0, positions);
        for (const fixed_position& position : std::span(positions).first(static_cast<std::size_t>(tokens))) {
            lowest = std::min(lowest, position.value >> 32);
            highest = std::max(highest, position.value >> 32);
        }
    }
    const std::int64_t reach = encoding.reach(8.0);
    RW_EXPECTS(lowest >= encoding.centre - reach && highest <= encoding.centre + reach,
               "'{}' at positions {} to {} exceeds an f16 cache, which holds {} around the centre {}; use bf16 or f32",
               encoding.expression, lowest, highest, reach, encoding.centre);
}

}  // namespace detail

}  // namespace ropewalk::llama
