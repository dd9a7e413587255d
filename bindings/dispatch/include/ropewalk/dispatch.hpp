// The compiled library: rotations by the widest instruction set of the machine.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include <ropewalk/version.h>
#include <ropewalk/cpu/options.hpp>
#include <ropewalk/cpu/params.hpp>
#include <ropewalk/cpu/prepared_fused.hpp>
#include <ropewalk/cpu/prepared_rotation.hpp>
#include <ropewalk/cpu/tuning.hpp>
#include <ropewalk/encoding.hpp>
#include <ropewalk/rotation/fused_args.hpp>
#include <ropewalk/rotation/mistakes.hpp>
#include <ropewalk/rotation/rerotate_cache_args.hpp>

namespace ropewalk::dispatch {

/// The instruction sets that this build has kernels for and this machine supports, the widest first.
RW_PUBLIC std::vector<std::string_view> instruction_sets();

/// The instruction set in use: the widest one, or the value of the environment variable ROPEWALK_ISA ("baseline",
/// "avx2", "avx512", "neon"). Throws ropewalk::error where that value is unknown or not supported by this machine.
RW_PUBLIC std::string_view instruction_set();

/// The instruction set in use for one element type and size of data. f16 in cache may use a narrower one, and f64 has
/// scalar kernels.
RW_PUBLIC std::string_view instruction_set(element_type type, cpu::footprint size);

/// The tuning profile in use: that of the processor, or the value of the environment variable ROPEWALK_PROFILE. Throws
/// ropewalk::error where that value is neither the name of a profile nor the path of a profile file.
RW_PUBLIC const cpu::tuning_profile& tuning_profile();

/// ropewalk::make_encoding() for an expression, compiled once: a file that calls this one compiles faster.
RW_PUBLIC Encoding make_encoding(const Geometry& geometry, std::string_view expression = "default");

/// cpu::rotate() for a layout and element types chosen at run time. Tensors whose data is null are absent.
RW_PUBLIC void rotate(layout_kind layout, const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out,
                      const Encoding& encoding, const positions& positions, const cpu::options& options = {});

/// cpu::rerotate() for a layout and an element type chosen at run time.
RW_PUBLIC void rerotate(layout_kind layout, const tensor& k, const tensor& k_out, const Encoding& source,
                        const positions& source_positions, const Encoding& target, const positions& target_positions,
                        const cpu::threads& threads = {});

/// cpu::fused() for a layout and element types chosen at run time. Tensors whose data is null are absent. `tuning`: see
/// cpu::options.
RW_PUBLIC void fused(const fused_args& args, const cpu::threads& threads = {},
                     const cpu::tuning_profile* tuning = nullptr);

/// cpu::rerotate_cache() for a layout chosen at run time.
RW_PUBLIC void rerotate_cache(const rerotate_cache_args& args, const cpu::threads& threads = {});

/// cpu::cos_sin() for a layout chosen at run time.
RW_PUBLIC void cos_sin(layout_kind layout, const Encoding& encoding, const positions& positions, std::int64_t tokens,
                       std::int64_t columns, std::span<float> cos, std::span<float> sin,
                       const cpu::threads& threads = {});

/// cpu::prepare() for a layout and element types chosen at run time. Tensors whose data is null are absent.
RW_PUBLIC cpu::prepared_rotation prepare(layout_kind layout, const tensor& q, const tensor& k, const tensor& q_out,
                                         const tensor& k_out, const Encoding& encoding,
                                         const cpu::options& options = {});

/// cpu::prepare_fused() for a layout and element types chosen at run time. Tensors whose data is null are absent.
/// `tuning`: see cpu::options.
RW_PUBLIC cpu::prepared_fused prepare_fused(const fused_args& args, const cpu::tuning_profile* tuning = nullptr);

/// The positions [batch, tokens] that the encoding draws for token indices in host memory. Kernels of other devices
/// take them by ids(span<const fixed_position>). Throws ropewalk::error where the encoding draws no positions.
RW_PUBLIC std::vector<fixed_position> draw_positions(const Encoding& encoding, const positions& positions,
                                                     std::int64_t batch, std::int64_t tokens);

// The functions below call those above by their qualified names: the argument cpu::options would also find
// cpu::rotate().

/// Encodes queries q and keys k [batch, tokens, heads, head_dim] in place, as cpu::rotate() does. k may have fewer
/// heads, and either may be absent (view<T>{}). f32 results are within 3e-7 of the norm of the pair for |p| < 2^31;
/// f16 and bf16 results are within one rounding, and f64 results within 4e-16 + 1.4e-18 |p|. Throws ropewalk::error,
/// with nothing written, where shapes, strides, positions or layout do not fit.
template <Layout L, class T>
void rotate(const view<T>& q, const view<T>& k, const Encoding& encoding, const positions& positions,
            const cpu::options& options = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    dispatch::rotate(kind_of<L>, q, k, q, k, encoding, positions, options);
}

/// Encodes queries alone, in place.
template <Layout L, class T>
void rotate(const view<T>& q, const Encoding& encoding, const positions& positions, const cpu::options& options = {}) {
    dispatch::rotate<L>(q, view<T>{}, encoding, positions, options);
}

/// Encodes into other buffers, which must not overlap the inputs. Elements outside the rotary part are copied.
template <Layout L, class In, class T>
    requires std::same_as<std::remove_const_t<In>, T>
void rotate(const view<In>& q, const view<In>& k, const view<T>& q_out, const view<T>& k_out, const Encoding& encoding,
            const positions& positions, const cpu::options& options = {}) {
    dispatch::rotate(kind_of<L>, q, k, q_out, k_out, encoding, positions, options);
}

/// Re-encodes cached keys in place, as cpu::rerotate() does.
template <Layout L, class T>
void rerotate(const view<T>& k, const Encoding& source, const positions& source_positions, const Encoding& target,
              const positions& target_positions, const cpu::threads& threads = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    dispatch::rerotate(kind_of<L>, k, k, source, source_positions, target, target_positions, threads);
}

/// Norms, rotates and stores the heads of one attention layer, as cpu::fused() does.
template <Layout L, class T>
void fused(const std::type_identity_t<qkv<const T>>& in, const qkv<T>& out, const fusion& with,
           const Encoding& encoding, const positions& positions, const cpu::options& options = {}) {
    static_assert(!std::is_const_v<T>, "outputs are written: their elements cannot be const");
    fused_args args = make_fused_args<T>(kind_of<L>, in, out, with, encoding, positions, options.table);
    args.rotation.direction = options.direction;
    dispatch::fused(args, options.threads, options.tuning);
}

/// Prepares fused calls on tensors and caches with these shapes, strides and types at any address, as
/// cpu::prepare_fused() does.
template <Layout L, class T>
cpu::prepared_fused prepare_fused(const std::type_identity_t<qkv<const T>>& in, const qkv<T>& out, const fusion& with,
                                  const Encoding& encoding, const cpu::options& options = {}) {
    fused_args args = make_fused_args<T>(kind_of<L>, in, out, with, encoding, offset{0}, options.table);
    args.rotation.direction = options.direction;
    return dispatch::prepare_fused(args, options.tuning);
}

/// Rotates queries in place, and writes rotated keys and unchanged values to the slots of a cache, as cpu::append()
/// does.
template <Layout L, class T>
void append(const view<T>& q, const std::type_identity_t<view<const T>>& k,
            const std::type_identity_t<view<const T>>& v, const kv_cache& cache, const cache_slots& slots,
            const Encoding& encoding, const positions& positions, const cpu::options& options = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    dispatch::fused<L, T>({q, k, v}, {q, {}, {}}, {.cache = cache, .slots = slots}, encoding, positions, options);
}

/// Norms and rotates queries and keys in place, as cpu::norm_rotate() does.
template <Layout L, class T>
void norm_rotate(const view<T>& q, const view<T>& k, const head_norm& q_norm, const head_norm& k_norm,
                 const Encoding& encoding, const positions& positions, const cpu::options& options = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    dispatch::fused<L, T>({q, k, {}}, {q, k, {}}, {.q_norm = q_norm, .k_norm = k_norm}, encoding, positions, options);
}

/// Re-encodes the keys of a cache in place, as cpu::rerotate_cache() does.
template <Layout L>
void rerotate_cache(const cache_tensor& keys, const cached_tokens& at, const Encoding& source,
                    const positions& source_positions, const Encoding& target, const positions& target_positions,
                    const cpu::threads& threads = {}) {
    dispatch::rerotate_cache({.layout = kind_of<L>,
                              .keys = keys,
                              .at = at,
                              .source = &source,
                              .source_positions = source_positions,
                              .target = &target,
                              .target_positions = target_positions},
                             threads);
}

/// Prepares the rotation of tensors with the shapes and strides of q and k at any address, as cpu::prepare() does.
template <Layout L, class T>
cpu::prepared<T> prepare(const view<T>& q, const view<T>& k, const Encoding& encoding,
                         const cpu::options& options = {}) {
    return cpu::prepared<T>(dispatch::prepare(kind_of<L>, q, k, q, k, encoding, options));
}

/// Prepares the rotation of queries alone.
template <Layout L, class T>
cpu::prepared<T> prepare(const view<T>& q, const Encoding& encoding, const cpu::options& options = {}) {
    return dispatch::prepare<L>(q, view<T>{}, encoding, options);
}

/// Prepares a rotation whose outputs have other strides than its inputs.
template <Layout L, class In, class T>
    requires std::same_as<std::remove_const_t<In>, T>
cpu::prepared<T> prepare(const view<In>& q, const view<In>& k, const view<T>& q_out, const view<T>& k_out,
                         const Encoding& encoding, const cpu::options& options = {}) {
    return cpu::prepared<T>(dispatch::prepare(kind_of<L>, q, k, q_out, k_out, encoding, options));
}

/// Writes cosines and sines, as cpu::cos_sin() does.
template <Layout L>
void cos_sin(const Encoding& encoding, const positions& positions, std::int64_t tokens, std::int64_t columns,
             std::span<float> cos, std::span<float> sin, const cpu::threads& threads = {}) {
    dispatch::cos_sin(kind_of<L>, encoding, positions, tokens, columns, cos, sin, threads);
}

// Overloads for calls that are not valid. Each stops the compiler with one message.

template <Layout L, class... Args>
    requires(!ropewalk::detail::RotateCall<cpu::options, Args...>)
void rotate(const Args&... /*args*/) {
    ropewalk::detail::report_mistake<Args...>();
}
template <Layout L, class... Args>
    requires(!ropewalk::detail::RerotateCall<cpu::threads, Args...>)
void rerotate(const Args&... /*args*/) {
    ropewalk::detail::report_mistake<Args...>();
}
template <std::derived_from<tensor> Q, class... Args>
void rotate(const Q& /*q*/, const Args&... /*args*/) {
    ropewalk::detail::report_no_layout<Q>();
}
template <std::derived_from<tensor> K, class... Args>
void rerotate(const K& /*k*/, const Args&... /*args*/) {
    ropewalk::detail::report_no_layout<K>();
}

}  // namespace ropewalk::dispatch
