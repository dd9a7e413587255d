// M-RoPE: three positions per token, for images and video.
#pragma once

#include <vector>

#include "ropewalk/core/positions.hpp"
#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// Every token has a temporal, a vertical and a horizontal position (t, h, w). `sections` holds the number of pairs
/// that use each.
/// - Chunked (Qwen2-VL, arXiv 2409.12191, §2.1): the first pairs use t, the next h, the last w.
/// - Interleaved (Qwen3-VL): pair j uses h if j mod 3 = 1 and j < 3 · sections[1], w if j mod 3 = 2 and
///   j < 3 · sections[2], else t.
///
/// Positions are ids [3, tokens] or [3, batch, tokens]. One id per token (text) is used for all three axes.
struct MRope {
    std::vector<std::int64_t> sections{};  ///< required: pairs of t, h and w
    bool interleaved = false;

    static constexpr std::string_view name = "mrope";
    static constexpr std::string_view about =
        "Three positions per token (time, height, width), each used by its own section of pairs.";
    static constexpr auto parameters =
        std::tuple{parameter<MRope, std::vector<std::int64_t>>{"sections", &MRope::sections, true},
                   parameter<MRope, bool>{"interleaved", &MRope::interleaved}};

    void validate() const {
        detail::expect_given(!sections.empty(), name, "sections", "the pairs of t, h and w", "mrope:[16,24,24]");
        RW_EXPECTS(sections.size() == position_axes, "mrope: sections has {} entries, expected 3 (t, h and w)",
                   sections.size());
        std::int64_t left = Geometry::max_width / 2;
        for (const std::int64_t section : sections) {
            RW_EXPECTS(
                section >= 0 && section <= left,
                "mrope: sections must not be negative and must sum to the pairs of a head, at most {}, got {}, {} "
                "and {}",
                Geometry::max_width / 2, sections[0], sections[1], sections[2]);
            left -= section;
        }
    }
    void validate(const Geometry& geometry) const {
        validate();
        RW_EXPECTS(sections[0] + sections[1] + sections[2] == geometry.pairs(),
                   "mrope: sections {}, {} and {} must sum to the {} pairs of a head", sections[0], sections[1],
                   sections[2], geometry.pairs());
    }
    /// Returns the axis of pair j: 0 (t), 1 (h) or 2 (w).
    [[nodiscard]] std::int64_t axis(std::int64_t pair, const Geometry& /*geometry*/) const {
        if (sections.empty()) return 0;
        if (interleaved) {
            const std::int64_t axis = pair % 3;
            return axis != 0 && pair < 3 * sections[static_cast<std::size_t>(axis)] ? axis : 0;
        }
        return pair < sections[0] ? 0 : pair < sections[0] + sections[1] ? 1 : 2;
    }
    /// Returns whether tokens have three positions, even if every pair uses t.
    [[nodiscard]] bool has_sections() const { return true; }
    static MRope example() { return {.sections = {16, 24, 24}}; }
    static MRope example(const Geometry& geometry) {
        const std::int64_t third = geometry.pairs() / 3;
        return {.sections = {geometry.pairs() - 2 * third, third, third}, .interleaved = true};
    }
};

}  // namespace ropewalk
