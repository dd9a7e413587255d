// Linear layers y = x · wᵀ with weights of any element type. Needs Eigen.
#pragma once

#include <Eigen/Core>

#include "ropewalk/llama/cpu/simd.hpp"
#include "ropewalk/llama/cpu/threads.hpp"
#include "ropewalk/llama/weights.hpp"

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
inline constexpr int most_shared = is_avx512<A> ? 8 : 4;

/// Rows at once: as many as leave registers for their sums, their weights and one of x. The rows are so many streams of
/// memory, which the machine fetches ahead better than one: on a Zen 4, 12 reach 1.1 of the speed of 8 and 1.2 of that
/// of one row after the other, and prefetch instructions only cost.
template <class A, int N>
constexpr int rows_at_once() {
    if constexpr (N == 1) return 12;
    constexpr int registers = is_avx512<A> ? 32 : 16;
    return (registers - 1) / (N + 1);
}

/// What R rows of weights and N tokens are multiplied to: one sum a register, so that a result depends neither on R nor
/// on N.
template <class A, int R, int N>
struct dot_sums {
    floats<A> of[R][N];

    RW_INLINE void clear() {
        RW_UNROLL
        for (int r = 0; r < R; ++r) {
            RW_UNROLL
            for (int n = 0; n < N; ++n) of[r][n] = floats<A>(0.0F);
        }
    }
    template <class T>
    RW_INLINE void add_products(const T* const (&w)[R], const float* const (&x)[N], std::int64_t at) {
        floats<A> weights[R];
        RW_UNROLL
        for (int r = 0; r < R; ++r) weights[r] = load_elements<A>(w[r] + at);
        RW_UNROLL
        for (int n = 0; n < N; ++n) {
            const auto values = floats<A>::load_unaligned(x[n] + at);
            RW_UNROLL
            for (int r = 0; r < R; ++r) of[r][n] = multiply_add<A>(weights[r], values, of[r][n]);
        }
    }
};

/// The last columns, which fill no register, with zeros behind them.
template <class A, class T>
struct padded {
    T elements[lane_count<A>];

    RW_INLINE void fill(const T* source, std::int64_t count) {
        for (std::int64_t i = 0; i < lane_count<A>; ++i) elements[i] = i < count ? source[i] : T{};
    }
};

/// Rows first … first + R − 1, of which those below `end`, times N tokens from `token` on.
template <class A, class T, int R, int N>
RW_INLINE void few_block(const few_job<A, T>& job, std::int64_t first, std::int64_t end, std::int64_t token) {
    constexpr std::int64_t lanes = lane_count<A>;
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

/// What a thread works on at once: rows of weights, tokens, and columns of both. Independent of the number of threads,
/// because Eigen's sums depend on where a panel begins. Found by measurement (bench_llama).
template <class A>
struct linear_panel {
    static constexpr std::int64_t rows = 480, tokens = 1024, columns = 320;
};

/// Where Eigen packs its operands: in memory of ours, as it would otherwise allocate within an OpenMP region.
template <class A>
class packing : public Eigen::internal::level3_blocking<float, float> {
public:
    static constexpr std::int64_t w_floats = linear_panel<A>::rows * linear_panel<A>::columns;
    static constexpr std::int64_t x_floats = linear_panel<A>::tokens * linear_panel<A>::columns;

    packing(float* w, float* x, std::int64_t rows, std::int64_t tokens, std::int64_t columns) {
        m_blockA = w, m_blockB = x;
        m_mc = rows, m_nc = tokens, m_kc = columns;
    }
};

template <class A, class T>
struct many_job {
    const float* x;
    std::int64_t tokens;
    const T* w;
    float* y;
    std::int64_t rows, columns;
    bool add;
};

/// One panel of weights as floats: where it lies, or widened to `scratch`.
template <class A, class T>
RW_INLINE const float* widened(const T* w, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                               float* scratch) {
    if constexpr (std::is_same_v<T, float>) {
        return w;
    } else {
        constexpr std::int64_t lanes = lane_count<A>;
        for (std::int64_t r = 0; r < rows; ++r) {
            const T* const from = w + r * stride;
            float* const to = scratch + r * columns;
            std::int64_t c = 0;
            for (; c + lanes <= columns; c += lanes) load_elements<A>(from + c).store_unaligned(to + c);
            for (; c < columns; ++c) to[c] = static_cast<float>(from[c]);
        }
        return scratch;
    }
}

/// The product of one panel of weights with one of tokens. Eigen's public products would start threads.
template <class A, class T>
void many_panel(const many_job<A, T>& job, std::int64_t row, std::int64_t token, float* scratch) {
    using product = Eigen::internal::general_matrix_matrix_product<std::int64_t, float, Eigen::RowMajor, false, float,
                                                                   Eigen::ColMajor, false, Eigen::ColMajor, 1>;
    using size = linear_panel<A>;
    const std::int64_t rows = job.rows - row < size::rows ? job.rows - row : size::rows;
    const std::int64_t tokens = job.tokens - token < size::tokens ? job.tokens - token : size::tokens;
    float* const w_packed = scratch;
    float* const x_packed = w_packed + packing<A>::w_floats;
    float* const wide = x_packed + packing<A>::x_floats;
    float* const y = job.y + token * job.rows + row;
    for (std::int64_t t = 0; !job.add && t < tokens; ++t) {
        for (std::int64_t r = 0; r < rows; ++r) y[t * job.rows + r] = 0;
    }
    for (std::int64_t column = 0; column < job.columns; column += size::columns) {
        const std::int64_t columns = job.columns - column < size::columns ? job.columns - column : size::columns;
        const float* const w = widened<A>(job.w + row * job.columns + column, job.columns, rows, columns, wide);
        packing<A> blocks(w_packed, x_packed, rows, tokens, columns);
        product::run(rows, tokens, columns, w, w == wide ? columns : job.columns, job.x + token * job.columns + column,
                     job.columns, y, 1, job.rows, 1.0F, blocks, nullptr);
    }
}

template <class A, class T>
void linear_many(const many_job<A, T>& job, int threads) {
    using size = linear_panel<A>;
    const std::int64_t row_panels = (job.rows + size::rows - 1) / size::rows;
    const std::int64_t panels = row_panels * ((job.tokens + size::tokens - 1) / size::tokens);
    const int team = thread_count<A>(panels, threads);
    const scratch<A> memory(2 * packing<A>::w_floats + packing<A>::x_floats, team);
#if defined(RW_OPENMP)
#pragma omp parallel for num_threads(team) schedule(dynamic, 1) if (team > 1)
#endif
    for (std::int64_t one = 0; one < panels; ++one) {
        many_panel(job, one % row_panels * size::rows, one / row_panels * size::tokens,
                   memory.region(thread_number<A>()));
    }
}

/// Up to so many tokens the weights are streamed. Beyond, packing them pays: on a Zen 4 the stream is 1.9 times as fast
/// at 16 tokens (AVX2: 1.5), 1.6 (1.2) at 32, and the two are within a tenth of each other at 64.
template <class A>
inline constexpr std::int64_t most_few = 48;

template <class A, class T>
void linear_of(const float* x, std::int64_t tokens, const matrix& w, float* y, bool add, int threads) {
    const auto* const weights = static_cast<const T*>(w.data);
    if (tokens <= most_few<A>) {
        linear_few<A, T>({x, weights, y, w.rows, w.columns, add}, tokens, threads);
    } else {
        linear_many<A, T>({x, tokens, weights, y, w.rows, w.columns, add}, threads);
    }
}

/// kernel_table::linear. A result depends on neither the number of threads nor, while the tokens are few, on theirs.
template <class A>
void linear(const float* x, std::int64_t tokens, const matrix& w, float* y, bool add, int threads) {
    if (tokens == 0) return;
    switch (w.type) {
        case element_type::f32:
            return linear_of<A, float>(x, tokens, w, y, add, threads);
        case element_type::f16:
            return linear_of<A, f16>(x, tokens, w, y, add, threads);
        default:
            return linear_of<A, bf16>(x, tokens, w, y, add, threads);
    }
}

}  // namespace ropewalk::llama::cpu::detail
