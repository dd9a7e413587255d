// Attention by blocks of queries and keys, whose products somebody else computes: what lies between the products.
#pragma once

#include "ropewalk/llama/gpu/sequences.hpp"

namespace ropewalk::llama::gpu {

/// Copies entries [first, first + count) of a sequence to [heads, stride, head_dim] of another type, their scales
/// applied: what a product reads. A thread has lane_elements of a head. Entries on pages that do not exist become
/// zeros.
struct gather_job : job_threads {
    cache_source from;
    slot_reader pages;
    std::int64_t sequence = 0, first = 0, count = 0;
    void* out = nullptr;
    element_type type = element_type::f32;
    std::int64_t stride = 0;  ///< entries from one head to the next
    std::int32_t heads = 0, head_dim = 0, runs = 1;
    bool wide = false;
};

template <bool Wide>
struct gather_body {
    static constexpr int blocks_resident = usual_blocks;

    template <class Lanes, class Memory>
    static RW_HD RW_INLINE void run(const gather_job& job, std::int64_t index) {
        for (int i = 0; i < Lanes::width; ++i) one<Memory>(job, index + i);
    }

private:
    template <class Memory>
    static RW_HD RW_INLINE void one(const gather_job& job, std::int64_t index) {
        const auto [row, run] = ropewalk::gpu::detail::divide(index, job.runs);
        const auto [head, entry] = ropewalk::gpu::detail::divide(row, job.count);
        if (head >= job.heads) return;
        const std::int64_t element = run * lane_elements, left = job.head_dim - element;
        const cache_slot place = detail::place_in_cache(job.pages, job.sequence, job.first + entry);
        const bool here = place.page >= 0;
        lane_values x;
        load_lane<Wide, Memory>(job.from.type, job.from.data,
                                here ? detail::element_of(job.from, place, head) + element : 0, here ? left : 0, x);
        const float scale =
            here && job.from.scales != nullptr ? detail::scale_of<Memory>(job.from, place, head) : job.from.scale;
        RW_UNROLL
        for (int i = 0; i < lane_elements; ++i) x[i] *= scale;
        store_lane<Wide, Memory>(job.type, job.out, (head * job.stride + entry) * job.head_dim + element, left, x);
    }
};

/// Softmax of a block of scores [heads, stride_rows, stride] as far as a row sees them, into weights of the same
/// strides; what earlier blocks left of a row's sums [heads, stride_rows, head_dim] shrinks to the new maximum. A warp
/// a row. Weights of keys that a row does not see are 0.
struct soften_job : job_threads {
    const float* scores = nullptr;
    void* weights = nullptr;
    element_type type = element_type::f32;
    float* sums = nullptr;
    float* states = nullptr;  ///< [heads, stride_rows, 2]: the maximum and the total
    float scale = 1;          ///< log2 e included
    std::int64_t heads = 0, rows = 0, keys = 0;
    std::int64_t stride_rows = 0, stride = 0;
    std::int64_t head_dim = 0;
    std::int64_t sees = 0;  ///< keys of this block that row 0 sees; row i sees i more
    bool first = true;      ///< there are neither sums nor states yet
    bool wide = false;
};

template <bool Wide>
struct soften_body {
    static constexpr int blocks_resident = usual_blocks;

    struct state {
        std::int64_t row = 0;  ///< of all heads
        std::int64_t sees = 0;
        std::int64_t first = 0;  ///< this lane's first column
        float highest = no_score, shrink = 1, total = 0;
    };

    template <class Lanes, class Memory>
    static RW_HD RW_INLINE void run(const soften_job& job, std::int64_t index) {
        constexpr int width = Lanes::width;
        state s[width];
        float values[width][1];
        for (int i = 0; i < width; ++i) values[i][0] = highest<Memory>(job, s[i], index + i);
        Lanes::combine(values, 1, warp_lanes, larger_number{});
        for (int i = 0; i < width; ++i) {
            take_highest<Memory>(job, s[i], values[i][0]);
            values[i][0] = write_weights<Memory>(job, s[i]);
        }
        Lanes::combine(values, 1, warp_lanes, add{});
        for (int i = 0; i < width; ++i) finish<Memory>(job, s[i], values[i][0]);
    }

private:
    static constexpr int step = warp_lanes * lane_elements;

    template <class Memory>
    static RW_HD RW_INLINE float highest(const soften_job& job, state& s, std::int64_t index) {
        const auto [item, lane] = ropewalk::gpu::detail::divide(index, warp_lanes);
        const auto [head, row] = ropewalk::gpu::detail::divide(item, job.rows);
        s.row = head * job.stride_rows + row;
        s.sees = detail::within(job.sees + row, 0, job.keys);
        s.first = lane * lane_elements;
        float result = no_score;
        for (std::int64_t at = s.first; at < s.sees; at += step) {
            lane_values x;
            load_lane<Wide, Memory>(job.scores + s.row * job.stride + at, job.keys - at, x);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) {
                if (at + i < s.sees) result = larger_number{}(result, x[i] * job.scale);
            }
        }
        return result;
    }

    template <class Memory>
    static RW_HD RW_INLINE void take_highest(const soften_job& job, state& s, float highest) {
        s.highest = highest;
        if (job.first) return;
        const float before = detail::load_one<float, Memory>(job.states + 2 * s.row);
        s.total = detail::load_one<float, Memory>(job.states + 2 * s.row + 1);
        s.highest = larger_number{}(before, highest);
        s.shrink = exp2_of(before - s.highest);
    }

    template <class Memory>
    static RW_HD RW_INLINE float write_weights(const soften_job& job, const state& s) {
        float total = 0;
        for (std::int64_t at = s.first; at < job.keys; at += step) {
            lane_values x;
            load_lane<Wide, Memory>(job.scores + s.row * job.stride + at, job.keys - at, x);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) x[i] = at + i < s.sees ? exp2_of(x[i] * job.scale - s.highest) : 0;
            store_lane<Wide, Memory>(job.type, job.weights, s.row * job.stride + at, job.keys - at, x);
            total += sum_of_neighbours(x);
        }
        return total;
    }

    template <class Memory>
    static RW_HD RW_INLINE void finish(const soften_job& job, const state& s, float total) {
        if (s.first == 0)
            ropewalk::gpu::detail::store_elements<float, Memory>(job.states + 2 * s.row,
                                                                 {s.highest, RW_FMA(s.total, s.shrink, total)});
        if (job.first || s.shrink == 1) return;
        for (std::int64_t at = s.first; at < job.head_dim; at += step) {
            lane_values x;
            float* const sums = job.sums + s.row * job.head_dim + at;
            load_lane<Wide, Memory>(static_cast<const float*>(sums), job.head_dim - at, x);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) x[i] *= s.shrink;
            store_lane<Wide, Memory>(sums, job.head_dim - at, x);
        }
    }
};

/// The output from the sums of all blocks: a thread has lane_elements of a row.
struct finish_job : job_threads {
    const float* sums = nullptr;
    const float* states = nullptr;
    void* out = nullptr;
    element_type type = element_type::f32;
    std::int64_t out_token = 0, out_head = 0;
    std::int64_t heads = 0, rows = 0, stride_rows = 0, head_dim = 0, runs = 1;
    bool wide = false;
};

template <bool Wide>
struct finish_body {
    static constexpr int blocks_resident = usual_blocks;

    template <class Lanes, class Memory>
    static RW_HD RW_INLINE void run(const finish_job& job, std::int64_t index) {
        for (int i = 0; i < Lanes::width; ++i) one<Memory>(job, index + i);
    }

private:
    template <class Memory>
    static RW_HD RW_INLINE void one(const finish_job& job, std::int64_t index) {
        const auto [item, run] = ropewalk::gpu::detail::divide(index, job.runs);
        const auto [row, head] = ropewalk::gpu::detail::divide(item, job.heads);
        if (row >= job.rows) return;
        const std::int64_t from = head * job.stride_rows + row, at = run * lane_elements, left = job.head_dim - at;
        const float total = detail::load_one<float, Memory>(job.states + 2 * from + 1);
        const float factor = total == 0 ? 0 : 1 / total;
        lane_values x;
        load_lane<Wide, Memory>(job.sums + from * job.head_dim + at, left, x);
        RW_UNROLL
        for (int i = 0; i < lane_elements; ++i) x[i] *= factor;
        store_lane<Wide, Memory>(job.type, job.out, row * job.out_token + head * job.out_head + at, left, x);
    }
};

template <class F>
void with_body(const gather_job& job, const F& f) {
    with_width(job.wide, [&](auto wide) { f(gather_body<wide()>{}); });
}
template <class F>
void with_body(const soften_job& job, const F& f) {
    with_width(job.wide, [&](auto wide) { f(soften_body<wide()>{}); });
}
template <class F>
void with_body(const finish_job& job, const F& f) {
    with_width(job.wide, [&](auto wide) { f(finish_body<wide()>{}); });
}

}  // namespace ropewalk::llama::gpu
