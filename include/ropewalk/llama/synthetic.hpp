// Generated weights, for measurements and tests without a checkpoint.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ropewalk/core/random.hpp"
#include "ropewalk/cpu/threads.hpp"
#include "ropewalk/llama/weights.hpp"

namespace ropewalk::llama {

namespace detail {

/// Fills a matrix with uniform numbers of ±√(3 / columns), so that inputs of variance 1 give outputs of variance 1.
/// An element takes 16 bits of a Philox draw.
template <class T>
void fill_uniform(T* elements, std::int64_t rows, std::int64_t columns, std::uint64_t seed, std::uint32_t number) {
    constexpr std::int64_t per_draw = 8, half = std::int64_t{1} << 15;
    const float size = std::sqrt(3.0F / static_cast<float>(columns)) / static_cast<float>(half);
    const std::int64_t count = rows * columns, draws = (count + per_draw - 1) / per_draw;
#if defined(RW_OPENMP)
    const int threads = ropewalk::cpu::detail::thread_count(draws >> 13, 0);
#pragma omp parallel for num_threads(threads) schedule(static)
#endif
    for (std::int64_t draw = 0; draw < draws; ++draw) {
        const random_words words =
            philox({{static_cast<std::uint32_t>(draw), static_cast<std::uint32_t>(draw >> 32), number, 0}}, seed);
        std::uint16_t parts[per_draw];
        std::memcpy(parts, words.word, sizeof parts);
        for (std::int64_t i = 0; i < per_draw && draw * per_draw + i < count; ++i) {
            const float centred = static_cast<float>(parts[i]) - (static_cast<float>(half) - 0.5F);
            elements[draw * per_draw + i] = static_cast<T>(centred * size);
        }
    }
}

/// Gives `w` memory that `weights` owns, and fills it.
inline void generate(matrix& w, model_weights& weights, std::uint64_t seed, std::uint32_t number) {
    std::byte* const bytes = allocate(w, weights);
    with_element(w.type, [&]<class T>(T /*type*/) {
        fill_uniform(reinterpret_cast<T*>(bytes), w.rows, w.columns, seed, number);
    });
}

}  // namespace detail

/// Hidden states [tokens, width] of variance 1.
inline std::vector<float> synthetic_states(std::int64_t tokens, std::int64_t width, std::uint64_t seed = 1) {
    std::vector<float> states(static_cast<std::size_t>(tokens * width));
    detail::fill_uniform(states.data(), tokens, width, seed, 0);
    for (float& x : states) x *= std::sqrt(static_cast<float>(width));
    return states;
}

/// Weights of the shape of a model. A seed gives the same weights on every machine and for any number of threads. Norms
/// are 1. Hidden states stay of the order of 1 through any number of layers.
inline model_weights synthetic_weights(const model_config& config, element_type type, std::uint64_t seed) {
    config.validate();
    model_weights weights;
    weights.layers.resize(static_cast<std::size_t>(config.layers));
    std::uint32_t number = 0;
    for_each_weight(config, weights, [&](matrix& w, const std::string& name, std::int64_t rows, std::int64_t columns) {
        if (&w == &weights.head && config.tied_embeddings) {
            w = weights.embedding;
            return;
        }
        w = {nullptr, is_norm(name) ? element_type::f32 : type, rows, columns};
        if (is_norm(name))
            std::fill_n(reinterpret_cast<float*>(allocate(w, weights)), columns, 1.0F);
        else
            detail::generate(w, weights, seed, ++number);
    });
    return weights;
}

}  // namespace ropewalk::llama
