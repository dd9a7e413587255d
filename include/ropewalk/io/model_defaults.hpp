// Defaults of model code by model_type, for keys that a configuration omits (Transformers 5.24).
#pragma once

#include <algorithm>
#include <array>
#include <string_view>

#include "ropewalk/core/layout.hpp"

namespace ropewalk::detail {

struct model_default {
    std::string_view model_type;
    double value;
};

// One model per line, which keeps comparisons with other versions of Transformers readable.
// clang-format off
/// `rope_theta` if it is not 10000. The base of sliding layers is in default_local_bases.
inline constexpr std::array default_bases{
    model_default{"bailing_hybrid", 6000000},
    model_default{"bitnet", 500000},
    model_default{"blt", 500000},
    model_default{"blt_global_transformer", 500000},
    model_default{"blt_local_decoder", 500000},
    model_default{"blt_local_encoder", 500000},
    model_default{"cohere", 500000},
    model_default{"csm", 500000},
    model_default{"dory", 10000000},
    model_default{"emu3_text_model", 1000000},
    model_default{"ernie4_5", 500000},
    model_default{"ernie4_5_moe", 500000},
    model_default{"evolla", 500000},
    model_default{"flex_olmo", 500000},
    model_default{"gemma3_text", 1000000},
    model_default{"gemma3n_text", 1000000},
    model_default{"gte", 160000},
    model_default{"helium", 100000},
    model_default{"hy_v3", 11158840},
    model_default{"jina_embeddings_v3", 20000},
    model_default{"lfm2", 1000000},
    model_default{"lfm2_moe", 1000000},
    model_default{"llama4_text", 500000},
    model_default{"longcat_flash", 10000000},
    model_default{"minimax", 1000000},
    model_default{"minimax_m2", 5000000},
    model_default{"minimax_m3_vl_text", 5000000},
    model_default{"mixtral", 1000000},
    model_default{"mllama_text_model", 500000},
    model_default{"modernbert", 160000},
    model_default{"modernbert-decoder", 160000},
    model_default{"muse_spark_text", 500000},
    model_default{"nomic_bert", 1000},
    model_default{"olmo3", 500000},
    model_default{"paddleocr_vl", 500000},
    model_default{"paddleocr_vl_text", 500000},
    model_default{"phimoe", 1000000},
    model_default{"qwen2_5_omni_talker", 1000000},
    model_default{"qwen2_5_omni_text", 1000000},
    model_default{"qwen2_5_vl", 1000000},
    model_default{"qwen2_5_vl_text", 1000000},
    model_default{"qwen2_vl", 1000000},
    model_default{"qwen2_vl_text", 1000000},
    model_default{"qwen3_omni_moe_text", 1000000},
    model_default{"qwen3_vl_moe_text", 500000},
    model_default{"qwen3_vl_text", 500000},
    model_default{"smollm3", 2000000},
    model_default{"solar_open", 1000000},
    model_default{"t5gemma2_decoder", 1000000},
    model_default{"t5gemma2_text", 1000000},
};

/// Base of the sliding layers.
inline constexpr std::array default_local_bases{
    model_default{"dory", 10000},
    model_default{"gemma3_text", 10000},
    model_default{"gemma3n_text", 10000},
    model_default{"modernbert", 10000},
    model_default{"modernbert-decoder", 10000},
    model_default{"t5gemma2_decoder", 10000},
    model_default{"t5gemma2_text", 10000},
};

/// `partial_rotary_factor` if it is not 1.
inline constexpr std::array default_partial_factors{
    model_default{"bamba", 0.5},
    model_default{"chatglm", 0.5},
    model_default{"fuyu", 0.5},
    model_default{"glm", 0.5},
    model_default{"glm4", 0.5},
    model_default{"glm4_moe", 0.5},
    model_default{"glm4v_moe_text", 0.5},
    model_default{"gpt_neox", 0.25},
    model_default{"moonshine", 0.9},
    model_default{"moonshine_streaming", 0.8},
    model_default{"nemotron", 0.5},
    model_default{"persimmon", 0.5},
    model_default{"phi", 0.5},
    model_default{"qwen3_5_moe_text", 0.25},
    model_default{"qwen3_5_text", 0.25},
    model_default{"qwen3_next", 0.25},
    model_default{"recurrent_gemma", 0.5},
    model_default{"stablelm", 0.25},
};

/// `head_dim` if it can differ from hidden_size / num_attention_heads.
inline constexpr std::array default_head_dims{
    model_default{"afmoe", 128},
    model_default{"cohere2_moe", 128},
    model_default{"cwm", 128},
    model_default{"diffusion_gemma_text", 256},
    model_default{"dory", 256},
    model_default{"embedding_gemma2_text", 256},
    model_default{"ernie4_5", 128},
    model_default{"flint", 128},
    model_default{"gemma", 256},
    model_default{"gemma2", 256},
    model_default{"gemma3_text", 256},
    model_default{"gemma3n_text", 256},
    model_default{"gemma4_text", 256},
    model_default{"gemma4_unified_text", 256},
    model_default{"glm", 128},
    model_default{"glm4", 128},
    model_default{"gpt_oss", 64},
    model_default{"helium", 128},
    model_default{"hrm_text", 128},
    model_default{"hy_v3", 128},
    model_default{"internlm3", 128},
    model_default{"iquestcoder", 128},
    model_default{"laguna", 128},
    model_default{"lara_mini", 128},
    model_default{"lfm3", 128},
    model_default{"llama4_text", 128},
    model_default{"mellum", 128},
    model_default{"mimo_v2_flash", 192},
    model_default{"minimax_m2", 128},
    model_default{"minimax_m3_vl_text", 128},
    model_default{"ministral3", 128},
    model_default{"molmo2_text", 128},
    model_default{"openai_privacy_filter", 64},
    model_default{"paddleocr_vl", 128},
    model_default{"paddleocr_vl_text", 128},
    model_default{"qwen3", 128},
    model_default{"qwen3_5_moe_text", 256},
    model_default{"qwen3_5_text", 256},
    model_default{"qwen3_next", 256},
    model_default{"qwen3_vl_text", 128},
    model_default{"qwen4_exp_text", 256},
    model_default{"seed_oss", 128},
    model_default{"solar_open", 128},
    model_default{"step3p5", 128},
    model_default{"t5_gemma_module", 256},
    model_default{"t5gemma2_decoder", 256},
    model_default{"t5gemma2_text", 256},
    model_default{"vaultgemma", 256},
    model_default{"zaya", 128},
};
// clang-format on

/// Models whose code has its own rope section if the configuration has none.
inline constexpr std::array<std::string_view, 20> models_with_own_section{"dots3_note_text",
                                                                          "apertus",
                                                                          "apertus1p5_text",
                                                                          "cwm",
                                                                          "deepseek_v4",
                                                                          "diffusion_gemma_text",
                                                                          "embedding_gemma2_text",
                                                                          "gemma4_text",
                                                                          "gemma4_unified_text",
                                                                          "gpt_oss",
                                                                          "laguna",
                                                                          "lfm3",
                                                                          "mellum",
                                                                          "mimo_v2_flash",
                                                                          "ministral3",
                                                                          "mistral4",
                                                                          "mistral_large4_text",
                                                                          "openai_privacy_filter",
                                                                          "step3p5",
                                                                          "zaya"};

/// Returns the default of a model_type, or 0 if the list does not contain it.
template <class List>
constexpr double default_of(const List& list, std::string_view model_type) {
    for (const model_default& entry : list) {
        if (entry.model_type == model_type) return entry.value;
    }
    return 0;
}

template <class List>
constexpr bool contains(const List& list, std::string_view name) {
    return std::find(list.begin(), list.end(), name) != list.end();
}

/// Models whose weights have the interleaved layout; all others are half_split.
inline constexpr std::array<std::string_view, 45> interleaved_models{"axk1",
                                                                     "axk2",
                                                                     "bailing_hybrid",
                                                                     "blt",
                                                                     "blt_global_transformer",
                                                                     "blt_local_decoder",
                                                                     "blt_local_encoder",
                                                                     "blt_patcher",
                                                                     "chatglm",
                                                                     "codegen",
                                                                     "cohere",
                                                                     "cohere2",
                                                                     "cohere2_moe",
                                                                     "deepseek_v2",
                                                                     "deepseek_v3",
                                                                     "deepseek_v32",
                                                                     "deepseek_v4",
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
                                                                     "mistral_large4",
                                                                     "mistral_large4_text",
                                                                     "moonshine",
                                                                     "moonshine_streaming",
                                                                     "openai_privacy_filter",
                                                                     "pe_audio",
                                                                     "pe_audio_encoder",
                                                                     "pe_audio_video",
                                                                     "pe_audio_video_encoder",
                                                                     "pe_video",
                                                                     "pe_video_encoder",
                                                                     "roformer",
                                                                     "youtu"};

constexpr layout_kind default_layout(std::string_view model_type) {
    return contains(interleaved_models, model_type) ? layout_kind::interleaved : layout_kind::half_split;
}

/// Models whose attention multiplies the softmax scale by the square of YaRN's m(mscale_all_dim).
inline constexpr std::array<std::string_view, 16> softmax_scaling_models{
    "axk1",        "axk2",           "bailing_hybrid",      "deepseek_v2",
    "deepseek_v3", "deepseek_v32",   "glm4_moe_lite",       "glm_moe_dsa",
    "hy_v4",       "kimi_k2",        "longcat_flash",       "minicpm3",
    "mistral4",    "mistral_large4", "mistral_large4_text", "youtu"};

/// Returns whether YaRN's mscale_all_dim affects the softmax. A configuration without model_type is read as DeepSeek's.
constexpr bool scales_softmax(std::string_view model_type) {
    return model_type.empty() || contains(softmax_scaling_models, model_type);
}

/// Returns whether a model always interleaves the sections of M-RoPE, regardless of its configuration.
constexpr bool interleaves_sections(std::string_view model_type) {
    for (const std::string_view family :
         {"qwen3_vl", "qwen3_omni", "qwen3_5", "qwen4", "cosmos3_edge", "cohere_compass"}) {
        if (model_type.starts_with(family)) return true;
    }
    return false;
}

}  // namespace ropewalk::detail
