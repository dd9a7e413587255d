// Reader of the positions of a validated rotation, on the CPU and on a GPU.
#pragma once

#include <cstdint>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/positions.hpp"

namespace ropewalk {

/// The position of one token, in tokens: one number per axis, and the fraction of the first one.
struct token_position {
    std::uint64_t whole[position_axes] = {};  ///< modulo 2^64; only the first counts where a token has one position
    std::uint32_t fraction = 0;               ///< of whole[0], in 2^-32 tokens
};

/// position · rate modulo 2^64, of the first axis: a phase where `rate` is a step, an exponent where it is a magnitude
/// rate.
RW_HD RW_INLINE constexpr std::uint64_t wrapping_product(const token_position& position, std::uint64_t rate) {
    return rate * position.whole[0] + (rate >> 32) * position.fraction +
           (((rate & 0xffffffffU) * position.fraction) >> 32);
}

/// Plain data that tells a kernel the position of each token. Made by read_positions() or draw_positions().
struct position_reader {
    positions::kind kind = positions::kind::offset;
    bool host_readable = true;        ///< the host may read `data`, so validation knows the values
    std::int64_t first = 0;           ///< of `offset` and `cu_seqlens`; the distance of a shift
    const void* data = nullptr;       ///< ids, fixed positions, or the starts of ragged sequences
    std::int64_t stride_row = 0;      ///< entries from one batch row to the next
    std::int64_t axes = 1;            ///< positions per token
    std::int64_t stride_axis = 0;     ///< entries from one axis to the next
    std::int64_t count = 0;           ///< entries of cu_seqlens
    const void* offsets = nullptr;    ///< one per batch row or ragged sequence, in place of `first`
    std::int64_t stride_offsets = 0;  ///< entries from one offset to the next; 0: one is shared by all
    bool wide_offsets = true;         ///< std::int64_t, otherwise std::int32_t

    [[nodiscard]] RW_HD constexpr bool ragged() const {
        return kind == positions::kind::cu_seqlens32 || kind == positions::kind::cu_seqlens64;
    }

    /// Returns whether the host knows the values.
    [[nodiscard]] constexpr bool known() const { return kind == positions::kind::offset || host_readable; }

    /// The index of a token, on the first axis; the integer part of a fixed position.
    [[nodiscard]] RW_HD RW_INLINE std::int64_t index(std::int64_t row, std::int64_t token) const {
        const std::int64_t entry = row * stride_row + token;
        switch (kind) {
            case positions::kind::ids32:
                return static_cast<const std::int32_t*>(data)[entry];
            case positions::kind::ids64:
                return static_cast<const std::int64_t*>(data)[entry];
            case positions::kind::fixed:
                return static_cast<const fixed_position*>(data)[entry].value >> 32;
            case positions::kind::offset:
                return first + token;
            case positions::kind::shift:
                return first;
            case positions::kind::row_offsets:
                return wrapping_sum(offset_of(row), token);
            default:
                return ragged_index(token);
        }
    }

    /// Both parts of the position of a token, on every axis.
    [[nodiscard]] RW_HD RW_INLINE token_position at(std::int64_t row, std::int64_t token) const {
        token_position position;
        position.whole[0] = static_cast<std::uint64_t>(index(row, token));
        if (kind == positions::kind::fixed) {
            const std::int64_t value = static_cast<const fixed_position*>(data)[row * stride_row + token].value;
            position.fraction = static_cast<std::uint32_t>(value);
        }
        if (axes > 1) {
            // Constant bounds keep the array in a GPU's registers.
            RW_UNROLL
            for (int axis = 1; axis < static_cast<int>(position_axes); ++axis)
                position.whole[axis] = static_cast<std::uint64_t>(id(axis * stride_axis + row * stride_row + token));
        }
        return position;
    }

    /// The first position of a batch row or of a ragged sequence.
    [[nodiscard]] RW_HD RW_INLINE std::int64_t offset_of(std::int64_t sequence) const {
        const std::int64_t entry = sequence * stride_offsets;
        return wide_offsets ? static_cast<const std::int64_t*>(offsets)[entry]
                            : static_cast<const std::int32_t*>(offsets)[entry];
    }

    /// Entry i of cu_seqlens.
    [[nodiscard]] RW_HD RW_INLINE std::int64_t sequence_start(std::int64_t i) const {
        return kind == positions::kind::cu_seqlens32 ? static_cast<const std::int32_t*>(data)[i]
                                                     : static_cast<const std::int64_t*>(data)[i];
    }

    /// The sequence of a token of a ragged batch, by bisection: 0 … count − 2, whatever the starts hold. Reads entries
    /// 0 … count − 2 only.
    [[nodiscard]] RW_HD RW_INLINE std::int64_t sequence_of(std::int64_t token) const {
        std::int64_t low = 0, high = count - 1;
        while (high - low > 1) {
            const std::int64_t middle = low + (high - low) / 2;
            (sequence_start(middle) <= token ? low : high) = middle;
        }
        return low;
    }

private:
    /// An entry of `ids32` or `ids64`, the only kinds with several positions per token.
    [[nodiscard]] RW_HD RW_INLINE std::int64_t id(std::int64_t entry) const {
        return kind == positions::kind::ids32 ? static_cast<const std::int32_t*>(data)[entry]
                                              : static_cast<const std::int64_t*>(data)[entry];
    }

    /// Unsigned arithmetic, because device memory may hold numbers that were never validated.
    [[nodiscard]] RW_HD RW_INLINE static std::int64_t wrapping_sum(std::int64_t a, std::int64_t b) {
        return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
    }

    [[nodiscard]] RW_HD RW_INLINE std::int64_t ragged_index(std::int64_t token) const {
        const std::int64_t sequence = sequence_of(token);
        const std::int64_t base = offsets == nullptr ? first : offset_of(sequence);
        const auto start = static_cast<std::uint64_t>(sequence_start(sequence));
        return static_cast<std::int64_t>(static_cast<std::uint64_t>(wrapping_sum(base, token)) - start);
    }
};

}  // namespace ropewalk
