// Fuzz target of the configuration reader and writer: arbitrary bytes may cause ropewalk::error and no other failure.
// The last byte selects the sequence length and the layer type, the rest is the file.

#include <ropewalk/io/hf_config.hpp>
#include <ropewalk/io/hf_write.hpp>

#include "check.hpp"

namespace rw = ropewalk;
using fuzz::must;

namespace {

void check_close(const rw::Encoding& written, const rw::Encoding& read) {
    must(written.pairs() == read.pairs(), "a written configuration keeps the width");
    must(std::abs(written.attention_factor - read.attention_factor) <= 1e-12 * std::abs(written.attention_factor),
         "a written configuration keeps the attention factor");
    for (std::size_t j = 0; j < written.inv_freq.size(); ++j) {
        // The factors of a list are at most 1e30.
        const double allowed = 1e-12 * written.inv_freq[j] + 1e-29;
        must(std::abs(written.inv_freq[j] - read.inv_freq[j]) <= allowed, "a written configuration keeps frequencies");
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
        fuzz::check_message(problem.what());
        return 0;
    }
    fuzz::check_encoding(encoding);
    fuzz::check_same(encoding, rw::make_encoding(encoding.geometry, encoding.expression));
    // Every encoding from a configuration can be written and read back.
    check_close(encoding, rw::encoding_from_config(rw::to_hf_config(encoding), choices));
    return 0;
}
