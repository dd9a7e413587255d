// Checks and input bytes that the fuzz targets share.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include <ropewalk/encoding.hpp>

/// The entry point of libFuzzer, which replay.cpp calls too.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace fuzz {

namespace rw = ropewalk;

/// Ends the process with a message, which libFuzzer reports together with the input.
inline void must(bool condition, const char* violation) {
    if (condition) return;
    std::fprintf(stderr, "violated: %s\n", violation);
    std::abort();
}

inline constexpr std::size_t longest_message = 1200;

/// Checks a message about one line of input.
inline void check_message(std::string_view message) {
    must(message.find('\n') == std::string_view::npos, "a message has one line");
    must(message.size() <= longest_message, "a message has at most 1200 bytes");
}

/// Checks a message that shows an expression with a mark below it: three lines.
inline void check_marked_message(std::string_view message) {
    must(message.size() <= longest_message, "a message has at most 1200 bytes");
}

/// The properties of every encoding.
inline void check_encoding(const rw::Encoding& encoding) {
    must(encoding.pairs() > 0 && 2 * encoding.pairs() <= encoding.geometry.head_dim, "pairs fit into the head");
    must(encoding.inv_freq.size() == encoding.steps.size(), "each pair has one frequency");
    must(std::isfinite(encoding.attention_factor) && std::isfinite(encoding.softmax_factor), "factors are finite");
    for (std::size_t j = 0; j < encoding.steps.size(); ++j) {
        // A step counts 2^-64 turns.
        constexpr double two_pi = 6.283185307179586, unit = 0x1p-64 * two_pi;
        const double frequency = encoding.inv_freq[j], applied = static_cast<double>(encoding.steps[j]) * unit;
        must(frequency >= 0 && frequency <= two_pi, "a frequency is at most one turn per token");
        must(std::abs(applied - frequency) <= unit + 0x1p-51 * frequency, "the reported frequency is the one applied");
    }
}

/// Checks that two encodings rotate alike, to the bit.
inline void check_same(const rw::Encoding& a, const rw::Encoding& b) {
    must(a.expression == b.expression, "the expression is stable");
    must(a.steps == b.steps && a.axis_steps == b.axis_steps, "the steps are stable");
    must(a.inv_freq == b.inv_freq, "the frequencies are stable");
    must(a.magnitude_rates == b.magnitude_rates && a.centre == b.centre, "the magnitudes are stable");
    must(a.attention_factor == b.attention_factor && a.softmax_factor == b.softmax_factor, "the factors are stable");
    must(a.stage == b.stage && a.drawn_tokens == b.drawn_tokens, "the stage and the drawn tokens are stable");
    must(a.draw_positions == nullptr ? b.draw_positions == nullptr : static_cast<bool>(b.draw_positions),
         "drawing positions is stable");
}

/// Reads values from the input; zeros after its end.
class byte_stream {
public:
    byte_stream(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

    [[nodiscard]] bool empty() const { return size_ == 0; }
    template <class T>
    T take() {
        T value{};
        const std::size_t bytes = size_ < sizeof value ? size_ : sizeof value;
        if (bytes != 0) std::memcpy(&value, data_, bytes);
        data_ += bytes, size_ -= bytes;
        return value;
    }
    /// A number from 0 to `count` - 1.
    std::size_t below(std::size_t count) { return take<std::uint8_t>() % count; }
    template <class T, std::size_t N>
    T pick(const T (&values)[N]) {
        return values[below(N)];
    }
    /// At most `longest` bytes as a text.
    std::string text(std::size_t longest) {
        const std::size_t bytes = longest < size_ ? longest : size_;
        std::string result(reinterpret_cast<const char*>(data_), bytes);
        data_ += bytes, size_ -= bytes;
        return result;
    }

private:
    const std::uint8_t* data_;
    std::size_t size_;
};

}  // namespace fuzz
