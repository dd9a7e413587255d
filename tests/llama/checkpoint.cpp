#include <ropewalk/llama/checkpoint.hpp>

#include <filesystem>
#include <sstream>
#include <string>

#include "llama/generated.hpp"
#include "support/catch.hpp"
#include "support/errors.hpp"

namespace {

namespace rw = ropewalk;
namespace llama = ropewalk::llama;

constexpr const char* configuration =
    R"("model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
       "num_key_value_heads": 1, "intermediate_size": 6, "vocab_size": 10, "rms_norm_eps": 1e-5,
       "max_position_embeddings": 64, "rope_scaling": {"type": "linear", "factor": 2.0})";

/// Element i of every tensor.
float element(std::int64_t i) { return static_cast<float>(i) / 8 - 1; }

/// A model in a folder.
class model_folder {
public:
    [[nodiscard]] const std::filesystem::path& path() const { return folder_.path(); }
    void configure(const std::string& members) const { folder_.write("config.json", '{' + members + '}'); }

    void add(const std::string& name, const std::string& dtype, const std::vector<std::int64_t>& shape) {
        std::int64_t count = 1;
        for (const std::int64_t extent : shape) count *= extent;
        const std::size_t begin = data_.size();
        for (std::int64_t i = 0; i < count; ++i) {
            if (dtype == "F32") append(element(i));
            if (dtype == "F16") append(rw::f16(element(i)));
            if (dtype == "BF16") append(rw::bf16(element(i)));
            if (dtype == "I64") append(i);
        }
        header_ << (header_.tellp() == 0 ? "{" : ",") << '"' << name << R"(": {"dtype": ")" << dtype
                << R"(", "shape": )" << llama::to_string(shape) << R"(, "data_offsets": [)" << begin << ", "
                << data_.size() << "]}";
    }
    /// Adds a layer of `configuration`, the embedding and the head, without the tensor `except`.
    void add_model(const std::string& dtype, const std::string& except = {}) {
        llama::model_config config{.hidden_size = 8, .layers = 1, .heads = 2, .kv_heads = 1, .head_dim = 4};
        config.intermediate_size = 6, config.vocabulary = 10;
        llama::model_weights weights{std::vector<llama::layer_weights>(1), {}, {}, {}, {}};
        llama::for_each_weight(config, weights, [&](auto&, const std::string& weight, auto rows, auto columns) {
            const std::string name = weight + ".weight";
            if (name == except) return;
            if (llama::is_norm(weight)) return add(name, dtype, {columns});
            add(name, dtype, {rows, columns});
        });
    }
    /// Writes the tensors. Blanks in the header make the address of the data congruent to `remainder` modulo 4.
    void write(std::size_t remainder = 0) const {
        std::string header = header_.str() + "}";
        while ((8 + header.size()) % 4 != remainder) header += ' ';
        folder_.write("model.safetensors", test::safetensors_file(header, data_));
    }

private:
    template <class T>
    void append(const T& value) {
        data_.append(reinterpret_cast<const char*>(&value), sizeof value);
    }

    test::folder folder_;
    std::ostringstream header_;
    std::string data_;
};

float element_of(const llama::matrix& w, std::int64_t i) {
    float value = 0;
    llama::with_element(w.type, [&]<class T>(T) { value = static_cast<float>(static_cast<const T*>(w.data)[i]); });
    return value;
}

}  // namespace

TEST_CASE("weights are read in any type and at any alignment", "[llama][checkpoint]") {
    for (const std::string dtype : {"F32", "F16", "BF16"}) {
        for (const std::size_t remainder : {0U, 1U, 2U}) {
            model_folder model;
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
                for (const auto* const w : {&weights.layers[0].q, &weights.layers[0].down, &weights.head}) {
                    REQUIRE(w->type == type);
                    for (std::int64_t i = 0; i < w->rows * w->columns; ++i) REQUIRE(element_of(*w, i) == element(i));
                }
                CHECK(element_of(weights.layers[0].mlp_norm, 3) == element(3));
            }
        }
    }
}

TEST_CASE("a tied head is the embedding, and tensors outside the model are ignored", "[llama][checkpoint]") {
    model_folder model;
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

TEST_CASE("errors name the tensor that is missing or wrong", "[llama][checkpoint][errors]") {
    const auto refused = [](const std::string& name, const std::string& dtype, std::vector<std::int64_t> shape) {
        model_folder model;
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

TEST_CASE("unsupported variants of Llama are refused", "[llama][checkpoint][errors]") {
    const auto refused = [](const std::string& member) {
        model_folder model;
        model.configure(std::string(configuration) + member);
        return test::message_of([&] { (void)llama::read_model_config(model.path()); });
    };
    CHECK(refused("").empty());
    CHECK(test::holds(refused(R"(, "attention_bias": true)"), {"attention_bias is true"}));
    CHECK(test::holds(refused(R"(, "mlp_bias": true)"), {"mlp_bias is true"}));
    CHECK(test::holds(refused(R"(, "hidden_act": "gelu")"), {"hidden_act is 'gelu'"}));
    model_folder model;
    model.configure(R"("model_type": "gemma2", "hidden_size": 8)");
    CHECK_REFUSED(llama::read_model_config(model.path()), "model_type is 'gemma2'", "'llama'");
    model.configure(R"("hidden_size": 8, "num_attention_heads": 2)");
    CHECK_REFUSED(llama::read_model_config(model.path()), "lacks 'num_hidden_layers'");
    CHECK_REFUSED(llama::read_model_config(model.path() / "nothing.json"), "nothing.json");
    CHECK_REFUSED(llama::read_model_config(model.path() / std::string(300, 'x')), "cannot read", "xxx");
}
