// Writer of encodings: keys that read back, flags of llama.cpp, overrides of vLLM, and encodings without a form.

#include <ropewalk/io/hf_config.hpp>
#include <ropewalk/io/hf_write.hpp>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace {

rw::Encoding make(const std::string& expression, const rw::Geometry& geometry = {}) {
    return rw::make_encoding(geometry, expression);
}

rw::Encoding read_back(const rw::Encoding& encoding, const char* erased = "") {
    nlohmann::json config = rw::to_hf_config(encoding);
    config.erase(erased);
    return rw::encoding_from_config(config, {.sequence_length = encoding.geometry.sequence_length});
}

std::string flags_of(const std::string& expression, const rw::Geometry& geometry = {}) {
    return rw::to_llama_cpp_flags(make(expression, geometry));
}

std::vector<rw::Geometry> geometries() {
    return {{.head_dim = 128},
            {.head_dim = 96, .rotary_dim = 32, .base = 5e5},
            {.head_dim = 80, .rotary_dim = 72, .base = 25e3, .layout = rw::layout_kind::interleaved},
            {.head_dim = 64, .base = 1e6, .sequence_length = 5000}};
}

}  // namespace

TEST_CASE("policies with their own rope_type read back bit for bit", "[io]") {
    for (const rw::Geometry& geometry : geometries()) {
        for (const std::string expression :
             {"default", "linear:8", "linear:0.3", "dynamic:4,original_length=4096", "yarn:16,original_length=4096",
              "yarn:16.7,original_length=4096,beta_fast=20.1,beta_slow=2,truncate=false,attention_factor=1.1",
              "yarn:40,original_length=4096,mscale=0.707,mscale_all_dim=1", "llama3",
              "llama3:32,low_freq_factor=2,high_freq_factor=8,original_length=1000",
              "longrope:factor=32,original_length=4096",
              "longrope:factor=2,original_length=4096,attention_factor=1.3"}) {
            INFO(expression << " at width " << geometry.width());
            const rw::Encoding encoding = make(expression, geometry);
            for (const char* const erased : {"", "rope_parameters", "rope_scaling"}) {
                const rw::Encoding again = read_back(encoding, erased);
                CHECK((again.steps == encoding.steps));
                CHECK(again.attention_factor == encoding.attention_factor);
                CHECK(again.softmax_factor == encoding.softmax_factor);
                CHECK(again.stage == encoding.stage);
                CHECK(again.geometry.width() == encoding.geometry.width());
                CHECK(again.geometry.head_dim == encoding.geometry.head_dim);
            }
        }
    }
}

TEST_CASE("policies without their own rope_type are written as longrope", "[io]") {
    for (const rw::Geometry& geometry : geometries()) {
        for (const std::string expression :
             {"power:0.1", "power:0.5", "truncated:4096", "ntk:8", "linear:4|truncated:4096",
              "linear:4|power:0.5|truncated:1000", "yarn:4,original_length=2048|power:0.2", "linear:2|linear:3",
              "yarn:1", "longrope:attention_factor=1", "yarn:2,original_length=4096,attention_factor=1.25|linear:2"}) {
            INFO(expression << " at width " << geometry.width());
            const rw::Encoding encoding = make(expression, geometry);
            CHECK(rw::to_hf_config(encoding)["rope_parameters"]["rope_type"] == "longrope");
            const rw::Encoding again = read_back(encoding);
            CHECK(std::abs(again.attention_factor / encoding.attention_factor - 1) < 1e-12);
            for (std::size_t j = 0; j < encoding.inv_freq.size(); ++j) {
                INFO("pair " << j);
                const double expected = encoding.inv_freq[j];
                CHECK(std::abs(again.inv_freq[j] - expected) <= (expected == 0 ? 1e-30 : 1e-12 * expected));
                if (expected == 0) CHECK(again.steps[j] == 0);
            }
        }
    }
}

TEST_CASE("a written list is independent of the length", "[io]") {
    const nlohmann::json config = rw::to_hf_config(make("truncated:4096"));
    CHECK(config["rope_parameters"]["short_factor"] == config["rope_parameters"]["long_factor"]);
    CHECK(config["rope_parameters"]["attention_factor"] == 1.0);
    // base^(2j/d) · factor stays finite in float32.
    for (const double factor : config["rope_parameters"]["long_factor"].get<std::vector<double>>()) {
        CHECK(factor * 1e8 < 3.4e38);
    }
}

TEST_CASE("proportional and M-RoPE read back", "[io]") {
    for (const std::string expression :
         {"proportional:0.3,factor=2", "mrope:[16,24,24]", "mrope:[24,20,20],interleaved=true",
          "yarn:4,original_length=32768|mrope:[16,24,24]", "linear:2|mrope:[24,20,20],interleaved=true"}) {
        INFO(expression);
        const rw::Encoding encoding = make(expression), again = read_back(encoding);
        CHECK(again.expression == expression);
        CHECK((again.steps == encoding.steps));
        CHECK((again.axis_steps == encoding.axis_steps));
    }
}

TEST_CASE("rope_parameters and the older rope_scaling have the same content", "[io]") {
    const nlohmann::json config = rw::to_hf_config(make("linear:8", {.head_dim = 64, .base = 5e5}));
    CHECK(config["rope_parameters"] == nlohmann::json({{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 5e5}}));
    CHECK(config["rope_scaling"] == nlohmann::json({{"type", "linear"}, {"factor", 8.0}}));
    CHECK(config["rope_theta"] == 5e5);
    CHECK(rw::to_hf_config(make("default"))["rope_scaling"].is_null());
}

TEST_CASE("only keys of Hugging Face are written", "[io]") {
    const std::set<std::string> known{"head_dim",
                                      "rope_theta",
                                      "rope_scaling",
                                      "rope_parameters",
                                      "partial_rotary_factor",
                                      "rope_interleave",
                                      "max_position_embeddings",
                                      "original_max_position_embeddings"};
    for (const std::string expression : {"default", "linear:8", "dynamic:4,original_length=4096", "power:0.5",
                                         "yarn:16,original_length=4096", "llama3", "proportional:0.3"}) {
        const nlohmann::json config = rw::to_hf_config(make(expression, {.layout = rw::layout_kind::interleaved}));
        for (const auto& [key, value] : config.items()) {
            INFO(expression << " has " << key);
            CHECK(known.count(key) == 1);
        }
    }
}

TEST_CASE("flags of llama.cpp", "[io]") {
    CHECK(flags_of("default") == "--rope-scaling none --rope-freq-base 10000");
    CHECK(flags_of("linear:8") == "--rope-scaling linear --rope-scale 8 --rope-freq-base 10000");
    CHECK(flags_of("yarn:16,original_length=4096", {.head_dim = 128, .base = 1e6}) ==
          "--rope-scaling yarn --rope-scale 16 --yarn-orig-ctx 4096 --rope-freq-base 1000000");
    CHECK(flags_of("yarn:16,original_length=4096,beta_fast=20,beta_slow=2") ==
          "--rope-scaling yarn --rope-scale 16 --yarn-orig-ctx 4096 --yarn-beta-fast 20 --yarn-beta-slow 2 "
          "--rope-freq-base 10000");
    // The default attention factor of a factor of 1 is 1, so the stated one remains.
    CHECK(flags_of("yarn:1,original_length=4096,attention_factor=1.5") ==
          "--rope-scaling yarn --rope-scale 1 --yarn-orig-ctx 4096 --yarn-attn-factor 1.5 --rope-freq-base 10000");
    // The base is 10000 · 8^(4/2).
    CHECK(flags_of("ntk:8", {.head_dim = 4}) == "--rope-scaling none --rope-freq-base 640000");
    for (const std::string expression :
         {"power:0.5", "truncated:4096", "llama3", "proportional:0.25", "dynamic:4,original_length=4096",
          "linear:2|power:0.5", "yarn:16,original_length=4096,truncate=false"}) {
        INFO(expression);
        CHECK_REFUSED(flags_of(expression), "llama.cpp");
    }
    CHECK_REFUSED(flags_of("xpos:512"), "magnitudes");
}

TEST_CASE("a merge replaces the original length of the model", "[io]") {
    const nlohmann::json phi{{"original_max_position_embeddings", 4096}, {"max_position_embeddings", 131072}};
    for (const std::string expression : {"llama3:8,original_length=8192", "yarn:8,original_length=2048",
                                         "longrope:factor=4,original_length=1024", "power:0.5"}) {
        INFO(expression);
        nlohmann::json merged = phi;
        merged.update(rw::to_hf_config(make(expression)));
        const rw::Encoding again = rw::encoding_from_config(merged);
        CHECK((again.steps == rw::encoding_from_config(rw::to_hf_config(make(expression))).steps));
        CHECK(again.attention_factor == make(expression).attention_factor);
        CHECK(rw::to_vllm_overrides(make(expression))["original_max_position_embeddings"] ==
              merged["rope_parameters"]["original_max_position_embeddings"]);
    }
}

TEST_CASE("a merge replaces the rotary width of the model", "[io]") {
    const nlohmann::json phi{{"model_type", "phi"}, {"partial_rotary_factor", 0.4}};
    for (const rw::Geometry& geometry : geometries()) {
        nlohmann::json file = phi, kind{{"model_type", "phi"}};  // half of a head by default
        file.update(rw::to_hf_config(make("linear:8", geometry)));
        kind.update(rw::to_hf_config(make("linear:8", geometry)));
        CHECK(rw::encoding_from_config(file).geometry.width() == geometry.width());
        CHECK(rw::encoding_from_config(kind).geometry.width() == geometry.width());
    }
    nlohmann::json neox{{"model_type", "gpt_neox"}, {"rotary_pct", 0.25}};
    neox.update(rw::to_hf_config(make("linear:8")));
    CHECK_REFUSED(rw::encoding_from_config(neox), "'partial_rotary_factor' is 1 but 'rotary_pct' is 0.25");
    CHECK(!rw::to_hf_config(make("proportional:0.3")).contains("partial_rotary_factor"));
}

TEST_CASE("overrides of vLLM", "[io]") {
    const auto section_of = [](const std::string& expression) {
        return rw::to_vllm_overrides(make(expression))["rope_parameters"];
    };
    CHECK(section_of("linear:8") ==
          nlohmann::json({{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 10000.0}}));
    // Its longrope reads two mscales, its yarn a relative attn_factor.
    CHECK(section_of("power:0.5")["long_mscale"] == 1.0);
    CHECK(section_of("power:0.5")["short_mscale"] == 1.0);
    CHECK(section_of("yarn:1,original_length=4096,attention_factor=1.5")["attn_factor"] == 1.5);
    CHECK(rw::to_vllm_overrides(make("dynamic:4,original_length=4096"))["max_position_embeddings"] == 4096);
    CHECK_REFUSED(rw::to_vllm_overrides(make("xpos:512")), "magnitudes");
}

TEST_CASE("an encoding that a configuration cannot express is rejected", "[io]") {
    CHECK_REFUSED(rw::to_hf_config(make("xpos:512")), "xpos", "magnitudes");
    CHECK_REFUSED(rw::to_hf_config(make("linear:2|xpos:512")), "linear:2|xpos", "magnitudes");
    CHECK_REFUSED(rw::to_hf_config(make("randomized:100")), "randomized:100", "positions");
    CHECK_REFUSED(rw::to_hf_config(make("randomized_sorted:100", {.head_dim = 128, .sequence_length = 10})),
                  "positions");
    CHECK_REFUSED(rw::to_hf_config(make("dynamic:4,original_length=4096|linear:2")), "dynamic", "sequence length");
    CHECK_REFUSED(rw::to_hf_config(make("longrope:factor=2,original_length=4096|linear:2")), "longrope");
    CHECK_REFUSED(rw::to_hf_config(make("default", {.head_dim = 128, .rotary_dim = 64, .rotary_offset = 64})), "64");
    CHECK_REFUSED(rw::to_hf_config(make("proportional:0.5", {.head_dim = 128, .rotary_dim = 64})), "proportional",
                  "64");
    CHECK_REFUSED(rw::to_hf_config(make("yarn:4,original_length=4096,mscale=1,mscale_all_dim=1|linear:2")), "softmax");
}
