// A linear layer of many tokens: Eigen's matrix product on panels.
#pragma once

#include <Eigen/Core>

#include "ropewalk/cpu/simd/load_store.hpp"
#include "ropewalk/llama/matrix.hpp"
#include "ropewalk/llama/scratch.hpp"
#include "ropewalk/llama/threads.hpp"

namespace ropewalk::llama::cpu::detail {

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
        constexpr std::int64_t lanes = ropewalk::cpu::detail::lane_count<A>;
        for (std::int64_t r = 0; r < rows; ++r) {
            const T* const from = w + r * stride;
            float* const to = scratch + r * columns;
            std::int64_t c = 0;
            for (; c + lanes <= columns; c += lanes)
                ropewalk::cpu::detail::load_elements<A>(from + c).store_unaligned(to + c);
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

}  // namespace ropewalk::llama::cpu::detail
