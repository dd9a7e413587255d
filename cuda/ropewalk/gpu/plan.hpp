// From arguments to a checked launch. Runs on the host and needs no CUDA.
#pragma once

#include <algorithm>
#include <type_traits>

#include "ropewalk/gpu/job.hpp"
#include "ropewalk/gpu/options.hpp"
#include "ropewalk/rotation/make_params.hpp"

namespace ropewalk::gpu {

/// How many threads of which kernel.
struct launch_shape {
    std::int64_t threads = 0;  ///< 0: nothing to do
    int block = 0;
    std::int64_t grid = 0;  ///< blocks
    int bytes = 0;          ///< of an access: which kernel
};

/// A checked call with its launch. The encoding must live until the launch; positions and tables until its end.
struct rotate_plan {
    ropewalk::rotate_params work;
    rotate_frame frame;
    launch_shape shape;
};

namespace detail {

/// Threads of a block, of a small call fewer.
inline constexpr int most_threads = 128;

/// The most blocks of a grid's first axis.
inline constexpr std::int64_t most_blocks = (std::int64_t{1} << 31) - 1;

constexpr std::int64_t divide_up(std::int64_t n, std::int64_t d) { return (n + d - 1) / d; }

/// The positions of an encoding in device memory, where they must have been drawn already.
inline position_reader device_positions(const Encoding& encoding, const positions& given, std::int64_t batch,
                                        std::int64_t tokens) {
    RW_EXPECTS(!encoding.draw_positions || given.source == positions::kind::fixed,
               "'{}' draws its positions on the host; pass the drawn positions in device memory, ids(span<const "
               "fixed_position>)",
               encoding.expression);
    return read_positions(encoding, given, batch, tokens, memory_space::device);
}

/// Validates arguments whose positions and table are in device memory.
inline rotate_params make_device_params(const rotate_args& args) {
    ropewalk::detail::check_args(args);
    const std::int64_t batch = args.any().batch, tokens = args.any().tokens;
    position_reader source;
    if (args.source != nullptr) source = device_positions(*args.source, args.source_positions, batch, tokens);
    const position_reader target = device_positions(*args.target, args.target_positions, batch, tokens);
    RW_EXPECTS(!args.table.exists() || args.table.rows > 0 || tokens == 0, "the table has no rows");
    return make_params(args, target, source);
}

/// Whether accesses of `bytes` reach every element of a tensor that a slot begins with.
inline bool takes_access(const tensor& t, std::int64_t bytes) {
    const auto size = static_cast<std::int64_t>(size_of(t.type));
    const auto whole = [&](std::int64_t extent, std::int64_t stride) {
        return extent <= 1 || stride * size % bytes == 0;
    };
    return !t.exists() || t.elements() == 0 ||
           (reinterpret_cast<std::uintptr_t>(t.data) % static_cast<std::uintptr_t>(bytes) == 0 &&
            whole(t.batch, t.stride_batch) && whole(t.tokens, t.stride_token) && whole(t.heads, t.stride_head));
}

/// Elements of a head which do not turn, in front of those that do and behind them.
inline std::int64_t behind(const ropewalk::rotate_params& work) {
    return work.any().head_dim - work.rotary_offset - 2 * work.pairs;
}

/// Whether something must be copied beside what turns.
inline bool copies(const ropewalk::rotate_params& work) {
    return (work.rotary_offset > 0 || behind(work) > 0) &&
           (work.q_in.data != work.q_out.data || work.k_in.data != work.k_out.data);
}

/// Whether a call has the steps of one encoding only, and few enough for the small kernel parameter.
inline bool is_plain(const ropewalk::rotate_params& work) {
    return !work.has_magnitude && work.source.steps == nullptr && work.pairs <= plain_pairs;
}

/// The widest access, 16 bytes at most, that every slot of the call is made of. Calls that are not plain have no
/// kernels between the widest and the narrowest, which would be compiled for every user and seldom run.
inline int access_bytes(const ropewalk::rotate_params& work) {
    const auto size = static_cast<std::int64_t>(size_of(work.any().type));
    for (std::int64_t bytes = 16; bytes > size; bytes = is_plain(work) ? bytes / 2 : size) {
        const std::int64_t elements = bytes / size;
        const bool whole = work.pairs % elements == 0 && work.rotary_offset % elements == 0 &&
                           (!copies(work) || behind(work) % elements == 0);
        if (whole && takes_access(work.q_in, bytes) && takes_access(work.q_out, bytes) &&
            takes_access(work.k_in, bytes) && takes_access(work.k_out, bytes))
            return static_cast<int>(bytes);
    }
    return static_cast<int>(size);
}

/// Threads which make `rows` (tokens times slots) of heads when a thread has at most `most` heads of each.
constexpr std::int64_t threads_for(std::int64_t rows, std::int64_t q_heads, std::int64_t k_heads, std::int64_t most) {
    return rows * (divide_up(q_heads, most) + divide_up(k_heads, most));
}

/// Heads a thread: enough threads for a small call to reach every multiprocessor, few cosines for a large one, and
/// waves that are full. A wave lasts as long as a thread's heads and its cosines, which cost about one head more.
inline std::int64_t heads_a_thread(std::int64_t rows, std::int64_t q_heads, std::int64_t k_heads,
                                   const device_shape& device) {
    // The kernels' registers let half of the threads be resident.
    const std::int64_t resident = std::int64_t{device.multiprocessors} * device.threads_each / 2;
    std::int64_t best = 1, least = 0;
    for (const std::int64_t heads : {1, 2, 4, 8, 16}) {
        const std::int64_t cost = divide_up(threads_for(rows, q_heads, k_heads, heads), resident) * (heads + 1);
        if (heads == 1 || cost <= least) best = heads, least = cost;
        if (heads >= std::max(q_heads, k_heads)) break;
    }
    return best;
}

inline heads_source side_of(const tensor& in, const tensor& out, std::int64_t most) {
    heads_source side;
    if (!in.exists() || in.elements() == 0) return side;
    RW_EXPECTS(in.heads <= (1 << 30), "{} heads are more than a launch takes", in.heads);
    side.in = in.data, side.out = out.data;
    side.in_batch = in.stride_batch, side.in_token = in.stride_token, side.in_head = in.stride_head;
    side.out_batch = out.stride_batch, side.out_token = out.stride_token, side.out_head = out.stride_head;
    side.heads = static_cast<std::int32_t>(in.heads);
    // 40 heads of at most 16 make groups of 14, 14 and 12: all threads end about together.
    side.heads_a_thread = static_cast<std::int32_t>(divide_up(in.heads, divide_up(in.heads, most)));
    return side;
}

inline std::int32_t groups_of(const heads_source& side) {
    return static_cast<std::int32_t>(divide_up(side.heads, side.heads_a_thread));
}

inline term_source source_of(const rotation_term& term) { return {term.positions, term.centre}; }

/// A checked call's cosines and sines, without their steps.
inline turn_source source_of(const ropewalk::rotate_params& work) {
    RW_EXPECTS(work.pairs <= most_pairs, "a head turns {} elements, the kernels' parameters hold the steps of {}",
               2 * work.pairs, 2 * most_pairs);
    turn_source source;
    source.target = source_of(work.target), source.source = source_of(work.source);
    source.table = work.table, source.pairs = work.pairs, source.factor = work.factor;
    source.negate_angle = work.negate_angle, source.has_source = work.source.steps != nullptr;
    source.invert_magnitude = work.invert_magnitude;
    return source;
}

inline launch_shape shape_of_launch(std::int64_t threads, int bytes, const device_shape& device) {
    // Small blocks spread a small call over more multiprocessors.
    const int block = threads >= std::int64_t{device.multiprocessors} * most_threads ? most_threads : most_threads / 2;
    const std::int64_t grid = divide_up(threads, block);
    RW_EXPECTS(grid <= most_blocks, "a launch of {} blocks of {} threads, a device takes {}", grid, block, most_blocks);
    return {threads, block, grid, bytes};
}

/// Chooses the access and the launch of a checked call.
inline void choose_launch(rotate_plan& made, const device_shape& device) {
    const ropewalk::rotate_params& work = made.work;
    rotate_frame& frame = made.frame;
    frame.source = source_of(work);
    frame.rotary_offset = work.rotary_offset;
    frame.tokens = work.tokens();
    const int bytes = access_bytes(work);
    const std::int64_t elements = bytes / static_cast<std::int64_t>(size_of(work.any().type));
    const std::int64_t copying = copies(work) ? (work.rotary_offset + behind(work)) / elements : 0;
    frame.turning = static_cast<std::int32_t>(work.pairs / elements);
    frame.slots = static_cast<std::int32_t>(frame.turning + copying);
    const std::int64_t rows = work.batch() * work.tokens() * frame.slots;
    const std::int64_t most = heads_a_thread(rows, work.q_in.heads, work.k_in.heads, device);
    frame.side[0] = side_of(work.q_in, work.q_out, most);
    frame.side[1] = side_of(work.k_in, work.k_out, most);
    frame.q_groups = groups_of(frame.side[0]);
    frame.groups = frame.q_groups + groups_of(frame.side[1]);
    frame.threads = rows * frame.groups;
    made.shape = shape_of_launch(frame.threads, bytes, device);
}

/// A pair's step and the one axis that it follows: on every other its step is 0.
template <int Capacity>
void write_steps(steps_by_value<Capacity>& to, const rotation_term& from, std::int64_t pairs) {
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
        std::int64_t axis = from.positions.axes - 1;
        while (axis > 0 && from.steps[axis * pairs + pair] == 0) --axis;
        to.step[pair] = from.steps[axis * pairs + pair];
        to.axis[pair] = static_cast<std::uint8_t>(axis);
    }
}

template <int Capacity>
void write_magnitude_rates(std::uint64_t (&to)[Capacity], const std::uint64_t* from, std::int64_t pairs) {
    for (std::int64_t pair = 0; pair < pairs; ++pair) to[pair] = from == nullptr ? 0 : from[pair];
}

}  // namespace detail

/// The steps of a checked call by value.
template <class Rates>
Rates rates_of(const ropewalk::rotate_params& work) {
    Rates rates;
    detail::write_steps(rates.target, work.target, work.pairs);
    if constexpr (Rates::full) {
        if (work.source.steps != nullptr) detail::write_steps(rates.source, work.source, work.pairs);
        detail::write_magnitude_rates(rates.magnitude_rates, work.target.magnitude_rates, work.pairs);
        detail::write_magnitude_rates(rates.source_magnitude_rates, work.source.magnitude_rates, work.pairs);
    }
    return rates;
}

/// Calls f with the kind of steps that a call needs: std::type_identity<Rates>.
template <class F>
void with_rates(const ropewalk::rotate_params& work, const F& f) {
    if (detail::is_plain(work)) return f(std::type_identity<plain_rates<plain_pairs>>{});
    return f(std::type_identity<full_rates<most_pairs>>{});
}

/// Calls f with the access of a plan as a constant, std::integral_constant<int, bytes>.
template <Element T, class Rates = plain_rates<plain_pairs>, class F>
void with_access(int bytes, const F& f) {
    constexpr int one = static_cast<int>(sizeof(T));
    if (bytes == 16) return f(std::integral_constant<int, 16>{});
    if constexpr (!Rates::full) {
        if (bytes == 8) return f(std::integral_constant<int, 8>{});
        if (one < 4 && bytes == 4) return f(std::integral_constant<int, 4>{});
    }
    return f(std::integral_constant<int, one>{});
}

/// Validates the arguments and plans the launch.
inline rotate_plan make_plan(const rotate_args& args, const device_shape& device = {}) {
    rotate_plan plan;
    plan.work = detail::make_device_params(args);
    detail::choose_launch(plan, device);
    return plan;
}

/// The plan of a rotation. Tensors whose data is null are absent; in place where input and output are the same.
inline rotate_plan make_plan(layout_kind layout, const tensor& q, const tensor& k, const tensor& q_out,
                             const tensor& k_out, const Encoding& encoding, const positions& positions,
                             const options& options, const device_shape& device = {}) {
    return make_plan({.layout = layout,
                      .q_in = q,
                      .k_in = k,
                      .q_out = q_out,
                      .k_out = k_out,
                      .target = &encoding,
                      .target_positions = positions,
                      .direction = options.direction,
                      .table = options.table},
                     device);
}

/// The plan of a re-rotation of cached keys from one encoding and its positions to another.
inline rotate_plan make_rerotation_plan(layout_kind layout, const tensor& k, const tensor& k_out,
                                        const Encoding& source, const positions& source_positions,
                                        const Encoding& target, const positions& target_positions,
                                        const options& options, const device_shape& device = {}) {
    RW_EXPECTS(options.direction == direction::forward && !options.table.exists(),
               "rerotate supports neither directions nor tables; exchange the encodings to go back");
    return make_plan({.layout = layout,
                      .k_in = k,
                      .k_out = k_out,
                      .target = &target,
                      .target_positions = target_positions,
                      .source = &source,
                      .source_positions = source_positions},
                     device);
}

/// The kernel's parameter.
template <class Rates>
rotate_job<Rates> job_of(const rotate_plan& prepared) {
    return {prepared.frame, rates_of<Rates>(prepared.work)};
}

}  // namespace ropewalk::gpu
