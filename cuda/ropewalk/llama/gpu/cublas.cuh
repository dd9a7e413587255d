// Matrix products by cuBLAS, whose header this one includes and whose library it wants linked: see cmake/cublas.cmake.
#pragma once

#include <cublas_v2.h>

#include <memory>
#include <type_traits>

#include "ropewalk/gpu/launch.cuh"
#include "ropewalk/llama/gpu/product.hpp"

namespace ropewalk::llama::gpu {

namespace detail {

inline void expect_success(cublasStatus_t status, std::string_view what) {
    RW_EXPECTS(status == CUBLAS_STATUS_SUCCESS, "{}: {} ({})", what, cublasGetStatusString(status),
               cublasGetStatusName(status));
}

constexpr cudaDataType_t cublas_type(element_type type) {
    return type == element_type::f32 ? CUDA_R_32F : type == element_type::f16 ? CUDA_R_16F : CUDA_R_16BF;
}

}  // namespace detail

/// Bytes that cuBLAS wants for itself; NVIDIA recommends 32 MiB on Hopper and 4 elsewhere.
inline constexpr std::int64_t cublas_workspace_bytes = std::int64_t{32} << 20;

/// A handle of cuBLAS for the device which is current when it is made. Making one allocates and is slow; products do
/// not. One thread at a time may use it.
class cublas {
public:
    /// `room`: device memory aligned to 256 bytes which products may use, one after the other on one stream. Null:
    /// cuBLAS takes its own, which recorded calls must not rely on.
    explicit cublas(void* room = nullptr, std::int64_t bytes = 0) : room_(room), bytes_(bytes) {
        cublasHandle_t made = nullptr;
        detail::expect_success(cublasCreate(&made), "no cuBLAS");
        handle_.reset(made);
    }

    /// Puts a product on a stream. f32 operands are multiplied in float32, not in TF32.
    void multiply(const product& p, CUstream_st* stream) const {
        if (p.m == 0 || p.n == 0 || p.batch == 0) return;
        // Setting a stream forgets the workspace.
        detail::expect_success(cublasSetStream(handle_.get(), stream), "cuBLAS and its stream");
        if (room_ != nullptr)
            detail::expect_success(cublasSetWorkspace(handle_.get(), room_, static_cast<std::size_t>(bytes_)),
                                   "cuBLAS and its workspace");
        const float one = 1, zero = 0;
        // Row by row is column by column of the transposed: cᵀ = bᵀ aᵀ.
        detail::expect_success(
            cublasGemmStridedBatchedEx_64(handle_.get(), p.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, CUBLAS_OP_N, p.n,
                                          p.m, p.k, &one, p.b.data, detail::cublas_type(p.b.type), p.b.stride,
                                          p.b.batch, p.a.data, detail::cublas_type(p.a.type), p.a.stride, p.a.batch,
                                          p.beta == 0 ? &zero : &p.beta, p.c.data, detail::cublas_type(p.c.type),
                                          p.c.stride, p.c.batch, p.batch, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
            ropewalk::detail::format("product of {} × {} × {}, {} times", p.m, p.n, p.k, p.batch));
    }

private:
    struct release {
        void operator()(cublasHandle_t handle) const { (void)cublasDestroy(handle); }
    };
    std::unique_ptr<std::remove_pointer_t<cublasHandle_t>, release> handle_;
    void* room_ = nullptr;
    std::int64_t bytes_ = 0;
};

}  // namespace ropewalk::llama::gpu
