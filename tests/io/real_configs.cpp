// Published configurations in examples/configs.

#include <ropewalk/io/hf_config.hpp>
#include <ropewalk/io/hf_write.hpp>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace rw = ropewalk;

namespace real_configs_tests {
namespace {

const std::filesystem::path folder = "examples/configs";

struct real_model {
    std::string name, expression;
    double base;
    std::int64_t head_dim, rotary_dim;
    double attention_factor = 1;
    std::string layer_type{};
    rw::layout_kind layout = rw::layout_kind::half_split;
    double softmax_factor = 1;
};

const std::vector<real_model> models{
    {"llama-2-13b", "default", 1e4, 128, 128},
    {"llama-2-7b-32k", "linear:8", 1e4, 128, 128},
    {"giraffe-v2-70b", "linear:8", 1e4, 128, 128},
    {"giraffe-13b-32k-v3", "linear:8", 1e4, 128, 128},
    {"yarn-llama-2-7b-64k", "yarn:16,original_length=4096", 1e4, 128, 128, 1.2772588722239782},
    {"llama-3.1-8b", "llama3", 5e5, 128, 128},
    {"qwen2.5-7b-yarn", "yarn:4,original_length=32768", 1e6, 128, 128, 1.138629436111989},
    {"phi-3-mini-128k", "longrope:", 1e4, 96, 96, 1.1902380714238083},
    {"pythia-1.4b", "default", 1e4, 128, 32},
    {"deepseek-v3", "yarn:40,original_length=4096,mscale=1,mscale_all_dim=1", 1e4, 64, 64, 1, "",
     rw::layout_kind::interleaved, 1.8738542070926265},
    {"gpt-oss-20b", "yarn:32,original_length=4096,truncate=false", 150e3, 64, 64, 1.3465735902799727},
    {"gemma-3-12b", "linear:8", 1e6, 256, 256, 1, "full_attention"},
    {"gemma-3-12b", "default", 1e4, 256, 256, 1, "sliding_attention"},
    {"gemma-4", "proportional:0.25", 1e6, 512, 512, 1, "full_attention"},
    {"gemma-4", "default", 1e4, 256, 256, 1, "sliding_attention"},
    {"qwen2-vl-7b", "mrope:[16,24,24]", 1e6, 128, 128},
    {"qwen3-vl-8b", "mrope:[24,20,20],interleaved=true", 5e6, 128, 128},
    {"llama-3-giraffe-70b", "dynamic:4,original_length=8192", 5e5, 128, 128},
    {"mistral-7b-v0.1", "default", 1e4, 128, 128},
    {"mistral-7b-v0.2", "default", 1e6, 128, 128},
};

rw::Encoding read(const real_model& model) {
    return rw::encoding_from_config_file(folder / (model.name + ".json"), {.layer_type = model.layer_type});
}

}  // namespace

TEST_CASE("published configurations are read", "[io]") {
    for (const real_model& model : models) {
        INFO(model.name);
        const rw::Encoding encoding = read(model);
        CHECK(encoding.expression.substr(0, model.name.starts_with("phi") ? model.expression.size() : 1000) ==
              model.expression);
        CHECK(encoding.geometry.base == model.base);
        CHECK(encoding.geometry.head_dim == model.head_dim);
        CHECK(encoding.geometry.width() == model.rotary_dim);
        CHECK(encoding.geometry.rotary_offset == 0);
        CHECK((encoding.geometry.layout == model.layout));
        CHECK(std::abs(encoding.attention_factor / model.attention_factor - 1) < 1e-14);
        CHECK(std::abs(encoding.softmax_factor / model.softmax_factor - 1) < 1e-14);
    }
}

TEST_CASE("every published configuration is written and reads back bit for bit", "[io]") {
    for (const real_model& model : models) {
        INFO(model.name);
        const rw::Encoding encoding = read(model);
        const rw::Encoding again = rw::encoding_from_config(rw::to_hf_config(encoding));
        CHECK((again.steps == encoding.steps));
        CHECK((again.axis_steps == encoding.axis_steps));
        CHECK(again.expression == encoding.expression);
        CHECK(again.attention_factor == encoding.attention_factor);
        CHECK(again.softmax_factor == encoding.softmax_factor);
        CHECK((again.geometry.layout == encoding.geometry.layout));
        CHECK(again.geometry.width() == encoding.geometry.width());
    }
}

TEST_CASE("every file in examples/configs is tested", "[io]") {
    std::set<std::string> names;
    for (const real_model& model : models) names.insert(model.name);
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        INFO(entry.path());
        CHECK(names.erase(entry.path().stem().string()) == 1);
    }
    CHECK(names.empty());
}

}  // namespace real_configs_tests
