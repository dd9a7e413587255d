// Plan of a rotation on a GPU: from the caller's arguments to a validated launch. Needs no CUDA.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "ropewalk/gpu/options.hpp"
#include "ropewalk/gpu/params.hpp"
#include "ropewalk/rotation/make_params.hpp"

namespace ropewalk::gpu {

/// Threads of a launch, and the kernel to launch.
struct launch_shape {
    std::int64_t threads = 0;  ///< 0: nothing to do
    int block = 0;             ///< threads per block
    std::int64_t grid = 0;     ///< blocks
    int bytes = 0;             ///< per memory access
};

/// A validated rotation with its launch. The encoding must live until the launch, positions and table until its end.
struct launch_plan {
    rotate_kernel_base kernel{};
    launch_shape shape{};
};

namespace detail {

/// Threads per block. Small launches use half of it.
inline constexpr int max_threads = 128;

/// Limit of the first dimension of a grid.
inline constexpr std::int64_t max_blocks = (std::int64_t{1} << 31) - 1;

constexpr std::int64_t divide_up(std::int64_t n, std::int64_t d) { return n / d + (n % d > 0 ? 1 : 0); }

/// The positions of an encoding in device memory. Drawn positions must have been drawn already.
inline position_reader device_positions(const Encoding& encoding, const positions& given, std::int64_t batch,
                                        std::int64_t tokens) {
    RW_EXPECTS(!encoding.draw_positions || given.source == positions::kind::fixed ||
                   given.source == positions::kind::shift,  // which read_positions() refuses

               "'{}' draws its positions on the host; pass the drawn positions in device memory, ids(span<const "
               "fixed_position>)",
               encoding.expression);
    return read_positions(encoding, given, batch, tokens, memory_space::device);
}

/// Validates arguments whose positions and table are in device memory.
inline rotate_params make_device_params(const rotate_args& args) {
    (void)ropewalk::detail::check_args(args);
    RW_EXPECTS(args.any().type != element_type::f64,
               "tensors of f64 rotate on the CPU only: convert them to f32, f16 or bf16");
    const std::int64_t batch = args.any().batch, tokens = args.any().tokens;
    position_reader source;
    if (args.source != nullptr) source = device_positions(*args.source, args.source_positions, batch, tokens);
    const position_reader target = device_positions(*args.target, args.target_positions, batch, tokens);
    RW_EXPECTS(!args.table.exists() || args.table.rows > 0 || tokens == 0, "the table has no rows");
    const std::int64_t pairs = args.target->pairs();
    RW_EXPECTS(pairs <= max_pairs, "the encoding rotates {} elements per head, but GPU kernels support at most {}",
               2 * pairs, 2 * max_pairs);
    ropewalk::rotate_params params = make_params(args, target, source);
    // Kernels read the positions of every call. Those of a table by token do not matter, nor need their memory.
    if (args.table.exists() && args.table.order == cos_sin_table::rows_are::by_token) params.target.positions = {};
    ropewalk::detail::drop_unused_strides(params);
    return params;
}

/// Returns whether the address and the strides of every axis longer than one are multiples of `bytes`.
inline bool is_aligned(const tensor& axes, const void* data, std::int64_t element_size, std::int64_t bytes) {
    const auto fits = [&](std::int64_t extent, std::int64_t stride) {
        return extent <= 1 || stride * element_size % bytes == 0;
    };
    return reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(bytes) == 0 &&
           fits(axes.batch, axes.stride_batch) && fits(axes.tokens, axes.stride_token) &&
           fits(axes.heads, axes.stride_head);
}

/// Returns whether every head of a tensor can be read in accesses of `bytes`.
inline bool allows_access(const tensor& t, std::int64_t bytes) {
    return !t.exists() || t.elements() == 0 || is_aligned(t, t.data, static_cast<std::int64_t>(size_of(t.type)), bytes);
}

/// Elements of a head after the rotary part.
inline std::int64_t trailing_elements(const ropewalk::rotate_params& params) {
    return params.any().head_dim - params.rotary_offset - 2 * params.pairs;
}

/// Returns whether elements outside the rotary part must be copied.
inline bool copies(const ropewalk::rotate_params& params) {
    return (params.rotary_offset > 0 || trailing_elements(params) > 0) &&
           (params.q_in.data != params.q_out.data || params.k_in.data != params.k_out.data);
}

/// Returns whether plain_rates hold the rates of a call.
inline bool is_plain(const ropewalk::rotate_params& params) {
    return !params.has_magnitude && params.source.steps == nullptr && params.pairs <= plain_pairs;
}

/// The widest access, at most 16 bytes, that every address, stride and width of the call allows. Calls that are not
/// plain have kernels for the widest and the narrowest access only, to save compile time for rarely used kernels.
inline int access_bytes(const ropewalk::rotate_params& params) {
    const auto size = static_cast<std::int64_t>(size_of(params.any().type));
    for (std::int64_t bytes = 16; bytes > size; bytes = is_plain(params) ? bytes / 2 : size) {
        const std::int64_t elements = bytes / size;
        const bool divides = params.pairs % elements == 0 && params.rotary_offset % elements == 0 &&
                             (!copies(params) || trailing_elements(params) % elements == 0);
        if (divides && allows_access(params.q_in, bytes) && allows_access(params.q_out, bytes) &&
            allows_access(params.k_in, bytes) && allows_access(params.k_out, bytes))
            return static_cast<int>(bytes);
    }
    return static_cast<int>(size);
}

/// The heads of a tensor that has elements, or 0.
inline std::int64_t heads_of(const tensor& t) { return t.exists() && t.elements() != 0 ? t.heads : 0; }

/// Heads per thread in equal groups of at most `max_heads`, which end at about the same time: 40 heads become 14, 13
/// and 13 instead of 16, 16 and 8.
constexpr std::int32_t even_share(std::int64_t heads, std::int64_t max_heads) {
    return heads == 0 ? 1 : static_cast<std::int32_t>(divide_up(heads, divide_up(heads, max_heads)));
}

/// The limit of heads per thread for `chunks` (tokens · chunks per head) and the heads of each side. One for a small
/// call, so that it reaches every multiprocessor; up to 16 for a large one, to compute fewer cosines and to fill the
/// last wave. The duration of a wave is proportional to heads + 1, because cosines and sines cost about as much as one
/// head.
inline std::int64_t heads_per_thread(std::int64_t chunks, std::initializer_list<std::int64_t> sides,
                                     const device_shape& device) {
    if (device.heads_per_thread > 0) return device.heads_per_thread;
    // The registers of the kernels allow half of the threads to be resident.
    const std::int64_t resident = std::int64_t{device.multiprocessors} * device.threads_per_multiprocessor / 2;
    std::int64_t best = 1, lowest_cost = 0;
    for (std::int64_t heads = 1; heads <= 16; ++heads) {
        std::int64_t groups = 0, longest = 0;
        for (const std::int64_t side : sides) {
            groups += divide_up(side, heads);
            longest = std::max<std::int64_t>(longest, even_share(side, heads));
        }
        const std::int64_t waves = divide_up(chunks * groups, resident), cost = waves * (longest + 1);
        if (heads == 1 || cost <= lowest_cost) best = heads, lowest_cost = cost;
        if (waves <= 1) break;
    }
    return best;
}

/// The device with the number of heads per thread that the options force, if any.
inline device_shape with_heads_of(const options& options, device_shape device) {
    RW_EXPECTS(options.heads_per_thread >= 0, "heads_per_thread must not be negative, got {}",
               options.heads_per_thread);
    device.heads_per_thread = options.heads_per_thread;
    return device;
}

/// Divides the heads of a side into groups of at most `max_heads`.
inline void set_groups(heads_params& side, std::int64_t max_heads) {
    side.heads_per_thread = even_share(side.heads, max_heads);
    side.groups = static_cast<std::int32_t>(divide_up(side.heads, side.heads_per_thread));
    side.in_step = side.groups * side.in_head, side.out_step = side.groups * side.out_head;
}

/// The heads of a tensor, in groups of at most `max_heads`.
inline heads_params make_heads(const tensor& in, const tensor& out, std::int64_t max_heads) {
    if (!in.exists() || in.elements() == 0) return {};
    RW_EXPECTS(in.heads <= (1 << 29), "a launch supports at most 2^29 heads, got {}", in.heads);
    const auto size = static_cast<std::int64_t>(size_of(in.type));
    heads_params side{.in = in.data,
                      .out = out.data,
                      .in_batch = in.stride_batch * size,
                      .in_token = in.stride_token * size,
                      .in_head = in.stride_head * size,
                      .out_batch = out.stride_batch * size,
                      .out_token = out.stride_token * size,
                      .out_head = out.stride_head * size,
                      .heads = static_cast<std::int32_t>(in.heads)};
    set_groups(side, max_heads);
    return side;
}

/// How kernels split the index of a thread: batch rows, tokens, groups of heads, and chunks or lanes.
inline ropewalk::detail::index_splitter make_split(std::int64_t batch, std::int64_t tokens, std::int32_t groups,
                                                   std::int32_t inner) {
    RW_EXPECTS(batch >> 32 == 0 && tokens >> 32 == 0,
               "a launch supports at most 2^32 - 1 batch rows and tokens per row, got {} and {}", batch, tokens);
    return {static_cast<std::uint32_t>(tokens), groups, inner};
}

inline launch_shape shape_of_launch(std::int64_t threads, int bytes, const device_shape& device) {
    // Small blocks distribute a small call over more multiprocessors.
    const int block = threads >= std::int64_t{device.multiprocessors} * max_threads ? max_threads : max_threads / 2;
    const std::int64_t grid = divide_up(threads, block);
    RW_EXPECTS(grid <= max_blocks, "the launch needs {} blocks of {} threads, but a device supports {}", grid, block,
               max_blocks);
    return {.threads = threads, .block = block, .grid = grid, .bytes = bytes};
}

/// Copies the step of each pair with its axis. The steps of a pair are 0 on every other axis.
template <int Capacity>
void write_steps(steps_by_value<Capacity>& out, const rotation_term& term, std::int64_t pairs) {
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
        std::int64_t axis = term.positions.axes - 1;
        while (axis > 0 && term.steps[axis * pairs + pair] == 0) --axis;
        out.step[pair] = term.steps[axis * pairs + pair];
        out.axis[pair] = static_cast<std::uint8_t>(axis);
    }
}

template <int Capacity>
void write_magnitude_rates(std::uint64_t (&out)[Capacity], const std::uint64_t* rates, std::int64_t pairs) {
    for (std::int64_t pair = 0; pair < pairs; ++pair) out[pair] = rates == nullptr ? 0 : rates[pair];
}

}  // namespace detail

/// The rates of a validated rotation by value.
template <class Rates>
Rates rates_of(const ropewalk::rotate_params& params) {
    Rates rates;
    detail::write_steps(rates.target, params.target, params.pairs);
    if constexpr (Rates::full) {
        if (params.source.steps != nullptr) detail::write_steps(rates.source, params.source, params.pairs);
        detail::write_magnitude_rates(rates.magnitude_rates, params.target.magnitude_rates, params.pairs);
        detail::write_magnitude_rates(rates.source_magnitude_rates, params.source.magnitude_rates, params.pairs);
    }
    return rates;
}

/// Calls f(std::type_identity<Rates>) with the type of the rates of a call.
template <class F>
void with_rates(const ropewalk::rotate_params& params, const F& f) {
    if (detail::is_plain(params)) return f(std::type_identity<plain_rates<plain_pairs>>{});
    return f(std::type_identity<full_rates<max_pairs>>{});
}

/// Calls f(std::integral_constant<int, bytes>) with the access of a plan.
template <Element T, class Rates = plain_rates<plain_pairs>, class F>
void with_access(int bytes, const F& f) {
    constexpr int narrowest = static_cast<int>(sizeof(T));
    if (bytes == 16) return f(std::integral_constant<int, 16>{});
    if constexpr (!Rates::full) {
        if (bytes == 8) return f(std::integral_constant<int, 8>{});
        if (narrowest < 4 && bytes == 4) return f(std::integral_constant<int, 4>{});
    }
    return f(std::integral_constant<int, narrowest>{});
}

/// The parameter of the kernel that a plan launches.
template <class Rates>
rotate_kernel_params<Rates> kernel_params(const launch_plan& plan) {
    return {plan.kernel, rates_of<Rates>(plan.kernel.rotation)};
}

/// Validates the arguments and plans the launch.
inline launch_plan make_plan(const rotate_args& args, const device_shape& device = {}) {
    launch_plan plan;
    ropewalk::rotate_params& params = plan.kernel.rotation;
    params = detail::make_device_params(args);
    const int bytes = detail::access_bytes(params);
    const std::int64_t elements = bytes / static_cast<std::int64_t>(size_of(params.any().type));
    const std::int64_t rotating = params.pairs / elements;
    const std::int64_t copying =
        detail::copies(params) ? (params.rotary_offset + detail::trailing_elements(params)) / elements : 0;
    // Extents of tensors without elements may be any numbers.
    const bool empty = detail::heads_of(params.q_in) == 0 && detail::heads_of(params.k_in) == 0;
    const std::int64_t chunks = empty ? 0 : params.batch() * params.tokens() * (rotating + copying);
    const std::int64_t max_heads =
        detail::heads_per_thread(chunks, {detail::heads_of(params.q_in), detail::heads_of(params.k_in)}, device);
    rotate_kernel_base& kernel = plan.kernel;
    kernel.side[0] = detail::make_heads(params.q_in, params.q_out, max_heads);
    kernel.side[1] = detail::make_heads(params.k_in, params.k_out, max_heads);
    kernel.rotating_chunks = static_cast<std::int32_t>(rotating);
    kernel.chunks = static_cast<std::int32_t>(rotating + copying);
    kernel.q_groups = kernel.side[0].groups;
    kernel.groups = kernel.q_groups + kernel.side[1].groups;
    kernel.threads = chunks * kernel.groups;
    if (!empty) kernel.split = detail::make_split(params.batch(), params.tokens(), kernel.groups, kernel.chunks);
    plan.shape = detail::shape_of_launch(kernel.threads, bytes, device);
    return plan;
}

/// The plan of a rotation. Tensors whose data is null are absent; in place where input and output are the same.
inline launch_plan make_plan(layout_kind layout, const tensor& q, const tensor& k, const tensor& q_out,
                             const tensor& k_out, const Encoding& encoding, const positions& positions,
                             const options& options, const device_shape& device = {}) {
    return make_plan(rotation_args(layout, q, k, q_out, k_out, encoding, positions, options.direction, options.table),
                     detail::with_heads_of(options, device));
}

/// The plan of a re-rotation of cached keys from one encoding and its positions to another.
inline launch_plan make_rerotation_plan(layout_kind layout, const tensor& k, const tensor& k_out,
                                        const Encoding& source, const positions& source_positions,
                                        const Encoding& target, const positions& target_positions,
                                        const options& options, const device_shape& device = {}) {
    RW_EXPECTS(options.direction == direction::forward && !options.table.exists(),
               "rerotate supports neither directions nor tables; exchange the encodings to go back");
    return make_plan(rerotation_args(layout, k, k_out, source, source_positions, target, target_positions),
                     detail::with_heads_of(options, device));
}

}  // namespace ropewalk::gpu
