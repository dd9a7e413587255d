/// @file  The attention kernels as plain functions, which a device or the host executes.
#pragma once

#include <ropewalk/gpu/options.hpp>
#include <ropewalk/llama/gpu/attend_plan.hpp>

namespace device {

using ropewalk::llama::gpu::matrix_view;

struct llama_calls {
    static void rms_norm(const matrix_view& x, const matrix_view& weight, double epsilon, const matrix_view& y,
                         const ropewalk::gpu::options& chosen);
    static void silu_multiply(const matrix_view& gate, const matrix_view& up, const matrix_view& out,
                              const ropewalk::gpu::options& chosen);
    static void attend(const ropewalk::tensor& q, const ropewalk::tensor& out, const ropewalk::gpu::kv_cache& cache,
                       const ropewalk::llama::gpu::page_table& pages, const ropewalk::llama::gpu::sequences& batch,
                       double scale, std::int64_t splits, const ropewalk::llama::gpu::workspace& room,
                       const ropewalk::gpu::options& chosen);
    static void advance(const ropewalk::llama::gpu::sequences& batch, std::int64_t tokens,
                        const ropewalk::gpu::cache_tensor& cache, const ropewalk::llama::gpu::page_table& pages,
                        std::int32_t* past, const ropewalk::gpu::options& chosen);
};

}  // namespace device
