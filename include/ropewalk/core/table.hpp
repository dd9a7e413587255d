// Caller-supplied table of cosines and sines.
#pragma once

#include <cstdint>
#include <limits>

#include "ropewalk/core/element.hpp"

namespace ropewalk {

/// Caller-supplied cosines and sines, which kernels read instead of computing them from a phase.
///
/// Row r belongs to the token with index r (`by_index`, as in vLLM's cache) or to token r of the call (`by_token`, as
/// Transformers passes to its layers). A row has rotary_dim/2 columns, one per pair, or rotary_dim columns, one per
/// element, where each value is stored twice: cat(freqs, freqs) for half_split, repeat_interleave(freqs, 2) for
/// interleaved.
struct cos_sin_table {
    enum class rows_are : std::uint8_t { by_index, by_token };
    /// A stride that was left out. Different from 0, which repeats one row.
    static constexpr std::int64_t not_given = std::numeric_limits<std::int64_t>::min();

    const void* cos = nullptr;              ///< [batch, rows, columns]
    const void* sin = nullptr;              ///< as cos
    element_type type = element_type::f32;  ///< f64 for tensors of f64 only
    std::int64_t rows = 0, columns = 0;     ///< columns: rotary_dim/2 or rotary_dim
    std::int64_t stride_row = not_given;    ///< elements from one row to the next; needed for more than one row
    rows_are order = rows_are::by_index;
    std::int64_t batch = 1;                 ///< by_token: batches of `rows` rows each; 1 is shared by all batch rows
    std::int64_t stride_batch = not_given;  ///< elements from one batch to the next; needed for more than one batch

    [[nodiscard]] RW_HD constexpr bool exists() const { return cos != nullptr || sin != nullptr; }
};

namespace detail {

/// One entry of a table as F. A float cannot be read from f64.
template <class F>
RW_HD RW_INLINE F table_entry(const void* values, element_type type, std::int64_t entry) {
    if (type == element_type::bf16) return static_cast<float>(static_cast<const bf16*>(values)[entry]);
    if (type == element_type::f16) return static_cast<float>(static_cast<const f16*>(values)[entry]);
    if constexpr (sizeof(F) == sizeof(double))
        if (type == element_type::f64) return static_cast<const double*>(values)[entry];
    return static_cast<const float*>(values)[entry];
}

}  // namespace detail

}  // namespace ropewalk
