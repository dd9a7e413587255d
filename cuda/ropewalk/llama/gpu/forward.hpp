// One step through the layers of a Llama: the kernels and products of every layer, in order, on any backend.
#pragma once

#include "ropewalk/gpu/fused.hpp"
#include "ropewalk/llama/batch.hpp"
#include "ropewalk/llama/gpu/blocks.hpp"
#include "ropewalk/llama/gpu/rows.hpp"
#include "ropewalk/llama/gpu/tokens.hpp"
#include "ropewalk/llama/weights.hpp"

namespace ropewalk::llama::gpu {

/// Consecutive rows of a step whose sequences have the same encoding.
struct encoded_rows {
    const Encoding* encoding = nullptr;  ///< lives until the step is on its stream
    std::int64_t first = 0, tokens = 0;
    std::span<const fixed_position> drawn{};  ///< device memory, for encodings that draw their positions
};

/// Arguments of forward(). Pointers are to device memory.
struct forward_args {
    sequences batch;
    std::int64_t tokens = 0;
    const std::int32_t* ids = nullptr;  ///< [tokens]; null: `hidden` holds the embeddings
    matrix_view hidden;                 ///< f32 [tokens, hidden_size], in and out
    matrix_view logits{};               ///< f32, absent, or [rows, vocabulary]; see logits_of_last()
    std::span<const kv_cache> caches;   ///< one per layer
    std::span<const encoded_rows> encodings;
    /// Selects attention by blocks, for prompts: the rows of each sequence, which must agree with device memory. If
    /// empty, the step depends on device memory alone and can be recorded and replayed.
    std::span<const sequence_rows> known{};
    std::int64_t splits = 1;  ///< of the keys, if `known` is empty: see splits_for()
    block_sizes blocks{};
};

/// True if logits [sequences, vocabulary] are wanted for the last token of each sequence, false if logits [tokens,
/// vocabulary] are wanted for every token. With one token per sequence both are the same.
inline bool logits_of_last(const forward_args& args) {
    return args.batch.starts != nullptr && args.logits.rows == args.batch.count;
}

/// Part of a step whose time is measured; null: none of them.
using step_part = double stack_seconds::*;

/// Buffers of a step in its workspace, or without a workspace only their `bytes`. These do not shrink if tokens,
/// sequences or splits grow.
struct forward_buffers {
    std::int64_t* positions = nullptr;  ///< [tokens]
    std::int64_t* slots = nullptr;      ///< [tokens]
    fixed_position* numbers = nullptr;  ///< [tokens], drawn positions
    void* normed = nullptr;             ///< [tokens or sequences, hidden_size]
    void* qkv = nullptr;                ///< [tokens, q_width + 2 · kv_width]
    void* attended = nullptr;           ///< [tokens, q_width]
    void* gate = nullptr;               ///< [tokens, intermediate_size]
    void* up = nullptr;
    float* last = nullptr;  ///< [sequences, hidden_size]
    workspace attention;    ///< of attend() or of attend_by_blocks()
    std::int64_t bytes = 0;

    forward_buffers(void* data, element_type type, const model_config& config, const forward_args& args) {
        carver from(data);
        const auto size = static_cast<std::int64_t>(size_of(type));
        const std::int64_t tokens = args.tokens, sequences = args.batch.count;
        positions = from.take<std::int64_t>(tokens);
        slots = from.take<std::int64_t>(tokens);
        numbers = from.take<fixed_position>(tokens);
        normed = from.take(std::max(tokens, sequences) * config.hidden_size, size);
        qkv = from.take(tokens * (config.q_width() + 2 * config.kv_width()), size);
        attended = from.take(tokens * config.q_width(), size);
        gate = from.take(tokens * config.intermediate_size, size);
        up = from.take(tokens * config.intermediate_size, size);
        last = from.take<float>(sequences * config.hidden_size);
        attention.bytes =
            args.known.empty()
                ? attend_workspace_bytes(tokens, config.heads, config.head_dim, args.splits)
                : block_buffers(nullptr, type, config.heads, config.kv_heads, config.head_dim, args.blocks).bytes;
        attention.data = from.take(attention.bytes);
        bytes = from.used();
    }
};

namespace detail {

inline matrix_view view_of(const matrix& w) {
    return {const_cast<void*>(w.data), w.type, w.rows, w.columns, w.columns};
}

inline void check_shape(std::string_view name, const matrix_view& m, std::int64_t rows, std::int64_t columns) {
    RW_EXPECTS(m.exists() && m.type == element_type::f32 && m.rows == rows && m.columns == columns,
               "{} must be f32 [{}, {}]", shape_of(name, m), rows, columns);
}

inline void check_forward(const model_config& config, const model_weights& weights, const forward_args& args) {
    const auto& caches = args.caches;
    RW_EXPECTS(weights.layers.size() == caches.size() && !caches.empty(), "{} layers need one cache each, got {}",
               weights.layers.size(), caches.size());
    for (const kv_cache& cache : caches)
        RW_EXPECTS(cache.k.pages == caches[0].k.pages && cache.k.page_size == caches[0].k.page_size,
                   "the caches of all layers must have the same pages, got {} of {} and {} of {}", caches[0].k.pages,
                   caches[0].k.page_size, cache.k.pages, cache.k.page_size);
    check_shape("hidden", args.hidden, args.tokens, config.hidden_size);
    RW_EXPECTS(args.ids == nullptr || weights.embedding.exists(), "token ids need an embedding");
    if (args.logits.exists()) {
        RW_EXPECTS(weights.head.exists() && weights.final_norm.exists(), "logits need a final norm and a head");
        check_shape("logits", args.logits, logits_of_last(args) ? args.batch.count : args.tokens, weights.head.rows);
    }
    std::int64_t rows = 0;
    for (const encoded_rows& part : args.encodings) {
        RW_EXPECTS(part.encoding != nullptr && part.first == rows && part.tokens > 0,
                   "an encoding for rows [{}, {} + {}) follows {} rows", part.first, part.first, part.tokens, rows);
        rows += part.tokens;
    }
    RW_EXPECTS(rows == args.tokens, "there are encodings for {} of {} tokens", rows, args.tokens);
}

/// A step whose arguments are checked.
template <class Backend>
struct forward_step {
    Backend& backend;
    const model_config& config;
    element_type type;
    const forward_args& args;
    const forward_buffers& buffers;

    /// Finds the positions and cache slots of the tokens, which all layers share.
    void locate() const {
        backend.run(make_locate(args.batch, args.tokens, args.caches[0].k, buffers.positions, buffers.slots));
        for (const encoded_rows& part : args.encodings) {
            if (part.encoding->draw_positions)
                backend.run(make_draw(positions(part), part.drawn, buffers.numbers + part.first));
        }
    }

    void layer(const layer_weights& w, const kv_cache& cache) const {
        const matrix_view normed = rows(buffers.normed, config.hidden_size);
        norm(w.attention_norm, normed);
        attend(w, cache, normed);
        backend.enter(&stack_seconds::projections);
        backend.multiply(make_linear(rows(buffers.attended, config.q_width()), view_of(w.o), args.hidden, true));
        if (config.intermediate_size == 0) return;
        const matrix_view gate = rows(buffers.gate, config.intermediate_size);
        const matrix_view up = rows(buffers.up, config.intermediate_size);
        norm(w.mlp_norm, normed);
        backend.enter(&stack_seconds::mlp);
        backend.multiply(make_linear(normed, view_of(w.gate), gate));
        backend.multiply(make_linear(normed, view_of(w.up), up));
        backend.run(make_silu(gate, up, gate));
        backend.multiply(make_linear(gate, view_of(w.down), args.hidden, true));
    }

    /// Computes the logits of the last token of every sequence, or of all tokens.
    void head(const model_weights& weights) const {
        const std::int64_t width = config.hidden_size;
        const matrix_view normed{buffers.normed, type, args.logits.rows, width, width};
        matrix_view states = args.hidden;
        if (logits_of_last(args)) {
            states = rows_of(buffers.last, args.batch.count, width);
            // A sequence without tokens gets the row before it.
            backend.run(make_gather_rows(args.hidden, states, args.batch.starts + 1, -1));
        }
        backend.run(make_rms_norm(states, view_of(weights.final_norm), config.rms_norm_eps, normed));
        backend.multiply(make_linear(normed, view_of(weights.head), args.logits));
    }

    [[nodiscard]] matrix_view rows(void* data, std::int64_t columns) const {
        return {data, type, args.tokens, columns, columns};
    }
    [[nodiscard]] std::span<const std::int64_t> positions(const encoded_rows& part) const {
        return {buffers.positions + part.first, static_cast<std::size_t>(part.tokens)};
    }

    void norm(const matrix& weight, const matrix_view& normed) const {
        backend.enter(&stack_seconds::norm);
        backend.run(make_rms_norm(args.hidden, view_of(weight), config.rms_norm_eps, normed));
    }

    /// Rotates queries in place, and writes rotated keys and values to the cache.
    void append(const kv_cache& cache, const matrix_view& packed, const encoded_rows& part) const {
        const auto count = static_cast<std::size_t>(part.tokens);
        const std::span<const std::int64_t> slots(buffers.slots + part.first, count);
        const std::span<const fixed_position> numbers(buffers.numbers + part.first, count);
        with_element(type, [&]<class T>(T /*type*/) {
            const auto heads =
                ropewalk::gpu::split_qkv(static_cast<T*>(packed.data) + part.first * packed.stride, part.tokens,
                                         packed.stride, config.heads, config.kv_heads, config.head_dim);
            backend.append(config.layout, heads, cache, ropewalk::gpu::by_mapping(slots), *part.encoding,
                           part.encoding->draw_positions ? ids(numbers) : ids(positions(part)));
        });
    }

    void attend(const layer_weights& w, const kv_cache& cache, const matrix_view& normed) const {
        backend.enter(&stack_seconds::projections);
        const std::int64_t q_width = config.q_width(), kv_width = config.kv_width();
        const matrix_view packed = rows(buffers.qkv, q_width + 2 * kv_width);
        backend.multiply(make_linear(normed, view_of(w.q), columns_of(packed, 0, q_width)));
        backend.multiply(make_linear(normed, view_of(w.k), columns_of(packed, q_width, kv_width)));
        backend.multiply(make_linear(normed, view_of(w.v), columns_of(packed, q_width + kv_width, kv_width)));
        backend.enter(&stack_seconds::rope);
        for (const encoded_rows& part : args.encodings) append(cache, packed, part);
        backend.enter(&stack_seconds::attention);
        const tensor q = queries(buffers.qkv, packed.stride), out = queries(buffers.attended, q_width);
        const double scale =
            args.encodings.front().encoding->softmax_factor / std::sqrt(static_cast<double>(config.head_dim));
        if (!args.known.empty())
            return attend_by_blocks(backend, q, out, cache, args.batch, args.known, scale, buffers.attention,
                                    args.blocks);
        const attend_plan plan = make_attend(q, out, cache, args.batch, scale, args.splits, buffers.attention);
        backend.run(plan.attend);
        backend.run(plan.merge);
    }

    [[nodiscard]] tensor queries(void* data, std::int64_t stride) const {
        return {.data = data,
                .type = type,
                .tokens = args.tokens,
                .heads = config.heads,
                .head_dim = config.head_dim,
                .stride_batch = args.tokens * stride,
                .stride_token = stride,
                .stride_head = config.head_dim};
    }
};

}  // namespace detail

/// Runs the tokens of a step through all layers, with weights in device memory that check_weights() accepts, all
/// matrices of one type. Keys and values go to the caches. Nothing is allocated, nothing waits, and all kernels and
/// products go to the stream of the backend. The softmax factor is that of the first encoding. The logits of a sequence
/// without tokens are meaningless. Throws ropewalk::error, with nothing launched, if shapes do not fit, as far as the
/// host can tell.
template <class Backend>
void forward(Backend& backend, const model_config& config, const model_weights& weights, const forward_args& args,
             const workspace& space) {
    detail::check_forward(config, weights, args);
    const element_type type = weights.layers.front().q.type;
    const forward_buffers buffers(space.data, type, config, args);
    RW_EXPECTS(space.data != nullptr && space.bytes >= buffers.bytes, "the step needs a workspace of {} bytes, got {}",
               buffers.bytes, space.bytes);
    if (args.tokens == 0) return;
    const detail::forward_step<Backend> step{backend, config, type, args, buffers};
    backend.enter(nullptr);
    step.locate();
    if (args.ids != nullptr) backend.run(make_gather_rows(detail::view_of(weights.embedding), args.hidden, args.ids));
    for (std::size_t i = 0; i < args.caches.size(); ++i) step.layer(weights.layers[i], args.caches[i]);
    backend.enter(nullptr);
    if (args.logits.exists()) step.head(weights);
}

}  // namespace ropewalk::llama::gpu
