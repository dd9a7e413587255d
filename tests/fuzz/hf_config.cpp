// Fuzzer of the configuration reader and writer: arbitrary bytes may cause ropewalk::error and no other failure. The
// last byte selects the sequence length and the layer type, the rest is the file.

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
    must(message.find('\n') == std::string::npos, "an error message of several lines");
    must(message.size() < 2000, "an error message of 2000 characters");
}

void check_encoding(const rw::Encoding& encoding) {
    must(encoding.pairs() > 0 && 2 * encoding.pairs() <= encoding.geometry.head_dim, "pairs beyond the head");
    must(std::isfinite(encoding.attention_factor) && std::isfinite(encoding.softmax_factor), "an infinite factor");
    for (const double frequency : encoding.inv_freq) {
        must(std::isfinite(frequency) && frequency >= 0, "a frequency that is negative or not finite");
    }
}

void check_same(const rw::Encoding& written, const rw::Encoding& read) {
    must(written.pairs() == read.pairs(), "another width after writing and reading");
    must(std::abs(written.attention_factor - read.attention_factor) <= 1e-12 * written.attention_factor,
         "another attention factor after writing and reading");
    for (std::size_t j = 0; j < written.inv_freq.size(); ++j) {
        // The factors of a list are at most 1e30.
        const double allowed = 1e-12 * written.inv_freq[j] + 1e-29;
        must(std::abs(written.inv_freq[j] - read.inv_freq[j]) <= allowed,
             "another frequency after writing and reading");
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
    // Every encoding from a configuration can be written and read back.
    check_same(encoding, rw::encoding_from_config(rw::to_hf_config(encoding), choices));
    return 0;
}
