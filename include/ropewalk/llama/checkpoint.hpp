// A Llama of Hugging Face: config.json and safetensors. Optional: needs nlohmann/json.
#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "ropewalk/io/hf_config.hpp"
#include "ropewalk/io/safetensors.hpp"
#include "ropewalk/llama/synthetic.hpp"
#include "ropewalk/llama/weights.hpp"

namespace ropewalk::llama {

/// A model's configuration, and the encoding that it asks for.
struct model_description {
    model_config config;
    Encoding encoding;
};

namespace detail {

/// What this stack does not compute must not be passed over in silence.
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

/// A matrix of a checkpoint in the type asked for: the file's own memory where it has it, else a copy.
class weight_reader {
public:
    weight_reader(std::shared_ptr<const checkpoint> files, std::optional<element_type> type, model_weights& weights)
        : files_(std::move(files)), type_(type), weights_(weights) {}

    matrix read(const std::string& name, std::int64_t rows, std::int64_t columns) {
        const stored_tensor& stored = files_->at(name, {rows, columns});
        const matrix there{stored.bytes.data(), type_of_stored(name, stored), rows, columns};
        const bool aligned = reinterpret_cast<std::uintptr_t>(there.data) % size_of(there.type) == 0;
        if (aligned && type_.value_or(there.type) == there.type) return there;
        matrix copy{nullptr, type_.value_or(there.type), rows, columns};
        auto bytes = make_bytes(copy.bytes());
        convert(there, copy.type, bytes.get());
        copy.data = bytes.get();
        weights_.owners.push_back(std::move(bytes));
        return copy;
    }

    std::vector<float> read_norm(const std::string& name, std::int64_t width) {
        const stored_tensor& stored = files_->at(name, {width});
        std::vector<float> norm(static_cast<std::size_t>(width));
        convert({stored.bytes.data(), type_of_stored(name, stored), 1, width}, element_type::f32,
                reinterpret_cast<std::byte*>(norm.data()));
        return norm;
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
#pragma omp parallel for schedule(static)
#endif
        for (std::int64_t i = 0; i < count; ++i) {
            // The file need not align its tensors.
            From element;
            std::memcpy(&element, source + i * static_cast<std::int64_t>(sizeof element), sizeof element);
            const To converted = static_cast<To>(static_cast<float>(element));
            std::memcpy(to + i * static_cast<std::int64_t>(sizeof converted), &converted, sizeof converted);
        }
    }

    template <class From>
    static void convert_from(const matrix& from, element_type type, std::byte* to) {
        const std::int64_t count = from.rows * from.columns;
        if (type == element_type::f32) return convert_elements<From, float>(from.data, count, to);
        if (type == element_type::f16) return convert_elements<From, f16>(from.data, count, to);
        convert_elements<From, bf16>(from.data, count, to);
    }

    static void convert(const matrix& from, element_type type, std::byte* to) {
        if (from.type == element_type::f32) return convert_from<float>(from, type, to);
        if (from.type == element_type::f16) return convert_from<f16>(from, type, to);
        convert_from<bf16>(from, type, to);
    }

    std::shared_ptr<const checkpoint> files_;
    std::optional<element_type> type_;
    model_weights& weights_;
};

}  // namespace detail

/// Reads a config.json (or one in a folder) of a Llama. `scaling` is a policy expression in place of the scheme that it
/// names; "" keeps that. Throws ropewalk::error for what this stack does not compute.
inline model_description read_model_config(const std::filesystem::path& path, const std::string& scaling = {}) {
    const auto file = is_folder(path) ? path / "config.json" : path;
    const nlohmann::json json = parse_config_file(file);
    RW_EXPECTS(json.is_object(), "{} must be an object, got {}", file.string(), json.type_name());
    const config_section model(json, file.string());
    detail::refuse_variants(model);
    model_description found{{}, encoding_from_config(json, {.policy = scaling})};
    model_config& config = found.config;
    config.hidden_size = detail::required_integer(model, "hidden_size");
    config.layers = detail::required_integer(model, "num_hidden_layers");
    config.heads = detail::required_integer(model, "num_attention_heads");
    config.kv_heads = model.integer("num_key_value_heads").value_or(config.heads);
    config.head_dim = found.encoding.geometry.head_dim;
    config.intermediate_size = detail::required_integer(model, "intermediate_size");
    config.vocabulary = detail::required_integer(model, "vocab_size");
    config.rms_norm_eps = model.number("rms_norm_eps").value_or(1e-6);
    config.tied_embeddings = model.flag("tie_word_embeddings").value_or(false);
    config.base = found.encoding.geometry.base;
    config.max_positions = model.integer("max_position_embeddings").value_or(0);
    config.layout = found.encoding.geometry.layout.value_or(config.layout);
    config.validate();
    return found;
}

/// The weights of a folder with `model.safetensors`, or its shards and their index: all that `config` has, in the type
/// asked for or else as they are stored, then without a copy. Throws ropewalk::error which names the tensor that is
/// missing or has another shape. A model without a vocabulary or an MLP leaves those tensors alone.
inline model_weights read_weights(const std::filesystem::path& folder, const model_config& config,
                                  std::optional<element_type> type = {}) {
    config.validate();
    model_weights weights;
    const auto files = std::make_shared<const checkpoint>(folder);
    weights.owners.push_back(files);
    detail::weight_reader reader(files, type, weights);
    for (std::int64_t index = 0; index < config.layers; ++index) {
        layer_weights& layer = weights.layers.emplace_back();
        const std::string prefix = "model.layers." + std::to_string(index) + ".";
        layer.attention_norm = reader.read_norm(prefix + "input_layernorm.weight", config.hidden_size);
        if (config.intermediate_size > 0)
            layer.mlp_norm = reader.read_norm(prefix + "post_attention_layernorm.weight", config.hidden_size);
        detail::for_each_matrix(config, layer,
                                [&](matrix& w, const char* name, std::int64_t rows, std::int64_t columns) {
                                    w = reader.read(prefix + name + ".weight", rows, columns);
                                });
    }
    if (config.vocabulary == 0) return weights;
    weights.final_norm = reader.read_norm("model.norm.weight", config.hidden_size);
    weights.embedding = reader.read("model.embed_tokens.weight", config.vocabulary, config.hidden_size);
    weights.head = config.tied_embeddings ? weights.embedding
                                          : reader.read("lm_head.weight", config.vocabulary, config.hidden_size);
    return weights;
}

}  // namespace ropewalk::llama
