// Rotations compiled for several instruction sets, one of which is chosen at run time.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <ropewalk/cpu/options.hpp>
#include <ropewalk/cpu/params.hpp>
#include <ropewalk/encoding.hpp>

namespace ropewalk::dispatch {

/// The instruction sets that this build has kernels for and this machine supports, the widest first.
std::vector<std::string_view> instruction_sets();

/// The instruction set in use: the widest one, or the value of the environment variable ROPEWALK_ISA ("baseline",
/// "avx2", "avx512", "neon"). Throws ropewalk::error where that value is unknown or not supported by this machine.
std::string_view instruction_set();

/// The instruction set in use for one element type and size of data. f16 in cache may use a narrower one.
std::string_view instruction_set(element_type type, cpu::footprint size);

/// cpu::rotate() for a layout and element types chosen at run time. Tensors whose data is null are absent.
void rotate(layout_kind layout, const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out,
            const Encoding& encoding, const positions& positions, const cpu::options& options = {});

/// cpu::rerotate() for a layout and an element type chosen at run time.
void rerotate(layout_kind layout, const tensor& k, const tensor& k_out, const Encoding& source,
              const positions& source_positions, const Encoding& target, const positions& target_positions,
              int threads = 0);

/// cpu::cos_sin() for a layout chosen at run time.
void cos_sin(layout_kind layout, const Encoding& encoding, const positions& positions, std::int64_t tokens,
             std::int64_t columns, std::span<float> cos, std::span<float> sin, int threads = 0);

/// The positions [batch, tokens] that the encoding draws for token indices in host memory. Kernels of other devices
/// take them by ids(span<const fixed_position>). Throws ropewalk::error where the encoding draws no positions.
std::vector<fixed_position> draw_positions(const Encoding& encoding, const positions& positions, std::int64_t batch,
                                           std::int64_t tokens);

}  // namespace ropewalk::dispatch
