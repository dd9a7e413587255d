// Weights of a linear layer, in memory that belongs to somebody else.
#pragma once

#include <cstdint>

#include "ropewalk/core/element.hpp"

namespace ropewalk::llama {

/// [rows, columns] = [outputs, inputs], contiguous, row by row, as Hugging Face stores a Linear. Elements need no
/// alignment beyond their own.
struct matrix {
    const void* data = nullptr;
    element_type type = element_type::f32;
    std::int64_t rows = 0, columns = 0;

    [[nodiscard]] constexpr bool exists() const { return data != nullptr; }
    [[nodiscard]] constexpr std::int64_t bytes() const {
        return rows * columns * static_cast<std::int64_t>(size_of(type));
    }
};

}  // namespace ropewalk::llama
