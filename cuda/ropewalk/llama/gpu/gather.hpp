// Small kernels around the layers: where the tokens of a call go, rows by number, and the count of what is cached.
#pragma once

#include "ropewalk/llama/gpu/sequences.hpp"

namespace ropewalk::llama::gpu {

/// Positions and cache slots of the tokens of ragged sequences: what the rotation and the append read. A thread a
/// token.
struct place_job : job_threads {
    sequence_source batch;
    slot_reader pages;
    std::int64_t* positions = nullptr;  ///< [tokens]
    std::int64_t* slots = nullptr;      ///< [tokens], page · page_size + place; −1: none
};

struct place_body {
    static constexpr int blocks_resident = usual_blocks;

    template <class Lanes, class Memory>
    static RW_HD RW_INLINE void run(const place_job& job, std::int64_t index) {
        for (int i = 0; i < Lanes::width; ++i) one(job, index + i);
    }

private:
    static RW_HD RW_INLINE void one(const place_job& job, std::int64_t token) {
        if (token >= job.batch.tokens) return;
        const std::int64_t sequence = detail::sequence_of_row(job.batch, token);
        const sequence_rows mine =
            sequence < 0 ? sequence_rows{token, 0, 0} : detail::rows_of_sequence(job.batch, sequence);
        const std::int64_t entry = mine.past + token - mine.first;
        cache_slot place;
        if (sequence >= 0) place = detail::place_in_cache(job.pages, sequence, entry);
        job.positions[token] = entry;
        job.slots[token] = place.page < 0 ? -1 : place.page * job.pages.page_size + place.token;
    }
};

template <class F>
void with_body(const place_job& /*job*/, const F& f) {
    f(place_body{});
}

inline place_job make_place(const sequences& batch, std::int64_t tokens, const cache_tensor& cache,
                            const page_table& pages, std::int64_t* positions, std::int64_t* slots) {
    detail::check_batch(batch, pages, cache, tokens);
    place_job job;
    job.batch = detail::source_of(batch, tokens, detail::capacity_of(cache, pages));
    job.pages = detail::source_of(cache, pages, batch.count);
    job.positions = positions, job.slots = slots;
    job.threads = batch.count == 0 ? 0 : threads_of_items(tokens);
    return job;
}

/// Where tokens lie whose encoding draws its positions: numbers[i] = drawn[positions[i]], or the last one beyond them.
/// A thread a token.
struct draw_job : job_threads {
    const std::int64_t* positions = nullptr;  ///< [tokens]
    const fixed_position* drawn = nullptr;    ///< [count], at least one
    fixed_position* numbers = nullptr;        ///< [tokens]
    std::int64_t tokens = 0, count = 0;
};

struct draw_body {
    static constexpr int blocks_resident = usual_blocks;

    template <class Lanes, class Memory>
    static RW_HD RW_INLINE void run(const draw_job& job, std::int64_t index) {
        for (int i = 0; i < Lanes::width; ++i) {
            if (index + i >= job.tokens) continue;
            job.numbers[index + i] = job.drawn[detail::within(job.positions[index + i], 0, job.count - 1)];
        }
    }
};

template <class F>
void with_body(const draw_job& /*job*/, const F& f) {
    f(draw_body{});
}

inline draw_job make_draw(std::span<const std::int64_t> positions, std::span<const fixed_position> drawn,
                          fixed_position* numbers) {
    RW_EXPECTS(!drawn.empty(), "{} tokens and no positions drawn for them", positions.size());
    draw_job job;
    job.positions = positions.data(), job.drawn = drawn.data(), job.numbers = numbers;
    job.tokens = std::ssize(positions), job.count = std::ssize(drawn);
    job.threads = threads_of_items(job.tokens);
    return job;
}

/// Row i of the output is row which[i] + shift of the input, or zeros where there is no such row. A thread has
/// lane_elements of a row.
struct pick_job : job_threads {
    matrix_view in, out;
    const std::int32_t* which = nullptr;  ///< [out.rows]; null: i itself
    std::int64_t shift = 0;
    std::int64_t runs = 0;
    bool wide = false;
};

template <bool Wide>
struct pick_body {
    static constexpr int blocks_resident = usual_blocks;

    template <class Lanes, class Memory>
    static RW_HD RW_INLINE void run(const pick_job& job, std::int64_t index) {
        for (int i = 0; i < Lanes::width; ++i) one<Memory>(job, index + i);
    }

private:
    template <class Memory>
    static RW_HD RW_INLINE void one(const pick_job& job, std::int64_t index) {
        const auto [row, run] = ropewalk::gpu::detail::divide(index, job.runs);
        if (row >= job.out.rows) return;
        const std::int64_t from = (job.which == nullptr ? row : job.which[row]) + job.shift;
        const std::int64_t at = run * lane_elements, left = job.out.columns - at;
        const bool here = from >= 0 && from < job.in.rows;
        lane_values x;
        load_lane<Wide, Memory>(job.in.type, job.in.data, here ? from * job.in.stride + at : 0, here ? left : 0, x);
        store_lane<Wide, Memory>(job.out.type, job.out.data, row * job.out.stride + at, left, x);
    }
};

template <class F>
void with_body(const pick_job& job, const F& f) {
    with_width(job.wide, [&](auto wide) { f(pick_body<wide()>{}); });
}

inline pick_job make_pick(const matrix_view& in, const matrix_view& out, const std::int32_t* which,
                          std::int64_t shift = 0) {
    detail::check_rows("the input", in), detail::check_rows("the output", out);
    RW_EXPECTS(in.columns == out.columns, "{} must be as wide as {}", detail::shape_of("the output", out),
               detail::shape_of("the input", in));
    pick_job job;
    job.in = in, job.out = out, job.which = which, job.shift = shift;
    job.runs = ropewalk::gpu::detail::divide_up(out.columns, lane_elements);
    job.wide = detail::takes_wide(in) && detail::takes_wide(out);
    job.threads = threads_of_items(out.rows * job.runs);
    return job;
}

/// The embeddings of tokens.
inline pick_job make_embed(const matrix_view& table, const std::int32_t* tokens, const matrix_view& out) {
    return make_pick(table, out, tokens);
}
/// The last row of every sequence; of one without rows, that of the sequence before it.
inline pick_job make_last_rows(const matrix_view& in, const sequences& batch, const matrix_view& out) {
    return batch.starts == nullptr ? make_pick(in, out, nullptr) : make_pick(in, out, batch.starts + 1, -1);
}

/// past[s] += the tokens of the call: what a recorded step ends with, so that it may be replayed. A thread a sequence.
struct advance_job : job_threads {
    sequence_source batch;
    std::int32_t* past = nullptr;
};

struct advance_body {
    static constexpr int blocks_resident = usual_blocks;

    template <class Lanes, class Memory>
    static RW_HD RW_INLINE void run(const advance_job& job, std::int64_t index) {
        for (int i = 0; i < Lanes::width; ++i) {
            if (index + i >= job.batch.count) continue;
            const sequence_rows mine = detail::rows_of_sequence(job.batch, index + i);
            job.past[index + i] =
                static_cast<std::int32_t>(detail::within(mine.past + mine.tokens, 0, job.batch.capacity));
        }
    }
};

template <class F>
void with_body(const advance_job& /*job*/, const F& f) {
    f(advance_body{});
}

inline advance_job make_advance(const sequences& batch, std::int64_t tokens, const cache_tensor& cache,
                                const page_table& pages, std::int32_t* past) {
    detail::check_batch(batch, pages, cache, tokens);
    RW_EXPECTS(past != nullptr && past == batch.past, "advance() writes the pasts that its sequences read");
    advance_job job;
    job.batch = detail::source_of(batch, tokens, detail::capacity_of(cache, pages));
    RW_EXPECTS(job.batch.capacity < std::int64_t{1} << 31, "a sequence of {} entries is more than its count holds",
               job.batch.capacity);
    job.past = past;
    job.threads = threads_of_items(batch.count);
    return job;
}

}  // namespace ropewalk::llama::gpu
