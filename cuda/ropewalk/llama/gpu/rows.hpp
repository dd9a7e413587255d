// Kernels over the rows of matrices: RMSNorm, the gate of the MLP, and the gathering of rows.
#pragma once

#include <cmath>

#include "ropewalk/llama/gpu/kernel.hpp"
#include "ropewalk/llama/gpu/matrix_view.hpp"

namespace ropewalk::llama::gpu {

/// Parameters of RMSNorm. One warp handles one row and reads it twice, the second time from the L1 cache.
struct rms_norm_params : launch_size {
    matrix_view in, out, weight;
    float epsilon = 0, reciprocal_width = 0;
    bool wide = false;

    template <bool Wide, class Lanes, class Memory>
    RW_HD RW_INLINE void run_lanes(std::int64_t index) const {
        constexpr int width = Lanes::width;
        float squares[width][1];
        for (int i = 0; i < width; ++i) squares[i][0] = sum_of_squares<Wide, Memory>(index + i);
        Lanes::combine(squares, 1, warp_lanes, add{});
        for (int i = 0; i < width; ++i)
            scale<Wide, Memory>(index + i, 1.0F / __builtin_sqrtf(RW_FMA(squares[i][0], reciprocal_width, epsilon)));
    }

private:
    static constexpr int stride = warp_lanes * lane_elements;

    template <bool Wide, class Memory>
    [[nodiscard]] RW_HD RW_INLINE float sum_of_squares(std::int64_t index) const {
        const std::int64_t row = index / warp_lanes;
        float total = 0;
        for (std::int64_t column = index % warp_lanes * lane_elements; column < in.columns; column += stride) {
            lane_values x;
            load_row<Wide, Memory>(in, row, column, x);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) x[i] *= x[i];
            total += sum_of_neighbours(x);
        }
        return total;
    }

    template <bool Wide, class Memory>
    RW_HD RW_INLINE void scale(std::int64_t index, float factor) const {
        const std::int64_t row = index / warp_lanes;
        for (std::int64_t column = index % warp_lanes * lane_elements; column < in.columns; column += stride) {
            lane_values x, w;
            load_row<Wide, Memory>(in, row, column, x);
            load_row<Wide, Memory>(weight, 0, column, w);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) x[i] = x[i] * factor * w[i];
            store_row<Wide, Memory>(out, row, column, x);
        }
    }
};

/// Checks and plans y = x / √(mean(x²) + epsilon) · weight for every row. Arithmetic is float32; each element is
/// rounded once. y may be x.
inline rms_norm_params make_rms_norm(const matrix_view& x, const matrix_view& weight, double epsilon,
                                     const matrix_view& y) {
    detail::check_matrix("x", x), detail::check_matrix("y", y), detail::check_matrix("the norm's weight", weight);
    detail::check_same_shape("y", y, "x", x);
    RW_EXPECTS(weight.rows == 1 && weight.columns == x.columns, "{} does not fit {}",
               detail::shape_of("the norm's weight", weight), detail::shape_of("x", x));
    RW_EXPECTS(std::isfinite(epsilon) && epsilon >= 0, "the norm's epsilon must not be negative, got {}", epsilon);
    detail::check_no_overlap("x", x, y);
    rms_norm_params params;
    params.in = x, params.out = y, params.weight = weight;
    params.epsilon = static_cast<float>(epsilon), params.reciprocal_width = 1 / static_cast<float>(x.columns);
    params.wide = detail::allows_wide(x, y, weight);
    params.set_warps(x.columns == 0 ? 0 : x.rows);
    return params;
}

/// Parameters of silu(gate) · up.
struct silu_params : chunk_launch {
    matrix_view gate, up, out;

    template <bool Wide, class Memory>
    RW_HD RW_INLINE void run_thread(std::int64_t index) const {
        const auto [row, chunk] = detail::divide(index, chunks);
        if (row >= gate.rows) return;
        lane_values x, factor;
        load_row<Wide, Memory>(gate, row, chunk * lane_elements, x);
        load_row<Wide, Memory>(up, row, chunk * lane_elements, factor);
        RW_UNROLL
        for (int i = 0; i < lane_elements; ++i) x[i] = x[i] / (1.0F + exp2_of(-x[i] * log2_e)) * factor[i];
        store_row<Wide, Memory>(out, row, chunk * lane_elements, x);
    }
};

/// Checks and plans out = gate / (1 + e^−gate) · up. The output may be either input.
inline silu_params make_silu(const matrix_view& gate, const matrix_view& up, const matrix_view& out) {
    detail::check_matrix("gate", gate), detail::check_matrix("up", up), detail::check_matrix("the output", out);
    detail::check_same_shape("up", up, "gate", gate);
    detail::check_same_shape("the output", out, "gate", gate);
    detail::check_no_overlap("gate", gate, out), detail::check_no_overlap("up", up, out);
    silu_params params;
    params.gate = gate, params.up = up, params.out = out;
    params.wide = detail::allows_wide(gate, up, out);
    params.set_chunks(gate.rows, gate.columns);
    return params;
}

/// Parameters of a gather: row i of the output is row indices[i] + shift of the input, or zeros if the input has no
/// such row.
struct gather_rows_params : chunk_launch {
    matrix_view in, out;
    const std::int32_t* indices = nullptr;  ///< [out.rows]
    std::int64_t shift = 0;

    template <bool Wide, class Memory>
    RW_HD RW_INLINE void run_thread(std::int64_t index) const {
        const auto [row, chunk] = detail::divide(index, chunks);
        if (row >= out.rows) return;
        const std::int64_t from = indices[row] + shift;
        const std::int64_t column = chunk * lane_elements;
        const bool exists = from >= 0 && from < in.rows;
        lane_values x;
        load_lane<Wide, Memory>(in.type, in.data, exists ? from * in.stride + column : 0,
                                exists ? in.columns - column : 0, x);
        store_row<Wide, Memory>(out, row, column, x);
    }
};

/// Plans a gather, for the embeddings of token ids for example.
inline gather_rows_params make_gather_rows(const matrix_view& in, const matrix_view& out, const std::int32_t* indices,
                                           std::int64_t shift = 0) {
    detail::check_matrix("the input", in), detail::check_matrix("the output", out);
    RW_EXPECTS(in.columns == out.columns, "{} must have as many columns as {}", detail::shape_of("the output", out),
               detail::shape_of("the input", in));
    gather_rows_params params;
    params.in = in, params.out = out, params.indices = indices, params.shift = shift;
    params.wide = detail::allows_wide(in, out);
    params.set_chunks(out.rows, out.columns);
    return params;
}

}  // namespace ropewalk::llama::gpu
