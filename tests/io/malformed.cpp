// Invalid configurations: each error is one line that names the key.

#include <ropewalk/io/hf_config.hpp>

#include <algorithm>
#include <ctime>
#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace {

struct malformed {
    std::string text, message;
    std::string layer_type{};
};

std::string scaling(const std::string& section) {
    return R"({"head_dim": 8, "max_position_embeddings": 4096, "rope_scaling": {)" + section + "}}";
}
std::string parameters(const std::string& section) {
    return R"({"head_dim": 8, "max_position_embeddings": 4096, "rope_parameters": {)" + section + "}}";
}
std::string shape(const std::string& keys) { return "{" + keys + "}"; }

/// The texts of `count` entries, with commas.
template <class Entry>
std::string repeated(int count, const Entry& entry) {
    std::string all;
    for (int i = 0; i < count; ++i) all.append(i == 0 ? "" : ", ").append(entry(i));
    return all;
}

const std::vector<malformed> invalid_json{
    {"", "is not valid JSON"},
    {"{", "is not valid JSON"},
    {"{\"head_dim\": 8,}", "is not valid JSON"},
    {"{\"head_dim\": 0x8}", "is not valid JSON"},
    {"{'head_dim': 8}", "is not valid JSON"},
    {"{\"head_dim\"\n\n: 8\n} tail", "is not valid JSON"},
    {"{\"rope_theta\": 1e999, \"head_dim\": 8}", "number overflow"},
    {std::string("{\"head_dim\": \"\xff\xfe\"}"), "is not valid JSON"},
    {std::string(100000, '['), "nested deeper than 64 levels"},
    {R"({"a":)" + std::string(100, '[') + std::string(100, ']') + "}", "nested deeper than 64 levels"},
    {"\"" + std::string(10000, 'x'), "is not valid JSON"},
    {R"({"head_dim": 8, "rope_theta": 1e4, "rope_theta": 1e5})", "has the key 'rope_theta' twice"},
    {R"({"a": [{"b": 1}, {"b": 1, "c": {"b": 2}, "b": 3}]})", "has the key 'b' twice"},
    {"[1, 2]", "must be an object, got array"},
    {"null", "must be an object, got null"},
};

const std::vector<malformed> wrong_sections{
    {scaling(R"("factor": 2.0, "rope_type": "linaer")"),
     "rope_type 'linaer' is not supported: did you mean 'linear'? Choose from default, linear"},
    {scaling("\"factor\": 2.0, \"rope_type\": \"lin\\near\""), R"(rope_type '"lin\near"' is not supported)"},
    {scaling(R"("type": "linear")"), "rope_scaling lacks 'factor'"},
    {scaling(R"("type": "linear", "factor": null)"), "rope_scaling lacks 'factor'"},
    {scaling(R"("type": "linear", "factor": "8")"), "rope_scaling.factor must be a number, got \"8\""},
    {scaling(R"("type": "linear", "factor": [8])"), "rope_scaling.factor must be a number, got an array"},
    {scaling(R"("type": "linear", "factor": true)"), "rope_scaling.factor must be a number, got true"},
    {scaling(R"("type": "linear", "factor": -8)"), "factor must be a positive number, got -8"},
    {scaling(R"("type": "linear", "factor": Infinity)"), "rope_scaling.factor must be a number, got \"Infinity\""},
    {scaling(R"("type": "linear", "factor": 8, "fcator": 4)"),
     "rope_scaling: key 'fcator' is not known for linear: did you mean 'factor'?"},
    {scaling(R"("type": "default", "factor": 8)"),
     "rope_scaling: factor has no effect for default and must be 1, got 8"},
    {scaling(R"("type": "linear", "factor": 8, "beta_fast": 32)"), "key 'beta_fast' is not known for linear"},
    {scaling(R"("type": 3, "factor": 8)"), "rope_scaling.type must be text, got 3"},
    {scaling(R"("factor": 8)"), "rope_scaling has a factor but lacks 'rope_type'"},
    {scaling(R"("rope_type": "default", "type": "linear", "factor": 8)"),
     "rope_type is 'default' but type is 'linear'"},
    {scaling(R"("type": "dynamic")"), "rope_scaling lacks 'factor'"},
    {scaling(R"("type": "dynamic", "factor": 4, "alpha": 10)"), "'alpha' is 10 but 'factor' is 4"},
    {scaling(R"("type": "dynamic", "factor": 4, "mscale": 1)"),
     "key 'mscale' is not known for dynamic without 'alpha'"},
    {scaling(R"("type": "dynamic", "factor": 4, "original_max_position_embeddings": 2048)"),
     "original_max_position_embeddings is 2048 but max_position_embeddings"},
    {scaling(R"("type": "yarn")"), "rope_scaling lacks 'factor'"},
    {scaling(R"("type": "yarn", "factor": 4, "truncate": 1)"), "rope_scaling.truncate must be true or false, got 1"},
    {scaling(R"("type": "yarn", "factor": 4, "beta_fast": 1, "beta_slow": 2)"), "beta_fast >= beta_slow"},
    {scaling(R"("type": "yarn", "factor": 4, "original_max_position_embeddings": 4096.5)"),
     "original_max_position_embeddings must be a whole number, got 4096.5"},
    {scaling(R"("type": "yarn", "factor": 4, "original_max_position_embeddings": 0)"),
     "original_max_position_embeddings must be positive, got 0"},
    {scaling(R"("type": "yarn", "factor": 4, "original_max_position_embeddings": 18446744073709551615)"),
     "original_max_position_embeddings must be below 2^63"},
    {scaling(R"("type": "yarn", "factor": 4, "extrapolation_factor": 0.5)"), "extrapolation_factor must be 1, got 0.5"},
    {scaling(R"("type": "yarn", "factor": 4, "attn_factor": 2, "attention_factor": 2)"),
     "both 'attention_factor' and 'attn_factor'"},
    {shape(R"("head_dim": 8, "rope_scaling": {"type": "yarn", "factor": 4})"),
     "rope_scaling lacks 'original_max_position_embeddings'"},
    {scaling(R"("type": "llama3", "factor": 8, "low_freq_factor": 1)"), "rope_scaling lacks 'high_freq_factor'"},
    {scaling(R"("type": "llama3", "factor": 8, "high_freq_factor": 1, "low_freq_factor": 4)"), "high_freq_factor"},
    {scaling(R"("type": "longrope", "factor": 8, "short_factor": [1, 1, 1, 1])"), "rope_scaling lacks 'long_factor'"},
    {scaling(R"("type": "longrope", "factor": 8, "short_factor": [1, 1], "long_factor": [1, 1, 1, 1])"),
     "rope_scaling.short_factor has 2 entries, expected 4"},
    {scaling(R"("type": "longrope", "factor": 8, "short_factor": [1, 1, "1", 1], "long_factor": [1, 1, 1, 1])"),
     "rope_scaling.short_factor must be a number, got \"1\""},
    {scaling(R"("type": "longrope", "factor": 8, "short_factor": [1, 1, 0, 1], "long_factor": [1, 1, 1, 1])"),
     "short_factor must be positive numbers"},
    {scaling(R"("type": "longrope", "factor": 8, "short_factor": 1, "long_factor": [1, 1, 1, 1])"),
     "rope_scaling.short_factor must be an array"},
    {scaling(R"("type": "mrope")"), "rope_scaling lacks 'mrope_section'"},
    {scaling(R"("type": "default", "mrope_interleaved": true)"), "rope_scaling lacks 'mrope_section'"},
    {scaling(R"("type": "default", "mrope_section": [1, 1, 1, 1])"), "mrope_section has 4 entries, expected 3"},
    {scaling(R"("type": "default", "mrope_section": [2, 2, 2])"), "sections"},
    {scaling(R"("type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": true, "interleaved": false)"),
     "'mrope_interleaved' is 1 but 'interleaved' is 0"},
    {R"({"head_dim": 8, "rope_scaling": "linear"})", "rope_scaling must be an object, got \"linear\""},
    {parameters(R"("rope_type": "proportional", "partial_rotary_factor": 2)"),
     "partial_rotary_factor must lie in [0, 1]"},
    {parameters(R"("full_attention": {}, "sliding_attention": {})"),
     "layer_type must be one of full_attention, sliding_attention, got ''"},
    {parameters(R"("compress": {}, "main": {})"), "layer_type must be one of compress, main, got 'full_attention'",
     "full_attention"},
    {parameters(R"("full_attention": {}, "sliding_attention": {})"), "is not among the configuration's layer_types",
     "ful_attention"},
    {parameters(R"("full_attention": {"rope_type": "default"}, "sliding_attention": null)"),
     "layer_type must be one of full_attention, got 'sliding_attention'", "sliding_attention"},
    {parameters(repeated(257, [](int i) { return "\"layer" + std::to_string(i) + "\": {}"; })),
     "rope_parameters has 257 parts, at most 256 layer types are read", "layer1"},
    {parameters(R"("full_attention": {"rope_type": "linear"})"), "rope_parameters.full_attention lacks 'factor'"},
    {parameters(R"("full_attention": {"rope_type": "default"}, "rope_theta": 1e4)"), "key 'rope_theta' is not known"},
};

const std::vector<malformed> contradictions{
    {R"({"head_dim": 8, "abacus_scale": 4, "rope_scaling": {"type": "linear", "factor": 8}})",
     "rope_scaling is 'linear:8' but abacus_scale is 'linear:4'"},
    {R"({"head_dim": 8, "rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "linear", "factor": 8}})",
     "rope_parameters is 'default' but rope_scaling is 'linear:8'"},
    {R"({"head_dim": 8, "rope_theta": 1e6, "rope_parameters": {"rope_theta": 1e4}})",
     "rope_theta is 10000 in rope_parameters but 1000000 in the configuration"},
    {R"({"head_dim": 8, "rope_theta": 1e6, "rotary_emb_base": 1e4})",
     "'rope_theta' is 1000000 but 'rotary_emb_base' is 10000"},
    {R"({"head_dim": 8, "rotary_dim": 4, "partial_rotary_factor": 0.25})", "partial_rotary_factor or rotary_dim"},
    {R"({"head_dim": 8, "rotary_pct": 0.5, "partial_rotary_factor": 0.25})",
     "'partial_rotary_factor' is 0.25 but 'rotary_pct' is 0.5"},
};

const std::vector<malformed> wrong_shapes{
    {R"({"head_dim": 8, "rope_theta": "10000"})", "rope_theta must be a number, got \"10000\""},
    {R"({"head_dim": 8, "rope_theta": 0})", "rope_theta must be above 1, got 0"},
    {R"({"hidden_size": 100})", "lacks 'head_dim', and 'hidden_size' or 'num_attention_heads'"},
    {R"({"hidden_size": 100, "num_attention_heads": 7})", "100 must be a multiple of num_attention_heads 7"},
    {R"({"hidden_size": 100, "num_attention_heads": 0})", "must be a multiple of num_attention_heads 0"},
    {R"({"head_dim": 64.5})", "head_dim must be a whole number, got 64.5"},
    {R"({"head_dim": -2})", "head_dim must lie in [1, 16384], got -2"},
    {R"({"head_dim": 1000000000000})", "head_dim must lie in [1, 16384], got 1000000000000"},
    {R"({"head_dim": 7})", "rotary_dim must be even and positive, got 7"},
    {R"({"head_dim": 64, "rotary_pct": 1.5})", "partial_rotary_factor must lie in (0, 1], got 1.5"},
    {R"({"head_dim": 64, "rotary_pct": 0.01})", "the rotary part of a head of 64 must not be empty, got 0 elements"},
    {R"({"head_dim": 64, "rotary_dim": 128})", "rotary_dim 128 at rotary_offset 0 exceeds head_dim 64"},
    {R"({"text_config": {"head_dim": "x"}})", "head_dim must be a whole number, got \"x\""},
    {R"({"text_config": []})", "text_config must be an object, got an array"},
    {R"({"head_dim": 64})",
     "layer_type 'slidign_attention' is not among the configuration's layer_types: did you mean 'sliding_attention'?",
     "slidign_attention"},
    {R"({"head_dim": 64, "rope_parameters": {"full\natention": {}, "sliding": {}}})",
     R"(did you mean '"full\natention"'?)", "full_attention"},
    {R"({"head_dim": 64, "layer_types": "all"})", "layer_types must be an array", "some"},
    {std::string(R"({"text_config": )") + R"({"llm_config": {"text_config": {"llm_config": {"text_config": )" +
         R"({"head_dim": 8}}}}}})",
     "more than 4 models inside each other"},
    {R"({"head_dim": 64, "rope_interleave": "no"})", "rope_interleave must be true or false, got \"no\""},
};

const std::vector<malformed> unsupported_models{
    {R"({"head_dim": 8, "rope_ratio": "1"})", "rope_ratio must be a number, got \"1\""},
    {R"({"head_dim": 8, "use_dynamic_ntk": true})", "use_dynamic_ntk is true"},
    {R"({"head_dim": 8, "alibi": true})", "alibi is true"},
    {R"({"head_dim": 8, "attn_config": {"alibi": true}})", "attn_config: alibi is true"},
    {R"({"head_dim": 8, "position_embedding_type": "alibi"})", "position_embedding_type is 'alibi'"},
    {R"({"head_dim": 8, "rope_theta": 1e4, "position_embedding_type": "nope"})", "position_embedding_type is 'nope'"},
    {R"({"head_dim": 8, "position_embedding_type": "absolute"})", "position_embedding_type is 'absolute'"},
    {R"({"head_dim": 8, "model_type": "esm", "rope_theta": 1e4, "position_embedding_type": "absolute"})",
     "position_embedding_type is 'absolute'"},
    {R"({"head_dim": 8, "position_embedding_type": 1})", "position_embedding_type must be text, got 1"},
};

}  // namespace

TEST_CASE("an invalid configuration gives one line that names the key", "[io]") {
    for (const auto& files : {invalid_json, wrong_sections, contradictions, wrong_shapes, unsupported_models}) {
        for (const auto& [text, expected, layer_type] : files) {
            const std::string message = test::message_of([&, &text = text, &layer_type = layer_type] {
                (void)rw::encoding_from_config(rw::parse_config(text, "broken.json"), {.layer_type = layer_type});
            });
            INFO(text.substr(0, 200) << "\n" << message);
            CHECK(message.find(expected) != std::string::npos);
            CHECK(message.find('\n') == std::string::npos);
            CHECK(message.size() < 400);
        }
    }
}

TEST_CASE("keys that state a usual rotation are accepted", "[io]") {
    for (const char* const keys :
         {R"("rope_ratio": 1)", R"("rope_ratio": 1.0, "use_dynamic_ntk": false, "alibi": false)", R"("alibi": null)",
          R"("attn_config": {"alibi": false, "rope_theta": 1e4})", R"("position_embedding_type": "rope")",
          R"("position_embedding_type": "rotary")", R"("position_embedding_type": null)",
          R"("model_type": "esm", "position_embedding_type": "rotary")",
          // As published: BERT's default, which the model does not use.
          R"("model_type": "modernbert", "global_rope_theta": 1e4, "position_embedding_type": "absolute")",
          R"("rope_theta": 1e4, "position_embedding_type": "absolute")"}) {
        INFO(keys);
        const nlohmann::json config = rw::parse_config(std::string(R"({"head_dim": 8, )") + keys + "}", "the test");
        CHECK(rw::encoding_from_config(config).expression == "default");
        CHECK(rw::encoding_from_config(config).geometry.base == 1e4);
    }
    // A policy of the caller replaces Qwen's own scaling.
    const nlohmann::json qwen = rw::parse_config(R"({"head_dim": 8, "use_dynamic_ntk": true})", "the test");
    CHECK(rw::encoding_from_config(qwen, {.policy = "linear:2"}).expression == "linear:2");
}

TEST_CASE("parsing takes time in proportion to the length", "[io]") {
    const auto processor_time = [](int entries) {
        const auto empty = [](int) { return "{}"; };
        const auto named = [](int i) { return "\"key" + std::to_string(i) + "\": [{}]"; };
        const std::string text =
            R"({"head_dim": 8, "list": [)" + repeated(entries, empty) + "], " + repeated(entries, named) + "}";
        std::clock_t best = std::numeric_limits<std::clock_t>::max();
        for (int attempt = 0; attempt < 3; ++attempt) {
            const std::clock_t start = std::clock();
            CHECK(rw::encoding_from_config(rw::parse_config(text, "the test")).expression == "default");
            best = std::min(best, std::clock() - start);
        }
        return static_cast<double>(best);
    };
    CHECK(processor_time(10000) <
          10 * processor_time(2500));  // 16 times if every entry costs the number of its siblings
}

TEST_CASE("values of every kind keep their place and their type", "[io]") {
    const nlohmann::json value = rw::parse_config(
        R"({"a": [1, -2, 0.5, "x", null, true, [], {}, [[3], {"b": [4]}]], "c": {"d": {"e": -Infinity}}, "f": 1e2})",
        "the test");
    const auto list = [](auto... entries) { return nlohmann::json::array({entries...}); };
    const nlohmann::json::object_t none, inner{{"b", list(4)}}, e{{"e", "-Infinity"}}, d{{"d", e}};
    const nlohmann::json::object_t expected{
        {"a", list(1, -2, 0.5, "x", nullptr, true, list(), none, list(list(3), inner))}, {"c", d}, {"f", 100.0}};
    CHECK(value == nlohmann::json(expected));
    CHECK(value["a"][0].is_number_unsigned());
    CHECK(value["a"][1].is_number_integer());
    CHECK(value["f"].is_number_float());
    CHECK(rw::parse_config(" 7 ", "the test") == nlohmann::json(7));
}

TEST_CASE("a file above 16 MiB is rejected", "[io]") {
    CHECK_REFUSED(rw::parse_config(std::string((std::size_t{16} << 20) + 1, ' '), "long.json"), "long.json",
                  "16777217");
}
