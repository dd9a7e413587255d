// Linear layers y = x · wᵀ with weights of any element type. Needs Eigen.
#pragma once

#include <Eigen/Core>

#include "ropewalk/llama/cpu/kernels.hpp"
#include "ropewalk/llama/cpu/simd.hpp"
#include "ropewalk/llama/cpu/threads.hpp"

namespace ropewalk::llama::cpu::detail {

/// Arguments of one product of linear(), with weights of one type.
template <class A, class T>
struct linear_params {
    const float* x;
    std::int64_t tokens;
    const T* w;
    float* y;
    std::int64_t rows, columns;
    bool add;
};

/// Calls f(linear_params) of a product.
template <class A, class F>
RW_INLINE void with_params(const float* x, std::int64_t tokens, const product& p, bool add, const F& f) {
    with_element(
        p.w.type, [&]<class T>(T /*type*/) __attribute__((always_inline)) {
            f(linear_params<A, T>{.x = x,
                                  .tokens = tokens,
                                  .w = static_cast<const T*>(p.w.data),
                                  .y = p.y,
                                  .rows = p.w.rows,
                                  .columns = p.w.columns,
                                  .add = add});
        });
}

/// Largest number of tokens that share a load of a weight.
template <class A>
inline constexpr int shared_tokens = is_avx512<A> ? 8 : 4;

/// Rows per block: as many as leave registers for their sums, their weights and one vector of x. Each row is a stream
/// for the hardware prefetcher. On a Zen 4, 12 streams are 1.1 times as fast as 8 and 1.2 times as fast as one;
/// prefetch instructions make it slower.
template <class A, int N>
constexpr int block_rows_of() {
    if constexpr (N == 1) return 12;
    constexpr int registers = is_avx512<A> ? 32 : 16;
    return (registers - 1) / (N + 1);
}

/// Dot products of R rows of weights and N tokens, one sum per register: results depend on neither R nor N.
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

/// The last columns of a row, padded with zeros to a register.
template <class A, class T>
struct padded {
    T elements[lane_count<A>];

    RW_INLINE void fill(const T* source, std::int64_t count) {
        for (std::int64_t i = 0; i < lane_count<A>; ++i) elements[i] = i < count ? source[i] : T{};
    }
};

/// Rows [first, first + R) below `end`, times N tokens from `token` on.
template <class A, class T, int R, int N>
RW_INLINE void few_block(const linear_params<A, T>& p, std::int64_t first, std::int64_t end, std::int64_t token) {
    constexpr std::int64_t lanes = lane_count<A>;
    const T* w[R];
    const float* x[N];
    // Rows from `end` on repeat the last one; their sums are not stored.
    for (int r = 0; r < R; ++r) w[r] = p.w + (first + r < end ? first + r : end - 1) * p.columns;
    for (int n = 0; n < N; ++n) x[n] = p.x + (token + n) * p.columns;

    dot_sums<A, R, N> sums;
    sums.clear();
    std::int64_t at = 0;
    for (; at + lanes <= p.columns; at += lanes) sums.add_products(w, x, at);
    if (at < p.columns) {
        padded<A, T> w_rest[R];
        padded<A, float> x_rest[N];
        for (int r = 0; r < R; ++r) w_rest[r].fill(w[r] + at, p.columns - at), w[r] = w_rest[r].elements;
        for (int n = 0; n < N; ++n) x_rest[n].fill(x[n] + at, p.columns - at), x[n] = x_rest[n].elements;
        sums.add_products(w, x, 0);
    }
    for (int r = 0; r < R && first + r < end; ++r) {
        for (int n = 0; n < N; ++n) {
            float& y = p.y[(token + n) * p.rows + first + r];
            const float sum = sum_of_lanes<A>(sums.of[r][n]);
            y = p.add ? y + sum : sum;
        }
    }
}

/// Rows [begin, end) times `tokens` tokens from `token` on, N at a time at most.
template <class A, class T, int N>
void few_rows(const linear_params<A, T>& p, std::int64_t begin, std::int64_t end, std::int64_t token,
              std::int64_t tokens) {
    if constexpr (N > 1) {
        if (tokens < N) return few_rows<A, T, N - 1>(p, begin, end, token, tokens);
    }
    constexpr int rows = block_rows_of<A, N>();
    for (std::int64_t first = begin; first < end; first += rows) few_block<A, T, rows, N>(p, first, end, token);
}

/// Rows [begin, end) times all tokens. Groups of tokens after the first read blocks of 256 KiB from the cache again.
template <class A, class T>
void few_range(const linear_params<A, T>& p, std::int64_t begin, std::int64_t end) {
    constexpr std::int64_t cached = 256 * 1024, step = 24;
    const std::int64_t steps = cached / (step * p.columns * static_cast<std::int64_t>(sizeof(T)));
    const std::int64_t block = p.tokens <= shared_tokens<A> ? end - begin : step * (steps > 1 ? steps : 1);
    for (std::int64_t first = begin; first < end; first += block) {
        const std::int64_t last = first + block < end ? first + block : end;
        for (std::int64_t token = 0; token < p.tokens; token += shared_tokens<A>)
            few_rows<A, T, shared_tokens<A>>(p, first, last, token, p.tokens - token);
    }
}

/// Products for few tokens: streams the weights, each read once. Every thread has a range of rows of each product.
template <class A>
void linear_few(const float* x, std::int64_t tokens, std::span<const product> products, bool add, int threads) {
    std::int64_t weights = 0;
    for (const product& p : products) weights += p.w.rows * p.w.columns;
    const int count = thread_count(tokens * weights >> 17, threads);
    parallel_for<A>(
        count, count, [&](std::int64_t i) __attribute__((always_inline)) {
            for (const product& p : products)
                with_params<A>(
                    x, tokens, p, add, [&](const auto& params) __attribute__((always_inline)) {
                        few_range(params, params.rows * i / count, params.rows * (i + 1) / count);
                    });
        });
}

/// Largest sizes of the panels that Eigen multiplies: rows of weights, tokens, and columns of both. They do not depend
/// on the number of threads, because Eigen's sums depend on where a panel begins. Found by measurement (bench_llama).
template <class A>
struct linear_panel {
    static constexpr std::int64_t rows = 480, tokens = 1024, columns = 320;
    static constexpr std::int64_t step = 48;  ///< rows of Eigen's kernel, or a multiple

    /// Rows per panel of a matrix. Its panels are about equal, so that threads share them well.
    static RW_INLINE std::int64_t rows_of(std::int64_t all) {
        const std::int64_t panels = (all + rows - 1) / rows;
        return (all + panels * step - 1) / (panels * step) * step;
    }
    static RW_INLINE std::int64_t row_panels(std::int64_t all) { return (all + rows_of(all) - 1) / rows_of(all); }
};

/// Caller-supplied memory for Eigen's packed operands. Eigen would allocate it inside an OpenMP region.
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

/// Returns a panel of weights as floats: in place, or widened into `scratch`.
template <class A, class T>
RW_INLINE const float* widened(const T* w, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                               float* scratch) {
    if constexpr (std::is_same_v<T, float>) {
        return w;
    } else {
        for (std::int64_t r = 0; r < rows; ++r) widen_row<A>(w + r * stride, 1.0F, columns, scratch + r * columns);
        return scratch;
    }
}

/// Multiplies one panel of weights with one of tokens. Eigen's public products would start threads.
template <class A, class T>
void many_panel(const linear_params<A, T>& p, std::int64_t row, std::int64_t token, float* scratch) {
    using product = Eigen::internal::general_matrix_matrix_product<std::int64_t, float, Eigen::RowMajor, false, float,
                                                                   Eigen::ColMajor, false, Eigen::ColMajor, 1>;
    using size = linear_panel<A>;
    const std::int64_t most = size::rows_of(p.rows), rows = p.rows - row < most ? p.rows - row : most;
    const std::int64_t tokens = p.tokens - token < size::tokens ? p.tokens - token : size::tokens;
    float* const w_packed = scratch;
    float* const x_packed = w_packed + packing<A>::w_floats;
    float* const wide = x_packed + packing<A>::x_floats;
    float* const y = p.y + token * p.rows + row;
    for (std::int64_t t = 0; !p.add && t < tokens; ++t) {
        for (std::int64_t r = 0; r < rows; ++r) y[t * p.rows + r] = 0;
    }
    for (std::int64_t column = 0; column < p.columns; column += size::columns) {
        const std::int64_t columns = p.columns - column < size::columns ? p.columns - column : size::columns;
        const float* const w = widened<A>(p.w + row * p.columns + column, p.columns, rows, columns, wide);
        packing<A> blocks(w_packed, x_packed, rows, tokens, columns);
        product::run(rows, tokens, columns, w, w == wide ? columns : p.columns, p.x + token * p.columns + column,
                     p.columns, y, 1, p.rows, 1.0F, blocks, nullptr);
    }
}

/// Products for many tokens, by panels.
template <class A>
void linear_many(const float* x, std::int64_t tokens, std::span<const product> products, bool add, int threads) {
    using size = linear_panel<A>;
    const std::int64_t token_panels = (tokens + size::tokens - 1) / size::tokens;
    std::int64_t panels = 0;
    for (const product& p : products) panels += size::row_panels(p.w.rows) * token_panels;
    const int count = thread_count(panels, threads);
    const scratch<A> memory(2 * packing<A>::w_floats + packing<A>::x_floats, count);
    share_out<A>(
        panels, count, [&](int thread, const auto& claim) __attribute__((always_inline)) {
            for (std::int64_t n = claim(); n >= 0; n = claim()) {
                std::int64_t panel = n;
                const product* p = products.data();
                for (; panel >= size::row_panels(p->w.rows) * token_panels; ++p)
                    panel -= size::row_panels(p->w.rows) * token_panels;
                const std::int64_t row_panels = size::row_panels(p->w.rows);
                with_params<A>(
                    x, tokens, *p, add, [&](const auto& params) __attribute__((always_inline)) {
                        many_panel(params, panel % row_panels * size::rows_of(p->w.rows),
                                   panel / row_panels * size::tokens, memory.region(thread));
                    });
            }
        });
}

/// Largest number of tokens for which weights are streamed; for more, packing pays. On a Zen 4 the stream is 1.9 times
/// as fast at 16 tokens (AVX2: 1.5) and 1.6 times (AVX2: 1.2) at 32. At 64 the two are within a tenth of each other.
template <class A>
inline constexpr std::int64_t few_tokens = 48;

/// kernel_table::linear. Results do not depend on the number of threads, on the other products and, up to few_tokens,
/// on the other tokens.
template <class A>
void linear(const float* x, std::int64_t tokens, std::span<const product> products, bool add, int threads) {
    if (tokens == 0) return;
    if (tokens <= few_tokens<A>) {
        linear_few<A>(x, tokens, products, add, threads);
    } else {
        linear_many<A>(x, tokens, products, add, threads);
    }
}

}  // namespace ropewalk::llama::cpu::detail
