// The weights of a model in safetensors files, read in place. Needs nlohmann/json. The format:
// https://huggingface.co/docs/safetensors, section "Format".
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ropewalk/io/parse_config.hpp"
#include "ropewalk/llama/mapped_file.hpp"

namespace ropewalk::llama {

/// One tensor of a file, in C order. The bytes live as long as the file is mapped.
struct stored_tensor {
    std::string dtype;  ///< name in the file: "F32", "BF16", …
    std::vector<std::int64_t> shape;
    std::span<const std::byte> bytes;

    [[nodiscard]] std::int64_t elements() const {
        if (bytes.empty()) return 0;
        std::int64_t product = 1;
        for (const std::int64_t extent : shape) product *= extent;
        return product;
    }
};

/// "[5120, 13824]"
inline std::string to_string(const std::vector<std::int64_t>& shape) {
    std::string text = "[";
    for (const std::int64_t extent : shape) text.append(text.size() == 1 ? "" : ", ").append(std::to_string(extent));
    return text += ']';
}

namespace detail {

using ropewalk::detail::fail, ropewalk::detail::shown, ropewalk::detail::shown_name;

inline std::uint64_t size_of_dtype(const std::string& path, const std::string& dtype) {
    constexpr std::pair<std::string_view, std::uint64_t> sizes[] = {
        {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},  {"I32", 4},     {"I16", 2},     {"I8", 1},
        {"U64", 8}, {"U32", 4}, {"U16", 2}, {"U8", 1},   {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1}};
    std::string known;
    for (const auto& [name, size] : sizes) {
        if (name == dtype) return size;
        known.append(known.empty() ? "" : ", ").append(name);
    }
    fail("{}: dtype '{}' is not known, known are {}", path, shown_name(dtype), known);
}

/// The JSON header before the data.
class safetensors_header {
public:
    safetensors_header(std::span<const std::byte> file, const std::string& source) : source_(source) {
        constexpr std::size_t prefix = 8;
        constexpr std::uint64_t longest = 100'000'000;  // limit of the reference implementation
        RW_EXPECTS(file.size() >= prefix, "{} has {} bytes, a safetensors file begins with {}: is it truncated?",
                   source_, file.size(), prefix);
        std::uint64_t length = 0;  // little endian
        for (std::size_t i = prefix; i-- > 0;) length = length << 8 | std::to_integer<std::uint64_t>(file[i]);
        RW_EXPECTS(length <= longest, "{} claims a header of {} bytes, at most {} are allowed", source_, length,
                   longest);
        RW_EXPECTS(length <= file.size() - prefix,
                   "{} claims a header of {} bytes and has {} after the length field: is it truncated?", source_,
                   length, file.size() - prefix);
        data_ = file.subspan(prefix + static_cast<std::size_t>(length));
        const auto header = file.subspan(prefix, static_cast<std::size_t>(length));
        RW_EXPECTS(!header.empty() && header[0] == std::byte{'{'},
                   "{} is not a safetensors file: its header does not begin with a brace", source_);
        json_ = ropewalk::detail::parse_json({reinterpret_cast<const char*>(header.data()), header.size()}, source_);
    }

    [[nodiscard]] std::map<std::string, stored_tensor> tensors() const {
        std::map<std::string, stored_tensor> tensors;
        for (const auto& [name, entry] : json_.items()) {
            if (name == "__metadata__") continue;
            tensors.emplace(name, tensor(source_ + ": " + shown_name(name), entry));
        }
        check_cover(tensors);
        return tensors;
    }

private:
    [[nodiscard]] stored_tensor tensor(const std::string& path, const nlohmann::json& entry) const {
        RW_EXPECTS(entry.is_object(), "{} must be an object, got {}", path, shown(entry));
        const config_section section(entry, path);
        constexpr std::array<std::string_view, 3> keys{"dtype", "shape", "data_offsets"};
        section.expect_only(keys, "a tensor");
        stored_tensor result{section.text("dtype").value_or(""), section.required_integers("shape"), {}};
        const auto& [dtype, shape, _] = result;
        std::uint64_t bytes = size_of_dtype(path, dtype);
        for (const std::int64_t extent : shape) RW_EXPECTS(extent >= 0, "{} has the extent {}", path, extent);
        // The product of the other extents of an empty tensor may overflow 64 bits.
        if (std::find(shape.begin(), shape.end(), 0) != shape.end()) bytes = 0;
        for (std::size_t i = 0; bytes > 0 && i < shape.size(); ++i) {
            const auto extent = static_cast<std::uint64_t>(shape[i]);
            RW_EXPECTS(bytes <= data_.size() / extent,
                       "{}, {} {}, has more bytes than the {} of data in the file: is it truncated?", path, dtype,
                       to_string(shape), data_.size());
            bytes *= extent;
        }
        const auto offsets = section.required_integers("data_offsets", 2);
        RW_EXPECTS(offsets[0] >= 0 && offsets[0] <= offsets[1], "{} has the range [{}, {})", path, offsets[0],
                   offsets[1]);
        const auto begin = static_cast<std::uint64_t>(offsets[0]), end = static_cast<std::uint64_t>(offsets[1]);
        RW_EXPECTS(end <= data_.size(), "{} has the range [{}, {}) of {} bytes of data: is the file truncated?", path,
                   begin, end, data_.size());
        RW_EXPECTS(end - begin == bytes, "{}, {} {}, needs {} bytes and has the range [{}, {})", path, dtype,
                   to_string(shape), bytes, begin, end);
        result.bytes = data_.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(bytes));
        return result;
    }

    /// Checks that tensors neither overlap nor leave holes, which could hide other content.
    void check_cover(const std::map<std::string, stored_tensor>& tensors) const {
        std::vector<std::pair<std::span<const std::byte>, std::string_view>> order;
        order.reserve(tensors.size());
        for (const auto& [name, tensor] : tensors) order.emplace_back(tensor.bytes, name);
        std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
            return std::pair(a.first.data(), a.first.size()) < std::pair(b.first.data(), b.first.size());
        });
        const std::byte* end = data_.data();
        for (const auto& [bytes, name] : order) {
            RW_EXPECTS(bytes.data() == end, "{}: {} begins at byte {} of the data, the tensor before it ends at {}",
                       source_, shown_name(std::string(name)), bytes.data() - data_.data(), end - data_.data());
            end += bytes.size();
        }
        RW_EXPECTS(end == data_.data() + data_.size(), "{}: the tensors end at byte {} of {} bytes of data", source_,
                   end - data_.data(), data_.size());
    }

    std::string source_;
    std::span<const std::byte> data_;
    nlohmann::json json_;
};

}  // namespace detail

/// Reads the tensors of a safetensors file by name and checks every offset and shape. The bytes must outlive the
/// result; messages call them `source`. Throws ropewalk::error with a message of one line for what the format forbids:
/// a header longer than 100 MB or than the file, duplicate or unknown keys, shapes that do not match their bytes,
/// tensors that overlap, leave holes or exceed the file.
inline std::map<std::string, stored_tensor> read_safetensors(std::span<const std::byte> bytes,
                                                             const std::string& source) {
    return detail::safetensors_header(bytes, source).tensors();
}

/// The weights of a model: `model.safetensors`, or the shards that `model.safetensors.index.json` names.
class checkpoint {
public:
    /// Takes a safetensors file or the folder of a Hugging Face model. Maps every file and checks every header. Throws
    /// ropewalk::error that names the file, or the tensor that a shard lacks.
    explicit checkpoint(const std::filesystem::path& path) : path_(path.string()) {
        const auto index = path / "model.safetensors.index.json";
        if (is_folder(path) && is_there(index)) {
            read_shards(path, index);
        } else {
            tensors_ = read(is_folder(path) ? path / "model.safetensors" : path);
        }
    }

    /// Returns null if there is no tensor of that name.
    [[nodiscard]] const stored_tensor* find(const std::string& name) const {
        const auto found = tensors_.find(name);
        return found == tensors_.end() ? nullptr : &found->second;
    }

    /// Returns the tensor of that name. Throws, with the name and the shapes, if it is missing or has another shape.
    [[nodiscard]] const stored_tensor& at(const std::string& name, const std::vector<std::int64_t>& shape) const {
        const stored_tensor* const found = find(name);
        RW_EXPECTS(found != nullptr, "{} has no tensor '{}' {}", path_, name, to_string(shape));
        RW_EXPECTS(found->shape == shape, "{}: '{}' has the shape {}, expected {}", path_, name,
                   to_string(found->shape), to_string(shape));
        return *found;
    }

    [[nodiscard]] const std::map<std::string, stored_tensor>& tensors() const { return tensors_; }

private:
    std::map<std::string, stored_tensor> read(const std::filesystem::path& file) {
        files_.emplace_back(file);
        return read_safetensors(files_.back().bytes(), file.string());
    }

    void read_shards(const std::filesystem::path& folder, const std::filesystem::path& index) {
        const nlohmann::json json = parse_config_file(index);
        RW_EXPECTS(json.is_object(), "{} must be an object, got {}", index.string(), detail::shown(json));
        const auto map = config_section(json, index.string()).section("weight_map");
        RW_EXPECTS(map.has_value(), "{} lacks 'weight_map'", index.string());
        std::map<std::string, std::vector<std::string>> shards;
        for (const auto& [name, shard] : map->texts()) shards[shard].push_back(name);
        for (const auto& [shard, names] : shards) {
            // An index from an untrusted source must not name files outside its folder.
            RW_EXPECTS(
                !shard.empty() && std::filesystem::path(shard).filename() == shard && shard != "." && shard != "..",
                "{}: '{}' is not a file name in the same folder", index.string(), detail::shown_name(shard));
            const auto file = folder / shard;
            RW_EXPECTS(is_there(file), "{} names {}, which is missing", index.string(), file.string());
            auto stored = read(file);
            for (const std::string& name : names) {
                auto found = stored.extract(name);
                RW_EXPECTS(!found.empty(), "{} lacks '{}', which {} assigns to it", file.string(),
                           detail::shown_name(name), index.string());
                tensors_.insert(std::move(found));
            }
        }
    }

    std::string path_;
    std::vector<mapped_file> files_;
    std::map<std::string, stored_tensor> tensors_;
};

}  // namespace ropewalk::llama
