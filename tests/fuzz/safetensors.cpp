// Fuzz target of safetensors files and checkpoints: arbitrary bytes may cause ropewalk::error and no other failure, and
// no read outside of a file. The last byte selects the input: a whole file, a header with that number of data bytes, or
// a folder with an index and one shard, whose weights are converted.

#include <ropewalk/llama/checkpoint.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>

#include <unistd.h>

#include "check.hpp"

namespace rw = ropewalk;
using fuzz::must;

namespace {

/// Reads every byte, so that AddressSanitizer detects a range outside of the file.
void read_all(const void* data, std::size_t bytes) {
    volatile char sink = 0;
    for (std::size_t i = 0; i < bytes; ++i) sink = static_cast<const char*>(data)[i];
    (void)sink;
}

/// A header with its length and `values` bytes of data, in memory of exactly that size.
std::vector<std::byte> file_of(std::string_view header, std::size_t values) {
    std::vector<std::byte> file(8 + header.size() + values);
    for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<std::byte>(header.size() >> 8 * i);
    std::transform(header.begin(), header.end(), file.begin() + 8, [](char c) { return static_cast<std::byte>(c); });
    return file;
}

void read_file(const std::vector<std::byte>& file) {
    std::size_t bytes = 0;
    for (const auto& [name, tensor] : rw::llama::read_safetensors(file, "the input")) {
        must(tensor.elements() >= 0, "a tensor has a number of elements");
        read_all(tensor.bytes.data(), tensor.bytes.size());
        bytes += tensor.bytes.size();
    }
    must(bytes <= file.size(), "tensors have at most the bytes of the file");
}

/// A folder in memory where the system has one, removed at the end of the process.
class folder {
public:
    folder() {
        const std::filesystem::path memory = "/dev/shm";
        path = std::filesystem::is_directory(memory) ? memory : std::filesystem::temp_directory_path();
        path /= "ropewalk_fuzz_" + std::to_string(::getpid());
        std::filesystem::create_directory(path);
    }
    ~folder() { std::filesystem::remove_all(path); }
    folder(const folder&) = delete;
    folder& operator=(const folder&) = delete;
    std::filesystem::path path;
};

void write(const std::filesystem::path& path, const void* data, std::size_t bytes) {
    std::ofstream(path, std::ios::binary).write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
}

/// Reads the weights of one layer of attention and one MLP from an index and the shard "s", parts of the input that a
/// zero byte separates.
void read_checkpoint(std::string_view input, std::size_t values) {
    static const folder in_memory;
    const std::size_t middle = std::min(input.find('\0'), input.size());
    const std::string_view index = input.substr(0, middle), header = input.substr(std::min(middle + 1, input.size()));
    const std::vector<std::byte> shard = file_of(header, values);
    write(in_memory.path / "model.safetensors.index.json", index.data(), index.size());
    write(in_memory.path / "s", shard.data(), shard.size());
    const rw::llama::checkpoint checkpoint(in_memory.path);
    const auto stored = rw::llama::read_safetensors(shard, "the shard");
    for (const auto& [name, tensor] : checkpoint.tensors()) {
        const auto found = stored.find(name);
        must(found != stored.end() && found->second.shape == tensor.shape && found->second.dtype == tensor.dtype &&
                 std::equal(tensor.bytes.begin(), tensor.bytes.end(), found->second.bytes.begin(),
                            found->second.bytes.end()),
             "a checkpoint has the tensors of its shards");
    }
    rw::llama::model_config config{.hidden_size = 2, .layers = 1, .heads = 1, .kv_heads = 1, .head_dim = 2};
    config.intermediate_size = 1;
    for (const auto type : {std::optional<rw::element_type>{}, std::optional{rw::element_type::bf16}}) {
        const auto weights = rw::llama::read_weights(in_memory.path, config, type);
        rw::llama::check_weights(config, weights);
        rw::llama::for_each_weight(config, weights, [](const auto& w, const auto&, auto, auto) {
            read_all(w.data, static_cast<std::size_t>(w.bytes()));
        });
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    constexpr std::uint8_t whole_file = '~', shards = 0x80;
    const std::uint8_t last = data[size - 1];
    const std::string_view input(reinterpret_cast<const char*>(data), size - 1);
    try {
        if (last == whole_file) {
            const auto bytes = std::as_bytes(std::span(input));
            read_file({bytes.begin(), bytes.end()});
        } else if (last < shards) {
            read_file(file_of(input, last));
        } else {
            read_checkpoint(input, last - shards);
        }
    } catch (const rw::error& problem) {
        fuzz::check_message(problem.what());
    }
    return 0;
}
