/// @file  Independent reference: frequencies, angles, magnitudes and whole rotations from the published definitions,
/// in numbers of 106 bits. It includes no header of the library.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "support/double_double.hpp"
#include "support/rounding.hpp"

namespace oracle {

/// θ_j = base^(−2j/width), radians per token (RoFormer, arXiv 2104.09864).
inline std::vector<dd> plain(double base, std::int64_t width) {
    std::vector<dd> theta;
    const dd log_base = log(dd{base});
    for (std::int64_t j = 0; j < width / 2; ++j) {
        theta.push_back(exp(-(log_base * from_integer(2 * j) / from_integer(width))));
    }
    return theta;
}
/// θ_j / s (position interpolation, arXiv 2306.15595).
inline std::vector<dd> linear(std::vector<dd> theta, double s) {
    for (dd& t : theta) t = t / dd{s};
    return theta;
}
/// θ_j · (1 − 2j/d)^k (Giraffe, arXiv 2308.10882).
inline std::vector<dd> power(std::vector<dd> theta, double k) {
    const auto pairs = static_cast<std::int64_t>(theta.size());
    for (std::int64_t j = 0; j < pairs; ++j) {
        dd& t = theta[static_cast<std::size_t>(j)];
        if (k != 0) t = t * pow(from_integer(pairs - j) / from_integer(pairs), dd{k});
    }
    return theta;
}
/// θ_j if it is at least b, rho if it is at least a, else 0 (Giraffe).
inline std::vector<dd> truncated(std::vector<dd> theta, dd a, dd b, dd rho) {
    for (dd& t : theta) {
        if (t < a) {
            t = dd{};
        } else if (t < b) {
            t = rho;
        }
    }
    return theta;
}
/// b = 2π/T, a = b/8, rho = 2π/(16 T), as in Giraffe's code.
inline std::vector<dd> truncated(const std::vector<dd>& theta, double length) {
    const dd b = two_pi / dd{length};
    return truncated(theta, scaled(b, -3), b, scaled(b, -4));
}

/// A position in whole tokens and units of 2^-32 token.
struct place {
    std::int64_t whole = 0;
    std::uint32_t fraction = 0;
};

struct unit {
    double cos;
    double sin;
};

/// factor · turns modulo 1, for a factor of at most 32 significant bits.
inline dd reduced_product(double factor, dd turns) {
    const dd product = two_product(factor, turns.hi);
    const dd rest = two_product(factor, turns.lo);
    return two_sum(product.hi - std::nearbyint(product.hi), product.lo) + dd{rest.hi - std::nearbyint(rest.hi)} +
           dd{rest.lo};
}

/// The angle of a pair of θ = 2π·turns at a position. Error below 1e-15 for |p| < 2^40.
inline unit cos_sin(dd turns, place p) {
    dd part = reduced_product(static_cast<double>(p.whole & 0xffffffff), turns);
    part = part + reduced_product(static_cast<double>(p.whole >> 32) * 0x1p32, turns);
    part = part + reduced_product(static_cast<double>(p.fraction) * 0x1p-32, turns);
    part = part - dd{std::nearbyint(part.hi)};
    const double angle = to_double(part * two_pi);
    return {std::cos(angle), std::sin(angle)};
}

/// xPos (arXiv 2212.10554): q is multiplied by ζ_j^((p − centre)/scale_base), k by the inverse.
struct xpos_magnitude {
    double scale_base = 512;
    double gamma = 0.4;
    std::int64_t centre = 0;
};

inline long double zeta(const xpos_magnitude& d, std::int64_t pair, std::int64_t pairs) {
    return (static_cast<long double>(pair) / static_cast<long double>(pairs) + static_cast<long double>(d.gamma)) /
           (1.0L + static_cast<long double>(d.gamma));
}
/// The factor of a query.
inline double magnitude(const xpos_magnitude& d, std::int64_t pair, std::int64_t pairs, place p) {
    const long double at =
        static_cast<long double>(p.whole - d.centre) + static_cast<long double>(p.fraction) * 0x1p-32L;
    return static_cast<double>(std::pow(zeta(d, pair, pairs), at / static_cast<long double>(d.scale_base)));
}

enum class role { query, key };
enum class direction { forward, inverse, adjoint, inverse_adjoint };

struct encoding {
    std::vector<dd> turns;  ///< θ_j / 2π
    double factor = 1;
    std::optional<xpos_magnitude> magnitude{};
};

inline encoding encode(const std::vector<dd>& theta) {
    encoding result;
    for (const dd& t : theta) result.turns.push_back(t / two_pi);
    return result;
}

/// The map of one pair: (x, y) → (x·cos − y·sin, y·cos + x·sin).
inline unit pair_map(const encoding& e, std::int64_t pair, place p, role who, direction to) {
    const auto pairs = static_cast<std::int64_t>(e.turns.size());
    const unit u = cos_sin(e.turns[static_cast<std::size_t>(pair)], p);
    double m = e.factor;
    if (e.magnitude) {
        const double query = oracle::magnitude(*e.magnitude, pair, pairs, p);
        m *= who == role::query ? query : 1 / query;
    }
    if (to == direction::inverse || to == direction::inverse_adjoint) m = 1 / m;
    const bool negate = to == direction::inverse || to == direction::adjoint;
    return {u.cos * m, (negate ? -u.sin : u.sin) * m};
}

/// Contiguous [batch, tokens, heads, head_dim].
struct shape {
    std::int64_t batch = 1, tokens = 1, heads = 1, head_dim = 2;
    std::int64_t offset = 0, width = 2;
    bool interleaved = false;

    [[nodiscard]] std::int64_t first(std::int64_t pair) const { return offset + (interleaved ? 2 * pair : pair); }
    [[nodiscard]] std::int64_t second(std::int64_t pair) const {
        return interleaved ? first(pair) + 1 : first(pair) + width / 2;
    }
    [[nodiscard]] std::int64_t elements() const { return batch * tokens * heads * head_dim; }
};

/// Applies map(pair, batch·tokens + token) to every head of a contiguous array.
inline void apply(const shape& s, std::vector<double>& x, const std::function<unit(std::int64_t, std::int64_t)>& map) {
    for (std::int64_t token = 0; token < s.batch * s.tokens; ++token) {
        for (std::int64_t pair = 0; pair < s.width / 2; ++pair) {
            const unit m = map(pair, token);
            for (std::int64_t head = 0; head < s.heads; ++head) {
                double* const row = x.data() + (token * s.heads + head) * s.head_dim;
                double &a = row[s.first(pair)], &b = row[s.second(pair)];
                const double x_rotated = a * m.cos - b * m.sin;
                b = b * m.cos + a * m.sin;
                a = x_rotated;
            }
        }
    }
}

/// A whole array rotated; `places` holds one position per token, batch row by batch row.
inline std::vector<double> rotate(const shape& s, std::vector<double> x, const encoding& e,
                                  const std::vector<place>& places, role who = role::query,
                                  direction to = direction::forward) {
    apply(s, x, [&](std::int64_t pair, std::int64_t token) {
        return pair_map(e, pair, places[static_cast<std::size_t>(token)], who, to);
    });
    return x;
}

}  // namespace oracle
