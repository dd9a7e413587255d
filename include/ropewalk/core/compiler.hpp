// The only file that asks which compiler this is.
#pragma once

// RW_HD marks a function which the host and a GPU may both call.
#if defined(__CUDACC__) || defined(__HIPCC__)
#define RW_HD __host__ __device__
#else
#define RW_HD
#endif

// RW_GPU_CODE is the compute capability times 100 for which a GPU's copy of a function is compiled, and the host's copy
// does not see it.
#if defined(__CUDA_ARCH__)
#define RW_GPU_CODE __CUDA_ARCH__
#endif

// RW_INLINE never leaves a symbol behind. A plain inline function that is compiled once for AVX-512 and once for the
// baseline is one symbol to the linker, which may keep the copy that an older machine cannot run.
#if defined(_MSC_VER) && !defined(__clang__)
#define RW_INLINE __forceinline
#define RW_RESTRICT __restrict
#define RW_HIDDEN
#define RW_PREFETCH_L2(address) ((void)(address))
#define RW_PREFETCH_L1(address) ((void)(address))
#else
#define RW_INLINE inline __attribute__((always_inline))
#define RW_RESTRICT __restrict__
// Two extension modules in one process must not merge their kernels.
#define RW_HIDDEN __attribute__((visibility("hidden")))
#define RW_PREFETCH_L2(address) __builtin_prefetch((address), 1, 2)
#define RW_PREFETCH_L1(address) __builtin_prefetch((address), 0, 3)
#endif

// RW_PIN keeps a vector in a register. GCC 12 otherwise folds a value that is used twice back into two memory operands,
// which costs a quarter of the speed in L1. Clang does not.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#define RW_PIN(value) __asm__("" : "+v"(value))
#else
#define RW_PIN(value) ((void)0)
#endif

// RW_UNROLL unrolls the loop behind it, so that an array of registers is one. Clang does so unasked, and nvcc warns
// about a pragma which its host compiler, or that of the device, does not know. RW_KEEP_LOOP keeps nvcc from unrolling
// a long loop, whose registers other threads could have used.
#if defined(__CUDA_ARCH__)
#define RW_UNROLL _Pragma("unroll")
#define RW_KEEP_LOOP _Pragma("unroll 1")
#elif defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define RW_UNROLL _Pragma("GCC unroll 16")
#else
#define RW_UNROLL
#endif
#if !defined(RW_KEEP_LOOP)
#define RW_KEEP_LOOP
#endif

// Around the inclusion of intrinsics: GCC 12 calls its own AVX-512 headers uninitialised (its bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#define RW_BEGIN_INTRINSICS _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wmaybe-uninitialized\"")
#define RW_END_INTRINSICS _Pragma("GCC diagnostic pop")
#else
#define RW_BEGIN_INTRINSICS
#define RW_END_INTRINSICS
#endif

// RW_MAPS_FILES is defined where a file can be mapped into memory.
#if __has_include(<sys/mman.h>)
#define RW_MAPS_FILES
#endif

// RW_OPENMP is defined where the compiler has OpenMP switched on.
#if defined(_OPENMP)
#define RW_OPENMP
#endif

// RW_FORKS is defined where a process can be forked.
#if __has_include(<pthread.h>)
#define RW_FORKS
#endif

// RW_FMA is a · b + c with one rounding where the machine fuses it, with two elsewhere; so a scalar tail rounds as the
// SIMD registers before it do.
#if defined(__FMA__) || defined(__AVX512F__) || defined(__ARM_FEATURE_FMA) || defined(__CUDA_ARCH__)
#define RW_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#else
#define RW_FMA(a, b, c) ((a) * (b) + (c))
#endif
