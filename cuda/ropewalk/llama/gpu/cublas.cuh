// Matrix products by cuBLAS. Needs the header and the library of cuBLAS: see cmake/cublas.cmake.
#pragma once

#include <cublas_v2.h>

#include <memory>
#include <type_traits>

#include "ropewalk/gpu/launch.cuh"
#include "ropewalk/llama/gpu/matrix_view.hpp"

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

/// Bytes of the workspace of cuBLAS. NVIDIA recommends 32 MiB on Hopper and 4 MiB elsewhere.
inline constexpr std::int64_t cublas_workspace_bytes = std::int64_t{32} << 20;

/// A cuBLAS handle for the device that is current during construction. Construction allocates and is slow; products do
/// not allocate. Not thread-safe.
class cublas {
public:
    /// `space`: device memory aligned to 256 bytes, for products that follow each other on one stream. If null, cuBLAS
    /// allocates its own, which recorded calls must not rely on.
    explicit cublas(void* space = nullptr, std::int64_t bytes = 0) : space_(space), bytes_(bytes) {
        cublasHandle_t handle = nullptr;
        detail::expect_success(cublasCreate(&handle), "cuBLAS cannot be initialised");
        handle_.reset(handle);
    }

    /// Submits a product to a stream. f32 operands are multiplied in float32, not in TF32.
    void multiply(const product& p, CUstream_st* stream) const {
        if (p.m == 0 || p.n == 0 || p.batch == 0) return;
        // Setting a stream resets the workspace.
        detail::expect_success(cublasSetStream(handle_.get(), stream), "cuBLAS refuses its stream");
        if (space_ != nullptr)
            detail::expect_success(cublasSetWorkspace(handle_.get(), space_, static_cast<std::size_t>(bytes_)),
                                   "cuBLAS refuses its workspace");
        const float one = 1, zero = 0;
        // Row-major matrices are column-major transposed ones: cᵀ = bᵀ aᵀ.
        detail::expect_success(
            cublasGemmStridedBatchedEx_64(handle_.get(), p.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, CUBLAS_OP_N, p.n,
                                          p.m, p.k, &one, p.b.data, detail::cublas_type(p.b.type), p.b.stride,
                                          p.b.batch, p.a.data, detail::cublas_type(p.a.type), p.a.stride, p.a.batch,
                                          p.beta == 0 ? &zero : &p.beta, p.c.data, detail::cublas_type(p.c.type),
                                          p.c.stride, p.c.batch, p.batch, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
            ropewalk::detail::format("{} products of {} × {} × {}", p.batch, p.m, p.n, p.k));
    }

private:
    struct release {
        void operator()(cublasHandle_t handle) const { (void)cublasDestroy(handle); }
    };
    std::unique_ptr<std::remove_pointer_t<cublasHandle_t>, release> handle_;
    void* space_ = nullptr;
    std::int64_t bytes_ = 0;
};

}  // namespace ropewalk::llama::gpu
