// Speed of the Llama stack relative to its ceilings. Products of many tokens and prompts are compared with Eigen's
// GEMM; products of few tokens, attention of one token and decoding with reading the same bytes. Rounds alternate
// between the two, and the report has medians.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <dispatch/llama/llama.hpp>
#include <nlohmann/json.hpp>
#include <ropewalk/dispatch.hpp>
#include <ropewalk/llama/model.hpp>
#include <ropewalk/llama/synthetic.hpp>

#include "clock.hpp"
#include "context.hpp"
#include "output.hpp"
#include "products.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace {

namespace rw = ropewalk;
namespace llama = ropewalk::llama;

constexpr const char* usage =
    R"(bench_llama [FILE [PART]]: speed of the Llama stack on this CPU, relative to its ceilings

Writes the rows to FILE as JSON. PART selects rows whose names contain it, as in bench_llama out.json layer/
)";

constexpr int rounds = 7;
constexpr std::int64_t side = 2048;  // of the matrices in the measurement of Eigen
volatile std::uint32_t sink = 0;     // keeps reads from being optimised away

int threads() {
#if defined(_OPENMP)
    return omp_get_max_threads();
#else
    return 1;
#endif
}

class report {
public:
    explicit report(std::string only) : only_(std::move(only)) {}

    [[nodiscard]] bool wants(const std::string& name) const { return name.find(only_) != std::string::npos; }

    /// Times both alternately. `amount` is in units of 10^9 per call.
    void compare(const std::string& name, const char* unit, double amount, const char* ceiling,
                 const std::function<void()>& ours, double ceiling_amount, const std::function<void()>& theirs) {
        if (!wants(name)) return;
        ours(), theirs();
        std::vector<double> mine, other, ratios;
        for (int round = 0; round < rounds; ++round) {
            mine.push_back(bench::seconds(ours));
            other.push_back(bench::seconds(theirs));
            ratios.push_back(amount / mine.back() / (ceiling_amount / other.back()));
        }
        const double rate = amount / bench::median(mine), bound = ceiling_amount / bench::median(other),
                     ratio = bench::median(ratios);
        std::printf("%-34s %9.3f ms %8.1f %s, %s %8.1f, ratio %.2f\n", name.c_str(), 1e3 * bench::median(mine), rate,
                    unit, ceiling, bound, ratio);
        rows_.push_back({{"name", name},
                         {"milliseconds", 1e3 * bench::median(mine)},
                         {"unit", unit},
                         {"rate", rate},
                         {"ceiling", ceiling},
                         {"ceiling_rate", bound},
                         {"ratio", ratio}});
    }
    /// Adds a value to the row of the last comparison, if PART selects it.
    void note(const std::string& name, const char* what, double value) {
        if (rows_.empty() || rows_.back()["name"] != name) return;
        rows_.back()[what] = value;
        std::printf("%34s %.4f\n", what, value);
    }
    [[nodiscard]] bool empty() const { return rows_.empty(); }
    void write(const std::string& path) const {
        const nlohmann::json context = {{"date", bench::date()},
                                        {"machine", bench::machine()},
                                        {"compiler", bench::compiler()},
                                        {"commit", bench::commit()},
                                        {"instruction_set", std::string(rw::dispatch::instruction_set())},
                                        {"threads", threads()}};
        std::ofstream file(path);
        file << "{\"context\": " << context << ",\n\"rows\": [";
        for (std::size_t i = 0; i < rows_.size(); ++i) file << (i == 0 ? "\n" : ",\n") << rows_[i];
        file << "]}\n";
        RW_EXPECTS(file.flush(), "cannot write {}", path);
    }

private:
    std::string only_;
    nlohmann::json rows_ = nlohmann::json::array();
};

/// A generated matrix and its memory.
struct weights {
    llama::matrix w;
    llama::model_weights memory;

    weights(rw::element_type type, std::int64_t rows, std::int64_t columns) : w{nullptr, type, rows, columns} {
        llama::detail::generate(w, memory, 1, 1);
    }
};

/// Product of two large matrices by Eigen.
class square_product {
public:
    static constexpr double gigaflops = 2e-9 * static_cast<double>(side * side * side);

    explicit square_product(const bench::products& bound)
        : bound_(bound),
          a_(llama::synthetic_states(side, side)),
          b_(llama::synthetic_states(side, side)),
          c_(a_.size()) {}
    void multiply() { bound_.gemm(a_.data(), side, b_.data(), side, side, c_.data(), threads()); }

private:
    const bench::products& bound_;
    std::vector<float> a_, b_, c_;
};

void add_products(report& out, const bench::products& bound) {
    const auto& kernels = rw::dispatch::llama_kernels();
    constexpr std::int64_t columns = 5120;
    for (const std::int64_t rows : {5120, 13824}) {
        using enum rw::element_type;
        const weights all[] = {{f32, rows, columns}, {bf16, rows, columns}, {f16, rows, columns}};
        for (const std::int64_t tokens : {1, 4, 8, 64, 512, 2048}) {
            if (tokens * rows > std::int64_t{2048} * 5120) continue;  // as fast as the smaller one
            const std::vector<float> x = llama::synthetic_states(tokens, columns);
            std::vector<float> y(static_cast<std::size_t>(tokens * rows));
            for (const weights& each : all) {
                const llama::matrix& w = each.w;
                const std::string name = "linear/" + std::string(rw::to_string(w.type)) + "/" + std::to_string(rows) +
                                         "x" + std::to_string(columns) + "/" + std::to_string(tokens);
                const llama::cpu::product product{w, y.data()};
                const auto ours = [&] { kernels.linear(x.data(), tokens, {&product, 1}, false, 0); };
                const double gigabytes = static_cast<double>(w.bytes()) * 1e-9;
                const double gigaflops = 2e-9 * static_cast<double>(tokens * rows * columns);
                if (tokens <= 8) {
                    const auto stream = [&] {
                        sink = bound.stream(static_cast<const std::uint32_t*>(w.data), w.bytes() / 4, threads());
                    };
                    out.compare(name, "GB/s", gigabytes, "reading", ours, gigabytes, stream);
                } else {
                    const auto gemm = [&] {
                        bound.gemm(x.data(), tokens, static_cast<const float*>(all[0].w.data), rows, columns, y.data(),
                                   threads());
                    };
                    out.compare(name, "GFLOP/s", gigaflops, "Eigen's GEMM", ours, gigaflops, gemm);
                }
            }
        }
    }
}

void add_attention(report& out, const bench::products& bound, rw::cache_type type, std::int64_t past,
                   std::int64_t tokens) {
    const auto& kernels = rw::dispatch::llama_kernels();
    const llama::model_config config{.hidden_size = 5120, .layers = 1, .heads = 40, .kv_heads = 40, .head_dim = 128};
    llama::kv_cache cache(config, {.type = type});
    const int sequence = cache.add_sequence();
    cache.reserve(sequence, past + tokens);
    std::vector<float> keys = llama::synthetic_states(past + tokens, config.kv_width());
    const llama::page_layout layout = cache.layout(0);
    const llama::cpu::paged_rows all{{0, past + tokens, 0}, cache.pages(sequence)};
    for (const bool is_keys : {true, false}) kernels.store_rows({keys.data(), all, layout, is_keys}, 0);

    const std::vector<float> q = llama::synthetic_states(tokens, config.q_width());
    std::vector<float> y(q.size());
    const llama::cpu::paged_rows rows{{0, tokens, past}, cache.pages(sequence)};
    const auto ours = [&] { kernels.attend({q.data(), y.data(), config.heads, 0.09F, {&rows, 1}, layout}, 0); };
    const std::string name = "attend/" + std::string(rw::to_string(type)) + "/40x128/" + std::to_string(tokens) +
                             " of " + std::to_string(past + tokens);
    if (tokens == 1) {
        const std::int64_t bytes = (past + 1) * cache.bytes_per_token();
        std::vector<std::uint32_t> same(static_cast<std::size_t>(bytes / 4), 1);
        const auto stream = [&] { sink = bound.stream(same.data(), bytes / 4, threads()); };
        out.compare(name, "GB/s", static_cast<double>(bytes) * 1e-9, "reading", ours, static_cast<double>(bytes) * 1e-9,
                    stream);
        return;
    }
    // Scores without masked ones.
    const double scores = static_cast<double>(tokens) * (static_cast<double>(past) + static_cast<double>(tokens) / 2);
    const double gigaflops = 4e-9 * scores * static_cast<double>(config.q_width());
    square_product gemm(bound);
    out.compare(name, "GFLOP/s", gigaflops, "Eigen's GEMM", ours, gemm.gigaflops, [&] { gemm.multiply(); });
}

/// Attention of one layer of Llama-2-13B: a prompt in chunks, then single tokens after it.
void add_layer(report& out, const bench::products& bound, std::int64_t context) {
    const std::string prefill = "layer/bf16/13b/prefill/" + std::to_string(context),
                      decode = "layer/bf16/13b/decode/" + std::to_string(context);
    if (!out.wants(prefill) && !out.wants(decode)) return;
    llama::model_config config = llama::llama2_13b();
    config.layers = 1, config.intermediate_size = config.vocabulary = 0;
    llama::stack layer(config, llama::synthetic_weights(config, rw::element_type::bf16, 1),
                       rw::make_encoding(config.geometry(), "linear:8"), rw::dispatch::llama_kernels());
    llama::kv_cache cache(config, {.type = rw::cache_type::f16});
    const int sequence = cache.add_sequence();
    constexpr std::int64_t chunk = 512;
    const std::vector<float> states = llama::synthetic_states(chunk, config.hidden_size);
    std::vector<float> hidden;
    const auto add = [&](std::int64_t tokens, std::int64_t past) {
        hidden.assign(states.begin(), states.begin() + tokens * config.hidden_size);
        cache.truncate(sequence, past);
        const llama::segment added{sequence, tokens};
        layer.forward({&added, 1}, hidden, cache);
    };
    const auto whole_prompt = [&] {
        for (std::int64_t past = 0; past < context; past += chunk) add(std::min(chunk, context - past), past);
    };
    const auto width = static_cast<double>(config.hidden_size), tokens = static_cast<double>(context);
    square_product gemm(bound);
    out.compare(prefill, "GFLOP/s", 1e-9 * (8 * width * width * tokens + 2 * width * tokens * tokens), "Eigen's GEMM",
                whole_prompt, gemm.gigaflops, [&] { gemm.multiply(); });
    const llama::stack_seconds& parts = layer.seconds();
    out.note(prefill, "share of RoPE",
             parts.rope / (parts.projections + parts.rope + parts.cache + parts.attention + parts.norm));
    if (!out.wants(prefill)) whole_prompt();

    const std::int64_t bytes = layer.weights().bytes() + context * cache.bytes_per_token();
    const std::vector<std::uint32_t> same(static_cast<std::size_t>(bytes / 4), 1);
    out.compare(
        decode, "GB/s", static_cast<double>(bytes) * 1e-9, "reading", [&] { add(1, context); },
        static_cast<double>(bytes) * 1e-9, [&] { sink = bound.stream(same.data(), bytes / 4, threads()); });
}

/// A decoder of the shape of SmolLM2-135M: a prompt, then single tokens after it.
void add_small_model(report& out, const bench::products& bound, rw::element_type type, std::int64_t context) {
    const std::string name = "model/" + std::string(rw::to_string(type)) + "/135m/";
    const std::string prefill = name + "prefill/" + std::to_string(context),
                      decode = name + "decode/" + std::to_string(context);
    if (!out.wants(prefill) && !out.wants(decode)) return;
    const llama::model_config config{.hidden_size = 576,
                                     .layers = 30,
                                     .heads = 9,
                                     .kv_heads = 3,
                                     .head_dim = 64,
                                     .intermediate_size = 1536,
                                     .vocabulary = 49152,
                                     .tied_embeddings = true,
                                     .base = 100000.0};
    llama::model model(config, llama::synthetic_weights(config, type, 1),
                       rw::make_encoding(config.geometry(), "default"), rw::dispatch::llama_kernels());
    llama::kv_cache cache(config, {.type = rw::cache_type::f16});
    const int sequence = cache.add_sequence();
    std::vector<std::int32_t> prompt(static_cast<std::size_t>(context));
    for (std::size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<std::int32_t>(i * 7919 % 49152);
    const auto whole_prompt = [&] {
        cache.truncate(sequence, 0);
        (void)model.prefill(prompt, cache, sequence);
    };
    const double weights = static_cast<double>(model.layers().weights().bytes()) / static_cast<double>(size_of(type));
    const double matrices = weights - static_cast<double>(config.vocabulary * config.hidden_size);
    const auto tokens = static_cast<double>(context);
    const double attention = 2e-9 * tokens * tokens * static_cast<double>(config.q_width() * config.layers);
    square_product gemm(bound);
    out.compare(prefill, "GFLOP/s", 2e-9 * matrices * tokens + attention, "Eigen's GEMM", whole_prompt, gemm.gigaflops,
                [&] { gemm.multiply(); });
    if (!out.wants(prefill)) whole_prompt();

    const std::int64_t bytes = model.layers().weights().bytes() + context * cache.bytes_per_token();
    const std::vector<std::uint32_t> same(static_cast<std::size_t>(bytes / 4), 1);
    const auto next_token = [&] {
        cache.truncate(sequence, context);
        (void)model.decode(1, cache, sequence);
    };
    model.layers().reset_seconds();
    out.compare(decode, "GB/s", static_cast<double>(bytes) * 1e-9, "reading", next_token,
                static_cast<double>(bytes) * 1e-9, [&] { sink = bound.stream(same.data(), bytes / 4, threads()); });
    const llama::stack_seconds& parts = model.layers().seconds();
    for (const auto& [part, seconds] : {std::pair{"ms of projections", parts.projections},
                                        {"ms of rope", parts.rope},
                                        {"ms of cache", parts.cache},
                                        {"ms of attention", parts.attention},
                                        {"ms of mlp", parts.mlp},
                                        {"ms of norm", parts.norm}})
        out.note(decode, part, 1e3 * seconds / (rounds + 1));
}

void run(const std::string& path, const std::string& only) {
    if (!path.empty()) output::check_file(path);
    const bench::products& bound = bench::products_for(rw::dispatch::instruction_set());
    std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
    std::printf("%s, %d threads\n", std::string(rw::dispatch::instruction_set()).c_str(), threads());
    report out(only);
    add_products(out, bound);
    for (const auto type : {rw::cache_type::f32, rw::cache_type::f16, rw::cache_type::bf16, rw::cache_type::i8}) {
        for (const std::int64_t past : {4095, 16383}) add_attention(out, bound, type, past, 1);
    }
    for (const auto type : {rw::cache_type::f32, rw::cache_type::f16}) add_attention(out, bound, type, 0, 4096);
    add_layer(out, bound, 4096);
    for (const auto type : {rw::element_type::bf16, rw::element_type::f16}) add_small_model(out, bound, type, 2048);
    RW_EXPECTS(!out.empty(), "no row name contains '{}'", only);
    if (!path.empty()) out.write(path);
}

}  // namespace

int main(int argc, char** argv) try {
    const std::vector<std::string> words(argv + 1, argv + argc);
    for (const std::string& word : words) {
        if (word == "--help" || word == "-h") {
            std::fputs(usage, stdout);
            return 0;
        }
        RW_EXPECTS(!word.starts_with('-') && !word.empty(), "unknown option '{}'; --help lists the arguments", word);
    }
    RW_EXPECTS(words.size() <= 2, "expected at most FILE and PART, got {} arguments", words.size());
    run(words.empty() ? "" : words[0], words.size() < 2 ? "" : words[1]);
} catch (const std::exception& problem) {
    std::fprintf(stderr, "bench_llama: %s\n", problem.what());
    return 1;
}
