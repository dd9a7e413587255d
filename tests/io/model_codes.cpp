// Behaviour of model code that its configuration does not state: applied, or rejected.

#include <ropewalk/io/hf_config.hpp>

#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace model_codes_tests {
namespace {

const std::string shape = R"("hidden_size": 4096, "num_attention_heads": 32, "max_position_embeddings": 65536)";
const std::string yarn = R"({"rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 8192)";
const std::string both_types = R"("layer_types": ["full_attention", "sliding_attention"])";

rw::Encoding read(const std::string& keys, const std::string& layer_type = "", const std::string& policy = "") {
    return rw::encoding_from_config(rw::parse_config("{" + shape + ", " + keys + "}", "the test"),
                                    {.layer_type = layer_type, .policy = policy});
}

std::string of_type(const std::string& model_type) { return R"("model_type": ")" + model_type + '"'; }

}  // namespace

TEST_CASE("OLMo-3 and Step-3.5 scale only the layers with full attention", "[io]") {
    for (const std::string model_type : {"olmo3", "step3p5", "step3p7"}) {
        INFO(model_type);
        const std::string keys = of_type(model_type) + ", " + both_types + R"(, "rope_theta": 5e5, )";
        const std::string scaled = keys + R"("rope_scaling": )" + yarn + "}";
        CHECK(read(scaled, "full_attention").expression == "yarn:8,original_length=8192");
        CHECK(read(scaled, "sliding_attention").expression == "default");
        CHECK(read(scaled, "sliding_attention").geometry.base == 5e5);
        CHECK_REFUSED(read(scaled), "layer_type must be one of full_attention, sliding_attention, got ''");
        // The newer key needs parts; without them the code of these models ignores it.
        CHECK_REFUSED(read(keys + R"("rope_parameters": )" + yarn + "}", "full_attention"),
                      "ignores rope_parameters without one part per layer type");
    }
    const std::string one_type = R"(, "layer_types": ["full_attention"], "rope_scaling": )" + yarn + "}";
    CHECK(read(of_type("olmo3") + one_type).expression == "yarn:8,original_length=8192");
    CHECK_REFUSED(read(of_type("olmo3") + R"(, "rope_scaling": )" + yarn + "}"), "layer_type must be one of");
    CHECK(read(of_type("olmo3") + R"(, "rope_scaling": null)").expression == "default");
}

TEST_CASE("DeepSeek-V4 scales only the compressed layers, which have their own base", "[io]") {
    const std::string keys = of_type("deepseek_v4") + R"(, "head_dim": 512, "rope_scaling": )" + yarn + "}";
    const std::string legacy = keys + R"(, "qk_rope_head_dim": 64, "compress_rope_theta": 160000)";
    const rw::Encoding plain = read(legacy, "main"), compressed = read(legacy, "compress");
    CHECK(plain.expression == "default");
    CHECK(plain.geometry.base == 1e4);
    CHECK((plain.geometry.layout == rw::layout_kind::interleaved));
    CHECK(compressed.expression == "yarn:8,original_length=8192,attention_factor=1");
    CHECK(compressed.geometry.base == 160000);
    CHECK_REFUSED(read(legacy), "layer_type must be one of compress, main, got ''");
    // As Transformers writes it: the end of a head rotates.
    const rw::Encoding nested = read(of_type("deepseek_v4") + R"(, "head_dim": 512, "rope_parameters": {
        "main": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.125},
        "compress": {"rope_type": "default", "rope_theta": 16e4, "partial_rotary_factor": 0.125}})",
                                     "main");
    CHECK(nested.geometry.width() == 64);
    CHECK(nested.geometry.rotary_offset == 448);
}

TEST_CASE("ModernBERT scales both types of layers, with or without stated bases", "[io]") {
    const std::string keys = of_type("modernbert") + R"(, "rope_scaling": {"rope_type": "linear", "factor": 4})";
    CHECK(read(keys, "sliding_attention").expression == "linear:4");
    CHECK(read(keys, "sliding_attention").geometry.base == 1e4);
    CHECK(read(keys, "full_attention").geometry.base == 160000);
}

TEST_CASE("a list with one entry per layer is read for the requested layers", "[io]") {
    const std::string bases = of_type("granite_swa") + R"(, "layer_rope_theta": [1e6, 1e4, 0], "layer_types":
        ["full_attention", "sliding_attention", "none"])";
    CHECK(read(bases, "full_attention").geometry.base == 1e6);
    CHECK(read(bases, "sliding_attention").geometry.base == 1e4);
    CHECK_REFUSED(read(bases, "none"), "the layers of type 'none' of granite_swa have no rotary positions");
    CHECK_REFUSED(read(bases), "layer_rope_theta has 1000000 and 10000");
    CHECK(read(R"("layer_rope_theta": [3e4, 0, 3e4])").geometry.base == 3e4);
    CHECK_REFUSED(read(R"("rope_theta": 1e4, "layer_rope_theta": [3e4])"), "rope_theta is 30000 in layer_rope_theta");
    const std::string step = of_type("step3p5") + ", " + both_types + R"(, "rope_theta": [5e6, 1e4],
        "partial_rotary_factors": [0.5, 1.0], "rope_scaling": )" +
                             yarn + "}";
    CHECK(read(step, "full_attention").geometry.base == 5e6);
    CHECK(read(step, "full_attention").geometry.width() == 64);
    CHECK(read(step, "sliding_attention").geometry.base == 1e4);
    CHECK(read(step, "sliding_attention").geometry.width() == 128);
}

TEST_CASE("Molmo-2's list of scaled layers must be complete", "[io]") {
    const std::string keys = R"("num_hidden_layers": 3, "rope_scaling": )" + yarn + "}, ";
    CHECK(read(keys + R"("rope_scaling_layers": [0, 1, 2])").expression == "yarn:8,original_length=8192");
    CHECK_REFUSED(read(keys + R"("rope_scaling_layers": [0, 1])"), "rope_scaling_layers does not list all layers");
    CHECK(read(keys + R"("rope_scaling_layers": [0, 1])", "", "default").expression == "default");
    CHECK(read(R"("num_hidden_layers": 3, "rope_scaling_layers": [0])").expression == "default");
}

TEST_CASE("layers without rotation are rejected", "[io]") {
    const char* const none = "the layers of type 'full_attention' of ";
    CHECK_REFUSED(read(of_type("cohere2"), "full_attention"), none);
    CHECK(read(of_type("cohere2"), "sliding_attention").expression == "default");
    CHECK_REFUSED(read(of_type("cohere2_moe"), "full_attention"), none);
    CHECK_REFUSED(read(of_type("cohere2_moe") + R"(, "mlp_layer_types": ["sparse"])", "full_attention"), none);
    for (const std::string dense : {R"(, "mlp_layer_types": ["dense", "sparse"])", R"(, "first_k_dense_replace": 1)"}) {
        const std::string keys = of_type("cohere2_moe") + dense;
        CHECK(read(keys, "full_attention").expression == "default");
        CHECK_REFUSED(read(keys + R"(, "prefix_dense_sliding_window_pattern": 4)", "full_attention"), none);
    }
    CHECK_REFUSED(read(of_type("exaone4") + R"(, "sliding_window": 4096)", "full_attention"), none);
    CHECK(read(of_type("exaone4") + R"(, "sliding_window": null)", "full_attention").expression == "default");
    const std::string listed = both_types + R"(, "no_rope_layers": [0, 1])";
    CHECK_REFUSED(read(listed, "full_attention"), none);
    CHECK(read(listed, "sliding_attention").expression == "default");
    CHECK(read(listed).expression == "default");
}

TEST_CASE("models without rotation, or with an unsupported one, are rejected", "[io]") {
    for (const std::string model_type : {"gpt2", "bert", "t5", "whisper", "mamba2", "xlm-roberta", "jamba"}) {
        const std::string message = "model_type '" + model_type + "' has no rotary positions";
        CHECK_REFUSED(read(of_type(model_type)), message.c_str());
    }
    CHECK_REFUSED(read(of_type("zamba2") + R"(, "use_mem_rope": false)"), "unless use_mem_rope is true");
    CHECK(read(of_type("zamba2") + R"(, "use_mem_rope": true, "attention_head_dim": 160)").expression == "default");
    CHECK_REFUSED(read(of_type("nanochat")), "rotates backwards");
    CHECK_REFUSED(read(of_type("chatglm") + R"(, "position_encoding_2d": true)"), "two positions per token");
    CHECK_REFUSED(
        read(of_type("hunyuan_vl_text") + R"(, "rope_scaling": {"type": "default", "mrope_section": [16, 24, 24]})"),
        "model_type 'hunyuan_vl_text' gives the two elements of a pair positions of different axes");
}

TEST_CASE("mscale_all_dim affects the softmax only in models whose code applies it", "[io]") {
    const std::string scaling = R"("rope_scaling": )" + yarn + R"(, "mscale": 1, "mscale_all_dim": 1})";
    CHECK(read(of_type("llama") + ", " + scaling).softmax_factor == 1);
    CHECK(read(of_type("llama") + ", " + scaling).attention_factor == 1);
    for (const std::string& keys :
         {scaling, of_type("deepseek_v3") + ", " + scaling, of_type("youtu") + ", " + scaling}) {
        CHECK(read(keys).softmax_factor > 1.4);
    }
}

TEST_CASE("default widths and section orders of model code", "[io]") {
    const rw::Encoding chatglm = read(of_type("chatglm") + R"(, "kv_channels": 128)");
    CHECK(chatglm.geometry.width() == 64);
    CHECK((chatglm.geometry.layout == rw::layout_kind::interleaved));
    CHECK(read(of_type("gptj")).geometry.width() == 64);
    CHECK(read(of_type("codegen") + R"(, "rotary_dim": 32)").geometry.width() == 32);
    const std::string sections = R"(, "rope_scaling": {"type": "default", "mrope_section": [24, 20, 20]})";
    for (const std::string model_type : {"cosmos3_edge_text", "cohere_compass_text"}) {
        CHECK(read(of_type(model_type) + sections).expression == "mrope:[24,20,20],interleaved=true");
    }
}

namespace {

rw::Encoding read_alone(const std::string& config, const rw::config_choices& choices = {}) {
    return rw::encoding_from_config(rw::parse_config(config, "the test"), choices);
}

/// A configuration that omits what the model's code has as its default.
struct minimal_config {
    std::string config;
    double base;
    std::int64_t head_dim, rotary_dim;
    std::string expression = "default";
    std::string layer_type{}, policy{};
    rw::layout_kind layout = rw::layout_kind::half_split;
};

const std::vector<minimal_config> minimal_configs{
    {R"({"model_type":"phi3small","hidden_size":4096,"num_attention_heads":32,"rope_embedding_base":1000000,
         "rope_position_scale":1.0})",
     1e6, 128, 128},
    {R"({"model_type":"baichuan","hidden_size":4096,"num_attention_heads":32})", 1e4, 128, 128},
    {R"({"model_type":"stablelm_epoch","hidden_size":2560,"num_attention_heads":32,"rope_pct":0.25})", 1e4, 80, 20},
    {R"({"model_type":"nomic_bert","n_embd":768,"n_head":12,"rotary_emb_base":1000,"rotary_emb_fraction":0.5})", 1e3,
     64, 32},
    // Transformers 5.24 itself reads 1e4 and ignores attn_config.rope_theta. The published code and vLLM read 5e5.
    {R"({"model_type":"dbrx","d_model":6144,"n_heads":48,"attn_config":{"rope_theta":500000}})", 5e5, 128, 128},
    {R"({"model_type":"mimo_v2_flash","rope_theta":5000000,"swa_rope_theta":10000,"head_dim":192,
         "partial_rotary_factor":0.334})",
     1e4, 192, 64, "default", "sliding_attention"},
    {R"({"model_type":"qwen3_vl_text"})", 5e5, 128, 128, "mrope:[24,20,20],interleaved=true"},
    {R"({"model_type":"hy_v4_vl_text"})", 1e4, 64, 64, "mrope:[12,10,10],interleaved=true", "", "",
     rw::layout_kind::interleaved},
    {R"({"model_type":"glm_ocr_text"})", 1e4, 64, 64, "mrope:[8,12,12]", "", "", rw::layout_kind::interleaved},
    {R"({"model_type":"qwen3_5_text"})", 1e4, 256, 64, "mrope:[11,11,10],interleaved=true"},
    {R"({"model_type":"gpt_oss"})", 150000, 64, 64, "yarn:32,original_length=4096,truncate=false"},
    {R"({"model_type":"gpt_oss"})", 150000, 64, 64, "linear:2", "", "linear:2"},
    {R"({"model_type":"ministral3"})", 1e6, 128, 128, "linear:2", "", "linear:2"},
    {R"({"model_type":"apertus","hidden_size":4096,"num_attention_heads":32})", 12e6, 128, 128, "linear:2", "",
     "linear:2"},
    {R"({"model_type":"gemma4_text"})", 1e6, 512, 512, "proportional:0.25|linear:2", "full_attention", "linear:2"},
    {R"({"model_type":"gemma4_text"})", 1e6, 512, 512, "proportional:0.25", "full_attention"},
    {R"({"model_type":"gemma4_text"})", 1e4, 256, 256, "default", "sliding_attention"},
    {R"({"model_type":"chatglm","hidden_size":4096,"num_attention_heads":32,"rope_ratio":10000,"kv_channels":128})",
     1e8, 128, 64, "default", "", "", rw::layout_kind::interleaved},
    {R"({"model_type":"llava","text_config":{"model_type":"llama","max_position_embeddings":4096}})", 1e4, 128, 128},
};

}  // namespace

TEST_CASE("minimal configurations have the defaults of the model's code", "[io]") {
    for (const minimal_config& model : minimal_configs) {
        INFO(model.config);
        const rw::Encoding encoding =
            read_alone(model.config, {.layer_type = model.layer_type, .policy = model.policy});
        CHECK(encoding.expression == model.expression);
        CHECK(encoding.geometry.base == model.base);
        CHECK(encoding.geometry.head_dim == model.head_dim);
        CHECK(encoding.geometry.width() == model.rotary_dim);
        CHECK((encoding.geometry.layout == model.layout));
    }
}

TEST_CASE("minimal configurations of models that no encoding expresses are rejected", "[io]") {
    const std::vector<std::pair<std::string, const char*>> refused{
        {R"({"model_type":"nemotron_h","head_dim":128,"hidden_size":2688,"num_attention_heads":32})",
         "model_type 'nemotron_h' has no rotary positions"},
        {R"({"model_type":"mistral_large4_text"})", "learned factor"},
        {R"({"model_type":"baichuan","hidden_size":5120,"num_attention_heads":40})", "ALiBi"},
        {R"({"model_type":"dinov3_vit"})", "model_type 'dinov3_vit'"},
        {R"({"model_type":"llama4_vision_model"})", "model_type 'llama4_vision_model'"},
        {R"({"model_type":"mpt"})", "has no rotary positions"},
        {R"({"model_type":"tomorrow","hidden_size":4096,"num_attention_heads":32})", "'tomorrow' is not known"},
    };
    for (const auto& model : refused) {
        INFO(model.first);
        CHECK_REFUSED(read_alone(model.first), model.second);
        CHECK_REFUSED(read_alone(model.first, {.policy = "linear:2"}), model.second);
    }
}

TEST_CASE("keys that the code of a model ignores are rejected", "[io]") {
    const std::string linear = R"({"rope_type": "linear", "factor": 2})";
    CHECK_REFUSED(read(of_type("modernbert") + R"(, "rope_theta": 12345)"),
                  "the code of modernbert ignores rope_theta");
    CHECK(read(of_type("modernbert") + R"(, "rope_theta": 160000)", "full_attention").geometry.base == 160000);
    CHECK_REFUSED(read(of_type("gpt_neox") + R"(, "rope_theta": 12345)"), "the code of gpt_neox ignores rope_theta");
    CHECK_REFUSED(read(of_type("cohere2_moe") + R"(, "rope_scaling": )" + linear), "ignores rope_scaling");
    const std::string narrow = of_type("minimax_m3_vl_text") + R"(, "head_dim": 128, "rotary_dim": 64)";
    CHECK_REFUSED(read(narrow), "ignores rotary_dim (64): state partial_rotary_factor");
    CHECK(read(narrow + R"(, "partial_rotary_factor": 0.5)").geometry.rotary_dim == 64);
    CHECK_REFUSED(read(of_type("gemma3_text") + R"(, "rope_parameters": )" + linear, "full_attention"),
                  "ignores rope_parameters without one part per layer type");
    CHECK(read(of_type("gemma3_text") + R"(, "rope_scaling": )" + linear, "full_attention").expression == "linear:2");
}

TEST_CASE("the part of the language model has the key that its class has", "[io]") {
    const std::string text = R"({"model_type": "gemma", "hidden_size": 2048, "num_attention_heads": 8, "head_dim": 64,
        "rope_theta": 5e5})";
    for (const std::string part : {R"("model_type": "paligemma", "text_config": )", R"("text_config": )"}) {
        const std::string vlm = R"({"model_type": "colpali", "vlm_config": {)" + part + text + "}}";
        CHECK(read_alone(vlm).geometry.base == 5e5);
        CHECK(read_alone(vlm).geometry.head_dim == 64);
    }
    const rw::Encoding decoder = read_alone(R"({"model_type": "dia", "decoder_config": {"head_dim": 64}})");
    CHECK(decoder.geometry.head_dim == 64);
    CHECK(decoder.geometry.base == 1e4);
}

TEST_CASE("the class of a composite can ignore the model_type of its language model", "[io]") {
    const std::string sizes = R"("hidden_size": 3584, "num_attention_heads": 28}})";
    for (const std::string type : {"", R"("model_type": "qwen2_5_vl", )", R"("model_type": "qwen2_of_tomorrow", )"}) {
        INFO(type);
        const rw::Encoding encoding = read_alone(R"({"model_type": "qwen2_5_vl", "text_config": {)" + type + sizes);
        CHECK(encoding.expression == "mrope:[16,24,24]");
        CHECK(encoding.geometry.base == 1e6);
    }
    const std::string llava = R"({"model_type": "llava", "text_config": {"model_type": "qwen2_vl", )";
    CHECK(read_alone(llava + sizes).geometry.base == 1e6);
    const std::string thinker = R"({"model_type": "qwen2_5_omni", "thinker_config": {"text_config": {)";
    CHECK(read_alone(thinker + sizes + "}").expression == "mrope:[16,24,24]");
}

TEST_CASE("the architecture is consulted where the model_type is unknown", "[io]") {
    const std::string fields = R"("architectures": ["DeepseekV4ForCausalLM"], "rope_scaling": )" + yarn + "}}";
    for (const std::string type : {R"({"model_type": "deepseek_v4_of_tomorrow", )", R"({)"}) {
        INFO(type);
        CHECK_REFUSED(read_alone(type + fields), "layer_type must be one of compress, main");
        CHECK(read_alone(type + fields, {.layer_type = "main"}).expression == "default");
    }
}

TEST_CASE("scaling methods that the code of a model does not have are rejected", "[io]") {
    const std::string linear = R"({"rope_type": "linear", "factor": 4})";
    for (const std::string model_type : {"gptj", "codegen", "roformer"}) {
        for (const std::string key : {"rope_scaling", "rope_parameters"}) {
            INFO(model_type << " " << key);
            const std::string message = "the code of " + model_type + " ignores " + key;
            CHECK_REFUSED(read(of_type(model_type) + ", \"" + key + "\": " + linear), message.c_str());
            CHECK_REFUSED(read(of_type(model_type) + ", \"" + key + R"(": {"rope_theta": 5e5})"),
                          "ignores rope_theta (500000): its base is 10000");
        }
        CHECK_REFUSED(read(of_type(model_type) + R"(, "rope_theta": 5e5)"), "ignores rope_theta (500000)");
        CHECK(read(of_type(model_type) + R"(, "rope_theta": 1e4)").geometry.base == 1e4);
        CHECK(read(of_type(model_type), "", "linear:2").expression == "linear:2");
    }
    const std::string esm = of_type("esm") + R"(, "position_embedding_type": "rotary")";
    CHECK_REFUSED(read(esm + R"(, "rope_scaling": )" + linear), "the code of esm ignores rope_scaling");
    CHECK(read(esm + R"(, "rope_theta": 5e5)").geometry.base == 5e5);
}

TEST_CASE("layers with bases of their own need a layer type", "[io]") {
    for (const std::string model_type : {"laguna", "mellum", "dory", "zaya", "modernbert"}) {
        INFO(model_type);
        const std::string config = R"({"model_type": ")" + model_type + '"';
        if (model_type != "zaya") CHECK_REFUSED(read_alone(config + "}"), "layer_type must be one of");
        CHECK_REFUSED(read_alone(config + R"(, "rope_theta": 12345})", {.layer_type = "full_attention"}), "12345");
    }
    const auto laguna = [](const std::string& keys, const std::string& layer_type, const std::string& policy = "") {
        return read_alone(R"({"model_type": "laguna")" + keys + "}", {.layer_type = layer_type, .policy = policy});
    };
    CHECK(laguna("", "full_attention").geometry.base == 5e5);
    CHECK(laguna("", "full_attention").geometry.width() == 64);
    CHECK(laguna("", "sliding_attention").geometry.base == 1e4);
    CHECK(laguna("", "full_attention", "linear:2").geometry.base == 5e5);
    CHECK(laguna(R"(, "rope_theta": 5e5)", "full_attention").geometry.width() == 64);
    CHECK_REFUSED(laguna(R"(, "rope_theta": 1e4)", "full_attention"), "10000");
    CHECK_REFUSED(laguna(R"(, "rope_theta": 5e5)", "sliding_attention"), "500000");
    CHECK_REFUSED(laguna(R"(, "swa_rope_theta": 5e5)", "sliding_attention"), "500000");
}

TEST_CASE("latent attention without a known model type needs a layout", "[io]") {
    const std::string keys =
        R"({"qk_rope_head_dim": 64, "rope_scaling": )" + yarn + R"(, "mscale_all_dim": 1}, )" + shape;
    CHECK_REFUSED(read_alone(keys + "}"), "pass a layout");
    CHECK((read_alone(keys + R"(, "rope_interleave": true})").geometry.layout == rw::layout_kind::interleaved));
    CHECK((read_alone(keys + "}", {.layout = rw::layout_kind::interleaved}).softmax_factor > 1.4));
    CHECK_REFUSED(read_alone(keys + R"(, "model_type": "kimi_k9", "rope_interleave": true})"), "the softmax factor of");
    // DeepSeek's code has Llama's attention without latent attention, under either spelling.
    for (const std::string other : {R"("use_mla": false)", R"("use_mla": false, "qk_rope_head_dim": 0)"}) {
        INFO(other);
        const rw::Encoding llama = read_alone(
            R"({"model_type": "deepseek_v2", "hidden_size": 1280, "num_attention_heads": 10, )" + other + "}");
        CHECK(llama.geometry.head_dim == 128);
        CHECK(llama.geometry.width() == 128);
        CHECK((llama.geometry.layout == rw::layout_kind::half_split));
    }
}

TEST_CASE("a policy of the caller keeps what belongs to the model", "[io]") {
    const std::string olmo = of_type("olmo3") + ", " + both_types + R"(, "rope_scaling": )" + yarn + "}";
    for (const std::string layer_type : {"full_attention", "sliding_attention"}) {
        CHECK(read(olmo, layer_type, "yarn:2").expression == "yarn:2,original_length=8192");
    }
    const std::string deepseek = of_type("deepseek_v4") + R"(, "head_dim": 512, "rope_scaling": )" + yarn + "}";
    CHECK(read(deepseek, "compress", "yarn:16").attention_factor == 1);
    CHECK(read(deepseek, "main", "yarn:16").expression == "yarn:16,original_length=8192,attention_factor=1");
    const std::string alpha = R"("rope_scaling": {"type": "dynamic", "alpha": 1000, "factor": 1})";
    CHECK(read(alpha, "", "linear:2").expression == "ntk:1000|linear:2");
}

TEST_CASE("classes of remote code are known", "[io]") {
    const auto of_class = [](const std::string& name) {
        return read_alone(R"({"model_type": "fork", "architectures": [")" + name + R"("], "hidden_size": 5120,
            "num_attention_heads": 40})");
    };
    CHECK_REFUSED(of_class("BaichuanForCausalLM"), "ALiBi");
    CHECK((of_class("ChatGLMModel").geometry.layout == rw::layout_kind::interleaved));
    CHECK(of_class("ChatGLMModel").geometry.width() == 64);
    CHECK(of_class("InternLM2ForCausalLM").geometry.width() == 128);
    CHECK_REFUSED(of_class("JAISLMHeadModel"), "model_type 'jais' has ALiBi");
}

TEST_CASE("keys of single models", "[io]") {
    CHECK(
        read(of_type("step3p5") + R"(, "yarn_only_types": ["full_attention"], "use_rope_layers": [])", "full_attention")
            .expression == "default");
    CHECK_REFUSED(read(of_type("step3p5") + R"(, "yarn_only_types": ["x"])", "full_attention"), "yarn_only_types");
    CHECK(read(of_type("bamba") + R"(, "attn_rotary_emb": 64)").geometry.width() == 64);
    CHECK(read(of_type("openelm") + R"(, "rope_freq_constant": 5e5, "rope_max_length": 4096)").geometry.base == 5e5);
    CHECK_REFUSED(read(of_type("yuan") + R"(, "attention_projection_size": 8192)"), "attention_projection_size 8192");
    CHECK_REFUSED(read(of_type("smollm3") + R"(, "no_rope_layers": [0, 0])"), "have no rotary positions");
    CHECK_REFUSED(read_alone(R"({"text_config": {"head_dim": 64, "rope_theta": 1e4},
        "llm_config": {"head_dim": 64, "rope_theta": 5e5}})"),
                  "two language models");
    CHECK_REFUSED(read_alone(R"({"model_type": "foo", "head_dim": 64, "rope_theta": 1e4,
        "language_model": {"model_type": "llama", "rope_theta": 5e5}})"),
                  "key 'rope_theta' (500000.0)");
    CHECK_REFUSED(read(R"("kind_of_positions": "alibi")"), "kind_of_positions");
}

}  // namespace model_codes_tests
