// Layouts: the two elements of a head that form pair j.
#pragma once

#include <concepts>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "ropewalk/core/compiler.hpp"

namespace ropewalk {

/// Pair j is (j, j + pairs): GPT-NeoX and the Llama weights on Hugging Face.
struct half_split {
    static constexpr std::string_view name = "half_split";
    static RW_HD RW_INLINE constexpr std::int64_t first(std::int64_t pair, std::int64_t /*pairs*/) { return pair; }
    static RW_HD RW_INLINE constexpr std::int64_t second(std::int64_t pair, std::int64_t pairs) { return pair + pairs; }
};

/// Pair j is (2j, 2j + 1): GPT-J, Meta's Llama release and the xPos paper.
struct interleaved {
    static constexpr std::string_view name = "interleaved";
    static RW_HD RW_INLINE constexpr std::int64_t first(std::int64_t pair, std::int64_t /*pairs*/) { return 2 * pair; }
    static RW_HD RW_INLINE constexpr std::int64_t second(std::int64_t pair, std::int64_t /*pairs*/) {
        return 2 * pair + 1;
    }
};

/// A layout maps a pair to its two elements, relative to the start of the rotary part.
template <class L>
concept Layout = requires(std::int64_t pair, std::int64_t pairs) {
    { L::first(pair, pairs) } -> std::same_as<std::int64_t>;
    { L::second(pair, pairs) } -> std::same_as<std::int64_t>;
    { L::name } -> std::convertible_to<std::string_view>;
};

/// A layout as a run-time value.
enum class layout_kind : std::uint8_t { half_split, interleaved };

template <Layout L>
inline constexpr layout_kind kind_of =
    std::is_same_v<L, half_split> ? layout_kind::half_split : layout_kind::interleaved;

RW_INLINE constexpr std::string_view to_string(layout_kind kind) {
    return kind == layout_kind::half_split ? half_split::name : interleaved::name;
}

}  // namespace ropewalk
