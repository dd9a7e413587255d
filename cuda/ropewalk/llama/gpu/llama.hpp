// A Llama's layers on a device: what each of them runs, in order, whoever executes it. Nothing is allocated, nothing
// waits, and what a call needs to know of its sequences device memory holds.
#pragma once

#include "ropewalk/gpu/fused.hpp"
#include "ropewalk/llama/gpu/blocks.hpp"
#include "ropewalk/llama/gpu/gather.hpp"
#include "ropewalk/llama/gpu/norm.hpp"
#include "ropewalk/llama/gpu/silu.hpp"

namespace ropewalk::llama::gpu {

using ropewalk::gpu::by_mapping, ropewalk::gpu::split_qkv;

/// The shape of a Llama; names as in Hugging Face's config.json.
struct llama_shape {
    std::int64_t hidden_size = 0, heads = 0, kv_heads = 0, head_dim = 0;
    std::int64_t intermediate_size = 0;  ///< 0: layers are attention alone
    double rms_norm_eps = 1e-5;

    [[nodiscard]] constexpr std::int64_t q_width() const { return heads * head_dim; }
    [[nodiscard]] constexpr std::int64_t kv_width() const { return kv_heads * head_dim; }
};

/// One layer in device memory. Matrices are [outputs, inputs] of the activations' type, norms [1, hidden_size] of any.
struct layer_weights {
    matrix_view attention_norm, q, k, v, o;
    matrix_view mlp_norm, gate, up, down;  ///< absent where there is no MLP
};
struct model_weights {
    std::span<const layer_weights> layers;
    matrix_view embedding;         ///< [vocabulary, hidden_size]; absent: hidden states are given
    matrix_view final_norm, head;  ///< absent: hidden states are all
};

/// The tokens of a step, and where the caches have their sequences.
struct llama_batch {
    sequences sequence;
    page_table pages;
    std::int64_t tokens = 0;
    const std::int32_t* ids = nullptr;  ///< [tokens]; null: `hidden` holds their embeddings
    /// Where given, attention is by blocks, for prompts: what the host knows must be what device memory holds. Else the
    /// step depends on device memory alone, so it can be recorded and replayed.
    std::span<const known_sequence> known{};
    std::int64_t splits = 1;  ///< of the keys, where attention is not by blocks: see splits_for()
    block_sizes sizes{};
};

/// Consecutive rows of a step whose sequences have one encoding.
struct encoded_rows {
    const Encoding* encoding = nullptr;  ///< lives until the step is on its stream
    std::int64_t first = 0, tokens = 0;
    /// Device memory: where the tokens of a sequence lie, for encodings which draw that.
    std::span<const fixed_position> drawn{};
};

/// Parts of a step, for devices that measure them: enter(part) says that the part begins.
enum class llama_part : std::uint8_t { norm, projections, rope, attention, mlp, other };

/// What a step keeps in its workspace.
struct llama_room {
    std::int64_t* positions = nullptr;  ///< [tokens]
    std::int64_t* slots = nullptr;      ///< [tokens]
    fixed_position* numbers = nullptr;  ///< [tokens], drawn
    void* normed = nullptr;             ///< [tokens or sequences, hidden_size]
    void* qkv = nullptr;                ///< [tokens, q_width + 2 · kv_width]
    void* attended = nullptr;           ///< [tokens, q_width]
    void* gate = nullptr;               ///< [tokens, intermediate_size]
    void* up = nullptr;
    float* last = nullptr;  ///< [sequences, hidden_size]
    workspace attention;    ///< of attend() or of attend_by_blocks()
    std::int64_t bytes = 0;
};

inline llama_room make_llama_room(void* data, element_type type, const llama_shape& shape, const llama_batch& batch) {
    detail::carver from(data);
    const auto size = static_cast<std::int64_t>(size_of(type));
    const std::int64_t tokens = batch.tokens, sequences = batch.sequence.count;
    llama_room made;
    made.positions = from.take<std::int64_t>(tokens);
    made.slots = from.take<std::int64_t>(tokens);
    made.numbers = from.take<fixed_position>(tokens);
    made.normed = from.take(std::max(tokens, sequences) * shape.hidden_size, size);
    made.qkv = from.take(tokens * (shape.q_width() + 2 * shape.kv_width()), size);
    made.attended = from.take(tokens * shape.q_width(), size);
    made.gate = from.take(tokens * shape.intermediate_size, size);
    made.up = from.take(tokens * shape.intermediate_size, size);
    made.last = from.take<float>(sequences * shape.hidden_size);
    made.attention.bytes =
        batch.known.empty()
            ? attend_workspace_bytes(tokens, shape.heads, shape.head_dim, batch.splits)
            : make_block_room(nullptr, type, shape.heads, shape.kv_heads, shape.head_dim, batch.sizes).bytes;
    made.attention.data = from.take(made.attention.bytes);
    made.bytes = from.used();
    return made;
}

/// Bytes of the workspace of a step. They do not shrink where tokens, sequences or splits grow.
inline std::int64_t llama_workspace_bytes(element_type type, const llama_shape& shape, const llama_batch& batch) {
    return make_llama_room(nullptr, type, shape, batch).bytes;
}

namespace detail {

inline void check_matrix(std::string_view name, const matrix_view& m, element_type type, std::int64_t rows,
                         std::int64_t columns) {
    RW_EXPECTS(m.exists() && m.type == type && m.rows == rows && m.columns == columns, "{} must be {} [{}, {}]",
               shape_of(name, m), to_string(type), rows, columns);
}

inline void check_layer(const llama_shape& shape, const layer_weights& w, element_type type) {
    const std::int64_t hidden = shape.hidden_size, inner = shape.intermediate_size;
    check_matrix("the attention's norm", w.attention_norm, w.attention_norm.type, 1, hidden);
    check_matrix("q", w.q, type, shape.q_width(), hidden);
    check_matrix("k", w.k, type, shape.kv_width(), hidden);
    check_matrix("v", w.v, type, shape.kv_width(), hidden);
    check_matrix("o", w.o, type, hidden, shape.q_width());
    if (inner == 0) return;
    check_matrix("the MLP's norm", w.mlp_norm, w.mlp_norm.type, 1, hidden);
    check_matrix("gate", w.gate, type, inner, hidden);
    check_matrix("up", w.up, type, inner, hidden);
    check_matrix("down", w.down, type, hidden, inner);
}

inline void check_llama(const llama_shape& shape, const model_weights& weights, const llama_batch& batch,
                        std::span<const kv_cache> caches, const matrix_view& hidden, element_type type) {
    RW_EXPECTS(shape.hidden_size > 0 && shape.heads > 0 && shape.kv_heads > 0 && shape.head_dim > 0 &&
                   shape.intermediate_size >= 0 && shape.heads % shape.kv_heads == 0,
               "hidden_size {}, heads {} over {} of {} and intermediate_size {} make no Llama", shape.hidden_size,
               shape.heads, shape.kv_heads, shape.head_dim, shape.intermediate_size);
    RW_EXPECTS(weights.layers.size() == caches.size() && !caches.empty(), "{} layers want a cache each, got {}",
               weights.layers.size(), caches.size());
    RW_EXPECTS(hidden.type == element_type::f32, "hidden states are f32, got {}", to_string(hidden.type));
    check_matrix("hidden", hidden, element_type::f32, batch.tokens, shape.hidden_size);
    RW_EXPECTS(batch.ids == nullptr || weights.embedding.exists(), "tokens by number want an embedding");
    for (const layer_weights& one : weights.layers) check_layer(shape, one, type);
    for (const kv_cache& one : caches)
        RW_EXPECTS(one.k.pages == caches[0].k.pages && one.k.page_size == caches[0].k.page_size,
                   "the caches of all layers must have the same pages, got {} of {} and {} of {}", caches[0].k.pages,
                   caches[0].k.page_size, one.k.pages, one.k.page_size);
}

inline void check_encodings(std::span<const encoded_rows> encodings, std::int64_t tokens) {
    std::int64_t rows = 0;
    for (const encoded_rows& one : encodings) {
        RW_EXPECTS(one.encoding != nullptr && one.first == rows && one.tokens > 0,
                   "an encoding for rows [{}, {} + {}) behind {} rows", one.first, one.first, one.tokens, rows);
        rows += one.tokens;
    }
    RW_EXPECTS(rows == tokens, "encodings for {} of {} tokens", rows, tokens);
}

template <class Device>
void enter(Device& device, llama_part part) {
    if constexpr (requires { device.enter(part); }) device.enter(part);
}

/// One step of a checked call.
template <class Device>
class llama_step {
    using T = typename Device::element;

public:
    llama_step(Device& device, const llama_shape& shape, const llama_batch& batch,
               std::span<const encoded_rows> encodings, const llama_room& room)
        : device_(device), shape_(shape), batch_(batch), encodings_(encodings), room_(room) {}

    /// What all layers share: where the tokens lie, and their places in the caches.
    void place(const cache_tensor& cache) const {
        device_.run(make_place(batch_.sequence, batch_.tokens, cache, batch_.pages, room_.positions, room_.slots));
        for (const encoded_rows& one : encodings_) {
            if (one.encoding->draw_positions)
                device_.run(make_draw(positions(one), one.drawn, room_.numbers + one.first));
        }
    }

    void layer(const layer_weights& w, const kv_cache& cache, const matrix_view& hidden) const {
        const matrix_view normed = rows(room_.normed, shape_.hidden_size);
        const matrix_view attended = rows(room_.attended, shape_.q_width());
        enter(device_, llama_part::norm);
        device_.run(make_rms_norm(hidden, w.attention_norm, shape_.rms_norm_eps, normed));
        attend(w, cache, normed);
        enter(device_, llama_part::projections);
        device_.multiply(make_linear(attended, w.o, hidden, true));
        if (shape_.intermediate_size == 0) return;
        const matrix_view gate = rows(room_.gate, shape_.intermediate_size);
        const matrix_view up = rows(room_.up, shape_.intermediate_size);
        enter(device_, llama_part::norm);
        device_.run(make_rms_norm(hidden, w.mlp_norm, shape_.rms_norm_eps, normed));
        enter(device_, llama_part::mlp);
        device_.multiply(make_linear(normed, w.gate, gate));
        device_.multiply(make_linear(normed, w.up, up));
        device_.run(make_silu(gate, up, gate));
        device_.multiply(make_linear(gate, w.down, hidden, true));
    }

private:
    [[nodiscard]] matrix_view rows(void* data, std::int64_t columns) const {
        return {data, type_of<T>, batch_.tokens, columns, columns};
    }

    [[nodiscard]] std::span<const std::int64_t> positions(const encoded_rows& rows) const {
        return {room_.positions + rows.first, static_cast<std::size_t>(rows.tokens)};
    }

    /// Rotates queries in place, and keys on their way into the cache, which the values go to as well.
    void append(const kv_cache& cache, std::int64_t width, const encoded_rows& rows) const {
        const auto heads = split_qkv(static_cast<T*>(room_.qkv) + rows.first * width, rows.tokens, width, shape_.heads,
                                     shape_.kv_heads, shape_.head_dim);
        const auto count = static_cast<std::size_t>(rows.tokens);
        const std::span<const std::int64_t> slots(room_.slots + rows.first, count);
        const std::span<const fixed_position> numbers(room_.numbers + rows.first, count);
        device_.append(heads.q, heads.k, heads.v, cache, by_mapping(slots), *rows.encoding,
                       rows.encoding->draw_positions ? ids(numbers) : ids(positions(rows)));
    }

    void attend(const layer_weights& w, const kv_cache& cache, const matrix_view& normed) const {
        enter(device_, llama_part::projections);
        const std::int64_t width = shape_.q_width() + 2 * shape_.kv_width(), tokens = batch_.tokens;
        const matrix_view packed = rows(room_.qkv, width);
        device_.multiply(make_linear(normed, w.q, columns_of(packed, 0, shape_.q_width())));
        device_.multiply(make_linear(normed, w.k, columns_of(packed, shape_.q_width(), shape_.kv_width())));
        device_.multiply(make_linear(normed, w.v, columns_of(packed, width - shape_.kv_width(), shape_.kv_width())));
        enter(device_, llama_part::rope);
        for (const encoded_rows& one : encodings_) append(cache, width, one);
        enter(device_, llama_part::attention);
        const auto heads =
            split_qkv(static_cast<T*>(room_.qkv), tokens, width, shape_.heads, shape_.kv_heads, shape_.head_dim);
        const view<T> out(static_cast<T*>(room_.attended), tokens, shape_.heads, shape_.head_dim);
        const double scale =
            encodings_.front().encoding->softmax_factor / std::sqrt(static_cast<double>(shape_.head_dim));
        if (!batch_.known.empty()) {
            attend_by_blocks(device_, heads.q, out, cache, batch_.pages, batch_.sequence.count, batch_.known, scale,
                             room_.attention, batch_.sizes);
            return;
        }
        const attend_plan plan =
            make_attend(heads.q, out, cache, batch_.pages, batch_.sequence, scale, batch_.splits, room_.attention);
        device_.run(plan.attend);
        device_.run(plan.merge);
    }

    Device& device_;
    const llama_shape& shape_;
    const llama_batch& batch_;
    std::span<const encoded_rows> encodings_;
    const llama_room& room_;
};

}  // namespace detail

/// Runs the tokens of a batch through all layers: hidden [tokens, hidden_size], f32, which embeddings fill where the
/// batch has numbers of tokens. Keys and values go to the caches, one a layer. `logits` [sequences, vocabulary]
/// receives what the last token of each sequence predicts, where it exists; those of a sequence without tokens mean
/// nothing.
///
/// Every run of rows in `encodings` has its own, and their softmax factor is that of the first. The kernels of `device`
/// run on its stream, the products too. Throws ropewalk::error, with nothing launched, where
/// shapes do not fit, as far as the host can tell.
template <class Device>
void llama_forward(Device& device, const llama_shape& shape, const model_weights& weights, const llama_batch& batch,
                   std::span<const kv_cache> caches, std::span<const encoded_rows> encodings, const matrix_view& hidden,
                   const matrix_view& logits, const workspace& space) {
    using T = typename Device::element;
    detail::check_llama(shape, weights, batch, caches, hidden, type_of<T>);
    detail::check_encodings(encodings, batch.tokens);
    RW_EXPECTS(!logits.exists() || (weights.head.exists() && weights.final_norm.exists() &&
                                    logits.rows == batch.sequence.count && logits.columns == weights.head.rows),
               "{} of {} sequences want a norm and a head, got {}", detail::shape_of("logits", logits),
               batch.sequence.count, detail::shape_of("the head", weights.head));
    const llama_room room = make_llama_room(space.data, type_of<T>, shape, batch);
    RW_EXPECTS(space.data != nullptr && space.bytes >= room.bytes, "the step wants a workspace of {} bytes, got {}",
               room.bytes, space.bytes);
    if (batch.tokens == 0) return;
    const detail::llama_step<Device> step(device, shape, batch, encodings, room);
    detail::enter(device, llama_part::other);
    step.place(caches[0].k);
    if (batch.ids != nullptr) device.run(make_embed(weights.embedding, batch.ids, hidden));
    for (std::size_t i = 0; i < caches.size(); ++i) step.layer(weights.layers[i], caches[i], hidden);
    detail::enter(device, llama_part::other);
    if (!logits.exists()) return;
    const std::int64_t sequences = batch.sequence.count, width = shape.hidden_size;
    const matrix_view last = rows_of(room.last, sequences, width);
    const matrix_view normed{room.normed, type_of<T>, sequences, width, width};
    device.run(make_last_rows(hidden, batch.sequence, last));
    device.run(make_rms_norm(last, weights.final_norm, shape.rms_norm_eps, normed));
    device.multiply(make_linear(normed, weights.head, logits));
}

/// The same where all sequences have one encoding, which does not draw its positions.
template <class Device>
void llama_forward(Device& device, const llama_shape& shape, const model_weights& weights, const llama_batch& batch,
                   std::span<const kv_cache> caches, const Encoding& encoding, const matrix_view& hidden,
                   const matrix_view& logits, const workspace& space) {
    const encoded_rows all{&encoding, 0, batch.tokens};
    llama_forward(device, shape, weights, batch, caches, {&all, std::size_t{batch.tokens > 0}}, hidden, logits, space);
}

}  // namespace ropewalk::llama::gpu
