// Body of the fused kernel: reads a head once, norms and rotates it, and writes it to tensors and caches. Tests execute
// it on the host.
#pragma once

#include "ropewalk/gpu/angles.hpp"
#include "ropewalk/gpu/fused_params.hpp"

namespace ropewalk::gpu {

namespace detail {

/// The two vecs of a chunk: their offsets in the head, and their contents.
struct chunk_vecs {
    std::int64_t first = 0, second = 0;
    bool has_first = false, has_second = false;
    bool rotates = false;  ///< the vecs hold pairs
};

/// The chunk of a rotation for chunk `chunk` of a fused body. Single elements of interleaved pairs alternate between
/// the halves of the rotary part, so that neighbouring lanes hold the same elements as wider chunks, and sums have the
/// same bits.
template <Layout L, int V>
RW_HD RW_INLINE std::int64_t rotating_chunk(std::int64_t chunk, std::int64_t pairs) {
    if constexpr (V == 1 && std::same_as<L, interleaved>) {
        if (pairs % 2 == 0) return chunk / 2 + chunk % 2 * (pairs / 2);
    }
    return chunk;
}

/// The vecs of a chunk of a head. The elements outside the rotary part are split into two halves, and a chunk has one
/// vec of each.
template <Layout L, int V>
RW_HD RW_INLINE chunk_vecs vecs_of(const fused_heads& side, std::int64_t chunk) {
    if (chunk >= side.chunks) return {};
    if (chunk < side.rotating_chunks) {
        const std::int64_t rotated = rotating_chunk<L, V>(chunk, side.pairs);
        return {.first = side.rotary_offset + chunks<L, V>::first(rotated, side.pairs),
                .second = side.rotary_offset + chunks<L, V>::second(rotated, side.pairs),
                .has_first = true,
                .has_second = true,
                .rotates = true};
    }
    const std::int64_t rest = side.head_dim - 2 * side.pairs, half = (rest + 1) / 2;
    const std::int64_t offset = (chunk - side.rotating_chunks) * V;
    const auto element = [&](std::int64_t i) { return i < side.rotary_offset ? i : i + 2 * side.pairs; };
    return {.first = element(offset),
            .second = element(offset + half),
            .has_first = true,
            .has_second = offset + half < rest};
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

/// Loads V elements where they exist, otherwise zeros, which change neither a sum nor a maximum.
template <Element E, class Memory, int V>
RW_HD RW_INLINE void load_if(bool exists, const E* from, float (&x)[V]) {
    if (exists) return load_elements<E, Memory>(from, x);
    RW_UNROLL
    for (int i = 0; i < V; ++i) x[i] = 0;
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

/// A body for run_lanes(). A lane has `lane_chunks` neighbouring chunks of each head, and keeps their cosines, sines
/// and weights for all heads of its group.
template <Element T, Layout L, int Bytes, class Rates, class Memory = plain_access>
struct fused_body {
    static constexpr int V = Bytes / static_cast<int>(sizeof(T));
    static constexpr int lane_chunks = chunks_per_lane(V, Rates::capacity);
    static constexpr int heads_in_flight = heads_at_once(V, Rates::capacity);

    const fused_kernel_params<Rates>& params;

    struct state {
        const fused_heads* side;
        const T* in;  ///< the next head
        T* out;       ///< null: none
        std::int64_t cache_element = 0, scale_element = 0;
        bool has_slot = false, is_first_lane = false;
        int heads = 0;  ///< remaining
        std::int64_t chunk = 0;
        cos_sin_values<V> cos_sin[lane_chunks];
        float weight[lane_chunks][2][V];
        float value[heads_in_flight][lane_chunks][2][V];
        float norm[heads_in_flight];
        int8_scale scale[heads_in_flight];
    };

    [[nodiscard]] RW_HD RW_INLINE int steps() const { return params.steps; }
    [[nodiscard]] RW_HD RW_INLINE int group() const { return params.lanes; }
    [[nodiscard]] RW_HD RW_INLINE bool sums() const { return params.sums; }
    [[nodiscard]] RW_HD RW_INLINE bool measures() const { return params.measures; }

    RW_HD RW_INLINE void begin(state& s, std::int64_t index) const {
        const auto [item, lane] = detail::divide(index, params.lanes);
        const auto [batch_token, group] = detail::divide(item, params.groups);
        const auto [row, token] = detail::divide(batch_token, params.tokens);
        const int which = group >= params.first_group[2] ? 2 : group >= params.first_group[1] ? 1 : 0;
        const fused_heads& side = params.side[which];
        s.side = &side;
        s.chunk = lane * lane_chunks;
        s.is_first_lane = lane == 0;
        if (item >= params.items) return;  // idle lane; takes part in shuffles only
        const std::int64_t first = (group - params.first_group[which]) * side.heads_per_thread;
        const std::int64_t left = side.heads - first;
        s.heads = static_cast<int>(left < side.heads_per_thread ? left : side.heads_per_thread);
        s.in = static_cast<const T*>(side.in) + row * side.in_batch + token * side.in_token + first * side.in_head;
        s.out = static_cast<T*>(side.out);
        if (s.out != nullptr) s.out += row * side.out_batch + token * side.out_token + first * side.out_head;
        find_slot(s, row, token, first);
        token_angles angles;
        if (side.rotating_chunks > 0) angles = angles_of_token<Rates>(params.rotation, row, token);
        RW_UNROLL
        for (int i = 0; i < lane_chunks; ++i) {
            const auto vecs = vecs_at(s, i);
            if (vecs.rotates)
                s.cos_sin[i] = values_of_chunk<L, V>(params.rotation, params.rates, angles,
                                                     detail::rotating_chunk<L, V>(s.chunk + i, side.pairs), which == 1);
            if (side.norm.weight == nullptr) continue;
            detail::load_weights<Memory>(side.norm, vecs.has_first, vecs.first, s.weight[i][0]);
            detail::load_weights<Memory>(side.norm, vecs.has_second, vecs.second, s.weight[i][1]);
        }
    }

    RW_HD RW_INLINE void load(state& s) const {
        RW_UNROLL
        for (int head = 0; head < heads_in_flight; ++head) {
            if (head >= s.heads) continue;
            const T* const in = s.in + head * s.side->in_head;
            RW_UNROLL
            for (int i = 0; i < lane_chunks; ++i) {
                const auto vecs = vecs_at(s, i);
                detail::load_if<T, Memory>(vecs.has_first, in + vecs.first, s.value[head][i][0]);
                detail::load_if<T, Memory>(vecs.has_second, in + vecs.second, s.value[head][i][1]);
            }
        }
    }

    /// The sum of the squares of this lane's elements.
    [[nodiscard]] RW_HD RW_INLINE float sum(const state& s, int head) const {
        if (head >= s.heads || s.side->norm.weight == nullptr) return 0;
        float squares[lane_chunks * V];
        RW_UNROLL
        for (int i = 0; i < lane_chunks; ++i) {
            const auto& [a, b] = s.value[head][i];
            detail::add_squares<L, V>(a, b, vecs_at(s, i).rotates, squares + i * V);
        }
        return sum_of_neighbours(squares);
    }
    RW_HD RW_INLINE void take_sum(state& s, int head, float sum) const {
        const norm_params& norm = s.side->norm;
        s.norm[head] = 1.0F / __builtin_sqrtf(RW_FMA(sum, norm.reciprocal_dim, norm.epsilon));
    }

    /// Norms and rotates the loaded elements, without rounding to the element type.
    RW_HD RW_INLINE void rotate(state& s) const {
        RW_UNROLL
        for (int head = 0; head < heads_in_flight; ++head) {
            if (head >= s.heads) continue;
            RW_UNROLL
            for (int i = 0; i < lane_chunks; ++i) {
                auto& [a, b] = s.value[head][i];
                if (s.side->norm.weight != nullptr) {
                    RW_UNROLL
                    for (int j = 0; j < V; ++j) {
                        a[j] = a[j] * s.norm[head] * s.weight[i][0][j];
                        b[j] = b[j] * s.norm[head] * s.weight[i][1][j];
                    }
                }
                if (vecs_at(s, i).rotates) chunks<L, V>::rotate(a, b, s.cos_sin[i]);
            }
        }
    }

    /// The largest magnitude of this lane's results.
    [[nodiscard]] RW_HD RW_INLINE std::uint32_t measure(const state& s, int head) const {
        std::uint32_t largest = 0;
        if (head >= s.heads || !s.has_slot) return largest;
        RW_UNROLL
        for (int i = 0; i < lane_chunks; ++i) {
            const auto& [a, b] = s.value[head][i];
            RW_UNROLL
            for (int j = 0; j < V; ++j)
                largest = larger{}(largest, larger{}(magnitude_bits(a[j]), magnitude_bits(b[j])));
        }
        return largest;
    }
    RW_HD RW_INLINE void take_measure(state& s, int head, std::uint32_t largest) const {
        s.scale[head] = int8_scale::of(largest);
    }

    RW_HD RW_INLINE void store(state& s) const {
        const cache_sink& sink = s.side->sink;
        RW_UNROLL
        for (int head = 0; head < heads_in_flight; ++head) {
            if (head >= s.heads) continue;
            RW_UNROLL
            for (int i = 0; i < lane_chunks; ++i) {
                const auto vecs = vecs_at(s, i);
                if (vecs.has_first) store_vec(s, head, vecs.first, vecs.rotates, s.value[head][i][0]);
                if (vecs.has_second) store_vec(s, head, vecs.second, vecs.rotates, s.value[head][i][1]);
            }
            if (s.has_slot && s.is_first_lane && sink.type == cache_type::i8)
                detail::store_elements<float, Memory>(sink.scales + s.scale_element + head * sink.scale_stride_head,
                                                      {s.scale[head].stored});
        }
        if (s.heads <= 0) return;  // the pointers of an idle lane are invalid
        s.in += heads_in_flight * s.side->in_head;
        if (s.out != nullptr) s.out += heads_in_flight * s.side->out_head;
        s.cache_element += heads_in_flight * sink.stride_head;
        s.scale_element += heads_in_flight * sink.scale_stride_head;
        s.heads -= heads_in_flight;
    }

private:
    RW_HD RW_INLINE void find_slot(state& s, std::int64_t row, std::int64_t token, std::int64_t head) const {
        const cache_sink& sink = s.side->sink;
        if (sink.data == nullptr) return;
        const cache_slot slot = slot_of_token(params.slots, row, token, params.tokens);
        s.has_slot = slot.page >= 0;
        s.cache_element = slot.page * sink.stride_page + slot.entry * sink.stride_token + head * sink.stride_head;
        s.scale_element =
            slot.page * sink.scale_stride_page + slot.entry * sink.scale_stride_token + head * sink.scale_stride_head;
    }

    RW_HD RW_INLINE void store_vec(const state& s, int head, std::int64_t element, bool rotates,
                                   const float (&x)[V]) const {
        const fused_heads& side = *s.side;
        // In place, elements that are neither normed nor rotated need no store.
        if (s.out != nullptr && (rotates || side.norm.weight != nullptr || side.out != side.in))
            detail::store_elements<T, Memory>(s.out + head * side.out_head + element, x);
        if (s.has_slot)
            store_cached<Memory>(side.sink, s.cache_element + head * side.sink.stride_head + element,
                                 s.scale[head].factor, x);
    }

    RW_HD RW_INLINE detail::chunk_vecs vecs_at(const state& s, int i) const {
        return detail::vecs_of<L, V>(*s.side, s.chunk + i);
    }
};

}  // namespace ropewalk::gpu
