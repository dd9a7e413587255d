// Body of the kernel that re-encodes cached keys: reads a head once, rotates it, and writes it back. Tests execute it
// on the host.
#pragma once

#include "ropewalk/gpu/angles.hpp"
#include "ropewalk/gpu/fused_body.hpp"
#include "ropewalk/gpu/overlap.hpp"
#include "ropewalk/gpu/rerotate_cache_params.hpp"

namespace ropewalk::gpu {

namespace detail {

/// Calls f(std::type_identity<E>) with the element type of a cache whose elements have `Size` bytes.
template <int Size, class F>
RW_HD RW_INLINE void with_element_of_size(cache_type type, const F& f) {
    if constexpr (Size == 4) {
        f(std::type_identity<float>{});
    } else if constexpr (Size == 2) {
        if (type == cache_type::f16) return f(std::type_identity<f16>{});
        f(std::type_identity<bf16>{});
    } else {
        if (type == cache_type::i8) return f(std::type_identity<std::int8_t>{});
        if (type == cache_type::f8e5m2) return f(std::type_identity<f8e5m2>{});
        f(std::type_identity<f8e4m3>{});
    }
}

/// Widens the elements of an access, multiplied by `factor` where a type has a scale.
template <CacheElement E, int Bytes, int V>
RW_HD RW_INLINE void widen_cached(const vec_bits<Bytes>& bits, float factor, float (&x)[V]) {
    if constexpr (Element<E>) {
        widen_vec<E>(bits, x);
    } else {
        float bytes[(V + 3) / 4 * 4];
        RW_UNROLL
        for (int i = 0; i < vec_bits<Bytes>::words; ++i) widen_bytes(E{}, bits.value[i], bytes + 4 * i);
        RW_UNROLL
        for (int i = 0; i < V; ++i) x[i] = rounded_product(bytes[i], factor);
    }
}

}  // namespace detail

/// A body for run_lanes(). A lane has `lane_chunks` neighbouring chunks of each head of its group.
template <int Size, Layout L, bool Wide, class Rates, class Memory = plain_access>
struct rerotate_cache_body {
    static constexpr int V = rerotate_cache_elements(Size, Wide), Bytes = V * Size;
    static constexpr int lane_chunks = rerotate_cache_chunks(Size, Wide);
    static constexpr int heads_in_flight = rerotate_cache_heads;

    const rerotate_cache_kernel_params<Rates>& params;

    struct state {
        std::uint8_t *from = nullptr, *to = nullptr;  ///< the next head to load, and to store
        float *scale_from = nullptr, *scale_to = nullptr;
        std::int64_t step = 0;  ///< bytes from a head of the group to the next one
        std::uint32_t row = 0, token = 0;
        std::int32_t first_chunk = 0;
        bool is_first_lane = false;
        int heads = 0;     ///< remaining to store
        int unloaded = 0;  ///< remaining to load
        detail::chunk_vecs vecs[lane_chunks];
        cos_sin_values<V> cos_sin[lane_chunks];
        /// Vecs outside the head stay zeros, which do not change a maximum.
        vec_bits<Bytes> loaded[heads_in_flight][lane_chunks][2] = {};
        float loaded_scale[heads_in_flight] = {};
        float value[lane_chunks][2][V];  ///< of the head in work
        f8_divisor divisor;
        int8_scale scale{};
    };

    [[nodiscard]] RW_HD RW_INLINE int steps() const { return params.steps; }
    [[nodiscard]] RW_HD RW_INLINE int group() const { return params.lanes; }
    static constexpr bool can_sum = false, can_measure = Size == 1;
    [[nodiscard]] RW_HD RW_INLINE bool measures(const state& /*s*/) const { return has_head_scales(); }

    /// Finds the heads of a lane in the cache.
    RW_HD RW_INLINE void begin(state& s, std::int64_t index) const {
        const auto [row, token, group, lane] = params.split(index);
        detail::wait_for_previous();
        if (index >= params.items * params.lanes) return;  // idle lane; takes part in shuffles only
        const cache_slot slot = slot_of_token(params.slots, row, token, params.tokens);
        if (slot.page < 0) return;
        const cache_sink& cache = params.cache;
        s.row = row, s.token = token;
        s.is_first_lane = lane == 0;
        s.heads = s.unloaded = params.keys.heads_of_group(group);
        s.step = params.keys.groups * cache.stride_head * Size;
        s.from = s.to =
            static_cast<std::uint8_t*>(cache.data) +
            (slot.page * cache.stride_page + slot.entry * cache.stride_token + group * cache.stride_head) * Size;
        if (has_head_scales())
            s.scale_from = s.scale_to = cache.scales + slot.page * cache.scale_stride_page +
                                        slot.entry * cache.scale_stride_token + group * cache.scale_stride_head;
        s.first_chunk = lane * lane_chunks;
        RW_UNROLL
        for (int i = 0; i < lane_chunks; ++i) s.vecs[i] = detail::vecs_of<L, V>(params.keys, s.first_chunk + i);
    }

    /// Loads up to heads_in_flight heads. All loads start before the first value is used.
    RW_HD RW_INLINE void load(state& s) const {
        RW_UNROLL
        for (int head = 0; head < heads_in_flight; ++head) {
            if (head >= s.unloaded) continue;
            if (has_head_scales() && s.vecs[0].has_first) {
                s.loaded_scale[head] =
                    ropewalk::detail::bit_cast<float>(Memory::template load<4>(s.scale_from).value[0]);
                s.scale_from += scale_step();
            }
            RW_UNROLL
            for (int i = 0; i < lane_chunks; ++i) {
                const auto& vecs = s.vecs[i];
                if (vecs.has_first) s.loaded[head][i][0] = Memory::template load<Bytes>(s.from + vecs.first * Size);
                if (vecs.has_second) s.loaded[head][i][1] = Memory::template load<Bytes>(s.from + vecs.second * Size);
            }
            s.from += s.step;
        }
        s.unloaded -= heads_in_flight;
    }

    /// Cosines and sines of the difference of both encodings, which all heads of the group share.
    RW_HD RW_INLINE void prepare(state& s) const {
        if (s.heads <= 0) return;
        if constexpr (Size == 1) s.divisor = f8_divisor::of(params.cache);
        detail::fill_cos_sin<L>(s, params.rotation, params.rates, params.keys.pairs, true, s.cos_sin);
    }

    /// Makes loaded head `head` the head in work.
    RW_HD RW_INLINE void widen(state& s, int head) const {
        detail::with_element_of_size<Size>(params.cache.type, [&]<class E>(std::type_identity<E>) {
            const float factor = std::same_as<E, std::int8_t> ? s.loaded_scale[head] : s.divisor.value;
            RW_UNROLL
            for (int i = 0; i < lane_chunks; ++i) {
                detail::widen_cached<E>(s.loaded[head][i][0], factor, s.value[i][0]);
                detail::widen_cached<E>(s.loaded[head][i][1], factor, s.value[i][1]);
            }
        });
    }

    [[nodiscard]] RW_HD RW_INLINE static float sum(const state& /*s*/) { return 0; }
    RW_HD RW_INLINE static void take_sum(state& /*s*/, float /*sum*/) {}

    RW_HD RW_INLINE void rotate(state& s) const {
        RW_UNROLL
        for (int i = 0; i < lane_chunks; ++i) {
            if (s.vecs[i].rotates) chunks<L, V>::rotate(s.value[i][0], s.value[i][1], s.cos_sin[i]);
        }
    }

    /// The largest magnitude of this lane's results.
    [[nodiscard]] RW_HD RW_INLINE static std::uint32_t measure(const state& s) { return largest_magnitude(s.value); }
    RW_HD RW_INLINE void take_measure(state& s, std::uint32_t largest) const { s.scale = int8_scale::of(largest); }

    /// Stores the head in work and continues with the next one.
    RW_HD RW_INLINE void store(state& s) const {
        if (s.heads <= 0) return;  // the pointers of an idle lane are invalid
        detail::with_element_of_size<Size>(params.cache.type, [&]<class E>(std::type_identity<E>) {
            E* const to = reinterpret_cast<E*>(s.to);
            RW_UNROLL
            for (int i = 0; i < lane_chunks; ++i) {
                const auto& vecs = s.vecs[i];
                if (vecs.has_first)
                    detail::store_as<E, Memory>(to + vecs.first, s.divisor, s.scale.factor, s.value[i][0]);
                if (vecs.has_second)
                    detail::store_as<E, Memory>(to + vecs.second, s.divisor, s.scale.factor, s.value[i][1]);
            }
            if constexpr (std::same_as<E, std::int8_t>) {
                if (s.is_first_lane) detail::store_elements<float, Memory>(s.scale_to, {s.scale.stored});
                s.scale_to += scale_step();
            }
        });
        --s.heads;
        s.to += s.step;
    }

private:
    [[nodiscard]] RW_HD RW_INLINE bool has_head_scales() const {
        return Size == 1 && params.cache.type == cache_type::i8;
    }
    [[nodiscard]] RW_HD RW_INLINE std::int64_t scale_step() const {
        return params.keys.groups * params.cache.scale_stride_head;
    }
};

}  // namespace ropewalk::gpu
