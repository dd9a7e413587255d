// Keys that name a position encoding: read under every known name, or rejected by name.

#include <ropewalk/io/hf_config.hpp>

#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace position_keys_tests {
namespace {

rw::Encoding read(const std::string& keys, const rw::config_choices& choices = {}) {
    return rw::encoding_from_config(rw::parse_config(R"({"head_dim": 128, )" + keys + "}", "the test"), choices);
}

}  // namespace

TEST_CASE("a key that names a position encoding and is not read is rejected by name", "[io]") {
    const std::vector<std::string> unknown{
        R"("rope_scaling_factor": 2)",
        R"("rotary_scaling_factor": 8)",
        R"("rope_interleaved": true)",
        R"("use_mrope": true)",
        R"("rope_position_scale": 2.0)",
        R"("use_xpos": true)",
        R"("xpos_base": 512)",
        R"("yarn_factor": 4)",
        R"("ntk_alpha": 2)",
        R"("use_rope_scaling": true)",
        R"("RopeTheta": 5e5)",
        R"("rope_tetha": 5e5)",
        R"("mrope_section": [16, 24, 24])",
        R"("rotary_offset": 4)",
        R"("positional_encoding": "learned")",
        R"("pos_embed": "sincos")",
    };
    for (const std::string& key : unknown) {
        INFO(key);
        const std::string name = "key '" + key.substr(1, key.find('"', 1) - 1) + "'";
        CHECK_REFUSED(read(key), "the configuration: ", name.c_str(), "is not supported");
        CHECK_REFUSED(read(R"("attention": {"heads": 3, )" + key + "}"), "the configuration.attention", name.c_str());
        CHECK_REFUSED(read(R"("layers": [{"a": [{)" + key + "}]}]"), "the configuration.layers.a", name.c_str());
        CHECK_REFUSED(read(key, {.policy = "linear:2"}), name.c_str());
        // Other parts of the model have encodings of their own.
        CHECK(read(R"("vision_config": {)" + key + "}").expression == "default");
        CHECK(read(R"("model_type": "llama", "attention": {"model_type": "clip", )" + key + "}").expression ==
              "default");
    }
}

TEST_CASE("keys that do not change the encoding are accepted", "[io]") {
    for (const std::string key :
         {R"("qk_nope_head_dim": 128)", R"("flash_rotary": true)", R"("original_rope": true)",
          R"("indexer_rope_interleave": true)", R"("use_mrope": false)", R"("rope_interleaved": false)",
          R"("rope_position_scale": 1.0)", R"("rope_scaling_factor": 1)", R"("rotary_scaling_factor": null)",
          R"("rope_anything": null)", R"("properties": {"x": 1})", R"("alibi": false)", R"("use_alibi": false)",
          R"("use_rope": true)", R"("mla_use_nope": false)", R"("max_position_embeddings": 4096)",
          R"("use_dynamic_ntk": false)", R"("position_embedding": "ROPE")", R"("position_embedding_type": "rope")"}) {
        INFO(key);
        CHECK(read(key).expression == "default");
        CHECK(read(key).geometry.base == 1e4);
    }
}

TEST_CASE("keys that switch the rotation off are rejected", "[io]") {
    for (const std::string key :
         {R"("use_rope": false)", R"("use_alibi": true)", R"("alibi": true)", R"("position_embedding": "ALIBI")",
          R"("position_embedding_type": "alibi")", R"("mla_use_nope": true)", R"("use_nope": true)",
          R"("attn_config": {"alibi": true})", R"("attn_config": {"rope": false})"}) {
        INFO(key);
        CHECK_REFUSED(read(key), "the model has no rotary positions");
    }
    CHECK_REFUSED(read(R"("dual_chunk_attention_config": {"chunk_size": 262144})"), "dual_chunk_attention_config");
}

TEST_CASE("the base is read under all of its names", "[io]") {
    for (const std::string key : {"rope_theta", "rotary_emb_base", "rotary_embedding_base", "rope_base", "rotary_base",
                                  "rope_embedding_base", "global_rope_theta"}) {
        INFO(key);
        CHECK(read('"' + key + R"(": 5e5)").geometry.base == 5e5);
        CHECK(read('"' + key + R"(": 5e5)", {.policy = "linear:2"}).geometry.base == 5e5);
        if (key != "rope_theta")
            CHECK_REFUSED(read('"' + key + R"(": 5e5, "rope_theta": 4e5)"), key.c_str(), "500000", "400000");
    }
    CHECK(read(R"("attn_config": {"rope_theta": 5e5})").geometry.base == 5e5);
    CHECK_REFUSED(read(R"("rope_theta": 4e5, "attn_config": {"rope_theta": 5e5})"), "400000", "500000 in attn_config");
    CHECK(read(R"("rope_ratio": 500)").geometry.base == 5e6);
    CHECK(read(R"("rope_ratio": 1)").geometry.base == 1e4);
    for (const std::string key : {"rope_local_base_freq", "local_rope_theta", "swa_rope_theta"}) {
        INFO(key);
        const std::string keys = '"' + key + R"(": 7e3, "rope_theta": 5e5)";
        CHECK(read(keys, {.layer_type = "sliding_attention"}).geometry.base == 7e3);
        CHECK(read(keys, {.layer_type = "full_attention"}).geometry.base == 5e5);
        CHECK(read(keys).geometry.base == 5e5);
    }
}

TEST_CASE("the rotary part is read under all of its names", "[io]") {
    for (const std::string key :
         {"partial_rotary_factor", "rotary_pct", "rope_pct", "rope_percent", "rotary_percent", "rotary_emb_fraction"}) {
        INFO(key);
        CHECK(read('"' + key + R"(": 0.25)").geometry.width() == 32);
        CHECK_REFUSED(read('"' + key + R"(": 0.25, "rotary_dim": 64)"), "32", "64");
        CHECK_REFUSED(read('"' + key + R"(": 0)"), "must lie in (0, 1], got 0");
    }
    CHECK((read(R"("rotary_emb_interleaved": true)").geometry.layout == rw::layout_kind::interleaved));
    CHECK((read(R"("rotary_emb_interleaved": false)").geometry.layout == rw::layout_kind::half_split));
}

TEST_CASE("parameters without effect are accepted with a neutral value only", "[io]") {
    const auto scaled = [](const std::string& keys) { return read(R"("rope_scaling": {)" + keys + "}").expression; };
    CHECK(scaled(R"("type": "linear", "factor": 4, "original_max_position_embeddings": 4096)") == "linear:4");
    CHECK(scaled(R"("type": "default", "factor": 1.0)") == "default");
    CHECK_REFUSED(scaled(R"("type": "default", "factor": 2.0)"), "factor has no effect for default", "got 2");
    CHECK(scaled(R"("type": "ntk", "factor": 4)") == "ntk:4");
    CHECK(scaled(R"("type": "ntk", "alpha": 4)") == "ntk:4");
    CHECK_REFUSED(scaled(R"("type": "ntk")"), "lacks 'factor'");
    const std::string llama3 = R"("type": "llama3", "factor": 16, "low_freq_factor": 1, "high_freq_factor": 1,
        "original_max_position_embeddings": 8192)";
    CHECK(scaled(llama3) == "llama3:16,high_freq_factor=1");
    CHECK(scaled(llama3 + R"(, "attention_factor": 1.0)") == "llama3:16,high_freq_factor=1");
    CHECK_REFUSED(scaled(llama3 + R"(, "attention_factor": 1.5)"), "attention_factor has no effect", "got 1.5");
}

TEST_CASE("the scaling of MPT's attention section", "[io]") {
    const auto mpt = [](const std::string& keys) {
        return rw::encoding_from_config(rw::parse_config(
            R"({"model_type": "mpt", "d_model": 4096, "n_heads": 32, "attn_config": {"alibi": false, )" + keys + "}}",
            "the test"));
    };
    const std::string unused = R"(, "rope_dail_config": {"type": "original", "xpos_scale_base": 512})";
    CHECK(mpt(R"("rope": true, "rope_theta": 5e5, "rope_impl": "dail")" + unused).geometry.base == 5e5);
    CHECK(mpt(R"("rope": true)" + unused).geometry.head_dim == 128);
    CHECK(mpt(R"("rope": true, "rope_impl": "hf", "rope_hf_config": {"type": "linear", "factor": 2})" + unused)
              .expression == "linear:2");
    CHECK_REFUSED(mpt(R"("rope": true, "rope_dail_config": {"type": "xpos"})"), "rope_dail_config: type 'xpos'");
    CHECK_REFUSED(mpt(R"("rope": false)"), "has no rotary positions");
    CHECK_REFUSED(mpt(R"("alibi_bias_max": 8)"), "has no rotary positions");
}

TEST_CASE("keys around the part of the language model agree with it", "[io]") {
    const auto whole = [](const std::string& outer, const std::string& inner) {
        return rw::encoding_from_config(
            rw::parse_config("{" + outer + R"("text_config": {"head_dim": 64, )" + inner + "}}", "the test"));
    };
    CHECK(whole(R"("rope_theta": 5e5, )", R"("rope_theta": 5e5)").geometry.base == 5e5);
    CHECK(whole(R"("rope_scaling": {"type": "linear", "factor": 2}, )",
                R"("rope_parameters": {"rope_type": "linear", "factor": 2})")
              .expression == "linear:2");
    CHECK(whole(R"("max_position_embeddings": 1, "head_dim": 32, )", R"("rope_theta": 5e5)").geometry.head_dim == 64);
    CHECK_REFUSED(whole(R"("rope_theta": 4e5, )", R"("rope_theta": 5e5)"),
                  "'rope_theta' (400000.0) outside text_config");
    CHECK_REFUSED(whole(R"("rope_theta": 4e5, )", R"("x": 1)"), "'rope_theta' (400000.0) outside text_config");
    CHECK_REFUSED(whole(R"("rope_scaling": {"type": "linear", "factor": 2}, )", R"("x": 1)"), "'rope_scaling'");
    for (const std::string key : {"text_config", "language_config", "llm_config"}) {
        INFO(key);
        const std::string part = '"' + key + R"(": {"head_dim": 64, "rope_theta": 5e5})";
        CHECK(rw::encoding_from_config(rw::parse_config("{" + part + "}", "the test")).geometry.base == 5e5);
        CHECK(rw::encoding_from_config(rw::parse_config(R"({"thinker_config": {)" + part + "}}", "the test"))
                  .geometry.head_dim == 64);
    }
    CHECK_REFUSED(rw::encoding_from_config(rw::parse_config(R"({"llm_config": 3})", "the test")), "must be an object");
}

}  // namespace position_keys_tests
