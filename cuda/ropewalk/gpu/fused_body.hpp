// What the lanes of a fused kernel do: read a head once, norm it, turn it, and write it to tensors and to caches. Runs
// on the host too, which is how it is tested.
#pragma once

#include "ropewalk/gpu/fused_job.hpp"

namespace ropewalk::gpu {

namespace detail {

/// Where the two runs of a slot begin in its head, and what they are.
struct slot_runs {
    std::int64_t first = 0, second = 0;
    bool here = false;   ///< there is such a slot
    bool both = false;   ///< it has a second run
    bool turns = false;  ///< the two make pairs
};

/// The slot of a rotation that slot number `at` of a fused body is. Single elements of interleaved pairs take turns
/// between the two halves of a head, so that neighbours hold what wider slots hold, and sums are the same.
template <Layout L, int V>
RW_HD RW_INLINE std::int64_t turning_slot(std::int64_t at, std::int64_t pairs) {
    if constexpr (V == 1 && std::same_as<L, interleaved>) {
        if (pairs % 2 == 0) return at / 2 + at % 2 * (pairs / 2);
    }
    return at;
}

/// The elements that do not turn, counted without those that do, are split into two halves, of which a slot has a run
/// each.
template <Layout L, int V>
RW_HD RW_INLINE slot_runs runs_of(const fused_side& side, std::int64_t slot) {
    if (slot >= side.slots) return {};
    if (slot < side.turning) {
        const std::int64_t at = turning_slot<L, V>(slot, side.pairs);
        return {side.rotary_offset + slots<L, V>::first(at, side.pairs),
                side.rotary_offset + slots<L, V>::second(at, side.pairs), true, true, true};
    }
    const std::int64_t rest = side.head_dim - 2 * side.pairs, half = (rest + 1) / 2;
    const std::int64_t at = (slot - side.turning) * V;
    const auto element = [&](std::int64_t i) { return i < side.rotary_offset ? i : i + 2 * side.pairs; };
    return {element(at), element(at + half), true, at + half < rest, false};
}

/// The squares of the two runs of a slot, two by two: those of a pair where neighbours are pairs, else those which lie
/// half a head apart.
template <Layout L, int V>
RW_HD RW_INLINE void add_squares(const float (&a)[V], const float (&b)[V], bool turns, float* squares) {
    if constexpr (V > 1 && std::same_as<L, interleaved>) {
        if (turns) {
            RW_UNROLL
            for (int j = 0; j < V; j += 2) {
                squares[j] = RW_FMA(a[j + 1], a[j + 1], a[j] * a[j]);
                squares[j + 1] = RW_FMA(b[j + 1], b[j + 1], b[j] * b[j]);
            }
            return;
        }
    }
    RW_UNROLL
    for (int j = 0; j < V; ++j) squares[j] = RW_FMA(b[j], b[j], a[j] * a[j]);
}

/// V elements as floats, in accesses of at most 16 bytes.
template <Element E, class Memory, int V>
RW_HD RW_INLINE void load_elements(const E* from, float (&x)[V]) {
    constexpr int bytes = V * static_cast<int>(sizeof(E)) < 16 ? V * static_cast<int>(sizeof(E)) : 16;
    using part = line<E, bytes>;
    RW_UNROLL
    for (int done = 0; done < V; done += part::count) {
        const part values = part::widen(Memory::template load<bytes>(from + done));
        RW_UNROLL
        for (int i = 0; i < part::count; ++i) x[done + i] = values.value[i];
    }
}

/// The same where there are such elements; else zeros, which change neither a sum nor a maximum.
template <Element E, class Memory, int V>
RW_HD RW_INLINE void load_if(bool here, const E* from, float (&x)[V]) {
    if (here) return load_elements<E, Memory>(from, x);
    RW_UNROLL
    for (int i = 0; i < V; ++i) x[i] = 0;
}

/// What V normed elements are multiplied by.
template <class Memory, int V>
RW_HD RW_INLINE void load_weights(const norm_source& norm, bool here, std::int64_t element, float (&x)[V]) {
    if (norm.type == element_type::f32) {
        load_if<float, Memory>(here, static_cast<const float*>(norm.weight) + element, x);
    } else if (norm.type == element_type::f16) {
        load_if<f16, Memory>(here, static_cast<const f16*>(norm.weight) + element, x);
    } else {
        load_if<bf16, Memory>(here, static_cast<const bf16*>(norm.weight) + element, x);
    }
    RW_UNROLL
    for (int i = 0; i < V; ++i) x[i] += norm.shift;
}

}  // namespace detail

/// A body for run_lanes(). A lane has `spots` neighbouring slots of each head, and keeps their cosines, sines and
/// weights for all heads of its group.
template <Element T, Layout L, int Bytes, class Rates, class Memory = plain_access>
struct fused_body {
    static constexpr int V = Bytes / static_cast<int>(sizeof(T));
    static constexpr int spots = slots_a_lane(V, Rates::capacity);
    static constexpr int rows = heads_at_once(V, Rates::capacity);

    const fused_job<Rates>& job;

    struct state {
        const fused_side* side;
        const T* in;  ///< the next head
        T* out;       ///< null: none
        std::int64_t cached = 0, scaled = 0;
        bool caches = false, leads = false;
        int heads = 0;  ///< left
        std::int64_t slot = 0;
        turns<V> by[spots];
        float weight[spots][2][V];
        float value[rows][spots][2][V];
        float norm[rows];
        int8_scale scale[rows];
    };

    [[nodiscard]] RW_HD RW_INLINE int steps() const { return job.steps; }
    [[nodiscard]] RW_HD RW_INLINE int group() const { return job.lanes; }
    [[nodiscard]] RW_HD RW_INLINE bool sums() const { return job.sums; }
    [[nodiscard]] RW_HD RW_INLINE bool measures() const { return job.measures; }

    RW_HD RW_INLINE void begin(state& s, std::int64_t index) const {
        const auto [item, lane] = detail::divide(index, job.lanes);
        const auto [position, group] = detail::divide(item, job.groups);
        const auto [row, token] = detail::divide(position, job.tokens);
        const int which = group >= job.first_group[2] ? 2 : group >= job.first_group[1] ? 1 : 0;
        const fused_side& side = job.side[which];
        s.side = &side;
        s.slot = lane * spots;
        s.leads = lane == 0;
        if (item >= job.items) return;  // heads stays 0: the lane only keeps its warp company
        const std::int64_t first = (group - job.first_group[which]) * side.heads_a_thread;
        const std::int64_t left = side.heads - first;
        s.heads = static_cast<int>(left < side.heads_a_thread ? left : side.heads_a_thread);
        s.in = static_cast<const T*>(side.in) + row * side.in_batch + token * side.in_token + first * side.in_head;
        s.out = static_cast<T*>(side.out);
        if (s.out != nullptr) s.out += row * side.out_batch + token * side.out_token + first * side.out_head;
        find_cached(s, row, token, first);
        token_turn shared;
        if (side.turning > 0) shared = turn_of<Rates>(job.source, row, token);
        RW_UNROLL
        for (int i = 0; i < spots; ++i) {
            const auto runs = runs_at(s, i);
            if (runs.turns)
                s.by[i] = turns_at<L, V>(job.source, job.rates, shared,
                                         detail::turning_slot<L, V>(s.slot + i, side.pairs), which == 1);
            if (side.norm.weight == nullptr) continue;
            detail::load_weights<Memory>(side.norm, runs.here, runs.first, s.weight[i][0]);
            detail::load_weights<Memory>(side.norm, runs.both, runs.second, s.weight[i][1]);
        }
    }

    RW_HD RW_INLINE void load(state& s) const {
        RW_UNROLL
        for (int row = 0; row < rows; ++row) {
            if (row >= s.heads) continue;
            const T* const in = s.in + row * s.side->in_head;
            RW_UNROLL
            for (int i = 0; i < spots; ++i) {
                const auto runs = runs_at(s, i);
                detail::load_if<T, Memory>(runs.here, in + runs.first, s.value[row][i][0]);
                detail::load_if<T, Memory>(runs.both, in + runs.second, s.value[row][i][1]);
            }
        }
    }

    /// The squares of this lane's elements.
    [[nodiscard]] RW_HD RW_INLINE float sum(const state& s, int row) const {
        if (row >= s.heads || s.side->norm.weight == nullptr) return 0;
        float squares[spots * V];
        RW_UNROLL
        for (int i = 0; i < spots; ++i) {
            const auto& [a, b] = s.value[row][i];
            detail::add_squares<L, V>(a, b, runs_at(s, i).turns, squares + i * V);
        }
        return sum_of_neighbours(squares);
    }
    RW_HD RW_INLINE void take_sum(state& s, int row, float sum) const {
        const norm_source& norm = s.side->norm;
        s.norm[row] = 1.0F / __builtin_sqrtf(RW_FMA(sum, norm.reciprocal_dim, norm.epsilon));
    }

    /// From what was read to what will be written, before it is rounded.
    RW_HD RW_INLINE void turn(state& s) const {
        RW_UNROLL
        for (int row = 0; row < rows; ++row) {
            if (row >= s.heads) continue;
            RW_UNROLL
            for (int i = 0; i < spots; ++i) {
                const auto runs = runs_at(s, i);
                auto& [a, b] = s.value[row][i];
                if (s.side->norm.weight != nullptr) {
                    RW_UNROLL
                    for (int j = 0; j < V; ++j) {
                        a[j] = a[j] * s.norm[row] * s.weight[i][0][j];
                        b[j] = b[j] * s.norm[row] * s.weight[i][1][j];
                    }
                }
                if (runs.turns) slots<L, V>::turn(a, b, s.by[i]);
            }
        }
    }

    /// The largest magnitude of what this lane writes.
    [[nodiscard]] RW_HD RW_INLINE std::uint32_t measure(const state& s, int row) const {
        std::uint32_t largest = 0;
        if (row >= s.heads || !s.caches) return largest;
        RW_UNROLL
        for (int i = 0; i < spots; ++i) {
            const auto& [a, b] = s.value[row][i];
            RW_UNROLL
            for (int j = 0; j < V; ++j)
                largest = larger{}(largest, larger{}(magnitude_bits(a[j]), magnitude_bits(b[j])));
        }
        return largest;
    }
    RW_HD RW_INLINE void take_measure(state& s, int row, std::uint32_t largest) const {
        s.scale[row] = int8_scale::of(largest);
    }

    RW_HD RW_INLINE void store(state& s) const {
        const cache_sink& sink = s.side->sink;
        RW_UNROLL
        for (int row = 0; row < rows; ++row) {
            if (row >= s.heads) continue;
            RW_UNROLL
            for (int i = 0; i < spots; ++i) {
                const auto runs = runs_at(s, i);
                if (runs.here) store_run(s, row, runs.first, runs.turns, s.value[row][i][0]);
                if (runs.both) store_run(s, row, runs.second, runs.turns, s.value[row][i][1]);
            }
            if (s.caches && s.leads && sink.type == cache_type::i8)
                detail::store_elements<float, Memory>(sink.scales + s.scaled + row * sink.scale_head,
                                                      {s.scale[row].stored});
        }
        if (s.heads <= 0) return;  // a lane without heads has no addresses
        s.in += rows * s.side->in_head;
        if (s.out != nullptr) s.out += rows * s.side->out_head;
        s.cached += rows * sink.head;
        s.scaled += rows * sink.scale_head;
        s.heads -= rows;
    }

private:
    RW_HD RW_INLINE void find_cached(state& s, std::int64_t row, std::int64_t token, std::int64_t head) const {
        const cache_sink& sink = s.side->sink;
        if (sink.data == nullptr) return;
        const cache_place place = place_at(job.places, row, token, job.tokens);
        s.caches = place.page >= 0;
        s.cached = place.page * sink.page + place.token * sink.token + head * sink.head;
        s.scaled = place.page * sink.scale_page + place.token * sink.scale_token + head * sink.scale_head;
    }

    RW_HD RW_INLINE void store_run(const state& s, int row, std::int64_t element, bool turns,
                                   const float (&x)[V]) const {
        const fused_side& side = *s.side;
        // In place, what is neither normed nor turned stays.
        if (s.out != nullptr && (turns || side.norm.weight != nullptr || side.out != side.in))
            detail::store_elements<T, Memory>(s.out + row * side.out_head + element, x);
        if (s.caches)
            store_cached<Memory>(side.sink, s.cached + row * side.sink.head + element, s.scale[row].factor, x);
    }

    RW_HD RW_INLINE detail::slot_runs runs_at(const state& s, int i) const {
        return detail::runs_of<L, V>(*s.side, s.slot + i);
    }
};

}  // namespace ropewalk::gpu
