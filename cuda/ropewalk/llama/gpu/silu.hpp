// The gate of a Llama's MLP: silu(gate) · up.
#pragma once

#include "ropewalk/llama/gpu/rows.hpp"

namespace ropewalk::llama::gpu {

/// The kernel's parameter: a thread has lane_elements of a row.
struct silu_job : job_threads {
    matrix_view gate, up, out;
    std::int64_t runs = 0;  ///< of lane_elements in a row
    bool wide = false;
};

template <bool Wide>
struct silu_body {
    static constexpr int blocks_resident = usual_blocks;

    template <class Lanes, class Memory>
    static RW_HD RW_INLINE void run(const silu_job& job, std::int64_t index) {
        for (int i = 0; i < Lanes::width; ++i) one<Memory>(job, index + i);
    }

private:
    template <class Memory>
    static RW_HD RW_INLINE void one(const silu_job& job, std::int64_t index) {
        const auto [row, run] = ropewalk::gpu::detail::divide(index, job.runs);
        if (row >= job.gate.rows) return;
        const std::int64_t at = run * lane_elements, left = job.gate.columns - at;
        lane_values x, up;
        load_lane<Wide, Memory>(job.gate.type, job.gate.data, row * job.gate.stride + at, left, x);
        load_lane<Wide, Memory>(job.up.type, job.up.data, row * job.up.stride + at, left, up);
        RW_UNROLL
        for (int i = 0; i < lane_elements; ++i) x[i] = x[i] / (1.0F + exp2_of(-x[i] * log2_e)) * up[i];
        store_lane<Wide, Memory>(job.out.type, job.out.data, row * job.out.stride + at, left, x);
    }
};

template <class F>
void with_body(const silu_job& job, const F& f) {
    with_width(job.wide, [&](auto wide) { f(silu_body<wide()>{}); });
}

/// Checks and plans out = gate / (1 + e^−gate) · up. The output may be either input.
inline silu_job make_silu(const matrix_view& gate, const matrix_view& up, const matrix_view& out) {
    detail::check_rows("gate", gate), detail::check_rows("up", up), detail::check_rows("the output", out);
    detail::check_same_shape("up", up, "gate", gate);
    detail::check_same_shape("the output", out, "gate", gate);
    detail::check_apart("gate", gate, out), detail::check_apart("up", up, out);
    silu_job job;
    job.gate = gate, job.up = up, job.out = out;
    job.runs = ropewalk::gpu::detail::divide_up(gate.columns, lane_elements);
    job.wide = detail::takes_wide(gate) && detail::takes_wide(up) && detail::takes_wide(out);
    job.threads = threads_of_items(gate.rows * job.runs);
    return job;
}

}  // namespace ropewalk::llama::gpu
