// Plain RoPE.
#pragma once

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// θ'_j = θ_j (RoFormer, arXiv 2104.09864).
struct Default {
    static constexpr std::string_view name = "default";
    static constexpr std::string_view about = "Plain RoPE: pair j rotates by base^(-2j/d) radians per token.";
    static constexpr std::tuple<> parameters{};

    constexpr void validate(const Geometry& /*geometry*/ = {}) const {}
    constexpr real operator()(const real& theta, std::int64_t /*pair*/, const Geometry& /*geometry*/) const {
        return theta;
    }
    static constexpr Default neutral() { return {}; }
    static constexpr Default example() { return {}; }
};

}  // namespace ropewalk
