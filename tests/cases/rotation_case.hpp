/// @file  One rotation as every backend executes it, the values that the oracle expects, and the matcher of the two.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include <ropewalk/rotation/args.hpp>

#include "support/compare.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"

namespace test {

/// Positions of the tokens, for the library and for the oracle.
struct token_positions {
    ropewalk::positions given;
    std::vector<oracle::place> exact;    ///< [axes, batch * tokens]
    std::shared_ptr<const void> memory;  ///< owns the numbers of `given`
};

inline token_positions from_offset(const extents& size, std::int64_t first) {
    return {ropewalk::offset{first}, consecutive(size, first), nullptr};
}

/// Every token at the distance of a shift.
inline token_positions from_shift(const extents& size, std::int64_t distance) {
    const auto tokens = static_cast<std::size_t>(size.batch * size.tokens);
    return {ropewalk::shift{distance}, std::vector<oracle::place>(tokens, {distance, 0}), nullptr};
}

inline oracle::place place_of(ropewalk::fixed_position p) {
    return {p.value >> 32, static_cast<std::uint32_t>(p.value)};
}
inline oracle::place place_of(std::int64_t id) { return {id, 0}; }

/// Ids of `rows` batch rows (1: the same for every row). Rows may have more ids than tokens.
template <class I>
token_positions from_ids(const extents& size, std::vector<I> ids, std::int64_t rows) {
    const auto memory = std::make_shared<const std::vector<I>>(std::move(ids));
    token_positions result{ropewalk::ids(std::span<const I>(*memory), rows), {}, memory};
    for (std::int64_t row = 0; row < size.batch; ++row) {
        const std::int64_t begin = (rows == 1 ? 0 : row) * result.given.stride_row;
        for (std::int64_t t = 0; t < size.tokens; ++t)
            result.exact.push_back(place_of((*memory)[static_cast<std::size_t>(begin + t)]));
    }
    return result;
}

/// Random ids in [low, high], of `rows` batch rows and with `extra` unused ids per row.
template <class I>
token_positions random_ids(random& numbers, const extents& size, std::int64_t low, std::int64_t high, std::int64_t rows,
                           std::int64_t extra = 0) {
    std::vector<I> ids(static_cast<std::size_t>(rows * (size.tokens + extra)));
    for (I& id : ids) {
        const std::int64_t whole = numbers.integer(low, high);
        if constexpr (std::is_same_v<I, ropewalk::fixed_position>) {
            id = {whole * (std::int64_t{1} << 32) + static_cast<std::uint32_t>(numbers.bits())};
        } else {
            id = static_cast<I>(whole);
        }
    }
    return from_ids(size, std::move(ids), rows);
}

/// A packed batch of sequences of these lengths, each from position `first`.
template <class I>
token_positions ragged(const std::vector<std::int64_t>& lengths, std::int64_t first) {
    std::vector<I> starts{0};
    token_positions result;
    for (const std::int64_t length : lengths) {
        starts.push_back(static_cast<I>(starts.back() + length));
        for (std::int64_t t = 0; t < length; ++t) result.exact.push_back({first + t, 0});
    }
    const auto memory = std::make_shared<const std::vector<I>>(std::move(starts));
    result.given = ropewalk::cu_seqlens(std::span<const I>(*memory), first), result.memory = memory;
    return result;
}

/// A packed batch of sequences of these lengths, each from a position of its own, or all from one.
template <class I, class O>
token_positions ragged_at(const std::vector<std::int64_t>& lengths, std::vector<O> offsets) {
    struct numbers {
        std::vector<I> starts{0};
        std::vector<O> offsets;
    };
    const auto memory = std::make_shared<numbers>();
    memory->offsets = std::move(offsets);
    token_positions result;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
        memory->starts.push_back(static_cast<I>(memory->starts.back() + lengths[i]));
        const std::int64_t first = memory->offsets[memory->offsets.size() == 1 ? 0 : i];
        for (std::int64_t t = 0; t < lengths[i]; ++t) result.exact.push_back({first + t, 0});
    }
    result.given = ropewalk::cu_seqlens(std::span<const I>(memory->starts), std::span<const O>(memory->offsets));
    result.memory = memory;
    return result;
}

/// Batch rows from a position of their own each, or all from one.
template <class O>
token_positions from_row_offsets(const extents& size, std::vector<O> offsets) {
    const auto memory = std::make_shared<const std::vector<O>>(std::move(offsets));
    token_positions result{ropewalk::offsets(std::span<const O>(*memory)), {}, memory};
    for (std::int64_t row = 0; row < size.batch; ++row) {
        const std::int64_t first = (*memory)[memory->size() == 1 ? 0 : static_cast<std::size_t>(row)];
        for (std::int64_t t = 0; t < size.tokens; ++t) result.exact.push_back({first + t, 0});
    }
    return result;
}

/// Random ids on every axis of M-RoPE, for `rows` batch rows.
template <class I>
token_positions random_axis_ids(random& numbers, const extents& size, std::int64_t low, std::int64_t high,
                                std::int64_t rows) {
    std::vector<I> ids(ropewalk::position_axes * static_cast<std::size_t>(rows * size.tokens));
    for (I& id : ids) id = static_cast<I>(numbers.integer(low, high));
    const auto memory = std::make_shared<const std::vector<I>>(std::move(ids));
    token_positions result{ropewalk::axis_ids(std::span<const I>(*memory), rows), {}, memory};
    for (std::size_t axis = 0; axis < ropewalk::position_axes; ++axis) {
        for (std::int64_t i = 0; i < size.batch * size.tokens; ++i) {
            const std::int64_t row = rows == 1 ? i % size.tokens : i;
            result.exact.push_back(
                {(*memory)[axis * static_cast<std::size_t>(rows * size.tokens) + static_cast<std::size_t>(row)], 0});
        }
    }
    return result;
}

/// An encoding at positions.
struct encoded_at {
    twin encoding;
    token_positions positions;
    std::vector<std::size_t> axes{};  ///< the axis of each pair; empty: the encoding has one axis

    [[nodiscard]] oracle::place place(std::int64_t pair, std::int64_t token, const extents& size) const {
        const std::size_t axis = axes.empty() || positions.given.axes == 1 ? 0 : axes[static_cast<std::size_t>(pair)];
        return positions
            .exact[axis * static_cast<std::size_t>(size.batch * size.tokens) + static_cast<std::size_t>(token)];
    }
};

/// One rotation, or a re-rotation of keys if it has a source.
struct rotation_case {
    ropewalk::element_type type = ropewalk::element_type::f32;
    ropewalk::layout_kind layout = ropewalk::layout_kind::half_split;
    encoded_at target;
    std::optional<encoded_at> source{};
    extents q{2, 3, 4, 128};   ///< no heads: no queries
    std::int64_t k_heads = 2;  ///< 0: no keys
    order axes = order::bshd;
    bool in_place = true;
    std::int64_t shift = 0;  ///< elements from an aligned address
    ropewalk::direction direction = ropewalk::direction::forward;
    ropewalk::cos_sin_table table{};
    bool host_validates = true;      ///< false: the CPU kernels refuse the case
    std::vector<double> elements{};  ///< of all heads, repeated; empty: random
    /// Replaces the oracle's rotation of a pair of a token, for tables.
    std::function<oracle::unit(std::int64_t pair, std::int64_t token)> map{};

    [[nodiscard]] const ropewalk::Geometry& geometry() const { return target.encoding.ours.geometry; }
    [[nodiscard]] extents k() const { return {q.batch, q.tokens, k_heads, q.head_dim}; }
};

/// A case by an encoding from an offset: the queries [2, 3, 4, head_dim] and two heads of keys.
inline rotation_case case_at(const twin& encoding, std::int64_t first) {
    rotation_case c{.target = {encoding, {}}};
    c.q.head_dim = c.geometry().head_dim;
    c.target.positions = from_offset(c.q, first);
    return c;
}

/// The element types of the backend.
std::span<const ropewalk::element_type> types_of_backend();

/// A case by an encoding, of any type of the backend, layout, order and extents, from an offset.
inline rotation_case random_case(random& numbers, const twin& encoding, std::int64_t max_tokens = 9,
                                 std::int64_t first = 0) {
    const auto types = types_of_backend();
    rotation_case c{.type = types[static_cast<std::size_t>(numbers.integer(0, std::ssize(types) - 1))],
                    .layout = all_layouts[numbers.integer(0, 1)],
                    .target = {encoding, {}},
                    .k_heads = numbers.integer(1, 2),
                    .axes = all_orders[numbers.integer(0, 4)],
                    .in_place = numbers.coin()};
    c.q = {numbers.integer(1, 3), numbers.integer(1, max_tokens), 4, c.geometry().head_dim};
    c.target.positions = from_offset(c.q, first);
    return c;
}

inline oracle::direction oracle_direction(ropewalk::direction to) {
    using ropewalk::direction;
    return to == direction::forward   ? oracle::direction::forward
           : to == direction::adjoint ? oracle::direction::adjoint
           : to == direction::inverse ? oracle::direction::inverse
                                      : oracle::direction::inverse_adjoint;
}

/// The exact result for queries or keys x [batch, tokens, heads, head_dim].
inline std::vector<double> expected(const rotation_case& c, const extents& size, std::vector<double> x,
                                    oracle::role role) {
    oracle::apply(shape_of(size, c.geometry(), c.layout), x, [&](std::int64_t pair, std::int64_t token) {
        if (c.map) return c.map(pair, token);
        const auto map = [&](const encoded_at& at, oracle::direction direction) {
            oracle::encoding exact = at.encoding.exact;
            if (at.positions.given.source == ropewalk::positions::kind::shift) {
                exact.factor = 1;
                if (exact.magnitude) exact.magnitude->centre = 0;
            }
            return oracle::pair_map(exact, pair, at.place(pair, token, size), role, direction);
        };
        const oracle::unit to = map(c.target, oracle_direction(c.direction));
        if (!c.source) return to;
        const oracle::unit from = map(*c.source, oracle::direction::inverse);
        return oracle::unit{from.cos * to.cos - from.sin * to.sin, from.cos * to.sin + from.sin * to.cos};
    });
    return x;
}

inline std::string describe(const rotation_case& c) {
    const ropewalk::Geometry& g = c.geometry();
    std::ostringstream text;
    text << to_string(c.type) << ' ' << to_string(c.layout) << " head_dim " << g.head_dim << " width " << g.width()
         << " at " << g.rotary_offset << ", batch " << c.q.batch << " tokens " << c.q.tokens << " heads " << c.q.heads
         << '/' << c.k_heads << ", order " << static_cast<int>(c.axes) << (c.in_place ? ", in place" : ", out of place")
         << ", shift " << c.shift << ", direction " << static_cast<int>(c.direction) << ", '"
         << c.target.encoding.ours.expression << "', positions of kind "
         << static_cast<int>(c.target.positions.given.source) << " from " << c.target.positions.given.first;
    if (c.source) text << ", source '" << c.source->encoding.ours.expression << "'";
    if (c.table.exists()) text << ", table of " << c.table.rows << " rows of " << to_string(c.table.type);
    return text.str();
}

/// Queries or keys of a case: the input before and after the call, and the output.
struct operand {
    array before, in, out;
    bool in_place = true;

    operand() = default;
    operand(const rotation_case& c, const extents& size, random& numbers)
        : before(c.type, size, numbers, c.axes, c.shift), out(c.type, size, c.axes, c.shift), in_place(c.in_place) {
        before.repeat(c.elements);
        in = before;
    }

    [[nodiscard]] bool exists() const { return in.size().heads > 0; }
    [[nodiscard]] array& result() { return in_place ? in : out; }
    [[nodiscard]] const array& result() const { return in_place ? in : out; }
    [[nodiscard]] ropewalk::tensor input() { return exists() ? in.tensor() : none(); }
    [[nodiscard]] ropewalk::tensor output() { return exists() ? result().tensor() : none(); }
};

/// The operands of a case after a backend has rotated them.
struct rotated {
    operand q, k;
    std::string problem{};  ///< found by the backend
    int access_bytes = 0;   ///< of a kernel with several widths of access, else 0

    rotated(const rotation_case& c, random& numbers) : q(c, c.q, numbers), k(c, c.k(), numbers) {}
};

/// The largest distance of a position from zero, summed over source and target.
inline double reach_of(const rotation_case& c) {
    const auto largest = [](const encoded_at& at) {
        double most = 0;
        for (const oracle::place& p : at.positions.exact)
            most = std::max(most, std::fabs(static_cast<double>(p.whole)));
        return most;
    };
    return largest(c.target) + (c.source ? largest(*c.source) : 0);
}

/// Matches the result of a case: exact values, unchanged inputs and surrounding bytes, and no problem of the backend.
class matches_case : public matcher_base<rotated> {
public:
    explicit matches_case(const rotation_case& c) : case_(c) {}
    bool match(const rotated& result) const override {
        problem_ = result.problem;
        check("q", result.q, oracle::role::query);
        check("k", result.k, oracle::role::key);
        return problem_.empty();
    }
    [[nodiscard]] std::string describe() const override { return "is " + test::describe(case_) + ": " + problem_; }

private:
    void check(const char* name, const operand& x, oracle::role role) const {
        if (!problem_.empty() || !x.exists()) return;
        const auto exact = expected(case_, x.in.size(), x.before.values(), role);
        const double bound = case_.type == ropewalk::element_type::f64 ? f64_bound(reach_of(case_)) : f32_bound;
        const matches_exact matcher(exact, shape_of(x.in.size(), case_.geometry(), case_.layout), bound);
        if (!matcher.match(x.result())) problem_ = std::string(name) + ' ' + matcher.describe();
        if (!x.in_place && !(x.in == x.before)) problem_ = std::string(name) + ": the input changed";
    }
    const rotation_case& case_;
    mutable std::string problem_;
};
inline matches_case matches(const rotation_case& c) { return matches_case(c); }

/// Executes a case on random elements. Every test program defines it by its own backend: the CPU kernels, the GPU
/// bodies on the host, or a device.
rotated rotate(const rotation_case& c, random& numbers);

/// A call of the backend as a user makes it. The message of its error, or "". `source` makes it a re-rotation of k.
/// Backends of GPUs may stop after the plan of a launch.
std::string refusal(const ropewalk::rotate_args& args);

/// Rotary parts at the front, the back and the middle of a head, aligned and not, and whole heads.
inline std::vector<ropewalk::Geometry> heads_of_width(std::int64_t width) {
    std::vector<ropewalk::Geometry> heads{{.head_dim = width}};
    for (const auto& [before, after] : {std::pair{0, 16}, {32, 0}, {3, 4}, {0, 7}, {5, 0}, {16, 3}})
        heads.push_back({.head_dim = before + width + after, .rotary_dim = width, .rotary_offset = before});
    return heads;
}

/// Plain encodings, encodings with a factor and encodings with magnitudes, of each geometry in turn.
inline std::vector<twin> twins_of(std::initializer_list<ropewalk::Geometry> heads) {
    std::vector<twin> all;
    for (const ropewalk::Geometry& head : heads) {
        all.push_back(plain_twin(head));
        all.push_back({ropewalk::make_encoding(head, Constant{1.25}), all.back().exact});
        all.back().exact.factor = 1.25;
        all.push_back(xpos_twin(head, {.length = 2048}));
        all.push_back(
            {ropewalk::make_encoding(head, ropewalk::XPos{.length = 2048} | Constant{1.25}), all.back().exact});
        all.back().exact.factor = 1.25;
    }
    return all;
}

/// An encoding by M-RoPE whose pairs follow the axes as the published definition says.
inline encoded_at mrope(const ropewalk::Geometry& head, const std::vector<std::int64_t>& sections,
                        bool interleaved = false) {
    encoded_at result{
        {ropewalk::make_encoding(
             head, ropewalk::MRope{.sections = {sections[0], sections[1], sections[2]}, .interleaved = interleaved}),
         oracle::encode(oracle::plain(head.base, head.width()))},
        {},
        std::vector<std::size_t>(static_cast<std::size_t>(head.width() / 2), 0)};
    // Interleaved as in Qwen3-VL: h has every third pair from 1, w every third pair from 2.
    for (std::int64_t j = 0; j < head.width() / 2; ++j) {
        std::size_t& axis = result.axes[static_cast<std::size_t>(j)];
        if (interleaved) {
            if (j % 3 == 1 && j < 3 * sections[1]) axis = 1;
            if (j % 3 == 2 && j < 3 * sections[2]) axis = 2;
        } else {
            axis = j < sections[0] ? 0 : j < sections[0] + sections[1] ? 1 : 2;
        }
    }
    return result;
}

/// Sections of all shapes, for heads of 32 pairs.
inline std::vector<encoded_at> all_sections(const ropewalk::Geometry& head) {
    return {mrope(head, {8, 12, 12}), mrope(head, {0, 31, 1}),         mrope(head, {30, 0, 2}),
            mrope(head, {32, 0, 0}),  mrope(head, {12, 10, 10}, true), mrope(head, {20, 5, 7}, true)};
}

}  // namespace test
