// The kernels behind plain functions, compiled for several instruction sets and chosen once at run time.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <ropewalk/cpu/plan.hpp>
#include <ropewalk/encoding.hpp>

namespace ropewalk::dispatch {

/// The instruction sets that this build has kernels for, on machines that have them.
std::vector<std::string_view> instruction_sets();

/// The name of the one in use: the widest that the machine has, or what the environment variable ROPEWALK_ISA names
/// ("baseline", "avx2", "avx512", "neon"). Throws when that is unknown or missing on this machine.
std::string_view instruction_set();

/// The one whose kernels turn elements of this type where they lie there: unless the environment names one, a narrower
/// one may be faster for f16 in cache.
std::string_view instruction_set(element_type type, cpu::footprint size);

/// cpu::rotate() for a layout and element types chosen at run time. Tensors whose data is null are absent.
void rotate(layout_kind layout, const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out,
            const Encoding& encoding, const positions& where, const cpu::options& chosen = {});

/// cpu::rerotate() for a layout and an element type chosen at run time.
void rerotate(layout_kind layout, const tensor& k, const tensor& k_out, const Encoding& from,
              const positions& from_where, const Encoding& to, const positions& to_where, int threads = 0);

/// cpu::cos_sin() for a layout chosen at run time.
void cos_sin(layout_kind layout, const Encoding& encoding, const positions& where, std::int64_t tokens,
             std::int64_t columns, std::span<float> cos, std::span<float> sin, int threads = 0);

/// The numbers [batch, tokens] that the encoding's position policy draws for the tokens, whose indices are on the host:
/// what kernels elsewhere take by ids(span<const fixed_position>). Throws where the encoding draws none.
std::vector<fixed_position> draw_positions(const Encoding& encoding, const positions& where, std::int64_t batch,
                                           std::int64_t tokens);

}  // namespace ropewalk::dispatch
