// RMSNorm of rows, a warp each.
#pragma once

#include <cmath>

#include "ropewalk/llama/gpu/rows.hpp"

namespace ropewalk::llama::gpu {

/// The kernel's parameter. The body reads a row twice, of which the second time comes from the L1 cache.
struct rms_norm_job : job_threads {
    matrix_view in, out;
    const void* weight = nullptr;
    element_type weight_type = element_type::f32;
    float epsilon = 0, reciprocal_width = 0;
    bool wide = false;
};

template <bool Wide>
struct rms_norm_body {
    static constexpr int blocks_resident = usual_blocks;

    struct state {
        std::int64_t row = 0, first = 0;
        float factor = 0;
    };

    template <class Lanes, class Memory>
    static RW_HD RW_INLINE void run(const rms_norm_job& job, std::int64_t index) {
        constexpr int width = Lanes::width;
        state s[width];
        float squares[width][1];
        for (int i = 0; i < width; ++i) squares[i][0] = sum<Memory>(job, s[i], index + i);
        Lanes::combine(squares, 1, warp_lanes, add{});
        for (int i = 0; i < width; ++i) {
            s[i].factor = 1.0F / __builtin_sqrtf(RW_FMA(squares[i][0], job.reciprocal_width, job.epsilon));
            scale<Memory>(job, s[i]);
        }
    }

private:
    static constexpr int stride = warp_lanes * lane_elements;

    template <class Memory>
    static RW_HD RW_INLINE float sum(const rms_norm_job& job, state& s, std::int64_t index) {
        s.row = index / warp_lanes, s.first = index % warp_lanes * lane_elements;
        float total = 0;
        for (std::int64_t at = s.first; at < job.in.columns; at += stride) {
            lane_values x;
            load_lane<Wide, Memory>(job.in.type, job.in.data, s.row * job.in.stride + at, job.in.columns - at, x);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) x[i] *= x[i];
            total += sum_of_neighbours(x);
        }
        return total;
    }

    template <class Memory>
    static RW_HD RW_INLINE void scale(const rms_norm_job& job, const state& s) {
        for (std::int64_t at = s.first; at < job.in.columns; at += stride) {
            const std::int64_t left = job.in.columns - at;
            lane_values x, weight;
            load_lane<Wide, Memory>(job.in.type, job.in.data, s.row * job.in.stride + at, left, x);
            load_lane<Wide, Memory>(job.weight_type, job.weight, at, left, weight);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) x[i] = x[i] * s.factor * weight[i];
            store_lane<Wide, Memory>(job.out.type, job.out.data, s.row * job.out.stride + at, left, x);
        }
    }
};

/// Calls f with the body of a job's kernel.
template <class F>
void with_body(const rms_norm_job& job, const F& f) {
    with_width(job.wide, [&](auto wide) { f(rms_norm_body<wide()>{}); });
}

/// Checks and plans y = x / √(mean(x²) + epsilon) · weight of every row. Arithmetic is float32, an element is rounded
/// once. In place where input and output agree.
inline rms_norm_job make_rms_norm(const matrix_view& x, const matrix_view& weight, double epsilon,
                                  const matrix_view& y) {
    detail::check_rows("x", x), detail::check_rows("y", y), detail::check_rows("the norm's weight", weight);
    detail::check_same_shape("y", y, "x", x);
    RW_EXPECTS(weight.rows == 1 && weight.columns == x.columns, "{} does not fit {}",
               detail::shape_of("the norm's weight", weight), detail::shape_of("x", x));
    RW_EXPECTS(std::isfinite(epsilon) && epsilon >= 0, "the norm's epsilon must not be negative, got {}", epsilon);
    detail::check_apart("x", x, y);
    rms_norm_job job;
    job.in = x, job.out = y, job.weight = weight.data, job.weight_type = weight.type;
    job.epsilon = static_cast<float>(epsilon), job.reciprocal_width = 1 / static_cast<float>(x.columns);
    job.wide = detail::takes_wide(x) && detail::takes_wide(y) && detail::takes_wide(weight);
    job.threads = x.columns == 0 ? 0 : threads_of_warps(x.rows);
    return job;
}

}  // namespace ropewalk::llama::gpu
