// A Llama's layers on a device: what each of them runs, in order, whoever executes it. Nothing is allocated, nothing
// waits, and what a call needs to know of its sequences device memory holds.
#pragma once

#include "ropewalk/gpu/attention/blocks.hpp"
#include "ropewalk/gpu/attention/norm.hpp"
#include "ropewalk/gpu/attention/pick.hpp"
#include "ropewalk/gpu/attention/silu.hpp"
#include "ropewalk/gpu/fused.hpp"

namespace ropewalk::gpu::attention {

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
struct llama_weights {
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

/// What a step keeps in its workspace.
struct llama_room {
    std::int64_t* positions = nullptr;  ///< [tokens]
    std::int64_t* slots = nullptr;      ///< [tokens]
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

inline void check_llama(const llama_shape& shape, const llama_weights& weights, const llama_batch& batch,
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

/// One step of a checked call.
template <class Device>
class llama_step {
    using T = typename Device::element;

public:
    llama_step(Device& device, const llama_shape& shape, const llama_batch& batch, const Encoding& encoding,
               const llama_room& room)
        : device_(device), shape_(shape), batch_(batch), encoding_(encoding), room_(room) {}

    void layer(const layer_weights& w, const kv_cache& cache, const matrix_view& hidden) const {
        const matrix_view normed = rows(room_.normed, shape_.hidden_size);
        const matrix_view attended = rows(room_.attended, shape_.q_width());
        device_.run(make_rms_norm(hidden, w.attention_norm, shape_.rms_norm_eps, normed));
        attend(w, cache, normed);
        device_.multiply(make_linear(attended, w.o, hidden, true));
        if (shape_.intermediate_size == 0) return;
        const matrix_view gate = rows(room_.gate, shape_.intermediate_size);
        const matrix_view up = rows(room_.up, shape_.intermediate_size);
        device_.run(make_rms_norm(hidden, w.mlp_norm, shape_.rms_norm_eps, normed));
        device_.multiply(make_linear(normed, w.gate, gate));
        device_.multiply(make_linear(normed, w.up, up));
        device_.run(make_silu(gate, up, gate));
        device_.multiply(make_linear(gate, w.down, hidden, true));
    }

private:
    [[nodiscard]] matrix_view rows(void* data, std::int64_t columns) const {
        return {data, type_of<T>, batch_.tokens, columns, columns};
    }

    void attend(const layer_weights& w, const kv_cache& cache, const matrix_view& normed) const {
        const std::int64_t width = shape_.q_width() + 2 * shape_.kv_width(), tokens = batch_.tokens;
        const matrix_view packed = rows(room_.qkv, width);
        device_.multiply(make_linear(normed, w.q, columns_of(packed, 0, shape_.q_width())));
        device_.multiply(make_linear(normed, w.k, columns_of(packed, shape_.q_width(), shape_.kv_width())));
        device_.multiply(make_linear(normed, w.v, columns_of(packed, width - shape_.kv_width(), shape_.kv_width())));
        const auto heads =
            split_qkv(static_cast<T*>(room_.qkv), tokens, width, shape_.heads, shape_.kv_heads, shape_.head_dim);
        const auto count = static_cast<std::size_t>(tokens);
        device_.append(heads.q, heads.k, heads.v, cache, by_mapping(std::span<const std::int64_t>(room_.slots, count)),
                       encoding_, ids(std::span<const std::int64_t>(room_.positions, count)));
        const view<T> out(static_cast<T*>(room_.attended), tokens, shape_.heads, shape_.head_dim);
        const double scale = encoding_.softmax_factor / std::sqrt(static_cast<double>(shape_.head_dim));
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
    const Encoding& encoding_;
    const llama_room& room_;
};

}  // namespace detail

/// Runs the tokens of a batch through all layers: hidden [tokens, hidden_size], f32, which embeddings fill where the
/// batch has numbers of tokens. Keys and values go to the caches, one a layer. `logits` [sequences, vocabulary]
/// receives what the last token of each sequence predicts, where it exists; those of a sequence without tokens mean
/// nothing.
///
/// The kernels of `device` run on its stream, the products too. Throws ropewalk::error, with nothing launched, where
/// shapes do not fit, as far as the host can tell.
template <class Device>
void llama_forward(Device& device, const llama_shape& shape, const llama_weights& weights, const llama_batch& batch,
                   std::span<const kv_cache> caches, const Encoding& encoding, const matrix_view& hidden,
                   const matrix_view& logits, const workspace& space) {
    using T = typename Device::element;
    detail::check_llama(shape, weights, batch, caches, hidden, type_of<T>);
    RW_EXPECTS(!logits.exists() || (weights.head.exists() && weights.final_norm.exists() &&
                                    logits.rows == batch.sequence.count && logits.columns == weights.head.rows),
               "{} of {} sequences want a norm and a head, got {}", detail::shape_of("logits", logits),
               batch.sequence.count, detail::shape_of("the head", weights.head));
    const llama_room room = make_llama_room(space.data, type_of<T>, shape, batch);
    RW_EXPECTS(space.data != nullptr && space.bytes >= room.bytes, "the step wants a workspace of {} bytes, got {}",
               room.bytes, space.bytes);
    if (batch.tokens == 0) return;
    device.run(make_place(batch.sequence, batch.tokens, caches[0].k, batch.pages, room.positions, room.slots));
    if (batch.ids != nullptr) device.run(make_embed(weights.embedding, batch.ids, hidden));
    const detail::llama_step<Device> step(device, shape, batch, encoding, room);
    for (std::size_t i = 0; i < caches.size(); ++i) step.layer(weights.layers[i], caches[i], hidden);
    if (!logits.exists()) return;
    const std::int64_t sequences = batch.sequence.count, width = shape.hidden_size;
    const matrix_view last = rows_of(room.last, sequences, width);
    const matrix_view normed{room.normed, type_of<T>, sequences, width, width};
    device.run(make_last_rows(hidden, batch.sequence, last));
    device.run(make_rms_norm(last, weights.final_norm, shape.rms_norm_eps, normed));
    device.multiply(make_linear(normed, weights.head, logits));
}

}  // namespace ropewalk::gpu::attention
