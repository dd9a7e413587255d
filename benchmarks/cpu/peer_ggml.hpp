// ggml's rotation of a workload in place, through its public interface.
#pragma once

#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <ggml-cpu.h>
#include <ggml.h>
#include <ropewalk/core/error.hpp>

#include "workload.hpp"

namespace bench {

/// A graph of `layers` rotations of q and k each. Its threads exist before it runs. ggml has no bf16 rotation.
class ggml_rotation {
public:
    ggml_rotation(const workload& data, std::int64_t first, int layers)
        : positions_(static_cast<std::size_t>(data.size.tokens)) {
        std::iota(positions_.begin(), positions_.end(), static_cast<std::int32_t>(first));
        const auto nodes = static_cast<std::size_t>(2 * layers);
        const std::size_t tensors = nodes + 3;
        context_.reset(
            ggml_init({.mem_size = tensors * ggml_tensor_overhead() + ggml_graph_overhead_custom(2 * tensors, false),
                       .mem_buffer = nullptr,
                       .no_alloc = true}));
        ggml_tensor* const positions = ggml_new_tensor_1d(context_.get(), GGML_TYPE_I32, data.size.tokens);
        positions->data = positions_.data();
        ggml_tensor *q = tensor(data.q), *k = tensor(data.k);
        graph_ = ggml_new_graph_custom(context_.get(), 2 * tensors, false);
        const int mode = data.size.layout == rw::layout_kind::half_split ? GGML_ROPE_TYPE_NEOX : GGML_ROPE_TYPE_NORMAL;
        for (int layer = 0; layer < layers; ++layer) {
            for (ggml_tensor** const x : {&q, &k}) {
                *x = ggml_rope_inplace(context_.get(), *x, positions, static_cast<int>(head_dim), mode);
                ggml_build_forward_expand(graph_, *x);
            }
        }
        ggml_threadpool_params threads = ggml_threadpool_params_default(data.size.threads);
        pool_.reset(ggml_threadpool_new(&threads));
        plan_ = ggml_graph_plan(graph_, data.size.threads, pool_.get());
        memory_.resize(plan_.work_size);
        plan_.work_data = memory_.data();
    }

    void operator()() {
        if (ggml_graph_compute(graph_, &plan_) != GGML_STATUS_SUCCESS) rw::detail::fail("ggml could not rotate");
    }

    [[nodiscard]] static std::string version() {
        return std::string(ggml_version()) + " (" + ggml_commit() + "), " +
               (ggml_cpu_has_avx512() != 0 ? "AVX-512"
                : ggml_cpu_has_avx2() != 0 ? "AVX2"
                                           : "neither AVX2 nor AVX-512");
    }

private:
    ggml_tensor* tensor(const rw::tensor& x) {
        const ggml_type type = x.type == rw::element_type::f16 ? GGML_TYPE_F16 : GGML_TYPE_F32;
        ggml_tensor* const found = ggml_new_tensor_3d(context_.get(), type, x.head_dim, x.heads, x.tokens);
        found->data = x.data;
        return found;
    }
    struct release {
        void operator()(ggml_context* context) const { ggml_free(context); }
        void operator()(ggml_threadpool* pool) const { ggml_threadpool_free(pool); }
    };

    std::vector<std::int32_t> positions_;
    std::vector<std::uint8_t> memory_;
    std::unique_ptr<ggml_context, release> context_;
    std::unique_ptr<ggml_threadpool, release> pool_;
    ggml_cgraph* graph_ = nullptr;
    ggml_cplan plan_{};
};

}  // namespace bench
