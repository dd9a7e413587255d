// What one thread of a rotation does. Runs on the host too, which is how it is tested.
#pragma once

#include "ropewalk/gpu/access.hpp"
#include "ropewalk/gpu/angles.hpp"
#include "ropewalk/gpu/divide.hpp"

namespace ropewalk::gpu {

namespace detail {

/// The element of a head at which copying slot `at` begins: those that do not turn lie on either side.
template <int V>
RW_HD RW_INLINE std::int64_t copied_element(std::int64_t at, std::int64_t rotary_offset, std::int64_t pairs) {
    const std::int64_t element = at * V;
    return element < rotary_offset ? element : element + 2 * pairs;
}

/// The two runs of a slot in several heads, whose loads are all under way before the first is stored.
template <Element T, int Bytes, class Memory>
struct two_runs {
    static constexpr int count = Bytes / static_cast<int>(sizeof(T));
    /// Two heads where each is 32 bytes: half of a multiprocessor's threads have registers for that.
    static constexpr int flight = Bytes == 16 ? 2 : 4;

    const T* in;
    T* out;
    std::int64_t apart;  ///< from the first run to the second
    const heads_source& side;
    packet<Bytes> a[flight], b[flight];

    RW_HD RW_INLINE two_runs(const T* from, T* to, std::int64_t distance, const heads_source& heads)
        : in(from), out(to), apart(distance), side(heads) {}

    RW_HD RW_INLINE void load(int heads) {
        RW_UNROLL
        for (int i = 0; i < flight; ++i) {
            if (i < heads) {
                a[i] = Memory::template load<Bytes>(in + i * side.in_head);
                b[i] = Memory::template load<Bytes>(in + i * side.in_head + apart);
            }
        }
    }
    template <Layout L>
    RW_HD RW_INLINE void turn_and_store(int heads, const turns<count>& by) {
        RW_UNROLL
        for (int i = 0; i < flight; ++i) {
            if (i < heads) {
                auto x = line<T, Bytes>::widen(a[i]), y = line<T, Bytes>::widen(b[i]);
                slots<L, count>::turn(x.value, y.value, by);
                Memory::template store<Bytes>(out + i * side.out_head, x.narrow());
                Memory::template store<Bytes>(out + i * side.out_head + apart, y.narrow());
            }
        }
    }
    RW_HD RW_INLINE void next() {
        in += flight * side.in_head;
        out += flight * side.out_head;
    }
};

}  // namespace detail

/// Thread `index` of the plan: cosines and sines once, then a slot of each head of its group, read once and written
/// once. Memory decides how.
template <Element T, Layout L, int Bytes, class Rates, class Memory = plain_access>
RW_HD RW_INLINE void rotate_body(const rotate_job<Rates>& job, std::int64_t index) {
    constexpr int V = Bytes / static_cast<int>(sizeof(T));
    const auto [item, slot] = detail::divide(index, job.slots);
    const auto [position, group] = detail::divide(item, job.groups);
    const auto [row, token] = detail::divide(position, job.tokens);
    const bool is_key = group >= job.q_groups;
    const heads_source& side = job.side[is_key ? 1 : 0];
    const std::int64_t begin = (group - (is_key ? job.q_groups : 0)) * side.heads_a_thread;
    const std::int64_t left = side.heads - begin;
    auto heads = static_cast<int>(left < side.heads_a_thread ? left : side.heads_a_thread);
    const T* in = static_cast<const T*>(side.in) + row * side.in_batch + token * side.in_token + begin * side.in_head;
    T* out = static_cast<T*>(side.out) + row * side.out_batch + token * side.out_token + begin * side.out_head;

    if (slot >= job.turning) {
        if (side.in == side.out) return;
        const std::int64_t element = detail::copied_element<V>(slot - job.turning, job.rotary_offset, job.source.pairs);
        RW_KEEP_LOOP
        for (int head = 0; head < heads; ++head)
            Memory::template store<Bytes>(out + head * side.out_head + element,
                                          Memory::template load<Bytes>(in + head * side.in_head + element));
        return;
    }

    const std::int64_t first = slots<L, V>::first(slot, job.source.pairs);
    detail::two_runs<T, Bytes, Memory> runs(in + job.rotary_offset + first, out + job.rotary_offset + first,
                                            slots<L, V>::second(slot, job.source.pairs) - first, side);
    // The elements come while the cosines are made.
    runs.load(heads);
    const turns<V> by = turns_at<L, V>(job.source, job.rates, row, token, slot, is_key);
    RW_KEEP_LOOP
    for (;;) {
        runs.template turn_and_store<L>(heads, by);
        heads -= runs.flight;
        if (heads <= 0) return;
        runs.next();
        runs.load(heads);
    }
}

}  // namespace ropewalk::gpu
