#include <ropewalk/llama/checkpoint.hpp>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <unistd.h>

#include "support/catch.hpp"
#include "support/errors.hpp"

namespace {

namespace rw = ropewalk;
namespace llama = ropewalk::llama;

constexpr const char* configuration =
    R"("model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
       "num_key_value_heads": 1, "intermediate_size": 6, "vocab_size": 10, "rms_norm_eps": 1e-5,
       "max_position_embeddings": 64, "rope_scaling": {"type": "linear", "factor": 2.0})";

/// A model in a folder of its own, element i of a tensor i/8 − 1.
class folder {
public:
    folder()  // the tests of several instruction sets run side by side
        : path_(std::filesystem::temp_directory_path() / ("ropewalk_checkpoint_" + std::to_string(getpid()))) {
        std::filesystem::create_directories(path_);
    }
    ~folder() { std::filesystem::remove_all(path_); }
    folder(const folder&) = delete;
    folder& operator=(const folder&) = delete;

    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    void configure(const std::string& members) const { std::ofstream(path_ / "config.json") << '{' << members << '}'; }

    void add(const std::string& name, const std::string& dtype, std::vector<std::int64_t> shape) {
        std::int64_t count = 1;
        for (const std::int64_t extent : shape) count *= extent;
        const std::size_t begin = data_.size();
        for (std::int64_t i = 0; i < count; ++i) {
            const float value = element(i);
            if (dtype == "F32") append(value);
            if (dtype == "F16") append(rw::f16(value));
            if (dtype == "BF16") append(rw::bf16(value));
            if (dtype == "I64") append(i);
        }
        header_ << (header_.tellp() == 0 ? "{" : ",") << '"' << name << R"(": {"dtype": ")" << dtype
                << R"(", "shape": )" << llama::to_string(shape) << R"(, "data_offsets": [)" << begin << ", "
                << data_.size() << "]}";
    }
    /// A layer of `configuration`, embedding and head. `other` is left to the caller.
    void add_model(const std::string& dtype, const std::string& other = {}) {
        const std::string layer = "model.layers.0.";
        const std::pair<std::string, std::vector<std::int64_t>> tensors[] = {
            {layer + "input_layernorm.weight", {8}},     {layer + "post_attention_layernorm.weight", {8}},
            {layer + "self_attn.q_proj.weight", {8, 8}}, {layer + "self_attn.k_proj.weight", {4, 8}},
            {layer + "self_attn.v_proj.weight", {4, 8}}, {layer + "self_attn.o_proj.weight", {8, 8}},
            {layer + "mlp.gate_proj.weight", {6, 8}},    {layer + "mlp.up_proj.weight", {6, 8}},
            {layer + "mlp.down_proj.weight", {8, 6}},    {"model.norm.weight", {8}},
            {"model.embed_tokens.weight", {10, 8}},      {"lm_head.weight", {10, 8}}};
        for (const auto& [name, shape] : tensors)
            if (name != other) add(name, dtype, shape);
    }
    /// Padded with blanks, so that the data begin at an address of this remainder by four.
    void write(std::size_t remainder = 0) const {
        std::string text = header_.str() + "}";
        while ((8 + text.size()) % 4 != remainder) text += ' ';
        std::ofstream file(path_ / "model.safetensors", std::ios::binary);
        for (std::size_t i = 0; i < 8; ++i) file << static_cast<char>(text.size() >> 8 * i & 0xffU);
        file << text;
        file.write(data_.data(), static_cast<std::streamsize>(data_.size()));
    }

    static float element(std::int64_t i) { return static_cast<float>(i) / 8 - 1; }

private:
    template <class T>
    void append(const T& value) {
        data_.append(reinterpret_cast<const char*>(&value), sizeof value);
    }

    std::filesystem::path path_;
    std::ostringstream header_;
    std::string data_;
};

float element_of(const llama::matrix& w, std::int64_t i) {
    if (w.type == rw::element_type::f32) return static_cast<const float*>(w.data)[i];
    if (w.type == rw::element_type::f16) return static_cast<float>(static_cast<const rw::f16*>(w.data)[i]);
    return static_cast<float>(static_cast<const rw::bf16*>(w.data)[i]);
}

}  // namespace

TEST_CASE("weights are read in any type, wherever the file puts them", "[attention][checkpoint]") {
    for (const std::string dtype : {"F32", "F16", "BF16"}) {
        for (const std::size_t remainder : {0U, 1U, 2U}) {
            folder model;
            model.configure(configuration);
            model.add_model(dtype);
            model.write(remainder);
            const auto found = llama::read_model_config(model.path());
            CHECK(found.encoding.expression == "linear:2");
            CHECK(found.config.head_dim == 4);
            const auto stored = llama::read_weights(model.path(), found.config);
            CHECK(rw::to_string(stored.layers[0].q.type) == (dtype == "F32" ? "f32" : dtype == "F16" ? "f16" : "bf16"));
            // Aligned tensors are views of the file, which is one owner. Norms become f32; 3 of the 12 tensors are
            // norms.
            const bool aligned = remainder == 0 || (remainder == 2 && dtype != "F32");
            CHECK(stored.owners.size() == (aligned ? dtype == "F32" ? 1U : 1U + 3U : 1U + 12U));
            for (const auto type : {rw::element_type::f32, rw::element_type::f16, rw::element_type::bf16}) {
                INFO(dtype << " as " << rw::to_string(type) << ", misaligned by " << remainder);
                const auto weights = llama::read_weights(model.path(), found.config, type);
                for (const auto* const one : {&weights.layers[0].q, &weights.layers[0].down, &weights.head}) {
                    REQUIRE(one->type == type);
                    for (std::int64_t i = 0; i < one->rows * one->columns; ++i)
                        REQUIRE(element_of(*one, i) == folder::element(i));
                }
                CHECK(element_of(weights.layers[0].mlp_norm, 3) == folder::element(3));
            }
        }
    }
}

TEST_CASE("a tied head is the embedding, and a shorter model leaves tensors alone", "[attention][checkpoint]") {
    folder model;
    model.configure(std::string(configuration) + R"(, "tie_word_embeddings": true)");
    model.add_model("F32", "lm_head.weight");
    model.write();
    auto config = llama::read_model_config(model.path()).config;
    const auto weights = llama::read_weights(model.path(), config);
    CHECK(weights.head.data == weights.embedding.data);
    config.vocabulary = config.intermediate_size = 0;
    const auto layers = llama::read_weights(model.path(), config);
    CHECK(!layers.final_norm.exists());
    CHECK_FALSE(layers.layers[0].up.exists());
}

TEST_CASE("what a checkpoint lacks is named", "[attention][checkpoint][errors]") {
    const auto refused = [](const std::string& name, const std::string& dtype, std::vector<std::int64_t> shape) {
        folder model;
        model.configure(configuration);
        model.add_model("F32", name);
        if (!dtype.empty()) model.add(name, dtype, std::move(shape));
        model.write();
        const auto config = llama::read_model_config(model.path()).config;
        return test::message_of([&] { (void)llama::read_weights(model.path(), config); });
    };
    const std::string q = "model.layers.0.self_attn.q_proj.weight";
    CHECK(test::holds(refused(q, "", {}), {"has no tensor", "q_proj", "[8, 8]"}));
    CHECK(test::holds(refused(q, "F32", {8, 4}), {"q_proj", "[8, 4]", "expected [8, 8]"}));
    CHECK(test::holds(refused(q, "I64", {8, 8}), {"q_proj", "I64", "F32, F16 and BF16"}));
    CHECK(test::holds(refused("model.norm.weight", "F32", {9}), {"model.norm", "[9]", "expected [8]"}));
}

TEST_CASE("models that the stack would compute wrongly are refused", "[attention][checkpoint][errors]") {
    const auto refused = [](const std::string& member) {
        folder model;
        model.configure(std::string(configuration) + member);
        return test::message_of([&] { (void)llama::read_model_config(model.path()); });
    };
    CHECK(refused("").empty());
    CHECK(test::holds(refused(R"(, "attention_bias": true)"), {"attention_bias is true"}));
    CHECK(test::holds(refused(R"(, "mlp_bias": true)"), {"mlp_bias is true"}));
    CHECK(test::holds(refused(R"(, "hidden_act": "gelu")"), {"hidden_act is 'gelu'"}));
    folder model;
    model.configure(R"("model_type": "gemma2", "hidden_size": 8)");
    CHECK_REFUSED(llama::read_model_config(model.path()), "model_type is 'gemma2'", "'llama'");
    model.configure(R"("hidden_size": 8, "num_attention_heads": 2)");
    CHECK_REFUSED(llama::read_model_config(model.path()), "lacks 'num_hidden_layers'");
    CHECK_REFUSED(llama::read_model_config(model.path() / "nothing.json"), "nothing.json");
    CHECK_REFUSED(llama::read_model_config(model.path() / std::string(300, 'x')), "cannot read", "xxx");
}
