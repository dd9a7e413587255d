/// @file  One call to a GPU's kernels with all that it is compared to, whether a device or the host executes it.
#pragma once

#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include <ropewalk/gpu/options.hpp>

#include "support/compare.hpp"
#include "support/encodings.hpp"

namespace test {

/// What one pair of one token is turned and stretched by.
using pair_of = std::function<oracle::unit(std::int64_t pair, std::int64_t token, oracle::role who)>;

struct rotation_trial {
    ropewalk::element_type type = ropewalk::element_type::f32;
    ropewalk::layout_kind layout = ropewalk::layout_kind::half_split;
    twin by;
    extents q{2, 3, 4, 128};
    std::int64_t k_heads = 2;  ///< 0: no k
    order where_in_memory = order::bshd;
    bool in_place = true;
    ropewalk::positions where;
    std::vector<oracle::place> places;  ///< the same for the oracle, a position a token
    pair_of map;                        ///< in place of what the oracle makes of `by` and `places`
    ropewalk::gpu::options options;     ///< its table lies on the host
};

inline ropewalk::element_type random_type(random& numbers) { return all_types[numbers.integer(0, 2)]; }
inline ropewalk::layout_kind random_layout(random& numbers) { return all_layouts[numbers.integer(0, 1)]; }

/// A trial by an encoding, of any type and layout, whose positions are still to be said.
template <class Trial>
Trial random_rotation(random& numbers, const twin& by, std::int64_t most_tokens) {
    Trial one;
    one.type = random_type(numbers), one.layout = random_layout(numbers);
    one.by = by;
    one.q = {numbers.integer(1, 3), numbers.integer(1, most_tokens), 4, by.ours.geometry.head_dim};
    one.in_place = numbers.coin();
    return one;
}

inline std::int64_t tokens_of(const rotation_trial& one) { return one.q.batch * one.q.tokens; }

inline oracle::direction oracle_direction(ropewalk::direction asked) {
    using ropewalk::direction;
    return asked == direction::forward   ? oracle::direction::forward
           : asked == direction::adjoint ? oracle::direction::adjoint
                                         : oracle::direction::inverse;
}

/// What the heads of q or k [batch, tokens, heads, head_dim] must become.
inline std::vector<double> exact_result(const rotation_trial& one, const extents& size, std::vector<double> x,
                                        oracle::role who) {
    oracle::apply(shape_of(size, one.by.ours.geometry, one.layout), x, [&](std::int64_t pair, std::int64_t token) {
        if (one.map) return one.map(pair, token, who);
        return oracle::pair_map(one.by.exact, pair, one.places[static_cast<std::size_t>(token)], who,
                                oracle_direction(one.options.direction));
    });
    return x;
}

inline std::string describe(const rotation_trial& one) {
    const ropewalk::Geometry& g = one.by.ours.geometry;
    std::ostringstream text;
    text << to_string(one.type) << ' ' << to_string(one.layout) << " head_dim " << g.head_dim << " width " << g.width()
         << " at " << g.rotary_offset << ", batch " << one.q.batch << " tokens " << one.q.tokens << " heads "
         << one.q.heads << '/' << one.k_heads << ", order " << static_cast<int>(one.where_in_memory)
         << (one.in_place ? ", in place" : ", out of place") << ", way " << static_cast<int>(one.options.direction)
         << ", '" << one.by.ours.expression << "', positions of kind " << static_cast<int>(one.where.source) << " from "
         << one.where.first;
    return text.str();
}

/// Heads that turn whole, whose front turns, whose back does, and whose middle does.
inline std::vector<ropewalk::Geometry> heads_of_width(std::int64_t width) {
    return {{.head_dim = width},
            {.head_dim = width + 16, .rotary_dim = width},
            {.head_dim = width + 32, .rotary_dim = width, .rotary_offset = 32},
            {.head_dim = width + 7, .rotary_dim = width, .rotary_offset = 3}};
}

/// Plain heads, heads with a factor and heads with magnitudes, of each geometry in turn.
inline std::vector<twin> twins_of(std::initializer_list<ropewalk::Geometry> heads) {
    std::vector<twin> all;
    for (const ropewalk::Geometry& head : heads) {
        all.push_back(plain_twin(head));
        all.push_back({ropewalk::make_encoding(head, Constant{1.25}), all.back().exact});
        all.back().exact.factor = 1.25;
        all.push_back(xpos_twin(head, {.length = 2048}));
    }
    return all;
}

}  // namespace test
