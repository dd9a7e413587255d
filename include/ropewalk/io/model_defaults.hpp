// What the configuration of a kind of model leaves unsaid, because the model's code knows it (Transformers 5.23).
#pragma once

#include <array>
#include <string_view>

#include "ropewalk/core/layout.hpp"

namespace ropewalk::detail {

struct model_default {
    std::string_view model_type;
    double value;
};

/// `rope_theta` where it is not 10000. Models with sliding layers of their own base have that one below.
inline constexpr std::array default_bases{
    model_default{"apertus", 12e6},
    model_default{"bitnet", 5e5},
    model_default{"cohere", 5e5},
    model_default{"csm", 5e5},
    model_default{"cwm", 1e6},
    model_default{"emu3_text_model", 1e6},
    model_default{"ernie4_5", 5e5},
    model_default{"ernie4_5_moe", 5e5},
    model_default{"flex_olmo", 5e5},
    model_default{"fuyu", 25e3},
    model_default{"gemma3_text", 1e6},
    model_default{"gemma3n_text", 1e6},
    model_default{"gpt_oss", 150e3},
    model_default{"gte", 160e3},
    model_default{"helium", 1e5},
    model_default{"hy_v3", 11158840.0},
    model_default{"jina_embeddings_v3", 2e4},
    model_default{"lfm2", 1e6},
    model_default{"lfm2_moe", 1e6},
    model_default{"lfm3", 1e6},
    model_default{"llama4_text", 5e5},
    model_default{"longcat_flash", 1e7},
    model_default{"minimax", 1e6},
    model_default{"minimax_m2", 5e6},
    model_default{"mixtral", 1e6},
    model_default{"mllama_text_model", 5e5},
    model_default{"modernbert", 160e3},
    model_default{"modernbert-decoder", 160e3},
    model_default{"nomic_bert", 1e3},
    model_default{"olmo3", 5e5},
    model_default{"paddleocr_vl_text", 5e5},
    model_default{"phimoe", 1e6},
    model_default{"qwen2_5_omni_text", 1e6},
    model_default{"qwen2_5_vl", 1e6},
    model_default{"qwen2_5_vl_text", 1e6},
    model_default{"qwen2_vl", 1e6},
    model_default{"qwen2_vl_text", 1e6},
    model_default{"qwen3_omni_moe_text", 1e6},
    model_default{"qwen3_vl_moe_text", 5e5},
    model_default{"qwen3_vl_text", 5e5},
    model_default{"smollm3", 2e6},
    model_default{"solar_open", 1e6},
    model_default{"t5gemma2_decoder", 1e6},
    model_default{"t5gemma2_text", 1e6},
};

/// The base of the sliding layers.
inline constexpr std::array default_local_bases{
    model_default{"gemma3_text", 1e4},      model_default{"gemma3n_text", 1e4},
    model_default{"modernbert", 1e4},       model_default{"t5gemma2_text", 1e4},
    model_default{"t5gemma2_decoder", 1e4}, model_default{"modernbert-decoder", 1e4},
};

/// `partial_rotary_factor` where it is not 1.
inline constexpr std::array default_partial_factors{
    model_default{"bamba", 0.5},
    model_default{"glm", 0.5},
    model_default{"glm4", 0.5},
    model_default{"glm4_moe", 0.5},
    model_default{"glm4v_moe_text", 0.5},
    model_default{"gpt_neox", 0.25},
    model_default{"moonshine", 0.9},
    model_default{"nemotron", 0.5},
    model_default{"persimmon", 0.5},
    model_default{"phi", 0.5},
    model_default{"qwen3_5_moe_text", 0.25},
    model_default{"qwen3_5_text", 0.25},
    model_default{"qwen3_next", 0.25},
    model_default{"recurrent_gemma", 0.5},
    model_default{"stablelm", 0.25},
};

/// `head_dim` where it is not hidden_size / num_attention_heads.
inline constexpr std::array default_head_dims{
    model_default{"cwm", 128},           model_default{"ernie4_5", 128},     model_default{"gemma", 256},
    model_default{"gemma2", 256},        model_default{"gemma3_text", 256},  model_default{"gemma3n_text", 256},
    model_default{"gemma4_text", 256},   model_default{"glm", 128},          model_default{"glm4", 128},
    model_default{"gpt_oss", 64},        model_default{"helium", 128},       model_default{"llama4_text", 128},
    model_default{"qwen3", 128},         model_default{"qwen3_5_text", 256}, model_default{"qwen3_next", 256},
    model_default{"qwen3_vl_text", 128},
};

/// 0 where the kind of model is not in the list.
template <class List>
constexpr double default_of(const List& list, std::string_view model_type) {
    for (const model_default& one : list) {
        if (one.model_type == model_type) return one.value;
    }
    return 0;
}

template <class List>
constexpr bool contains(const List& list, std::string_view name) {
    for (const std::string_view one : list) {
        if (one == name) return true;
    }
    return false;
}

/// Models whose weights pair neighbours; all others are half_split.
inline constexpr std::array<std::string_view, 30> interleaved_models{"axk1",
                                                                     "axk2",
                                                                     "bailing_hybrid",
                                                                     "blt",
                                                                     "codegen",
                                                                     "cohere",
                                                                     "cohere2",
                                                                     "cohere2_moe",
                                                                     "deepseek_v2",
                                                                     "deepseek_v3",
                                                                     "deepseek_v32",
                                                                     "dots3_note_text",
                                                                     "ernie4_5",
                                                                     "ernie4_5_moe",
                                                                     "glm",
                                                                     "glm4",
                                                                     "glm4_moe_lite",
                                                                     "glm4v_text",
                                                                     "glm_moe_dsa",
                                                                     "glm_ocr_text",
                                                                     "gptj",
                                                                     "helium",
                                                                     "kimi_k2",
                                                                     "llama4_text",
                                                                     "longcat_flash",
                                                                     "mistral4",
                                                                     "moonshine",
                                                                     "moonshine_streaming",
                                                                     "roformer",
                                                                     "youtu"};

constexpr layout_kind default_layout(std::string_view model_type) {
    return contains(interleaved_models, model_type) ? layout_kind::interleaved : layout_kind::half_split;
}

/// Models that interleave the sections of M-RoPE whether their configuration says so or not.
constexpr bool interleaves_sections(std::string_view model_type) {
    for (const std::string_view family : {"qwen3_vl", "qwen3_omni", "qwen3_5", "qwen4"}) {
        if (model_type.starts_with(family)) return true;
    }
    return false;
}

}  // namespace ropewalk::detail
