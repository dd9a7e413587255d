// Keys of encodings: all arguments of an encoding as one text, without Python.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <string>
#include <string_view>

#include <ropewalk/dispatch.hpp>

namespace ropewalk::python {

inline layout_kind as_layout(std::string_view name) {
    if (name == half_split::name) return layout_kind::half_split;
    if (name == interleaved::name) return layout_kind::interleaved;
    detail::fail("layout must be '{}' or '{}', got '{}'", half_split::name, interleaved::name, name);
}

/// All arguments of an encoding with a layout, "linear:8@128@10000@128@0@half_split@0", for the operators of PyTorch.
inline std::string text_key(const Encoding& encoding) {
    const Geometry& g = encoding.geometry;
    std::array<char, 32> base{};  // the shortest text that reads back as this number
    const auto* const end = std::to_chars(base.data(), base.data() + base.size(), g.base).ptr;
    std::string text = encoding.expression;
    const auto append = [&text](std::string_view part) { text.append("@").append(part); };
    append(std::to_string(g.head_dim));
    append({base.data(), static_cast<std::size_t>(end - base.data())});
    append(std::to_string(g.width()));
    append(std::to_string(g.rotary_offset));
    append(to_string(*g.layout));
    append(std::to_string(g.sequence_length));
    return text;
}

/// The encoding of a text that text_key() made. Throws ropewalk::error for any other text.
inline Encoding encoding_of_key(std::string_view key) {
    std::array<std::string_view, 7> parts;
    std::string_view rest = key;
    std::size_t count = 0;
    for (std::string_view& part : parts) {
        const std::size_t end = std::min(rest.find('@'), rest.size());
        part = rest.substr(0, end);
        count += end < rest.size();
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    bool whole = count == parts.size() - 1;  // separators
    const auto number = [&](std::size_t i, auto value) {
        const auto* const end = parts[i].data() + parts[i].size();
        const auto [stop, problem] = std::from_chars(parts[i].data(), end, value);
        whole = whole && problem == std::errc{} && stop == end;
        return value;
    };
    Geometry geometry{.head_dim = number(1, std::int64_t{0}),
                      .rotary_dim = number(3, std::int64_t{0}),
                      .rotary_offset = number(4, std::int64_t{0}),
                      .base = number(2, 0.0),
                      .sequence_length = number(6, std::int64_t{0})};
    RW_EXPECTS(whole, "'{}' is not the key of an encoding; pass Encoding.key", key);
    geometry.layout = as_layout(parts[5]);
    return dispatch::make_encoding(geometry, parts[0]);
}

}  // namespace ropewalk::python
