// The rotary part of config.json: fragments of real models, and what is wrong with others.

#include <ropewalk/io/hf_config.hpp>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace {

/// The keys of a shape that many of the fragments below lack.
const std::string heads = R"("hidden_size": 5120, "num_attention_heads": 40)";

rw::Encoding read(const std::string& fragment, const rw::config_choices& choices = {}) {
    return rw::encoding_from_config(rw::parse_config("{" + fragment + "}", "the test"), choices);
}

struct accepted {
    std::string name, fragment;
    std::string layer_type;
    std::string expression;
    double base;
    std::int64_t head_dim, rotary_dim;
    rw::layout_kind layout = rw::layout_kind::half_split;
};

const std::vector<accepted> models{
    {"Llama-2-13B", heads + R"(, "max_position_embeddings": 4096, "rope_scaling": null)", "", "default", 1e4, 128, 128},
    {"Together LLaMA-2-7B-32K",
     R"("hidden_size": 4096, "num_attention_heads": 32, "max_position_embeddings": 32768,
        "rope_scaling": {"factor": 8.0, "type": "linear"})",
     "", "linear:8", 1e4, 128, 128},
    {"Giraffe v2, early", heads + R"(, "abacus_scale": 8, "rope_scaling": null)", "", "linear:8", 1e4, 128, 128},
    {"Giraffe v2, both names", heads + R"(, "abacus_scale": 8, "rope_scaling": {"factor": 8.0, "type": "linear"})", "",
     "linear:8", 1e4, 128, 128},
    {"Pythia", R"("hidden_size": 2048, "num_attention_heads": 8, "rotary_pct": 0.25, "rotary_emb_base": 10000,
                  "model_type": "gpt_neox")",
     "", "default", 1e4, 256, 64},
    {"Phi-2", R"("hidden_size": 2560, "num_attention_heads": 32, "partial_rotary_factor": 0.4)", "", "default", 1e4, 80,
     32},
    {"Mistral-7B v0.2", R"("hidden_size": 4096, "num_attention_heads": 32, "rope_theta": 1e6)", "", "default", 1e6, 128,
     128},
    {"Gemma-3", R"("head_dim": 256, "rope_local_base_freq": 10000, "rope_theta": 1000000,
                   "rope_scaling": {"factor": 8.0, "rope_type": "linear"})",
     "", "linear:8", 1e6, 256, 256},
    {"Gemma-3, its sliding layers", R"("head_dim": 256, "rope_local_base_freq": 10000, "rope_theta": 1000000,
                   "rope_scaling": {"factor": 8.0, "rope_type": "linear"})",
     "sliding_attention", "default", 1e4, 256, 256},
    {"Gemma-3 inside a multimodal configuration",
     R"("vision_config": {}, "text_config": {"head_dim": 256, "rope_theta": 1000000,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}})",
     "", "linear:8", 1e6, 256, 256},
    {"Gemma-4, its sliding layers",
     R"("head_dim": 256, "rope_parameters": {
            "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
            "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"}})",
     "sliding_attention", "default", 1e4, 256, 256},
    {"rope_parameters", heads + R"(, "rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 4})", "",
     "linear:4", 5e5, 128, 128},
    {"rope_parameters without a type", heads + R"(, "rope_parameters": {"rope_theta": 5e5})", "", "default", 5e5, 128,
     128},
    {"rope_parameters with a partial factor",
     heads + R"(, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.5})", "",
     "default", 1e4, 128, 64},
    {"one layer type only",
     heads + R"(, "rope_parameters": {"full_attention": {"rope_theta": 5e5, "rope_type": "default"}})", "", "default",
     5e5, 128, 128},
    {"both names of the type", heads + R"(, "rope_scaling": {"rope_type": "default", "type": "default"})", "",
     "default", 1e4, 128, 128},
    {"GPT-J", R"("n_embd": 4096, "n_head": 16, "rotary_dim": 64, "model_type": "gptj")", "", "default", 1e4, 256, 64,
     rw::layout_kind::interleaved},
    {"MLA", R"("hidden_size": 7168, "num_attention_heads": 128, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
               "model_type": "deepseek_v3")",
     "", "default", 1e4, 64, 64, rw::layout_kind::interleaved},
    {"an explicit layout key", R"("head_dim": 64, "model_type": "deepseek_v3", "rope_interleave": false)", "",
     "default", 1e4, 64, 64},
    {"null widths", R"("head_dim": null, "hidden_size": 64, "num_attention_heads": 2, "rope_theta": null)", "",
     "default", 1e4, 32, 32},
};

}  // namespace

TEST_CASE("configurations of real models are read", "[io]") {
    for (const accepted& model : models) {
        INFO(model.name);
        const rw::Encoding encoding =
            read(model.fragment, {.layer_type = model.layer_type, .sequence_length = 0, .layout = {}, .policy = {}});
        CHECK(encoding.expression == model.expression);
        CHECK(encoding.geometry.base == model.base);
        CHECK(encoding.geometry.head_dim == model.head_dim);
        CHECK(encoding.geometry.width() == model.rotary_dim);
        CHECK(encoding.geometry.rotary_offset == 0);
        CHECK((encoding.geometry.layout == model.layout));
    }
}

TEST_CASE("the encoding of a configuration is that of its policy", "[io]") {
    const rw::Encoding read_one = read(heads + R"(, "rope_scaling": {"type": "linear", "factor": 8.0})");
    const rw::Encoding made = rw::make_encoding(rw::Geometry{.head_dim = 128}, rw::Linear{.factor = 8});
    CHECK((read_one.steps == made.steps));
    CHECK((read_one.inv_freq == made.inv_freq));
}

TEST_CASE("choices reach the geometry", "[io]") {
    const rw::Encoding encoding =
        read(heads, {.layer_type = "", .sequence_length = 4096, .layout = rw::layout_kind::interleaved, .policy = {}});
    CHECK(encoding.geometry.sequence_length == 4096);
    CHECK((encoding.geometry.layout == rw::layout_kind::interleaved));
}

TEST_CASE("configurations are read from files", "[io]") {
    const auto path = std::filesystem::temp_directory_path() / "ropewalk_hf_config_test.json";
    std::ofstream(path) << "{" << heads << "}";
    CHECK(rw::encoding_from_config_file(path).geometry.head_dim == 128);
    std::ofstream(path) << "{" << heads;
    CHECK_THROWS_AS(rw::encoding_from_config_file(path), rw::error);
    std::filesystem::remove(path);
    CHECK_THROWS_AS(rw::encoding_from_config_file(path), rw::error);
    CHECK_THROWS_AS(rw::encoding_from_config(nlohmann::json("config.json")), rw::error);
}

TEST_CASE("a configuration is read from the folder that holds it", "[io]") {
    const auto folder = std::filesystem::temp_directory_path() / "ropewalk_hf_config_test_folder";
    std::filesystem::create_directory(folder);
    const std::string name = folder.string();
    CHECK_REFUSED(rw::encoding_from_config_file(folder), name.c_str(), "is a folder without a config.json");
    CHECK_REFUSED(rw::parse_config_file(folder), name.c_str(), "is a folder, expected a file");
    std::ofstream(folder / "config.json") << "{" << heads << "}";
    CHECK(rw::encoding_from_config_file(folder).geometry.head_dim == 128);
    std::filesystem::remove_all(folder);
}

TEST_CASE("a policy given by hand replaces the scheme and keeps the rest", "[io]") {
    const auto with_policy = [](const std::string& fragment, const std::string& policy) {
        return read(fragment, {.layer_type = "", .sequence_length = 0, .layout = {}, .policy = policy});
    };
    const std::string yarn = "yarn:8,original_length=4096";
    const rw::Encoding linear =
        with_policy(heads + R"(, "rope_theta": 7e5, "rope_scaling": {"factor": 8.0, "type": "linear"})", yarn);
    CHECK(linear.expression == yarn);
    CHECK(linear.geometry.base == 7e5);
    CHECK(linear.geometry.width() == 128);
    // whatever scheme there was, but not the sections of a model that sees
    CHECK(with_policy(heads + R"(, "rope_scaling": {"factor": 8.0, "type": "of tomorrow"})", yarn).expression == yarn);
    const std::string sections = heads + R"(, "rope_scaling": {"type": "default", "mrope_section": [16, 24, 24]})";
    CHECK(with_policy(sections, yarn).expression == yarn + "|mrope:[16,24,24]");
    CHECK(with_policy(sections, "linear:2|mrope:[24,20,20]").expression == "linear:2|mrope:[24,20,20]");
    CHECK_THROWS_AS(with_policy(heads, "linaer:8"), rw::error);
}

TEST_CASE("PhiMoE's second magnitude holds beyond the original length", "[io]") {
    const std::string fragment = R"("head_dim": 4, "original_max_position_embeddings": 4096,
        "rope_scaling": {"type": "longrope", "short_factor": [1, 2], "long_factor": [3, 4], "short_mscale": 1.25,
        "long_mscale": 1.5})";
    const auto factor_at = [&](std::int64_t length) {
        return read(fragment, {.layer_type = "", .sequence_length = length, .layout = {}, .policy = {}})
            .attention_factor;
    };
    CHECK(factor_at(4096) == 1.25);
    CHECK(factor_at(4097) == 1.5);
}
