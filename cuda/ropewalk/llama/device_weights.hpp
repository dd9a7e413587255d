// The weights of a Llama in a device's memory.
#pragma once

#include <vector>

#include "ropewalk/llama/device_backend.hpp"
#include "ropewalk/llama/weights.hpp"

namespace ropewalk::llama {

/// Copies of a host's weights.
template <Machine M>
class device_weights {
public:
    /// Throws ropewalk::error where weights and configuration differ, or matrices are not all of one type.
    device_weights(M& machine, const model_config& config, const model_weights& weights) : machine_(&machine) {
        check_weights(config, weights);
        type_ = weights.layers.front().q.type;
        for (std::size_t i = 0; i < weights.layers.size(); ++i) {
            const layer_weights& from = weights.layers[i];
            gpu::layer_weights to;
            to.attention_norm = norm(from.attention_norm);
            if (config.intermediate_size > 0) to.mlp_norm = norm(from.mlp_norm);
            to.q = matrix_at(from.q, i), to.k = matrix_at(from.k, i), to.v = matrix_at(from.v, i);
            to.o = matrix_at(from.o, i);
            if (config.intermediate_size > 0)
                to.gate = matrix_at(from.gate, i), to.up = matrix_at(from.up, i), to.down = matrix_at(from.down, i);
            layers_.push_back(to);
        }
        if (config.vocabulary == 0) return;
        final_norm_ = norm(weights.final_norm);
        embedding_ = matrix_at(weights.embedding, layers_.size());
        head_ = weights.head.data == weights.embedding.data ? embedding_ : matrix_at(weights.head, layers_.size());
    }

    [[nodiscard]] element_type type() const { return type_; }
    [[nodiscard]] gpu::model_weights view() const { return {layers_, embedding_, final_norm_, head_}; }
    [[nodiscard]] std::int64_t bytes() const { return bytes_; }

private:
    void* upload(const void* from, std::int64_t bytes) {
        memory_.emplace_back(*machine_, bytes);
        machine_->upload(memory_.back().data(), from, bytes);
        bytes_ += bytes;
        return memory_.back().data();
    }
    gpu::matrix_view norm(const matrix& from) {
        return {upload(from.data, from.bytes()), from.type, 1, from.columns, from.columns};
    }
    gpu::matrix_view matrix_at(const matrix& from, std::size_t layer) {
        RW_EXPECTS(from.type == type_, "layer {} has a matrix of {}, those before are {}: a device wants one type",
                   layer, to_string(from.type), to_string(type_));
        return {upload(from.data, from.bytes()), from.type, from.rows, from.columns, from.columns};
    }

    M* machine_;
    element_type type_ = element_type::f32;
    std::int64_t bytes_ = 0;
    std::vector<device_memory<M>> memory_;
    std::vector<gpu::layer_weights> layers_;
    gpu::matrix_view embedding_, final_norm_, head_;
};

}  // namespace ropewalk::llama
