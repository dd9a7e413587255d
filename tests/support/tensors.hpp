/// @file  Tensors in guarded memory. Bytes that belong to no element hold a pattern, which tests check.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <string>
#include <vector>

#include <ropewalk/core/layout.hpp>
#include <ropewalk/core/view.hpp>

#include "support/oracle.hpp"
#include "support/random.hpp"
#include "support/view_of.hpp"

namespace test {

inline const oracle::format& format_of(ropewalk::element_type type) {
    switch (type) {
        case ropewalk::element_type::f32:
            return oracle::f32;
        case ropewalk::element_type::f16:
            return oracle::f16;
        case ropewalk::element_type::f64:
            return oracle::f64;
        default:
            return oracle::bf16;
    }
}

/// The types of SIMD and GPU kernels.
inline constexpr ropewalk::element_type all_types[] = {ropewalk::element_type::f32, ropewalk::element_type::f16,
                                                       ropewalk::element_type::bf16};
inline constexpr ropewalk::layout_kind all_layouts[] = {ropewalk::layout_kind::half_split,
                                                        ropewalk::layout_kind::interleaved};

/// Order of the axes in memory. `padded` is BSHD with unused elements after every head, token and batch row.
enum class order { bshd, bhsd, sbhd, padded, reversed };
inline constexpr order all_orders[] = {order::bshd, order::bhsd, order::sbhd, order::padded, order::reversed};

struct extents {
    std::int64_t batch = 1, tokens = 1, heads = 1, head_dim = 2;
};

class array {
public:
    static constexpr std::int64_t guard = 64;  ///< elements on either side
    static constexpr unsigned char pattern = 0xA5;

    array() = default;
    /// `shift`: elements from an aligned address to the first element.
    array(ropewalk::element_type type, const extents& size, order axes = order::bshd, std::int64_t shift = 0)
        : size_(size) {
        view_.type = type;
        view_.batch = size.batch, view_.tokens = size.tokens, view_.heads = size.heads, view_.head_dim = size.head_dim;
        const std::int64_t elements = set_strides(axes);
        bytes_.assign(static_cast<std::size_t>((elements + shift + 2 * guard) * width()), pattern);
        first_ = guard + shift + (axes == order::reversed ? (size.tokens - 1) * -view_.stride_token : 0);
    }
    array(ropewalk::element_type type, const extents& size, random& numbers, order axes = order::bshd,
          std::int64_t shift = 0)
        : array(type, size, axes, shift) {
        fill(numbers);
    }

    /// A tensor over the memory of this object.
    ropewalk::tensor tensor() {
        ropewalk::tensor result = view_;
        result.data = bytes_.data() + first_ * width();
        return result;
    }
    template <class T>
    ropewalk::view<T> view() {
        return test::view_of<T>(tensor());
    }

    void fill(random& numbers) {
        for_each([&](std::int64_t at) { put(at, oracle::rounded(numbers.normal(), format())); });
    }
    /// All elements in the order [batch, tokens, heads, head_dim].
    [[nodiscard]] std::vector<double> values() const {
        std::vector<double> result;
        for_each([&](std::int64_t at) { result.push_back(get(at)); });
        return result;
    }
    /// Rounds the values to the type and writes them.
    void set(const std::vector<double>& values) {
        std::size_t i = 0;
        for_each([&](std::int64_t at) { put(at, oracle::rounded(values[i++], format())); });
    }
    /// As set(), with the values repeated to the size of the array. No values change nothing.
    void repeat(const std::vector<double>& values) {
        std::size_t i = 0;
        if (!values.empty())
            for_each([&](std::int64_t at) { put(at, oracle::rounded(values[i++ % values.size()], format())); });
    }
    /// True if the bytes around and between the elements are unchanged.
    [[nodiscard]] bool guards_intact() const {
        std::vector<unsigned char> rest = bytes_;
        for_each([&](std::int64_t at) {
            std::memset(rest.data() + at * width(), pattern, static_cast<std::size_t>(width()));
        });
        return std::all_of(rest.begin(), rest.end(), [](unsigned char byte) { return byte == pattern; });
    }

    [[nodiscard]] const std::vector<unsigned char>& bytes() const { return bytes_; }
    [[nodiscard]] const oracle::format& format() const { return format_of(view_.type); }
    [[nodiscard]] ropewalk::element_type type() const { return view_.type; }
    [[nodiscard]] const extents& size() const { return size_; }
    friend bool operator==(const array& a, const array& b) { return a.bytes_ == b.bytes_; }
    friend std::ostream& operator<<(std::ostream& out, const array& a) {
        return out << ropewalk::to_string(a.type()) << " [" << a.size_.batch << ", " << a.size_.tokens << ", "
                   << a.size_.heads << ", " << a.size_.head_dim << ']';
    }

private:
    [[nodiscard]] std::int64_t width() const { return format().bytes; }

    /// Returns the number of elements from the lowest address to the highest.
    std::int64_t set_strides(order axes) {
        const auto [b, s, h, d] = size_;
        switch (axes) {
            case order::bshd:
                return strides(s * h * d, h * d, d, b * s * h * d);
            case order::bhsd:
                return strides(h * s * d, d, s * d, b * s * h * d);
            case order::sbhd:
                return strides(h * d, b * h * d, d, b * s * h * d);
            case order::reversed:
                return strides(s * h * d, -h * d, d, b * s * h * d);
            default: {
                const std::int64_t head = d + 3, token = h * head + 5, batch = s * token + 7;
                return strides(batch, token, head, b * batch);
            }
        }
    }
    std::int64_t strides(std::int64_t batch, std::int64_t token, std::int64_t head, std::int64_t elements) {
        view_.stride_batch = batch, view_.stride_token = token, view_.stride_head = head;
        return elements;
    }

    template <class F>
    void for_each(const F& f) const {
        for (std::int64_t b = 0; b < size_.batch; ++b) {
            for (std::int64_t s = 0; s < size_.tokens; ++s) {
                for (std::int64_t h = 0; h < size_.heads; ++h) {
                    const std::int64_t row =
                        first_ + b * view_.stride_batch + s * view_.stride_token + h * view_.stride_head;
                    for (std::int64_t i = 0; i < size_.head_dim; ++i) f(row + i);
                }
            }
        }
    }

    [[nodiscard]] double get(std::int64_t at) const { return oracle::load(bytes_.data() + at * width(), format()); }
    void put(std::int64_t at, double value) { oracle::store(value, format(), bytes_.data() + at * width()); }

    extents size_;
    ropewalk::tensor view_;
    std::vector<unsigned char> bytes_;
    std::int64_t first_ = 0;
};

/// An absent tensor.
inline ropewalk::tensor none() { return {}; }

}  // namespace test
