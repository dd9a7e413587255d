// Fuzzer of the safetensors reader: arbitrary bytes may cause ropewalk::error and no other failure, and no read outside
// the file. The last byte is the number of data bytes that follow the header; '~' means that the input is the whole
// file.

#include <ropewalk/llama/safetensors.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

namespace rw = ropewalk;

namespace {

void must(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

/// Returns the file in memory of exactly its size, so that AddressSanitizer detects reads past its end.
std::vector<std::byte> file_of(const std::uint8_t* data, std::size_t size, std::size_t values) {
    std::vector<std::byte> file;
    const bool whole = values == '~';
    for (std::size_t i = 0; i < 8 && !whole; ++i) file.push_back(static_cast<std::byte>(size >> 8 * i));
    for (std::size_t i = 0; i < size; ++i) file.push_back(static_cast<std::byte>(data[i]));
    if (!whole) file.resize(file.size() + values);
    file.shrink_to_fit();
    return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::vector<std::byte> file = file_of(data, size - 1, data[size - 1]);
    try {
        std::size_t bytes = 0;
        for (const auto& [name, tensor] : rw::llama::read_safetensors(file, "the input")) {
            must(tensor.elements() >= 0, "a negative number of elements");
            volatile std::byte sink{};
            for (const std::byte value : tensor.bytes) sink = value;
            bytes += tensor.bytes.size();
        }
        must(bytes <= file.size(), "more bytes than the file");
    } catch (const rw::error& problem) {
        const std::string message = problem.what();
        must(message.find('\n') == std::string::npos, "an error message of several lines");
        must(message.size() < 4000, "an error message of 4000 characters");
    }
    return 0;
}
