// The weights of a model in safetensors files, read where they lie. Optional: needs nlohmann/json.
// The format: https://huggingface.co/docs/safetensors, "Format".
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/io/parse_config.hpp"
#include "ropewalk/llama/mapped_file.hpp"

namespace ropewalk::llama {

/// One tensor of a file, in C order. The bytes are those of the file and live as long as it is mapped.
struct stored_tensor {
    std::string dtype;  ///< as the file calls it: "F32", "BF16", …
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

struct stored_type {
    std::string_view name;
    std::uint64_t bytes;
};
inline constexpr std::array<stored_type, 16> stored_types{{{"F64", 8},
                                                           {"F32", 4},
                                                           {"F16", 2},
                                                           {"BF16", 2},
                                                           {"I64", 8},
                                                           {"I32", 4},
                                                           {"I16", 2},
                                                           {"I8", 1},
                                                           {"U64", 8},
                                                           {"U32", 4},
                                                           {"U16", 2},
                                                           {"U8", 1},
                                                           {"BOOL", 1},
                                                           {"F8_E4M3", 1},
                                                           {"F8_E5M2", 1},
                                                           {"F8_E8M0", 1}}};

/// What the reference implementation allows.
inline constexpr std::uint64_t longest_header = 100'000'000;

/// The JSON in front of the data.
class safetensors_header {
public:
    safetensors_header(std::span<const std::byte> file, const std::string& source) : source_(source) {
        constexpr std::size_t prefix = 8;
        RW_EXPECTS(file.size() >= prefix, "{} has {} bytes, a safetensors file begins with {}: is it truncated?",
                   source_, file.size(), prefix);
        std::uint64_t length = 0;  // little endian, whatever this machine is
        for (std::size_t i = prefix; i-- > 0;) length = length << 8 | std::to_integer<std::uint64_t>(file[i]);
        RW_EXPECTS(length <= longest_header, "{} claims a header of {} bytes, at most {} are allowed", source_, length,
                   longest_header);
        RW_EXPECTS(length <= file.size() - prefix,
                   "{} claims a header of {} bytes and has {} behind their number: is it truncated?", source_, length,
                   file.size() - prefix);
        data_ = file.subspan(prefix + static_cast<std::size_t>(length));
        const auto header = file.subspan(prefix, static_cast<std::size_t>(length));
        RW_EXPECTS(!header.empty() && header[0] == std::byte{'{'},
                   "{} is no safetensors file: its header does not begin with a brace", source_);
        json_ = ropewalk::detail::parse_json({reinterpret_cast<const char*>(header.data()), header.size()}, source_);
    }

    [[nodiscard]] std::map<std::string, stored_tensor> tensors() const {
        std::map<std::string, stored_tensor> all;
        for (const auto& [name, entry] : json_.items()) {
            if (name == "__metadata__") continue;
            all.emplace(name, tensor(source_ + ": " + ropewalk::detail::shown_name(name), entry));
        }
        check_cover(all);
        return all;
    }

private:
    [[nodiscard]] stored_tensor tensor(const std::string& path, const nlohmann::json& entry) const {
        RW_EXPECTS(entry.is_object(), "{} must be an object, got {}", path, ropewalk::detail::shown(entry));
        const config_section section(entry, path);
        constexpr std::array<std::string_view, 3> keys{"dtype", "shape", "data_offsets"};
        section.expect_only(keys, "a tensor");
        stored_tensor result;
        result.dtype = section.text("dtype").value_or("");
        std::uint64_t bytes = size_of_type(path, result.dtype);
        for (const std::int64_t extent : section.required_integers("shape")) {
            RW_EXPECTS(extent >= 0, "{} has the extent {}", path, extent);
            result.shape.push_back(extent);
        }
        // An empty tensor may have extents whose product leaves 64 bits.
        const bool empty = std::find(result.shape.begin(), result.shape.end(), 0) != result.shape.end();
        for (const std::int64_t extent : result.shape) {
            if (empty) break;
            RW_EXPECTS(bytes <= data_.size() / static_cast<std::uint64_t>(extent),
                       "{}, {} {}, has more bytes than the {} of data in the file: is it truncated?", path,
                       result.dtype, to_string(result.shape), data_.size());
            bytes *= static_cast<std::uint64_t>(extent);
        }
        if (empty) bytes = 0;
        const auto offsets = section.required_integers("data_offsets", 2);
        RW_EXPECTS(offsets[0] >= 0 && offsets[0] <= offsets[1], "{} lies at [{}, {})", path, offsets[0], offsets[1]);
        const auto begin = static_cast<std::uint64_t>(offsets[0]), end = static_cast<std::uint64_t>(offsets[1]);
        RW_EXPECTS(end <= data_.size(), "{} lies at [{}, {}) of {} bytes of data: is the file truncated?", path, begin,
                   end, data_.size());
        RW_EXPECTS(end - begin == bytes, "{}, {} {}, needs {} bytes and has those of [{}, {})", path, result.dtype,
                   to_string(result.shape), bytes, begin, end);
        result.bytes = data_.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(bytes));
        return result;
    }

    static std::uint64_t size_of_type(const std::string& path, const std::string& dtype) {
        std::string known;
        for (const stored_type& one : stored_types) {
            if (one.name == dtype) return one.bytes;
            known.append(known.empty() ? "" : ", ").append(one.name);
        }
        ropewalk::detail::fail("{}: dtype '{}' is not known, known are {}", path, ropewalk::detail::shown_name(dtype),
                               known);
    }

    /// Tensors neither overlap nor leave a hole: a byte that belongs to none could hide anything.
    void check_cover(const std::map<std::string, stored_tensor>& all) const {
        std::vector<const std::pair<const std::string, stored_tensor>*> order;
        order.reserve(all.size());
        for (const auto& one : all) order.push_back(&one);
        std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
            return std::pair(a->second.bytes.data(), a->second.bytes.size()) <
                   std::pair(b->second.bytes.data(), b->second.bytes.size());
        });
        const std::byte* at = data_.data();
        for (const auto* one : order) {
            const std::span<const std::byte> bytes = one->second.bytes;
            RW_EXPECTS(bytes.data() == at, "{}: {} begins at byte {} of the data, where the one before it ends at {}",
                       source_, ropewalk::detail::shown_name(one->first), bytes.data() - data_.data(),
                       at - data_.data());
            at += bytes.size();
        }
        RW_EXPECTS(at == data_.data() + data_.size(), "{}: the tensors end at byte {} of {} bytes of data", source_,
                   at - data_.data(), data_.size());
    }

    std::string source_;
    std::span<const std::byte> data_;
    nlohmann::json json_;
};

}  // namespace detail

/// Reads what a safetensors file holds: the tensors by name, every offset and shape checked. The bytes must outlive the
/// result; `source` is what messages call them. Throws ropewalk::error, one line, for anything that the format forbids:
/// a header longer than 100 MB or than the file, keys that come twice or are not known, shapes which do not fit their
/// bytes, tensors which overlap, leave holes or end behind the file.
inline std::map<std::string, stored_tensor> read_safetensors(std::span<const std::byte> bytes,
                                                             const std::string& source) {
    return detail::safetensors_header(bytes, source).tensors();
}

/// The weights of a model: `model.safetensors`, or the shards that `model.safetensors.index.json` names.
class checkpoint {
public:
    /// A safetensors file, or the folder of a Hugging Face model. Maps every file and checks every header; throws
    /// ropewalk::error which names the file, or the tensor that a shard lacks.
    explicit checkpoint(const std::filesystem::path& path) : path_(path.string()) {
        const auto index = path / "model.safetensors.index.json";
        if (!is_folder(path)) {
            add(path);
        } else if (!is_there(index)) {
            add(path / "model.safetensors");
        } else {
            read_shards(path, index);
        }
    }

    /// Null where there is no tensor of that name.
    [[nodiscard]] const stored_tensor* find(const std::string& name) const {
        const auto found = tensors_.find(name);
        return found == tensors_.end() ? nullptr : &found->second;
    }

    /// The tensor of that name. Throws, with the name and the shapes, where it is missing or has another shape.
    [[nodiscard]] const stored_tensor& at(const std::string& name, const std::vector<std::int64_t>& shape) const {
        const stored_tensor* const found = find(name);
        RW_EXPECTS(found != nullptr, "{} has no tensor '{}' {}", path_, name, to_string(shape));
        RW_EXPECTS(found->shape == shape, "{}: '{}' has the shape {}, expected {}", path_, name,
                   to_string(found->shape), to_string(shape));
        return *found;
    }

    [[nodiscard]] const std::map<std::string, stored_tensor>& tensors() const { return tensors_; }

private:
    void add(const std::filesystem::path& file) {
        files_.push_back(std::make_unique<mapped_file>(file));
        tensors_.merge(read_safetensors(files_.back()->bytes(), file.string()));
    }

    void read_shards(const std::filesystem::path& folder, const std::filesystem::path& index) {
        const nlohmann::json json = parse_config_file(index);
        RW_EXPECTS(json.is_object(), "{} must be an object, got {}", index.string(), ropewalk::detail::shown(json));
        const auto map = config_section(json, index.string()).section("weight_map");
        RW_EXPECTS(map.has_value(), "{} lacks 'weight_map'", index.string());
        std::map<std::string, std::vector<std::string>> shards;
        for (const auto& [name, shard] : map->texts()) shards[shard].push_back(name);
        for (const auto& [shard, names] : shards) {
            // A file beside the index and nowhere else, whatever a stranger wrote.
            RW_EXPECTS(
                !shard.empty() && std::filesystem::path(shard).filename() == shard && shard != "." && shard != "..",
                "{}: '{}' is no name of a file in its folder", index.string(), ropewalk::detail::shown_name(shard));
            const auto file = folder / shard;
            RW_EXPECTS(is_there(file), "{} names {}, which is missing", index.string(), file.string());
            files_.push_back(std::make_unique<mapped_file>(file));
            auto there = read_safetensors(files_.back()->bytes(), file.string());
            for (const std::string& name : names) {
                auto found = there.extract(name);
                RW_EXPECTS(!found.empty(), "{} lacks '{}', which {} says it has", file.string(),
                           ropewalk::detail::shown_name(name), index.string());
                tensors_.insert(std::move(found));
            }
        }
    }

    std::string path_;
    std::vector<std::unique_ptr<mapped_file>> files_;
    std::map<std::string, stored_tensor> tensors_;
};

}  // namespace ropewalk::llama
