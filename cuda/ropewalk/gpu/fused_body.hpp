// Body of the fused kernel: reads a head once, norms and rotates it, and writes it to tensors and caches. Tests execute
// it on the host.
#pragma once

#include "ropewalk/gpu/angles.hpp"
#include "ropewalk/gpu/fused_params.hpp"
#include "ropewalk/gpu/overlap.hpp"

namespace ropewalk::gpu {

namespace detail {

/// The two vecs of a chunk: their offsets in the head, which has at most 1024 elements, and their contents.
struct chunk_vecs {
    std::int32_t first = 0, second = 0;
    bool has_first = false, has_second = false;
    bool rotates = false;  ///< the vecs hold pairs
};

/// The chunk of a rotation for chunk `chunk` of a fused body. Single elements of interleaved pairs alternate between
/// the halves of the rotary part, so that neighbouring lanes hold the same elements as wider chunks, and sums have the
/// same bits.
template <Layout L, int V>
RW_HD RW_INLINE std::int32_t rotating_chunk(std::int32_t chunk, std::int32_t pairs) {
    if constexpr (V == 1 && std::same_as<L, interleaved>) {
        if (pairs % 2 == 0) return chunk / 2 + chunk % 2 * (pairs / 2);
    }
    return chunk;
}

/// The vecs of a chunk of a head. The elements outside the rotary part are split into two halves, and a chunk has one
/// vec of each.
template <Layout L, int V>
RW_HD RW_INLINE chunk_vecs vecs_of(const fused_heads& side, std::int32_t chunk) {
    if (chunk >= side.chunks) return {};
    if (chunk < side.rotating_chunks) {
        const std::int32_t rotated = rotating_chunk<L, V>(chunk, side.pairs);
        return {.first = side.rotary_offset + static_cast<std::int32_t>(chunks<L, V>::first(rotated, side.pairs)),
                .second = side.rotary_offset + static_cast<std::int32_t>(chunks<L, V>::second(rotated, side.pairs)),
                .has_first = true,
                .has_second = true,
                .rotates = true};
    }
    const std::int32_t rest = side.head_dim - 2 * side.pairs, half = (rest + 1) / 2;
    const std::int32_t offset = (chunk - side.rotating_chunks) * V;
    const auto element = [&](std::int32_t i) { return i < side.rotary_offset ? i : i + 2 * side.pairs; };
    return {.first = element(offset),
            .second = element(offset + half),
            .has_first = true,
            .has_second = offset + half < rest};
}

/// Makes the cosines and sines of the chunks of a lane, for all heads of its group.
template <Layout L, class State, class Rates, int V, int Chunks>
RW_HD RW_INLINE void fill_cos_sin(const State& s, const ropewalk::rotate_params& rotation, const Rates& rates,
                                  std::int32_t pairs, bool is_key, cos_sin_values<V> (&values)[Chunks]) {
    const token_positions positions = positions_of_token<Rates>(rotation, s.row, s.token);
    RW_UNROLL
    for (int i = 0; i < Chunks; ++i) {
        if (s.vecs[i].rotates)
            values[i] = values_of_chunk<L, V>(rotation, rates, s.row, s.token, positions,
                                              rotating_chunk<L, V>(s.first_chunk + i, pairs), is_key);
    }
}

/// Squares of the vecs of a chunk, added in pairs: the two elements of an interleaved pair, otherwise the elements at
/// the same place of both vecs.
template <Layout L, int V>
RW_HD RW_INLINE void add_squares(const float (&a)[V], const float (&b)[V], bool rotates, float* squares) {
    if constexpr (V > 1 && std::same_as<L, interleaved>) {
        if (rotates) {
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

/// Chooses between two values, not between their addresses, so that both can stay in registers.
template <class Value>
RW_HD RW_INLINE Value choose(bool first, Value a, Value b) {
    return first ? a : b;
}

/// Loads V elements where they exist, otherwise zeros, which change neither a sum nor a maximum.
template <Element E, class Memory, int V>
RW_HD RW_INLINE void load_if(bool exists, const E* from, float (&x)[V]) {
    if (exists) return load_elements<E, Memory>(from, x);
    RW_UNROLL
    for (int i = 0; i < V; ++i) x[i] = 0;
}

/// Widens the elements of a vec.
template <Element T, int Bytes, int V>
RW_HD RW_INLINE void widen_vec(const vec_bits<Bytes>& bits, float (&x)[V]) {
    const auto values = vec<T, Bytes>::widen(bits);
    RW_UNROLL
    for (int i = 0; i < V; ++i) {
        x[i] = values.value[i];
#if defined(RW_GPU_CODE)
        asm("" : "+f"(x[i]));  // or nvcc widens it again for every use
#endif
    }
}

/// Loads the factors of V normed elements.
template <class Memory, int V>
RW_HD RW_INLINE void load_weights(const norm_params& norm, bool exists, std::int64_t element, float (&x)[V]) {
    if (norm.type == element_type::f32) {
        load_if<float, Memory>(exists, static_cast<const float*>(norm.weight) + element, x);
    } else if (norm.type == element_type::f16) {
        load_if<f16, Memory>(exists, static_cast<const f16*>(norm.weight) + element, x);
    } else {
        load_if<bf16, Memory>(exists, static_cast<const bf16*>(norm.weight) + element, x);
    }
    RW_UNROLL
    for (int i = 0; i < V; ++i) x[i] += norm.shift;
}

}  // namespace detail

/// A body for run_lanes(). A lane has `lane_chunks` neighbouring chunks of each head, and keeps their offsets, cosines,
/// sines and weights for all heads of its group. Strides are also in the state, because reads of `params.side` take an
/// instruction each.
template <Element T, Layout L, int Bytes, class Rates, fused_parts Parts = fused_parts{}, class Memory = plain_access>
struct fused_body {
    static constexpr int V = Bytes / static_cast<int>(sizeof(T));
    static constexpr int lane_chunks = chunks_per_lane(V, Rates::capacity);
    static constexpr int heads_in_flight = heads_at_once(V, Rates::capacity);
    static constexpr std::int64_t size = sizeof(T);

    const fused_kernel_params<Rates>& params;

    struct state {
        const fused_heads* side;
        const std::uint8_t* in = nullptr;      ///< the next head to load
        std::int64_t in_step = 0;              ///< bytes from a head of the group to the next one
        std::uint8_t* to[max_sinks] = {};      ///< the next head to store; null: none
        std::int64_t to_step[max_sinks] = {};  ///< bytes from a head of the group to the next one
        f8_divisor divisor[max_sinks];
        float* scale_of_head[max_sinks] = {};
        std::int64_t scale_step[max_sinks] = {};  ///< floats from a head of the group to the next one
        std::uint32_t row = 0, token = 0;
        std::int32_t first_head = 0, first_chunk = 0;
        bool is_first_lane = false, is_key = false, has_norm = false;
        int heads = 0;     ///< remaining to store
        int unloaded = 0;  ///< remaining to load
        detail::chunk_vecs vecs[lane_chunks];
        bool writes[lane_chunks];  ///< the chunk to the first sink
        cos_sin_values<V> cos_sin[lane_chunks];
        float weight[lane_chunks][2][V];
        /// Vecs outside the head stay zeros, which change neither a sum nor a maximum.
        vec_bits<Bytes> loaded[heads_in_flight][lane_chunks][2] = {};
        float value[lane_chunks][2][V];  ///< of the head in work
        float norm = 0;
        int8_scale scale{};
    };

    [[nodiscard]] RW_HD RW_INLINE int steps() const { return params.steps; }
    [[nodiscard]] RW_HD RW_INLINE int group() const { return params.lanes; }
    static constexpr bool can_sum = Parts.norms, can_measure = Parts.converts;
    [[nodiscard]] RW_HD RW_INLINE static bool sums(const state& s) { return s.has_norm; }
    [[nodiscard]] RW_HD RW_INLINE static bool measures(const state& s) { return s.side->measures; }

    /// Finds the heads of a lane and the addresses that depend on parameters only.
    RW_HD RW_INLINE void begin(state& s, std::int64_t index) const {
        const auto [row, token, group, lane] = params.split(index);
        const int which = group >= params.first_group[2] ? 2 : group >= params.first_group[1] ? 1 : 0;
        const fused_heads& side = params.side[which];
        s.side = &side;
        s.is_first_lane = lane == 0;
        detail::wait_for_previous();
        if (index >= params.items * params.lanes) return;  // idle lane; takes part in shuffles only
        s.row = row, s.token = token, s.first_head = group - params.first_group[which];
        s.is_key = which == 1;
        s.heads = s.unloaded = side.heads_of_group(s.first_head);
        s.has_norm = Parts.norms && side.norm.weight != nullptr;
        s.in = static_cast<const std::uint8_t*>(side.in) + row * side.in_batch + token * side.in_token +
               s.first_head * side.in_head;
        s.in_step = side.in_step;
        s.first_chunk = lane * lane_chunks;
        RW_UNROLL
        for (int i = 0; i < lane_chunks; ++i) {
            const auto& vecs = s.vecs[i] = detail::vecs_of<L, V>(side, s.first_chunk + i);
            // In place, elements that are neither normed nor rotated need no store.
            s.writes[i] = vecs.rotates || s.has_norm || !side.sinks[0].in_place;
        }
    }

    /// Loads up to heads_in_flight heads. All loads start before the first value is used.
    RW_HD RW_INLINE void load(state& s) const {
        RW_UNROLL
        for (int head = 0; head < heads_in_flight; ++head) {
            if (head >= s.unloaded) continue;
            RW_UNROLL
            for (int i = 0; i < lane_chunks; ++i) {
                const auto& vecs = s.vecs[i];
                if (vecs.has_first) s.loaded[head][i][0] = Memory::template load<Bytes>(s.in + vecs.first * size);
                if (vecs.has_second) s.loaded[head][i][1] = Memory::template load<Bytes>(s.in + vecs.second * size);
            }
            s.in += s.in_step;
        }
        s.unloaded -= heads_in_flight;
    }

    /// Finds everything that all heads of the group share: destinations, cosines, sines and weights.
    RW_HD RW_INLINE void prepare(state& s) const {
        if (s.heads <= 0) return;
        find_sinks(s);
        const fused_heads& side = *s.side;
        if (side.rotating_chunks > 0)
            detail::fill_cos_sin<L>(s, params.rotation, params.rates, side.pairs, s.is_key, s.cos_sin);
        if (!s.has_norm) return;
        RW_UNROLL
        for (int i = 0; i < lane_chunks; ++i) {
            const auto& vecs = s.vecs[i];
            detail::load_weights<Memory>(side.norm, vecs.has_first, vecs.first, s.weight[i][0]);
            detail::load_weights<Memory>(side.norm, vecs.has_second, vecs.second, s.weight[i][1]);
        }
    }

    /// Makes loaded head `head` the head in work.
    RW_HD RW_INLINE void widen(state& s, int head) const {
        RW_UNROLL
        for (int i = 0; i < lane_chunks; ++i) {
            detail::widen_vec<T>(s.loaded[head][i][0], s.value[i][0]);
            detail::widen_vec<T>(s.loaded[head][i][1], s.value[i][1]);
        }
    }

    /// The sum of the squares of this lane's elements.
    [[nodiscard]] RW_HD RW_INLINE float sum(const state& s) const {
        if (!s.has_norm) return 0;
        float squares[lane_chunks * V];
        RW_UNROLL
        for (int i = 0; i < lane_chunks; ++i) {
            const auto& [a, b] = s.value[i];
            detail::add_squares<L, V>(a, b, s.vecs[i].rotates, squares + i * V);
        }
        return sum_of_neighbours(squares);
    }
    RW_HD RW_INLINE void take_sum(state& s, float sum) const {
        const norm_params& norm = s.side->norm;
        s.norm = 1.0F / __builtin_sqrtf(RW_FMA(sum, norm.reciprocal_dim, norm.epsilon));
    }

    /// Norms and rotates the widened head, without rounding to the element type.
    RW_HD RW_INLINE void rotate(state& s) const {
        RW_UNROLL
        for (int i = 0; i < lane_chunks; ++i) {
            auto& [a, b] = s.value[i];
            if (s.has_norm) {
                RW_UNROLL
                for (int j = 0; j < V; ++j) {
                    a[j] = a[j] * s.norm * s.weight[i][0][j];
                    b[j] = b[j] * s.norm * s.weight[i][1][j];
                }
            }
            if (s.vecs[i].rotates) chunks<L, V>::rotate(a, b, s.cos_sin[i]);
        }
    }

    /// The largest magnitude of this lane's results.
    [[nodiscard]] RW_HD RW_INLINE static std::uint32_t measure(const state& s) {
        return s.side->measures ? largest_magnitude(s.value) : 0;
    }
    RW_HD RW_INLINE void take_measure(state& s, std::uint32_t largest) const { s.scale = int8_scale::of(largest); }

    /// Stores the head in work and continues with the next one.
    RW_HD RW_INLINE void store(state& s) const {
        if (s.heads <= 0) return;  // the pointers of an idle lane are invalid
        if constexpr (Parts.converts) {
            // One copy of the code of all types. Indices that are not constants would move the state to local memory.
            RW_KEEP_LOOP
            for (int sink = 0; sink < max_sinks; ++sink) {
                const bool is_first = sink == 0;
                std::uint8_t* const to = detail::choose(is_first, s.to[0], s.to[1]);
                if (to == nullptr) break;  // a second sink is never alone
                const f8_divisor divisor{detail::choose(is_first, s.divisor[0].value, s.divisor[1].value),
                                         detail::choose(is_first, s.divisor[0].reciprocal, s.divisor[1].reciprocal)};
                float* const scale = detail::choose(is_first, s.scale_of_head[0], s.scale_of_head[1]);
                ropewalk::detail::with_cache_element(s.side->sinks[sink].type, [&]<class E>(std::type_identity<E>) {
                    store_head(s, is_first, reinterpret_cast<E*>(to), divisor);
                    if constexpr (std::same_as<E, std::int8_t>) {
                        if (s.is_first_lane) detail::store_elements<float, Memory>(scale, {s.scale.stored});
                    }
                });
            }
            RW_UNROLL
            for (int sink = 0; sink < max_sinks; ++sink) s.scale_of_head[sink] += s.scale_step[sink];
        } else {
            RW_UNROLL
            for (int sink = 0; sink < max_sinks; ++sink)
                if (s.to[sink] != nullptr) store_head(s, sink == 0, reinterpret_cast<T*>(s.to[sink]), {});
        }
        --s.heads;
        RW_UNROLL
        for (int sink = 0; sink < max_sinks; ++sink) s.to[sink] += s.to_step[sink];  // by 0 where there is none
    }

private:
    /// Finds the first head of the group in each sink. The head of a token without a slot has none in the cache.
    RW_HD RW_INLINE void find_sinks(state& s) const {
        const auto& sinks = s.side->sinks;
        cache_slot slot;
        if (sinks[0].by_slot || sinks[1].by_slot) slot = slot_of_token(params.slots, s.row, s.token, params.tokens);
        RW_UNROLL
        for (int i = 0; i < max_sinks; ++i) {
            const cache_sink& sink = sinks[i];
            const std::int64_t page = sink.by_slot ? slot.page : s.row, entry = sink.by_slot ? slot.entry : s.token;
            if (sink.data == nullptr || page < 0) continue;
            const std::int64_t size = Parts.converts ? size_of(sink.type) : static_cast<std::int64_t>(sizeof(T));
            s.to_step[i] = s.side->groups * sink.stride_head * size;
            s.to[i] = static_cast<std::uint8_t*>(sink.data) +
                      (page * sink.stride_page + entry * sink.stride_token + s.first_head * sink.stride_head) * size;
            if constexpr (Parts.converts) {
                s.divisor[i] = f8_divisor::of(sink);
                if (sink.type != cache_type::i8) continue;
                s.scale_step[i] = s.side->groups * sink.scale_stride_head;
                s.scale_of_head[i] = sink.scales + page * sink.scale_stride_page + entry * sink.scale_stride_token +
                                     s.first_head * sink.scale_stride_head;
            }
        }
    }

    /// Stores this lane's part of a head.
    template <class E>
    RW_HD RW_INLINE void store_head(const state& s, bool is_first, E* to, const f8_divisor& divisor) const {
        RW_UNROLL
        for (int i = 0; i < lane_chunks; ++i) {
            const auto& vecs = s.vecs[i];
            if (is_first && !s.writes[i]) continue;
            if (vecs.has_first) detail::store_as<E, Memory>(to + vecs.first, divisor, s.scale.factor, s.value[i][0]);
            if (vecs.has_second) detail::store_as<E, Memory>(to + vecs.second, divisor, s.scale.factor, s.value[i][1]);
        }
    }
};

}  // namespace ropewalk::gpu
