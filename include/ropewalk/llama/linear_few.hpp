// A linear layer of few tokens: a stream of weights, each read once.
#pragma once

#include "ropewalk/cpu/simd/load_store.hpp"
#include "ropewalk/llama/matrix.hpp"
#include "ropewalk/llama/reduce.hpp"
#include "ropewalk/llama/threads.hpp"

namespace ropewalk::llama::cpu::detail {

/// x, w and y of linear(), with weights of one type.
template <class A, class T>
struct few_job {
    const float* x;
    const T* w;
    float* y;
    std::int64_t rows, columns;
    bool add;
};

/// Tokens that share a load of a weight, at most.
template <class A>
inline constexpr int most_shared = ropewalk::cpu::detail::is_avx512<A> ? 8 : 4;

/// Rows at once: as many as leave registers for their sums, their weights and one of x. The rows are so many streams of
/// memory, which the machine fetches ahead better than one: on a Zen 4, 12 reach 1.1 of the speed of 8 and 1.2 of that
/// of one row after the other, and prefetch instructions only cost.
template <class A, int N>
constexpr int rows_at_once() {
    if constexpr (N == 1) return 12;
    constexpr int registers = ropewalk::cpu::detail::is_avx512<A> ? 32 : 16;
    return (registers - 1) / (N + 1);
}

/// What R rows of weights and N tokens are multiplied to: one sum a register, so that a result depends neither on R nor
/// on N.
template <class A, int R, int N>
struct dot_sums {
    ropewalk::cpu::detail::floats<A> of[R][N];

    RW_INLINE void clear() {
        RW_UNROLL
        for (int r = 0; r < R; ++r) {
            RW_UNROLL
            for (int n = 0; n < N; ++n) of[r][n] = ropewalk::cpu::detail::floats<A>(0.0F);
        }
    }
    template <class T>
    RW_INLINE void add_products(const T* const (&w)[R], const float* const (&x)[N], std::int64_t at) {
        ropewalk::cpu::detail::floats<A> weights[R];
        RW_UNROLL
        for (int r = 0; r < R; ++r) weights[r] = ropewalk::cpu::detail::load_elements<A>(w[r] + at);
        RW_UNROLL
        for (int n = 0; n < N; ++n) {
            const auto values = ropewalk::cpu::detail::floats<A>::load_unaligned(x[n] + at);
            RW_UNROLL
            for (int r = 0; r < R; ++r) of[r][n] = ropewalk::cpu::detail::multiply_add<A>(weights[r], values, of[r][n]);
        }
    }
};

/// The last columns, which fill no register, with zeros behind them.
template <class A, class T>
struct padded {
    T elements[ropewalk::cpu::detail::lane_count<A>];

    RW_INLINE void fill(const T* source, std::int64_t count) {
        for (std::int64_t i = 0; i < ropewalk::cpu::detail::lane_count<A>; ++i)
            elements[i] = i < count ? source[i] : T{};
    }
};

/// Rows first … first + R − 1, of which those below `end`, times N tokens from `token` on.
template <class A, class T, int R, int N>
RW_INLINE void few_block(const few_job<A, T>& job, std::int64_t first, std::int64_t end, std::int64_t token) {
    constexpr std::int64_t lanes = ropewalk::cpu::detail::lane_count<A>;
    const T* w[R];
    const float* x[N];
    // Rows that are not asked for repeat the last one.
    for (int r = 0; r < R; ++r) w[r] = job.w + (first + r < end ? first + r : end - 1) * job.columns;
    for (int n = 0; n < N; ++n) x[n] = job.x + (token + n) * job.columns;

    dot_sums<A, R, N> sums;
    sums.clear();
    std::int64_t at = 0;
    for (; at + lanes <= job.columns; at += lanes) sums.add_products(w, x, at);
    if (at < job.columns) {
        padded<A, T> w_rest[R];
        padded<A, float> x_rest[N];
        for (int r = 0; r < R; ++r) w_rest[r].fill(w[r] + at, job.columns - at), w[r] = w_rest[r].elements;
        for (int n = 0; n < N; ++n) x_rest[n].fill(x[n] + at, job.columns - at), x[n] = x_rest[n].elements;
        sums.add_products(w, x, 0);
    }
    for (int r = 0; r < R && first + r < end; ++r) {
        for (int n = 0; n < N; ++n) {
            float& y = job.y[(token + n) * job.rows + first + r];
            const float sum = sum_of_lanes<A>(sums.of[r][n]);
            y = job.add ? y + sum : sum;
        }
    }
}

/// Rows begin … end − 1 of `tokens` <= N tokens from `token` on.
template <class A, class T, int N>
void few_rows(const few_job<A, T>& job, std::int64_t begin, std::int64_t end, std::int64_t token, std::int64_t tokens) {
    if constexpr (N > 1) {
        if (tokens < N) return few_rows<A, T, N - 1>(job, begin, end, token, tokens);
    }
    constexpr int rows = rows_at_once<A, N>();
    for (std::int64_t first = begin; first < end; first += rows) few_block<A, T, rows, N>(job, first, end, token);
}

/// Rows begin … end − 1 of all tokens; where they do not share a load, the rows come from the cache again.
template <class A, class T>
void few_part(const few_job<A, T>& job, std::int64_t tokens, std::int64_t begin, std::int64_t end) {
    constexpr std::int64_t cached = 256 * 1024, step = 24;
    const std::int64_t steps = cached / (step * job.columns * static_cast<std::int64_t>(sizeof(T)));
    const std::int64_t block = tokens <= most_shared<A> ? end - begin : step * (steps > 1 ? steps : 1);
    for (std::int64_t first = begin; first < end; first += block) {
        const std::int64_t last = first + block < end ? first + block : end;
        for (std::int64_t token = 0; token < tokens; token += most_shared<A>)
            few_rows<A, T, most_shared<A>>(job, first, last, token, tokens - token);
    }
}

template <class A, class T>
void linear_few(const few_job<A, T>& job, std::int64_t tokens, int threads) {
    const int team = thread_count<A>(tokens * job.rows * job.columns >> 17, threads);
#if defined(RW_OPENMP)
#pragma omp parallel for num_threads(team) schedule(static, 1) if (team > 1)
#endif
    for (int part = 0; part < team; ++part) few_part(job, tokens, job.rows * part / team, job.rows * (part + 1) / team);
}

}  // namespace ropewalk::llama::cpu::detail
