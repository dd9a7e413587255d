/// @file  Comparison of a rotated tensor with exact values.
#pragma once

#include <cmath>
#include <cstdint>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <ropewalk/encoding.hpp>

#include "support/catch.hpp"
#include "support/tensors.hpp"

namespace test {

/// The result of a comparison. `first_problem` is empty where every element is within the bound.
struct verdict {
    double worst = 0;  ///< f32 and f64: largest error of a pair over its norm
    std::int64_t pairs = 0;
    std::string first_problem;

    void operator+=(const verdict& other) {
        worst = std::max(worst, other.worst);
        pairs += other.pairs;
        if (first_problem.empty()) first_problem = other.first_problem;
    }
};

/// Bound of the error of float32 arithmetic, over the norm of the pair. The documented bound is over the norm of the
/// whole head, so this is stricter.
inline constexpr double f32_bound = 3e-7;

/// The same of float64 at positions up to `reach`: that of the oracle, and 2^-62 turn per token of the steps.
inline double f64_bound(double reach) { return 3e-15 + 8e-18 * reach; }

inline oracle::shape shape_of(const extents& size, const ropewalk::Geometry& g, ropewalk::layout_kind layout) {
    return {.batch = size.batch,
            .tokens = size.tokens,
            .heads = size.heads,
            .head_dim = size.head_dim,
            .offset = g.rotary_offset,
            .width = g.width(),
            .interleaved = layout == ropewalk::layout_kind::interleaved};
}

/// True if `got` is a correct element: for f32 and f64 within `room` of the exact value, for 16 bits the rounding of
/// some number within `room`.
inline bool within(double got, double exact, double room, const oracle::format& f) {
    room += 0x1p-148;  // f32 steps below its normal range
    if (f.bytes != 2) return std::fabs(got - exact) <= room;
    return oracle::rounded(exact - room, f) <= got && got <= oracle::rounded(exact + room, f);
}

inline std::string describe_pair(std::int64_t row, std::int64_t pair, const double* got, const double* exact,
                                 const oracle::shape& s) {
    std::ostringstream text;
    text.precision(17);
    text << "head row " << row << " (" << s.heads << " heads), pair " << pair << ": got (" << got[s.first(pair)] << ", "
         << got[s.second(pair)] << "), exact is (" << exact[s.first(pair)] << ", " << exact[s.second(pair)] << ")";
    return text.str();
}

/// Checks that every pair is within `bound` of its exact norm (16 bits: and one rounding), and that all else is equal.
inline verdict compare(const array& result, const std::vector<double>& exact, const oracle::shape& s,
                       double bound = f32_bound) {
    verdict v;
    const std::vector<double> got = result.values();
    const oracle::format& f = result.format();
    for (std::int64_t row = 0; row < s.batch * s.tokens * s.heads; ++row) {
        const double *const g = got.data() + row * s.head_dim, *const e = exact.data() + row * s.head_dim;
        for (std::int64_t pair = 0; pair < s.width / 2; ++pair) {
            const std::int64_t a = s.first(pair), b = s.second(pair);
            const double norm = std::hypot(e[a], e[b]), room = bound * norm;
            const double error = std::hypot(g[a] - e[a], g[b] - e[b]);
            if (f.bytes != 2 && norm > 1e-30) v.worst = std::max(v.worst, error / norm);
            const bool close =
                f.bytes != 2 ? error <= room + 0x1p-147 : within(g[a], e[a], room, f) && within(g[b], e[b], room, f);
            if (!close && v.first_problem.empty()) v.first_problem = describe_pair(row, pair, g, e, s);
            ++v.pairs;
        }
        for (std::int64_t i = 0; i < s.head_dim; ++i) {
            const bool is_rotary = i >= s.offset && i < s.offset + s.width;
            if (!is_rotary && g[i] != e[i] && v.first_problem.empty()) {
                v.first_problem =
                    "element " + std::to_string(i) + " is not rotary but changed in head row " + std::to_string(row);
            }
        }
    }
    return v;
}

/// Matches a rotated tensor that is within the bound of exact values and whose surrounding bytes are unchanged.
class matches_exact : public matcher_base<array> {
public:
    matches_exact(std::vector<double> exact, const oracle::shape& shape, double bound)
        : exact_(std::move(exact)), shape_(shape), bound_(bound) {}
    bool match(const array& result) const override {
        problem_ = compare(result, exact_, shape_, bound_).first_problem;
        if (problem_.empty() && !result.guards_intact()) problem_ = "bytes around the tensor changed";
        return problem_.empty();
    }
    [[nodiscard]] std::string describe() const override { return "matches the oracle: " + problem_; }

private:
    std::vector<double> exact_;
    oracle::shape shape_;
    double bound_;
    mutable std::string problem_;
};
inline matches_exact matches(std::vector<double> exact, const oracle::shape& shape, double bound = f32_bound) {
    return {std::move(exact), shape, bound};
}

/// Positions first, first + 1, … of every batch row.
inline std::vector<oracle::place> consecutive(const extents& size, std::int64_t first) {
    std::vector<oracle::place> places;
    for (std::int64_t b = 0; b < size.batch; ++b) {
        for (std::int64_t t = 0; t < size.tokens; ++t) places.push_back({first + t, 0});
    }
    return places;
}

}  // namespace test
