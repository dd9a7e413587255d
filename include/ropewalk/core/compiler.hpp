// Compiler-dependent macros. Supported compilers: GCC 12 to 14, Clang 16 to 19, and nvcc with one of them.
#pragma once

// A missing file stops the compiler, which would otherwise report an error for every line that is not C++17.
#if __cplusplus < 202002L
#error "ropewalk needs C++20: compile with -std=c++20"
#include "no further errors: ropewalk needs C++20"
#endif

// RW_HD marks a function that host and device can call.
#if defined(__CUDACC__) || defined(__HIPCC__)
#define RW_HD __host__ __device__
#else
#define RW_HD
#endif

// RW_GPU_CODE is the compute capability times 100. It is defined only while device code is compiled.
#if defined(__CUDA_ARCH__)
#define RW_GPU_CODE __CUDA_ARCH__
#endif

// RW_INLINE leaves no symbol in the object file. A plain inline function compiled for AVX-512 and for the baseline is
// one symbol to the linker, which may keep the copy that an older CPU cannot run.
#define RW_INLINE inline __attribute__((always_inline))
// RW_ISA names an inline namespace of functions that a program may compile for several instruction sets. As parts of
// their symbols it keeps the copies apart, as the type parameter A does for kernels.
#if defined(__AVX512F__)
#define RW_ISA isa_avx512
#elif defined(__AVX2__)
#define RW_ISA isa_avx2
#elif defined(__AVX__)
#define RW_ISA isa_avx
#else
#define RW_ISA isa_baseline
#endif
#define RW_RESTRICT __restrict__
// RW_HIDDEN keeps two extension modules in one process from merging their kernels.
#define RW_HIDDEN __attribute__((visibility("hidden")))
// RW_PUBLIC exports a symbol from a shared library that hides the others.
#define RW_PUBLIC __attribute__((visibility("default")))
#define RW_PREFETCH_L2(address) __builtin_prefetch((address), 1, 2)
#define RW_PREFETCH_L1(address) __builtin_prefetch((address), 0, 3)

// RW_NOINLINE keeps the text of functions with many callers small.
#define RW_NOINLINE __attribute__((noinline))
// RW_COLD marks a function that runs rarely: it is not inlined, and compiled for size.
#define RW_COLD __attribute__((cold, noinline))

// RW_PIN keeps a vector in a register. GCC 12 otherwise folds a value with two uses into two memory operands, which
// costs a quarter of the speed in L1. Clang does not.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#define RW_PIN(value) __asm__("" : "+v"(value))
#else
#define RW_PIN(value) ((void)0)
#endif

// RW_UNROLL unrolls the next loop, so that the compiler keeps a local array in registers. Clang unrolls without it, and
// nvcc warns about pragmas unknown to its host or device compiler. RW_KEEP_LOOP stops nvcc from unrolling a long loop,
// which would cost occupancy.
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

// RW_BEGIN_INTRINSICS and RW_END_INTRINSICS enclose the inclusion of intrinsics: GCC 12 reports uninitialised values in
// its own AVX-512 headers (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#define RW_BEGIN_INTRINSICS _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wmaybe-uninitialized\"")
#define RW_END_INTRINSICS _Pragma("GCC diagnostic pop")
#else
#define RW_BEGIN_INTRINSICS
#define RW_END_INTRINSICS
#endif

// RW_FLOAT16 and RW_BFLOAT16 are the compiler's own 16-bit types, where it has them. GCC 12 for AArch64 has _Float16 in
// C alone, and defines its limits in C++ too.
#if defined(__FLT16_MAX__) && !defined(__CUDACC__) && (defined(__clang__) || defined(__x86_64__) || __GNUC__ >= 13)
#define RW_FLOAT16 _Float16
#endif
#if (defined(__BFLT16_MAX__) || (defined(__clang__) && defined(__SSE2__))) && !defined(__CUDACC__)
#define RW_BFLOAT16 __bf16
#endif

// RW_MAY_ALIAS lets a type read and write memory that holds objects of other types.
#define RW_MAY_ALIAS __attribute__((may_alias))

// RW_MAPS_FILES is defined where mmap() exists.
#if __has_include(<sys/mman.h>)
#define RW_MAPS_FILES
#endif

// RW_OPENMP is defined where OpenMP is enabled.
#if defined(_OPENMP)
#define RW_OPENMP
#endif

// RW_FORKS is defined where fork() exists.
#if __has_include(<pthread.h>)
#define RW_FORKS
#endif

// RW_FMA is a · b + c with one rounding on machines with fused multiply-add, else with two. Scalar tails thereby round
// like the SIMD registers before them.
#if defined(__FMA__) || defined(__AVX512F__) || defined(__ARM_FEATURE_FMA) || defined(__CUDA_ARCH__)
#define RW_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#else
#define RW_FMA(a, b, c) ((a) * (b) + (c))
#endif
