// A Llama's layers on a GPU. Needs cuBLAS.
#pragma once

#include "ropewalk/gpu/fused.cuh"
#include "ropewalk/llama/gpu/cublas.cuh"
#include "ropewalk/llama/gpu/device.cuh"
#include "ropewalk/llama/gpu/llama.hpp"

namespace ropewalk::llama::gpu {

namespace detail {

/// Executes what llama_forward() asks for, in order of one stream.
template <Element T, Layout L>
class cuda_device {
public:
    using element = T;

    cuda_device(const cublas& products, const options& chosen) : products_(products), chosen_(chosen) {}

    template <class Job>
    void run(const Job& job) const {
        detail::run(job, chosen_);
    }
    void multiply(const product& p) const { products_.multiply(p, chosen_.stream); }
    void append(const view<T>& q, const view<T>& k, const view<T>& v, const kv_cache& cache, const cache_slots& slots,
                const Encoding& encoding, const positions& where) const {
        ropewalk::gpu::append<L, T>(q, k, v, cache, slots, encoding, where, chosen_);
    }

private:
    const cublas& products_;
    const options& chosen_;
};

}  // namespace detail

/// Attention by matrix products, for sequences whose lengths the host knows: see blocks.hpp.
template <Element T>
RW_HIDDEN void attend_by_blocks(const cublas& products, const view<T>& q, const view<T>& out, const kv_cache& cache,
                                const page_table& pages, std::int64_t sequences, std::span<const known_sequence> known,
                                double scale, const workspace& room, const block_sizes& sizes = {},
                                const options& chosen = {}) {
    const detail::cuda_device<T, half_split> device(products, chosen);
    attend_by_blocks(device, q, out, cache, pages, sequences, known, scale, room, sizes);
}

/// A Llama whose weights are device memory of somebody else, with activations of type T in the layout L of its weights.
/// Hidden states are f32.
template <Element T, Layout L>
class model {
public:
    /// Weights and products must outlive the model. Throws where the encoding is not for its heads.
    model(const llama_shape& shape, const model_weights& weights, Encoding encoding, const cublas& products)
        : shape_(shape), weights_(weights), encoding_(std::move(encoding)), products_(products) {
        RW_EXPECTS(encoding_.geometry.head_dim == shape.head_dim,
                   "the encoding is for head_dim {}, the model has heads of {}", encoding_.geometry.head_dim,
                   shape.head_dim);
    }

    [[nodiscard]] const llama_shape& shape() const { return shape_; }
    [[nodiscard]] std::int64_t workspace_bytes(const llama_batch& batch) const {
        return llama_workspace_bytes(type_of<T>, shape_, batch);
    }

    /// Puts a step on the stream: see llama_forward(). Nothing is allocated and nothing waits. A step without
    /// batch.known depends on device memory alone, so it may be recorded into a CUDA graph, advance() behind it, and
    /// replayed for every token; the graph keeps the encoding that it was recorded with.
    RW_HIDDEN void forward(const llama_batch& batch, std::span<const kv_cache> caches, const matrix_view& hidden,
                           const matrix_view& logits, const workspace& space, const options& chosen = {}) const {
        const detail::cuda_device<T, L> device(products_, chosen);
        llama_forward(device, shape_, weights_, batch, caches, encoding_, hidden, logits, space);
    }

private:
    llama_shape shape_;
    model_weights weights_;
    Encoding encoding_;
    const cublas& products_;
};

}  // namespace ropewalk::llama::gpu
