// Fuzz target of policy expressions. The last bytes select the geometry, the rest is the expression. The reported
// frequencies of an accepted expression are those that a rotation applies.

#include <ropewalk/dispatch.hpp>

#include "check.hpp"

namespace rw = ropewalk;
using fuzz::must;

namespace {

constexpr std::int64_t tokens = 3;

/// The positions of the tokens that are rotated.
constexpr std::int64_t firsts[] = {0, 1, 4095, 1 << 20, -5, std::int64_t{1} << 40};

rw::Geometry geometry_of(std::uint8_t shape, std::uint8_t numbers) {
    constexpr std::int64_t head_dims[] = {2, 6, 16, 64, 80, 128, 256, 5};
    constexpr double bases[] = {10000, 1.0000001, 500000, 1e300};
    constexpr std::int64_t lengths[] = {0, 100, 5000, std::int64_t{1} << 40};
    constexpr std::int64_t originals[] = {0, 0, 2, 4096};
    const std::int64_t head_dim = head_dims[shape & 7U];
    return {.head_dim = head_dim,
            .rotary_dim = (shape & 8U) != 0 ? head_dim / 4 * 2 : 0,
            .rotary_offset = (shape & 16U) != 0 ? 2 : 0,
            .base = bases[numbers & 3U],
            .layout = (shape & 32U) != 0 ? rw::layout_kind::interleaved : rw::layout_kind::half_split,
            .sequence_length = lengths[(numbers >> 2U) & 3U],
            .original_length = originals[(numbers >> 4U) & 3U]};
}

/// Rotates the unit vector of every pair and compares with the angle that inv_freq states.
void check_rotation(const rw::Encoding& encoding, std::int64_t first) {
    const rw::Geometry& geometry = encoding.geometry;
    const std::size_t pairs = encoding.steps.size(), width = static_cast<std::size_t>(geometry.head_dim);
    const bool split = *geometry.layout == rw::layout_kind::half_split;
    std::vector<double> q(static_cast<std::size_t>(tokens) * width, 0.25);
    const auto at = [&](std::size_t token, std::size_t pair, bool second) {
        const std::size_t element = split ? pair + (second ? pairs : 0) : 2 * pair + (second ? 1 : 0);
        return token * width + static_cast<std::size_t>(geometry.rotary_offset) + element;
    };
    for (std::size_t t = 0; t < static_cast<std::size_t>(tokens); ++t) {
        for (std::size_t j = 0; j < pairs; ++j) q[at(t, j, false)] = 1, q[at(t, j, true)] = 0;
    }
    const rw::view<double> view(q.data(), tokens, 1, geometry.head_dim);
    try {
        rw::dispatch::rotate(*geometry.layout, view, {}, view, {}, encoding, rw::offset{first});
    } catch (const rw::error& problem) {
        must(encoding.has_magnitude() || encoding.draw_positions, "an encoding without xPos rotates at any position");
        fuzz::check_message(problem.what());
        return;
    }
    if (encoding.has_magnitude() || encoding.draw_positions) {
        for (const double value : q) must(std::isfinite(value), "a rotated value is finite");
        return;
    }
    for (std::size_t t = 0; t < static_cast<std::size_t>(tokens); ++t) {
        const auto position = static_cast<long double>(first + static_cast<std::int64_t>(t));
        for (std::size_t j = 0; j < pairs; ++j) {
            // A step has 64 bits of a turn and inv_freq 53 of its value.
            const long double angle = position * static_cast<long double>(encoding.inv_freq[j]);
            const long double allowed = 1e-15L + std::abs(position) * 2e-18L + std::abs(angle) * 0x1p-52L;
            const auto factor = static_cast<long double>(encoding.attention_factor);
            const long double x = q[at(t, j, false)] / factor, y = q[at(t, j, true)] / factor;
            must(std::abs(x - std::cos(angle)) <= allowed && std::abs(y - std::sin(angle)) <= allowed,
                 "a rotation applies the reported frequency");
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 3) return 0;
    const rw::Geometry geometry = geometry_of(data[size - 1], data[size - 2]);
    const std::string text(reinterpret_cast<const char*>(data), size - 3);
    rw::Encoding encoding;
    try {
        encoding = rw::dispatch::make_encoding(geometry, text);
    } catch (const rw::error& problem) {
        fuzz::check_marked_message(problem.what());
        return 0;
    }
    fuzz::check_encoding(encoding);
    fuzz::check_same(encoding, rw::dispatch::make_encoding(geometry, encoding.expression));
    // Policies that draw positions draw all of them for each call: up to 8 GiB.
    constexpr std::int64_t few = 1 << 16;
    if (encoding.draw_positions && encoding.drawn_tokens > few) return 0;
    if (encoding.draw_positions && text.find("randomized_sorted") != std::string::npos) return 0;
    check_rotation(encoding, firsts[data[size - 3] % std::size(firsts)]);
    return 0;
}
