// What a call adds to the sequences of a cache, and what every stack checks of it, whatever it runs on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "ropewalk/core/cache_type.hpp"
#include "ropewalk/encoding.hpp"
#include "ropewalk/llama/config.hpp"

namespace ropewalk::llama {

/// Tokens that a call adds to one sequence of the cache.
struct segment {
    int sequence = 0;
    std::int64_t tokens = 0;
    /// Tokens that the sequence will have when its prompt is whole: schemes that follow the length encode every chunk
    /// for that. 0: as many as it has after this call.
    std::int64_t whole = 0;
};

/// Seconds spent since the stack was made or reset_seconds() was called.
struct stack_seconds {
    double projections = 0;  ///< q, k, v and o
    double rope = 0;
    double cache = 0;  ///< keys and values into the cache; 0 where the rotation writes them there
    double attention = 0;
    double mlp = 0;
    double norm = 0;
};

namespace detail {

inline void check_encoding(const model_config& config, const Encoding& encoding) {
    RW_EXPECTS(encoding.geometry.head_dim == config.head_dim,
               "the encoding is for head_dim {}, the model has heads of {}", encoding.geometry.head_dim,
               config.head_dim);
    RW_EXPECTS(!encoding.geometry.layout || *encoding.geometry.layout == config.layout,
               "the encoding is for the layout {}, the model's weights for {}",
               to_string(encoding.geometry.layout.value_or(config.layout)), to_string(config.layout));
}

/// The tokens of a batch.
template <class Cache>
std::int64_t check_segments(const model_config& config, std::span<const segment> batch, const Cache& cache) {
    const auto layout = cache.layout(0);
    RW_EXPECTS(
        cache.layers() == config.layers && layout.kv_heads == config.kv_heads && layout.head_dim == config.head_dim,
        "the cache is for {} layers of {} heads of {}, the model has {} of {} of {}", cache.layers(), layout.kv_heads,
        layout.head_dim, config.layers, config.kv_heads, config.head_dim);
    std::int64_t tokens = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const segment& one = batch[i];
        const std::int64_t past = cache.tokens(one.sequence);
        RW_EXPECTS(one.tokens <= std::numeric_limits<std::int64_t>::max() - std::max(past, tokens),
                   "sequence {} has {} tokens and gets {} behind {} others of the batch, which 64 bits do not count",
                   one.sequence, past, one.tokens, tokens);
        RW_EXPECTS(one.tokens >= 0 && (one.whole == 0 || one.whole >= past + one.tokens),
                   "sequence {} has {} tokens and gets {}, which makes no whole of {}", one.sequence, past, one.tokens,
                   one.whole);
        for (std::size_t before = 0; before < i; ++before)
            RW_EXPECTS(batch[before].sequence != one.sequence, "sequence {} comes twice in one batch", one.sequence);
        tokens += one.tokens;
    }
    return tokens;
}

inline void check_hidden(const model_config& config, std::int64_t tokens, std::size_t numbers) {
    const auto width = static_cast<std::size_t>(config.hidden_size);
    // The product may not fit into 64 bits; as a double it is exact for all that do fit into memory.
    RW_EXPECTS(numbers % width == 0 && numbers / width == static_cast<std::size_t>(tokens),
               "hidden has {} numbers, {} tokens of {} need {}", numbers, tokens, width,
               static_cast<double>(tokens) * static_cast<double>(width));
}

inline void check_ids(const model_config& config, std::span<const std::int32_t> token_ids) {
    for (const std::int32_t id : token_ids)
        RW_EXPECTS(id >= 0 && id < config.vocabulary, "token id {} is not among the {} of the vocabulary", id,
                   config.vocabulary);
}

/// The rotation sees to it that its own type holds what xPos stretches; an f16 cache holds less. 2^8 leaves keys of up
/// to 255.
inline void check_keys(const Encoding& encoding, std::int64_t tokens, cache_type type) {
    // More tokens than there are drawn positions is for the rotation to refuse.
    const bool drawn = encoding.draw_positions != nullptr;
    if (type != cache_type::f16 || !encoding.has_magnitude() || (drawn && tokens > encoding.drawn_tokens)) return;
    std::int64_t lowest = 0, highest = tokens - 1;
    if (drawn) {
        std::vector<fixed_position> places(static_cast<std::size_t>(encoding.drawn_tokens));
        encoding.draw_positions(0, places);
        for (const fixed_position& one : std::span(places).first(static_cast<std::size_t>(tokens))) {
            lowest = std::min(lowest, one.value >> 32);
            highest = std::max(highest, one.value >> 32);
        }
    }
    const std::int64_t reach = encoding.reach(8.0);
    RW_EXPECTS(lowest >= encoding.centre - reach && highest <= encoding.centre + reach,
               "'{}' at positions {} to {} does not fit into an f16 cache, which holds {} around the centre {}: take "
               "bf16 or f32",
               encoding.expression, lowest, highest, reach, encoding.centre);
}

}  // namespace detail

}  // namespace ropewalk::llama
