// Cosines and sines that somebody else has made.
#pragma once

#include <cstdint>
#include <limits>

#include "ropewalk/core/element.hpp"

namespace ropewalk {

/// A table of cosines and sines, read instead of a phase. Row r is that of the token with index r (`by_index`, vLLM's
/// cache) or of token r of the call (`by_token`, what Transformers hands to its layers). A row has either rotary_dim
/// columns, one an element, so that a pair's value stands twice (Hugging Face's order), or rotary_dim/2, one a pair.
/// For half_split that is cat(freqs, freqs); for interleaved it is repeat_interleave(freqs, 2).
struct cos_sin_table {
    enum class rows_are : std::uint8_t { by_index, by_token };
    /// A stride that was left out. Not 0, with which one row deliberately serves several.
    static constexpr std::int64_t not_given = std::numeric_limits<std::int64_t>::min();

    const void* cos = nullptr;
    const void* sin = nullptr;
    element_type type = element_type::f32;  ///< f32 or bf16
    std::int64_t rows = 0, columns = 0;
    std::int64_t stride_row = not_given;  ///< elements from one row to the next, where there are several
    rows_are order = rows_are::by_index;
    std::int64_t batch = 1;  ///< by_token: batches of `rows` rows each; 1 serves every batch row
    std::int64_t stride_batch = not_given;

    [[nodiscard]] RW_HD constexpr bool exists() const { return cos != nullptr || sin != nullptr; }
};

}  // namespace ropewalk
