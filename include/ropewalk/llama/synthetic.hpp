// Made-up weights, for measuring and testing where there is no checkpoint.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>

#include "ropewalk/core/random.hpp"
#include "ropewalk/llama/weights.hpp"

namespace ropewalk::llama {

namespace detail {

/// Element i of a matrix: uniform on ±√(3 / columns), so that a row of inputs of variance 1 has outputs of variance 1.
/// Sixteen bits of a draw each: neighbours share one of Philox.
template <class T>
void fill_uniform(T* elements, const matrix& shape, std::uint64_t seed, std::uint32_t number) {
    constexpr std::int64_t lanes = 8, most = std::int64_t{1} << 15;
    const float size = std::sqrt(3.0F / static_cast<float>(shape.columns)) / static_cast<float>(most);
    const std::int64_t count = shape.rows * shape.columns, draws = (count + lanes - 1) / lanes;
#if defined(RW_OPENMP)
#pragma omp parallel for schedule(static)
#endif
    for (std::int64_t draw = 0; draw < draws; ++draw) {
        const random_words words =
            philox({{static_cast<std::uint32_t>(draw), static_cast<std::uint32_t>(draw >> 32), number, 0}}, seed);
        std::uint16_t parts[lanes];
        std::memcpy(parts, words.word, sizeof parts);
        for (std::int64_t lane = 0; lane < lanes && draw * lanes + lane < count; ++lane) {
            const float centred = static_cast<float>(parts[lane]) - (static_cast<float>(most) - 0.5F);
            elements[draw * lanes + lane] = static_cast<T>(centred * size);
        }
    }
}

/// Uninitialised, so that the pages of a large matrix are first touched by the threads that fill it.
inline std::shared_ptr<std::byte[]> make_bytes(std::int64_t count) {
    constexpr std::align_val_t line{64};
    auto* const bytes = static_cast<std::byte*>(::operator new[](static_cast<std::size_t>(count), line));
    return {bytes, [](std::byte* mine) { ::operator delete[](mine, std::align_val_t{64}); }};
}

}  // namespace detail

/// Weights of the shape of a model, f32 or bf16 or f16, the same for a seed on every machine and for any number of
/// threads. Norms are 1. Hidden states stay of the order of 1 through any number of layers.
inline model_weights synthetic_weights(const model_config& config, element_type type, std::uint64_t seed) {
    config.validate();
    model_weights weights;
    std::uint32_t number = 0;
    const auto make = [&](std::int64_t rows, std::int64_t columns) {
        matrix made{nullptr, type, rows, columns};
        auto bytes = detail::make_bytes(made.bytes());
        made.data = bytes.get();
        ++number;
        if (type == element_type::f32) detail::fill_uniform(reinterpret_cast<float*>(bytes.get()), made, seed, number);
        if (type == element_type::f16) detail::fill_uniform(reinterpret_cast<f16*>(bytes.get()), made, seed, number);
        if (type == element_type::bf16) detail::fill_uniform(reinterpret_cast<bf16*>(bytes.get()), made, seed, number);
        weights.owners.push_back(std::move(bytes));
        return made;
    };
    const std::vector<float> ones(static_cast<std::size_t>(config.hidden_size), 1.0F);
    for (std::int64_t layer = 0; layer < config.layers; ++layer) {
        layer_weights& one = weights.layers.emplace_back();
        one.attention_norm = ones;
        if (config.intermediate_size > 0) one.mlp_norm = ones;
        detail::for_each_matrix(
            config, one,
            [&](matrix& w, const char* /*name*/, std::int64_t rows, std::int64_t columns) { w = make(rows, columns); });
    }
    if (config.vocabulary == 0) return weights;
    weights.final_norm = ones;
    weights.embedding = make(config.vocabulary, config.hidden_size);
    weights.head = config.tied_embeddings ? weights.embedding : make(config.vocabulary, config.hidden_size);
    return weights;
}

}  // namespace ropewalk::llama
