// Suggestions for misspelt names in error messages.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/core/compiler.hpp"

namespace ropewalk::detail {

/// Returns the edit distance of two names, ignoring case: insertions, deletions, replacements and swaps of neighbours
/// (optimal string alignment).
RW_COLD inline std::size_t edit_distance(std::string_view a, std::string_view b) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; };
    const auto same = [&](std::size_t i, std::size_t j) { return lower(a[i]) == lower(b[j]); };
    std::vector<std::size_t> distances((a.size() + 1) * (b.size() + 1));
    const auto distance = [&](std::size_t i, std::size_t j) -> std::size_t& {
        return distances[i * (b.size() + 1) + j];
    };
    for (std::size_t i = 0; i <= a.size(); ++i) distance(i, 0) = i;
    for (std::size_t j = 0; j <= b.size(); ++j) distance(0, j) = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        for (std::size_t j = 1; j <= b.size(); ++j) {
            distance(i, j) = std::min({distance(i - 1, j) + 1, distance(i, j - 1) + 1,
                                       distance(i - 1, j - 1) + (same(i - 1, j - 1) ? 0U : 1U)});
            if (i > 1 && j > 1 && same(i - 1, j - 2) && same(i - 2, j - 1))
                distance(i, j) = std::min(distance(i, j), distance(i - 2, j - 2) + 1);
        }
    }
    return distances.back();
}

/// Returns the known name nearest to `name`, or "" if none is near: at most one edit per three characters.
RW_COLD inline std::string_view nearest_name(std::string_view name, std::span<const std::string_view> known) {
    constexpr std::size_t longest = 64;  // no known name is longer; the input may be
    std::string_view nearest;
    std::size_t least = longest;
    for (const std::string_view candidate : known) {
        if (name.size() > longest) break;
        const std::size_t edits = edit_distance(name, candidate);
        if (edits < least && 3 * edits <= std::min(name.size(), candidate.size())) nearest = candidate, least = edits;
    }
    return nearest;
}

/// Returns ": did you mean 'linear'?", or "" if no known name is near.
RW_COLD inline std::string suggestion(std::string_view name, std::span<const std::string_view> known) {
    const std::string_view nearest = nearest_name(name, known);
    return nearest.empty() ? "" : ": did you mean '" + std::string(nearest) + "'?";
}

/// Returns ": did you mean 'linear'? Choose from default, linear, …", or ": choose from …" if no known name is near.
RW_COLD inline std::string name_hint(std::string_view name, std::span<const std::string_view> known) {
    std::string text = suggestion(name, known);
    text += text.empty() ? ": choose from " : " Choose from ";
    for (std::size_t i = 0; i < known.size(); ++i) text.append(i == 0 ? "" : ", ").append(known[i]);
    return text;
}

}  // namespace ropewalk::detail
