// Body of the rotation kernel: the work of one thread. Tests execute it on the host.
#pragma once

#include "ropewalk/core/divide.hpp"
#include "ropewalk/gpu/access.hpp"
#include "ropewalk/gpu/angles.hpp"
#include "ropewalk/gpu/overlap.hpp"

namespace ropewalk::gpu {

namespace detail {

/// The first element of copying chunk `chunk`. The copied elements lie before and after the rotary part.
template <int V>
RW_HD RW_INLINE std::int64_t copied_element(std::int64_t chunk, std::int64_t rotary_offset, std::int64_t pairs) {
    const std::int64_t element = chunk * V;
    return element < rotary_offset ? element : element + 2 * pairs;
}

/// One chunk of several heads in registers. All loads start before the first store.
template <Element T, int Bytes, class Memory>
struct chunk_of_heads {
    static constexpr int count = Bytes / static_cast<int>(sizeof(T));
    /// Heads in flight. Two where a chunk has 32 bytes: half of the threads of a multiprocessor have registers for
    /// that.
    static constexpr int flight = Bytes == 16 ? 2 : 4;

    const std::byte* in;
    std::byte* out;
    std::int64_t distance;  ///< bytes from the first vec to the second
    const heads_params& side;
    vec_bits<Bytes> a[flight], b[flight];

    RW_HD RW_INLINE chunk_of_heads(const std::byte* from, std::byte* to, std::int64_t to_second,
                                   const heads_params& heads)
        : in(from), out(to), distance(to_second), side(heads) {}

    RW_HD RW_INLINE void load(int heads) {
        RW_UNROLL
        for (int i = 0; i < flight; ++i) {
            if (i < heads) {
                a[i] = Memory::template load<Bytes>(in + i * side.in_step);
                b[i] = Memory::template load<Bytes>(in + i * side.in_step + distance);
            }
        }
    }
    template <Layout L>
    RW_HD RW_INLINE void rotate_and_store(int heads, const cos_sin_values<count>& values) {
        RW_UNROLL
        for (int i = 0; i < flight; ++i) {
            if (i < heads) {
                auto x = vec<T, Bytes>::widen(a[i]), y = vec<T, Bytes>::widen(b[i]);
                chunks<L, count>::rotate(x.value, y.value, values);
                Memory::template store<Bytes>(out + i * side.out_step, x.narrow());
                Memory::template store<Bytes>(out + i * side.out_step + distance, y.narrow());
            }
        }
    }
    RW_HD RW_INLINE void next() {
        in += flight * side.in_step;
        out += flight * side.out_step;
    }
};

}  // namespace detail

/// Thread `index` of the launch: makes the cosines and sines of a chunk once, then reads and writes the chunk of each
/// head of a group once. Memory performs the accesses.
template <Element T, Layout L, int Bytes, class Rates, class Memory = plain_access>
RW_HD RW_INLINE void rotate_body(const rotate_kernel_params<Rates>& params, std::int64_t index) {
    constexpr int V = Bytes / static_cast<int>(sizeof(T));
    const auto [row, token, group, chunk] = params.split(index);
    const bool is_key = group >= params.q_groups;
    const heads_params& side = params.side[is_key ? 1 : 0];
    const std::int32_t first_head = group - (is_key ? params.q_groups : 0);
    int heads = side.heads_of_group(first_head);
    const std::byte* const in = static_cast<const std::byte*>(side.in) + row * side.in_batch + token * side.in_token +
                                first_head * side.in_head;
    std::byte* const out =
        static_cast<std::byte*>(side.out) + row * side.out_batch + token * side.out_token + first_head * side.out_head;
    constexpr auto size = static_cast<std::int64_t>(sizeof(T));

    if (chunk >= params.rotating_chunks) {
        if (side.in == side.out) return;
        const std::int64_t byte =
            size * detail::copied_element<V>(chunk - params.rotating_chunks, params.rotation.rotary_offset,
                                             params.rotation.pairs);
        detail::wait_for_previous();
        RW_KEEP_LOOP
        for (int head = 0; head < heads; ++head)
            Memory::template store<Bytes>(out + head * side.out_step + byte,
                                          Memory::template load<Bytes>(in + head * side.in_step + byte));
        return;
    }

    const std::int64_t pairs = params.rotation.pairs, first = chunks<L, V>::first(chunk, pairs);
    const std::int64_t byte = size * (params.rotation.rotary_offset + first);
    detail::chunk_of_heads<T, Bytes, Memory> elements(in + byte, out + byte,
                                                      size * (chunks<L, V>::second(chunk, pairs) - first), side);
    detail::wait_for_previous();
    // The loads overlap with the computation of cosines and sines.
    elements.load(heads);
    const cos_sin_values<V> values =
        values_of_chunk<L, V>(params.rotation, params.rates, row, token,
                              positions_of_token<Rates>(params.rotation, row, token), chunk, is_key);
    RW_KEEP_LOOP
    for (;;) {
        elements.template rotate_and_store<L>(heads, values);
        heads -= elements.flight;
        if (heads <= 0) return;
        elements.next();
        elements.load(heads);
    }
}

}  // namespace ropewalk::gpu
