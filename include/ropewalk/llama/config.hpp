// Configuration of a Llama.
#pragma once

#include <cstdint>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/geometry.hpp"

namespace ropewalk::llama {

/// Shape of a decoder of the Llama family, with the names of Hugging Face's config.json.
struct model_config {
    std::int64_t hidden_size = 0;
    std::int64_t layers = 0;
    std::int64_t heads = 0;     ///< of queries
    std::int64_t kv_heads = 0;  ///< of keys and values: heads, or a divisor of it (GQA)
    std::int64_t head_dim = 0;
    std::int64_t intermediate_size = 0;  ///< of the MLP; 0: layers have attention only
    std::int64_t vocabulary = 0;         ///< 0: no embedding and no head
    double rms_norm_eps = 1e-5;
    bool tied_embeddings = false;    ///< the head is the embedding
    double base = 10000.0;           ///< of the rotary encoding
    std::int64_t max_positions = 0;  ///< trained length; 0: unknown
    layout_kind layout = layout_kind::half_split;

    [[nodiscard]] std::int64_t q_width() const { return heads * head_dim; }
    [[nodiscard]] std::int64_t kv_width() const { return kv_heads * head_dim; }
    /// Geometry of the model's encodings.
    [[nodiscard]] Geometry geometry() const { return {.head_dim = head_dim, .base = base, .layout = layout}; }

    /// Throws ropewalk::error, with the values, for an inconsistent shape.
    void validate() const {
        RW_EXPECTS(hidden_size > 0 && layers > 0 && heads > 0 && kv_heads > 0 && head_dim > 0,
                   "hidden_size, layers, heads, kv_heads and head_dim must be positive, got {}, {}, {}, {} and {}",
                   hidden_size, layers, heads, kv_heads, head_dim);
        RW_EXPECTS(heads % kv_heads == 0, "{} query heads cannot share {} key heads", heads, kv_heads);
        RW_EXPECTS(intermediate_size >= 0 && vocabulary >= 0 && max_positions >= 0,
                   "intermediate_size, vocabulary and max_positions must not be negative, got {}, {} and {}",
                   intermediate_size, vocabulary, max_positions);
        RW_EXPECTS(rms_norm_eps >= 0 && rms_norm_eps < 1, "rms_norm_eps must lie in [0, 1), got {}", rms_norm_eps);
        // Products of two extents index memory.
        for (const std::int64_t extent : {hidden_size, layers, heads, head_dim, intermediate_size, vocabulary})
            RW_EXPECTS(extent <= std::int64_t{1} << 24, "no extent may exceed 2^24, got {}", extent);
        geometry().validate();
    }
};

namespace detail {

constexpr model_config llama2(std::int64_t hidden, std::int64_t layers, std::int64_t heads, std::int64_t kv_heads,
                              std::int64_t intermediate) {
    model_config config{.hidden_size = hidden, .layers = layers, .heads = heads, .kv_heads = kv_heads, .head_dim = 128};
    config.intermediate_size = intermediate, config.vocabulary = 32000, config.max_positions = 4096;
    return config;
}

}  // namespace detail

/// Llama-2 (Touvron et al., arXiv 2307.09288, table 1, and its released configurations).
constexpr model_config llama2_7b() { return detail::llama2(4096, 32, 32, 32, 11008); }
constexpr model_config llama2_13b() { return detail::llama2(5120, 40, 40, 40, 13824); }
constexpr model_config llama2_70b() { return detail::llama2(8192, 80, 64, 8, 28672); }

}  // namespace ropewalk::llama
