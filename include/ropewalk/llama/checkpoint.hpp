// Reader of a Hugging Face Llama: config.json and safetensors. Needs nlohmann/json.
#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "ropewalk/cpu/threads.hpp"
#include "ropewalk/io/hf_config.hpp"
#include "ropewalk/llama/safetensors.hpp"
#include "ropewalk/llama/weights.hpp"

namespace ropewalk::llama {

/// Configuration of a model, and its encoding.
struct model_description {
    model_config config;
    Encoding encoding;
};

namespace detail {

/// Refuses variants that this stack would compute wrongly.
inline void refuse_variants(const config_section& model) {
    const std::string type = model.text("model_type").value_or("llama");
    RW_EXPECTS(type == "llama", "model_type is '{}', this stack computes 'llama'", ropewalk::detail::shown_name(type));
    for (const char* const key : {"attention_bias", "mlp_bias"})
        RW_EXPECTS(!model.flag(key).value_or(false), "{}.{} is true: biases are not supported", model.path(), key);
    const std::string act = model.text("hidden_act").value_or("silu");
    RW_EXPECTS(act == "silu", "{}.hidden_act is '{}', this stack computes 'silu'", model.path(),
               ropewalk::detail::shown_name(act));
}

inline std::int64_t required_integer(const config_section& model, const char* key) {
    const auto value = model.integer(key);
    RW_EXPECTS(value.has_value(), "{} lacks '{}'", model.path(), key);
    return *value;
}

/// Reads matrices of a checkpoint in the requested type: views of the file where it has that type, else copies.
class weight_reader {
public:
    weight_reader(const std::filesystem::path& folder, std::optional<element_type> type, model_weights& weights)
        : files_(std::make_shared<const checkpoint>(folder)), type_(type), weights_(weights) {
        weights.owners.push_back(files_);
    }

    void read(matrix& w, const std::string& name, std::int64_t rows, std::int64_t columns) {
        const bool norm = is_norm(name);
        const std::string key = name + ".weight";
        const stored_tensor& stored = files_->at(key, norm ? std::vector{columns} : std::vector{rows, columns});
        const matrix file{stored.bytes.data(), type_of_stored(key, stored), rows, columns};
        w = file;
        w.type = norm ? element_type::f32 : type_.value_or(file.type);
        const bool aligned = reinterpret_cast<std::uintptr_t>(file.data) % size_of(file.type) == 0;
        if (!aligned || w.type != file.type) convert(file, w.type, allocate(w, weights_));
    }

private:
    static element_type type_of_stored(const std::string& name, const stored_tensor& stored) {
        if (stored.dtype == "F32") return element_type::f32;
        if (stored.dtype == "F16") return element_type::f16;
        RW_EXPECTS(stored.dtype == "BF16", "'{}' is {}, this stack reads F32, F16 and BF16", name, stored.dtype);
        return element_type::bf16;
    }

    template <class From, class To>
    static void convert_elements(const void* from, std::int64_t count, std::byte* to) {
        const auto* const source = static_cast<const std::byte*>(from);
#if defined(RW_OPENMP)
        const int threads = ropewalk::cpu::detail::thread_count(count >> 16, 0);
#pragma omp parallel for num_threads(threads) schedule(static)
#endif
        for (std::int64_t i = 0; i < count; ++i) {
            // Tensors in a file may be unaligned.
            From element;
            std::memcpy(&element, source + i * static_cast<std::int64_t>(sizeof element), sizeof element);
            const To converted = static_cast<To>(static_cast<float>(element));
            std::memcpy(to + i * static_cast<std::int64_t>(sizeof converted), &converted, sizeof converted);
        }
    }

    static void convert(const matrix& from, element_type type, std::byte* to) {
        with_element(from.type, [&]<class From>(From /*type*/) {
            with_element(type, [&]<class To>(To /*type*/) {
                convert_elements<From, To>(from.data, from.rows * from.columns, to);
            });
        });
    }

    std::shared_ptr<const checkpoint> files_;
    std::optional<element_type> type_;
    model_weights& weights_;
};

}  // namespace detail

/// Reads a config.json, or the one in a folder, of a Llama. `scaling` is a policy expression that replaces the scaling
/// method of the file; "" keeps it. Throws ropewalk::error for models that this stack does not compute.
inline model_description read_model_config(const std::filesystem::path& path, const std::string& scaling = {}) {
    const auto file = is_folder(path) ? path / "config.json" : path;
    const nlohmann::json json = parse_config_file(file);
    RW_EXPECTS(json.is_object(), "{} must be an object, got {}", file.string(), json.type_name());
    const config_section section(json, file.string());
    detail::refuse_variants(section);
    model_description model{{}, encoding_from_config(json, {.policy = scaling})};
    model_config& config = model.config;
    config.hidden_size = detail::required_integer(section, "hidden_size");
    config.layers = detail::required_integer(section, "num_hidden_layers");
    config.heads = detail::required_integer(section, "num_attention_heads");
    config.kv_heads = section.integer("num_key_value_heads").value_or(config.heads);
    config.head_dim = model.encoding.geometry.head_dim;
    config.intermediate_size = detail::required_integer(section, "intermediate_size");
    config.vocabulary = detail::required_integer(section, "vocab_size");
    config.rms_norm_eps = section.number("rms_norm_eps").value_or(1e-6);
    config.tied_embeddings = section.flag("tie_word_embeddings").value_or(false);
    config.base = model.encoding.geometry.base;
    config.max_positions = section.integer("max_position_embeddings").value_or(0);
    config.layout = model.encoding.geometry.layout.value_or(config.layout);
    config.validate();
    return model;
}

/// Reads the weights of a folder: `model.safetensors`, or shards and their index. `type` converts the matrices; without
/// it they keep the stored type and are views of the files. Tensors that `config` does not need are ignored. Throws
/// ropewalk::error that names the tensor which is missing or has another shape.
inline model_weights read_weights(const std::filesystem::path& folder, const model_config& config,
                                  std::optional<element_type> type = {}) {
    config.validate();
    model_weights weights;
    weights.layers.resize(static_cast<std::size_t>(config.layers));
    detail::weight_reader reader(folder, type, weights);
    for_each_weight(config, weights, [&](matrix& w, const std::string& name, std::int64_t rows, std::int64_t columns) {
        if (&w == &weights.head && config.tied_embeddings)
            w = weights.embedding;
        else
            reader.read(w, name, rows, columns);
    });
    return weights;
}

}  // namespace ropewalk::llama
