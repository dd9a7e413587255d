// Reader of config.json on fragments. Whole published files are in real_configs.cpp.

#include <ropewalk/io/hf_config.hpp>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#if defined(__linux__)
#include <sys/stat.h>
#endif

#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace {

/// A shape for fragments without one.
const std::string heads = R"("hidden_size": 5120, "num_attention_heads": 40)";

rw::Encoding read(const std::string& fragment, const rw::config_choices& choices = {}) {
    return rw::encoding_from_config(rw::parse_config("{" + fragment + "}", "the test"), choices);
}

struct accepted {
    std::string name, fragment, layer_type, expression;
    double base;
    std::int64_t head_dim, rotary_dim;
    rw::layout_kind layout = rw::layout_kind::half_split;
};

const std::vector<accepted> models{
    {"Giraffe v2, early", heads + R"(, "abacus_scale": 8, "rope_scaling": null)", "", "linear:8", 1e4, 128, 128},
    {"Phi-2", R"("hidden_size": 2560, "num_attention_heads": 32, "partial_rotary_factor": 0.4)", "", "default", 1e4, 80,
     32},
    {"Gemma-3 inside a multimodal configuration",
     R"("vision_config": {}, "text_config": {"head_dim": 256, "rope_local_base_freq": 10000, "rope_theta": 1000000,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}})",
     "", "linear:8", 1e6, 256, 256},
    {"rope_parameters", heads + R"(, "rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 4})", "",
     "linear:4", 5e5, 128, 128},
    {"rope_parameters without a type", heads + R"(, "rope_parameters": {"rope_theta": 5e5})", "", "default", 5e5, 128,
     128},
    {"rope_parameters with a partial factor",
     heads + R"(, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.5})", "",
     "default", 1e4, 128, 64},
    {"a single layer type",
     heads + R"(, "rope_parameters": {"full_attention": {"rope_theta": 5e5, "rope_type": "default"}})", "", "default",
     5e5, 128, 128},
    {"both names of the type", heads + R"(, "rope_scaling": {"rope_type": "default", "type": "default"})", "",
     "default", 1e4, 128, 128},
    {"GPT-J", R"("n_embd": 4096, "n_head": 16, "rotary_dim": 64, "model_type": "gptj")", "", "default", 1e4, 256, 64,
     rw::layout_kind::interleaved},
    {"an explicit layout key", R"("head_dim": 64, "model_type": "deepseek_v3", "rope_interleave": false)", "",
     "default", 1e4, 64, 64},
    {"null widths", R"("head_dim": null, "hidden_size": 64, "num_attention_heads": 2, "rope_theta": null)", "",
     "default", 1e4, 32, 32},
};

}  // namespace

TEST_CASE("fragments of published configurations are read", "[io]") {
    for (const accepted& model : models) {
        INFO(model.name);
        const rw::Encoding encoding = read(model.fragment, {.layer_type = model.layer_type});
        CHECK(encoding.expression == model.expression);
        CHECK(encoding.geometry.base == model.base);
        CHECK(encoding.geometry.head_dim == model.head_dim);
        CHECK(encoding.geometry.width() == model.rotary_dim);
        CHECK(encoding.geometry.rotary_offset == 0);
        CHECK((encoding.geometry.layout == model.layout));
    }
}

TEST_CASE("the encoding of a configuration is that of its policy", "[io]") {
    const rw::Encoding from_config = read(heads + R"(, "rope_scaling": {"type": "linear", "factor": 8.0})");
    const rw::Encoding from_policy = rw::make_encoding(rw::Geometry{.head_dim = 128}, rw::Linear{.factor = 8});
    CHECK((from_config.steps == from_policy.steps));
    CHECK((from_config.inv_freq == from_policy.inv_freq));
}

TEST_CASE("choices are passed to the geometry", "[io]") {
    const rw::Encoding encoding = read(heads, {.sequence_length = 4096, .layout = rw::layout_kind::interleaved});
    CHECK(encoding.geometry.sequence_length == 4096);
    CHECK((encoding.geometry.layout == rw::layout_kind::interleaved));
}

TEST_CASE("configurations are read from files and folders", "[io]") {
    const auto folder = std::filesystem::temp_directory_path() / "ropewalk_hf_config_test";
    const auto path = folder / "config.json";
    const std::string name = folder.string();
    std::filesystem::create_directory(folder);
    CHECK_REFUSED(rw::encoding_from_config_file(folder), name.c_str(), "is a folder without a config.json");
    CHECK_REFUSED(rw::parse_config_file(folder), name.c_str(), "is a folder, expected a file");
    CHECK_REFUSED(rw::encoding_from_config_file(path), "cannot read", path.string().c_str());
    std::ofstream(path) << "{" << heads;
    CHECK_REFUSED(rw::encoding_from_config_file(path), path.string().c_str(), "is not valid JSON");
    std::ofstream(path) << "{" << heads << "}";
    CHECK(rw::encoding_from_config_file(path).geometry.head_dim == 128);
    CHECK(rw::encoding_from_config_file(folder).geometry.head_dim == 128);
    std::filesystem::remove_all(folder);
    CHECK_REFUSED(rw::encoding_from_config(nlohmann::json("config.json")), "must be an object");
}

#if defined(__linux__)
TEST_CASE("only regular files are read", "[io]") {
    const auto folder = std::filesystem::temp_directory_path() / "ropewalk_regular_files_test";
    const auto path = folder / "config.json";
    std::filesystem::remove_all(folder);
    std::filesystem::create_directory(folder);
    CHECK_REFUSED(rw::parse_config_file("/dev/zero"), "/dev/zero is a character device, expected a file");
    // Opening a FIFO without a writer would wait for one.
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    CHECK_REFUSED(rw::encoding_from_config_file(path), path.c_str(), "is a FIFO, expected a file");
    CHECK_REFUSED(rw::encoding_from_config_file(folder), path.c_str(), "is a FIFO, expected a file");
    std::filesystem::remove(path);
    // The length of a file is checked before its bytes are read: this one has holes.
    std::ofstream(path).close();
    std::filesystem::resize_file(path, std::uintmax_t{1} << 40);
    CHECK_REFUSED(rw::encoding_from_config_file(path), path.c_str(), "has 1099511627776 bytes, the limit is 16777216");
    // A regular file of the system states no size.
    CHECK_REFUSED(rw::parse_config_file("/proc/self/status"), "/proc/self/status is not valid JSON", "invalid literal");
    std::filesystem::remove_all(folder);
}
#endif

TEST_CASE("a policy of the caller replaces the scaling and keeps the rest", "[io]") {
    const auto with_policy = [](const std::string& keys, const std::string& policy) {
        return read(heads + keys, {.policy = policy});
    };
    const std::string yarn = "yarn:8,original_length=4096";
    const rw::Encoding linear =
        with_policy(R"(, "rope_theta": 7e5, "rope_scaling": {"factor": 8.0, "type": "linear"})", yarn);
    CHECK(linear.expression == yarn);
    CHECK(linear.geometry.base == 7e5);
    CHECK(linear.geometry.width() == 128);
    // An unknown rope_type is replaced; mrope_section stays.
    CHECK(with_policy(R"(, "rope_scaling": {"factor": 8.0, "type": "of tomorrow"})", yarn).expression == yarn);
    const std::string sections = R"(, "rope_scaling": {"type": "default", "mrope_section": [16, 24, 24]})";
    CHECK(with_policy(sections, yarn).expression == yarn + "|mrope:[16,24,24]");
    CHECK(with_policy(sections, "linear:2|mrope:[24,20,20]").expression == "linear:2|mrope:[24,20,20]");
    CHECK_REFUSED(with_policy("", "linaer:8"), "did you mean 'linear'?");
}

TEST_CASE("a policy of the caller uses the original length of the model", "[io]") {
    const auto expression = [](const std::string& keys) { return read(heads + keys, {.policy = "yarn:8"}).expression; };
    CHECK(expression(R"(, "max_position_embeddings": 4096)") == "yarn:8,original_length=4096");
    CHECK(expression(R"(, "max_position_embeddings": 4096, "rope_scaling": {"type": "default"})") ==
          "yarn:8,original_length=4096");
    CHECK(expression(R"(, "max_position_embeddings": 32768, "original_max_position_embeddings": 2048)") ==
          "yarn:8,original_length=2048");
    CHECK(expression(R"(, "max_position_embeddings": 32768,
        "rope_scaling": {"type": "llama3", "factor": 8, "original_max_position_embeddings": 8192})") ==
          "yarn:8,original_length=8192");
    // max_position_embeddings of a scaled model can be the extended length.
    const char* const message = "yarn needs original_length, the trained context length: write yarn:8,";
    CHECK_REFUSED(expression(R"(, "max_position_embeddings": 32768, "rope_scaling": {"type": "linear", "factor": 8})"),
                  message);
    CHECK_REFUSED(expression(R"(, "max_position_embeddings": 32768, "abacus_scale": 8)"), message);
    CHECK_REFUSED(expression(""), message);
}

TEST_CASE("PhiMoE has another attention factor beyond the original length", "[io]") {
    const std::string fragment = R"("head_dim": 4, "original_max_position_embeddings": 4096,
        "rope_scaling": {"type": "longrope", "short_factor": [1, 2], "long_factor": [3, 4], "short_mscale": 1.25,
        "long_mscale": 1.5})";
    const auto factor_at = [&](std::int64_t length) {
        return read(fragment, {.sequence_length = length}).attention_factor;
    };
    CHECK(factor_at(4096) == 1.25);
    CHECK(factor_at(4097) == 1.5);
}
