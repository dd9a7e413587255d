/// @file  The kernels of a Llama's layers as plain functions, executed by a device or by the host.
#pragma once

#include <ropewalk/gpu/options.hpp>
#include <ropewalk/llama/gpu/attend_plan.hpp>
#include <ropewalk/llama/gpu/matrix_view.hpp>

namespace device {

struct llama_calls {
    using matrix_view = ropewalk::llama::gpu::matrix_view;
    using sequences = ropewalk::llama::gpu::sequences;
    using options = ropewalk::gpu::options;

    static void rms_norm(const matrix_view& x, const matrix_view& weight, double epsilon, const matrix_view& y,
                         const options& with);
    static void silu_multiply(const matrix_view& gate, const matrix_view& up, const matrix_view& out,
                              const options& with);
    static void attend(const ropewalk::tensor& q, const ropewalk::tensor& out, const ropewalk::gpu::kv_cache& cache,
                       const sequences& batch, double scale, std::int64_t splits,
                       const ropewalk::llama::gpu::workspace& space, const options& with);
    static void advance(const sequences& batch, std::int64_t tokens, const ropewalk::gpu::cache_tensor& cache,
                        std::int32_t* past, const options& with);
};

}  // namespace device
