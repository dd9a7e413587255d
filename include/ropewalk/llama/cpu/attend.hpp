// Causal attention over a key-value cache: scores, softmax and weighted values tile by tile (Rabe and Staats, arXiv
// 2112.05682; Dao et al., arXiv 2205.14135), so that memory does not grow with the length.
#pragma once

#include "ropewalk/llama/cpu/attend_plan.hpp"
#include "ropewalk/llama/cpu/decode_tile.hpp"
#include "ropewalk/llama/cpu/threads.hpp"

namespace ropewalk::llama::cpu::detail {

/// What a thread works in.
template <class A>
struct attend_space {
    float *q = nullptr, *out = nullptr, *most = nullptr, *sum = nullptr, *limit = nullptr;
    float *scores = nullptr, *keys = nullptr, *values = nullptr;

    /// The rows of an item, up to whole registers and panels.
    static std::int64_t rows(const attend_params& job) {
        const std::int64_t group = job.heads / job.layout.kv_heads;
        const std::int64_t most = group < block_rows ? block_rows / group * group : group;
        return (most / panel_width() + 1) * panel_width();
    }
    static constexpr std::int64_t panel_width() { return panel_vectors<A> * lane_count<A>; }

    /// Lays the arrays out from `start` on and returns how many floats they take.
    std::int64_t lay_out(float* start, const attend_params& job) {
        constexpr std::int64_t line = 16;
        const std::int64_t width = padded_width<A>(job.layout.head_dim), many = rows(job);
        std::int64_t used = 0;
        const auto take = [&](float*& where, std::int64_t floats) {
            if (start != nullptr) where = start + used;
            used += (floats + line - 1) / line * line;
        };
        take(q, many * width), take(out, many * width);
        take(most, many), take(sum, many), take(limit, many);
        take(scores, tile_tokens * (panel_width() > 4 ? panel_width() : 4));
        take(keys, tile_floats<A>(job.layout.head_dim)), take(values, tile_floats<A>(job.layout.head_dim));
        return used;
    }
};

/// Queries as a panel, element by element, times the scale; zeros where there is none.
template <class A>
RW_INLINE void pack_panel(const attend_params& job, const attend_item& item, std::int64_t first, std::int64_t width,
                          float* to) {
    const std::int64_t head_dim = job.layout.head_dim;
    for (std::int64_t lane = 0; lane < width; ++lane) {
        const bool exists = first + lane < item.rows();
        const float* const q = exists ? job.q + item.offset(job, first + lane) : nullptr;
        for (std::int64_t i = 0; i < head_dim; ++i) to[i * width + lane] = exists ? q[i] * job.scale : 0.0F;
    }
}

/// A row's result: divided by the sum, or as it is beside what puts it together with others.
template <class A>
RW_INLINE void finish_row(const attend_params& job, const attend_item& item, std::int64_t row, const float* out,
                          std::int64_t step, float most, float sum) {
    const std::int64_t head_dim = job.layout.head_dim;
    if (item.partial == nullptr) {
        float* const to = job.out + item.offset(job, row);
        const float inverse = 1.0F / sum;
        for (std::int64_t i = 0; i < head_dim; ++i) to[i] = out[i * step] * inverse;
        return;
    }
    float* const to = item.partial + row * part_plan::row_floats(head_dim);
    for (std::int64_t i = 0; i < head_dim; ++i) to[i] = out[i * step];
    to[head_dim] = most, to[head_dim + 1] = sum;
}

/// Some panels side by side: all of them look at a tile before the next is widened.
template <class A>
struct panel_runner {
    static constexpr std::int64_t lanes = lane_count<A>;
    static constexpr std::int64_t full = panel_vectors<A> * lanes;

    const attend_params& job;
    const attend_item& item;
    const attend_space<A>& space;

    /// Registers of the panel that begins with row `first`.
    [[nodiscard]] RW_INLINE std::int64_t vectors(std::int64_t first) const {
        const std::int64_t left = (item.rows() - first + lanes - 1) / lanes;
        return left < panel_vectors<A> ? left : panel_vectors<A>;
    }
    [[nodiscard]] RW_INLINE panel_state<A> state(std::int64_t first) const {
        const std::int64_t head_dim = job.layout.head_dim;
        return {space.q + first * head_dim, space.out + first * head_dim, space.most + first,
                space.sum + first,          space.limit + first,          head_dim};
    }

    RW_INLINE void begin() const {
        for (std::int64_t first = 0; first < item.rows(); first += full) {
            const panel_state<A> s = state(first);
            const std::int64_t width = vectors(first) * lanes;
            pack_panel<A>(job, item, first, width, s.q);
            for (std::int64_t i = 0; i < width * s.head_dim; ++i) s.out[i] = 0;
            for (std::int64_t i = 0; i < width; ++i) s.most[i] = no_score, s.sum[i] = 0;
        }
    }

    template <int V>
    RW_INLINE void take(const panel_state<A>& s, std::int64_t first, std::int64_t key, std::int64_t count,
                        const tile<float>& k, const tile<float>& v) const {
        const std::int64_t left = item.rows() - first;
        const std::int64_t last = item.visible(first + (left < full ? left : full) - 1) - key;
        const std::int64_t unmasked = item.visible(first) - key;
        if (last <= 0) return;
        for (std::int64_t i = 0; unmasked < count && i < V * lanes; ++i) {
            // Rows that do not exist look at what the last one does.
            const std::int64_t limit = item.visible(first + (i < left ? i : left - 1)) - key;
            s.limit[i] = static_cast<float>(limit < 0 ? 0 : limit < count ? limit : count);
        }
        panel<A, V>::take(s, {k, v, count < last ? count : last, unmasked, space.scores});
    }

    RW_INLINE void take_all(std::int64_t key, std::int64_t count, const tile<float>& k, const tile<float>& v) const {
        for (std::int64_t first = 0; first < item.rows(); first += full) {
            const panel_state<A> s = state(first);
            const std::int64_t wide = vectors(first);
            if constexpr (panel_vectors<A> > 2) {
                if (wide == 3) take<3>(s, first, key, count, k, v);
            }
            if (wide == 2) take<2>(s, first, key, count, k, v);
            if (wide == 1) take<1>(s, first, key, count, k, v);
        }
    }

    RW_INLINE void finish() const {
        for (std::int64_t row = 0; row < item.rows(); ++row) {
            const std::int64_t first = row / full * full, width = vectors(first) * lanes;
            const panel_state<A> s = state(first);
            const std::int64_t lane = row - first;
            finish_row<A>(job, item, row, s.out + lane, width, s.most[lane], s.sum[lane]);
        }
    }

    RW_INLINE void run(const cached_head& keys, const cached_head& values) const {
        begin();
        for (std::int64_t key = item.first_key; key < item.end; key += tile_tokens) {
            const std::int64_t left = item.end - key, count = left < tile_tokens ? left : tile_tokens;
            const std::int64_t soon = left - count < count ? left - count : count;
            if (job.layout.type == cache_type::f32 && lies_in_one_page(keys, key, count)) {
                take_all(key, count, tile_in_place<float>(keys, key), tile_in_place<float>(values, key));
            } else {
                // In this order, each asks for what comes next.
                const tile<float> k = widened_tile<A>(keys, key, count, space.keys, values, key, count);
                const tile<float> v = widened_tile<A>(values, key, count, space.values, keys, key + tile_tokens, soon);
                take_all(key, count, k, v);
            }
        }
        finish();
    }
};

/// Few queries.
template <class A>
struct strip_runner {
    const attend_params& job;
    const attend_item& item;
    const attend_space<A>& space;

    RW_INLINE strip_state begin() const {
        const std::int64_t head_dim = job.layout.head_dim, width = padded_width<A>(head_dim);
        for (std::int64_t row = 0; row < item.rows(); ++row) {
            const float* const from = job.q + item.offset(job, row);
            float *const q = space.q + row * width, *const out = space.out + row * width;
            for (std::int64_t i = 0; i < width; ++i) q[i] = i < head_dim ? from[i] * job.scale : 0.0F, out[i] = 0;
            space.most[row] = no_score, space.sum[row] = 0;
        }
        return {space.q, space.out, space.most, space.sum, space.scores, width, width};
    }

    template <class T, int R>
    RW_INLINE void take(const strip_state& state, std::int64_t row, std::int64_t key, const tile<T>& k,
                        const tile<T>& v, std::int64_t count) const {
        std::int64_t visible[R];
        for (int r = 0; r < R; ++r) {
            visible[r] = item.visible(row + r) - key;
            visible[r] = visible[r] < 0 ? 0 : visible[r] < count ? visible[r] : count;
        }
        strip<A, T, R>::take(state, row, k, v, count, visible);
    }
    template <class T>
    void take_all(const strip_state& state, std::int64_t key, std::int64_t count, const tile<T>& k,
                  const tile<T>& v) const {
        std::int64_t row = 0;
        for (; row + 4 <= item.rows(); row += 4) take<T, 4>(state, row, key, k, v, count);
        for (; row + 2 <= item.rows(); row += 2) take<T, 2>(state, row, key, k, v, count);
        if (row < item.rows()) take<T, 1>(state, row, key, k, v, count);
    }

    template <class T>
    RW_INLINE void run_over(const cached_head& keys, const cached_head& values) const {
        strip_state state = begin();
        const bool whole = job.layout.head_dim % lane_count<A> == 0;
        for (std::int64_t key = item.first_key; key < item.end; key += tile_tokens) {
            const std::int64_t left = item.end - key, count = left < tile_tokens ? left : tile_tokens;
            const std::int64_t soon = left - count < count ? left - count : count;
            if (whole && lies_in_one_page(keys, key, count)) {
                state.used = job.layout.head_dim;
                tile<T> k = tile_in_place<T>(keys, key), v = tile_in_place<T>(values, key);
                k.next = v.data;
                if (key + tile_tokens < item.end) v.next = keys.template row<const T>(key + tile_tokens);
                take_all<T>(state, key, count, k, v);
            } else {
                state.used = state.width;
                // In this order, each asks for what comes next.
                const tile<float> k = widened_tile<A>(keys, key, count, space.keys, values, key, count);
                const tile<float> v = widened_tile<A>(values, key, count, space.values, keys, key + tile_tokens, soon);
                take_all<float>(state, key, count, k, v);
            }
        }
        for (std::int64_t row = 0; row < item.rows(); ++row)
            finish_row<A>(job, item, row, state.out + row * state.width, 1, state.most[row], state.sum[row]);
    }

    RW_INLINE void run(const cached_head& keys, const cached_head& values) const {
        switch (job.layout.type) {
            case cache_type::f32:
                return run_over<float>(keys, values);
            case cache_type::f16:
                return run_over<f16>(keys, values);
            case cache_type::bf16:
                return run_over<bf16>(keys, values);
            default:
                return run_over<std::int8_t>(keys, values);
        }
    }
};

template <class A>
void run_item(const attend_params& job, const attend_item& item, const attend_space<A>& space) {
    const cached_head keys{job.layout, item.part->pages, item.head, true};
    const cached_head values{job.layout, item.part->pages, item.head, false};
    if (item.rows() < strip_rows<A>) {
        strip_runner<A>{job, item, space}.run(keys, values);
    } else {
        panel_runner<A>{job, item, space}.run(keys, values);
    }
}

/// Puts the results of a query over all shares of the keys together.
template <class A>
RW_INLINE void merge_row(const attend_params& job, const part_plan& plan, const attend_item& first, std::int64_t row) {
    const std::int64_t head_dim = job.layout.head_dim, at = row * part_plan::row_floats(head_dim);
    const auto share = [&](std::int64_t s) __attribute__((always_inline)) {
        return first.partial + s * plan.partial_floats + at;
    };
    float most = no_score, sum = 0;
    for (std::int64_t s = 0; s < plan.splits; ++s) most = share(s)[head_dim] > most ? share(s)[head_dim] : most;
    float* const out = job.out + first.offset(job, row);
    for (std::int64_t i = 0; i < head_dim; ++i) out[i] = 0;
    for (std::int64_t s = 0; s < plan.splits; ++s) {
        const float* const from = share(s);
        alignas(64) float weight[lane_count<A>];
        xsimd::exp(floats<A>(from[head_dim] - most)).store_aligned(weight);
        sum += weight[0] * from[head_dim + 1];
        for (std::int64_t i = 0; i < head_dim; ++i) out[i] += weight[0] * from[i];
    }
    const float inverse = 1.0F / sum;
    for (std::int64_t i = 0; i < head_dim; ++i) out[i] *= inverse;
}

/// Merges whatever is shared out.
template <class A>
void merge_shares(const attend_params& job, float* partials) {
    for (item_cursor cursor(job, partials); !cursor.finished(); cursor.next_part()) {
        if (cursor.plan.splits == 1) continue;
        for (std::int64_t n = 0; n < cursor.plan.items; n += cursor.plan.splits) {
            const attend_item first = item_at(cursor.part(), cursor.plan, n, cursor.partials);
            for (std::int64_t row = 0; row < first.rows(); ++row) merge_row<A>(job, cursor.plan, first, row);
        }
    }
}

/// Threads that pay: waking one costs more than 64 Ki multiplications.
template <class A>
RW_INLINE int attend_team(const attend_params& job, std::int64_t items, int threads) {
    std::int64_t work = 0;
    for (const paged_rows& part : job.sequences)
        work += part.tokens * (part.past + part.tokens) * job.heads * job.layout.head_dim / (64 * 1024);
    return thread_count<A>(work < items ? work : items, threads);
}

template <class A>
void attend(const attend_params& job, int threads) {
    std::int64_t items = 0, shared = 0;
    for (item_cursor cursor(job, nullptr); !cursor.finished(); cursor.next_part())
        items += cursor.plan.items, shared += cursor.plan.items * cursor.plan.partial_floats;
    if (items == 0) return;
    const int team = attend_team<A>(job, items, threads);
    const std::int64_t floats = attend_space<A>{}.lay_out(nullptr, job);
    const scratch<A> memory(floats, team), partials(shared, 1);
    std::int64_t next = 0;
    const auto work = [&](int thread) __attribute__((always_inline)) {
        attend_space<A> space;
        space.lay_out(memory.region(thread), job);
        item_cursor cursor(job, partials.region(0));
        for (;;) {
            std::int64_t n;
#if defined(RW_OPENMP)
#pragma omp atomic capture
#endif
            n = next++;
            if (n >= items) break;
            run_item<A>(job, cursor.item(n), space);
        }
    };
    if (team == 1) {
        work(0);
    } else {
#if defined(RW_OPENMP)
#pragma omp parallel num_threads(team)
        work(thread_number<A>());
#endif
    }
    merge_shares<A>(job, partials.region(0));
}

}  // namespace ropewalk::llama::cpu::detail
