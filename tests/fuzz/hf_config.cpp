// The configuration reader, and the writer behind it, on arbitrary bytes: ropewalk::error and nothing else may come
// out. The first byte chooses the sequence length and the layer type, the rest is the file.

#include <ropewalk/io/hf_config.hpp>
#include <ropewalk/io/hf_write.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace rw = ropewalk;

namespace {

void must(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

void check_message(const rw::error& problem) {
    const std::string message = problem.what();
    must(message.find('\n') == std::string::npos, "an error of several lines");
    must(message.size() < 2000, "an error that does not end");
}

void check_encoding(const rw::Encoding& encoding) {
    must(encoding.pairs() > 0 && 2 * encoding.pairs() <= encoding.geometry.head_dim, "pairs beyond the head");
    must(std::isfinite(encoding.attention_factor) && std::isfinite(encoding.softmax_factor), "an infinite factor");
    for (const double frequency : encoding.inv_freq) {
        must(std::isfinite(frequency) && frequency >= 0, "a frequency that is no number");
    }
}

void check_same(const rw::Encoding& one, const rw::Encoding& other) {
    must(one.pairs() == other.pairs(), "another width after writing and reading");
    must(std::abs(one.attention_factor - other.attention_factor) <= 1e-12 * one.attention_factor, "another magnitude");
    for (std::size_t j = 0; j < one.inv_freq.size(); ++j) {
        // A factor of a list is at most 1e30.
        const double allowed = 1e-12 * one.inv_freq[j] + 1e-29;
        must(std::abs(one.inv_freq[j] - other.inv_freq[j]) <= allowed, "another frequency after writing and reading");
    }
}

rw::config_choices choices_of(std::uint8_t bits) {
    constexpr const char* layer_types[] = {"", "", "full_attention", "sliding_attention"};
    constexpr std::int64_t lengths[] = {0, 100, 5000, std::int64_t{1} << 40};
    return {.layer_type = layer_types[bits & 3U],
            .sequence_length = lengths[(bits >> 2U) & 3U],
            .layout = {},
            .policy = {}};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const rw::config_choices choices = choices_of(data[size - 1]);
    rw::Encoding encoding;
    try {
        const std::string text(reinterpret_cast<const char*>(data), size - 1);
        encoding = rw::encoding_from_config(rw::parse_config(text, "the input"), choices);
    } catch (const rw::error& problem) {
        check_message(problem);
        return 0;
    }
    check_encoding(encoding);
    // Whatever was read can be written and read again.
    check_same(encoding, rw::encoding_from_config(rw::to_hf_config(encoding), choices));
    return 0;
}
