// The attention stack's kernels beside what bounds them, in one run: products with many tokens beside Eigen's own GEMM,
// products with few tokens, and attention of one token, beside reading the same bytes. Medians of interleaved rounds.
//
//     build/benchmarks/bench_attention [out.json]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <ropewalk/attention/cache.hpp>
#include <ropewalk/attention/synthetic.hpp>
#include <runtime/attention/attention.hpp>
#include <runtime/runtime.hpp>

#include "products.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace {

namespace rw = ropewalk;
namespace attention = ropewalk::attention;

constexpr int rounds = 7;
volatile std::uint32_t sink = 0;  // what is read must be of use

int threads() {
#if defined(_OPENMP)
    return omp_get_max_threads();
#else
    return 1;
#endif
}

double seconds_of(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

class report {
public:
    /// Times both in turn; `amount` is in units of 10^9 a call.
    void compare(const std::string& name, const char* unit, double amount, const char* ceiling,
                 const std::function<void()>& ours, double ceiling_amount, const std::function<void()>& theirs) {
        ours(), theirs();
        std::vector<double> mine, other, ratios;
        for (int round = 0; round < rounds; ++round) {
            mine.push_back(seconds_of(ours));
            other.push_back(seconds_of(theirs));
            ratios.push_back(amount / mine.back() / (ceiling_amount / other.back()));
        }
        const double rate = amount / median(mine), bound = ceiling_amount / median(other), ratio = median(ratios);
        std::printf("%-34s %9.3f ms %8.1f %s, %s %8.1f, ratio %.2f\n", name.c_str(), 1e3 * median(mine), rate, unit,
                    ceiling, bound, ratio);
        rows_.push_back({{"name", name},
                         {"milliseconds", 1e3 * median(mine)},
                         {"unit", unit},
                         {"rate", rate},
                         {"ceiling", ceiling},
                         {"ceiling_rate", bound},
                         {"ratio", ratio}});
    }
    void write(const char* path) const {
        std::ofstream file(path);
        file << nlohmann::json{{"instruction_set", std::string(rw::runtime::instruction_set())},
                               {"threads", threads()},
                               {"rows", rows_}}
                    .dump(2)
             << '\n';
    }

private:
    nlohmann::json rows_ = nlohmann::json::array();
};

struct weights {
    attention::matrix shape;
    std::shared_ptr<std::byte[]> bytes;
};

template <class T>
weights make_weights(std::int64_t rows, std::int64_t columns) {
    weights made{{nullptr, rw::type_of<T>, rows, columns}, {}};
    made.bytes = attention::detail::make_bytes(made.shape.bytes());
    attention::detail::fill_uniform(reinterpret_cast<T*>(made.bytes.get()), made.shape, 1, 1);
    made.shape.data = made.bytes.get();
    return made;
}

std::vector<float> make_rows(std::int64_t tokens, std::int64_t width) {
    std::vector<float> rows(static_cast<std::size_t>(tokens * width));
    attention::detail::fill_uniform(rows.data(), {nullptr, rw::element_type::f32, tokens, width}, 2, 1);
    return rows;
}

void add_products(report& out, const ceilings::products& bound) {
    const auto& kernels = rw::runtime::attention_kernels();
    constexpr std::int64_t columns = 5120;
    for (const std::int64_t rows : {5120, 13824}) {
        const weights f32 = make_weights<float>(rows, columns), bf16 = make_weights<rw::bf16>(rows, columns),
                      f16 = make_weights<rw::f16>(rows, columns);
        for (const std::int64_t tokens : {1, 4, 8, 64, 512, 2048}) {
            const std::vector<float> x = make_rows(tokens, columns);
            std::vector<float> y(static_cast<std::size_t>(tokens * rows));
            for (const weights* const w : {&f32, &bf16, &f16}) {
                const std::string name = "linear/" + std::string(rw::to_string(w->shape.type)) + "/" +
                                         std::to_string(rows) + "x" + std::to_string(columns) + "/" +
                                         std::to_string(tokens);
                const auto ours = [&] { kernels.linear(x.data(), tokens, w->shape, y.data(), false, 0); };
                const double gigabytes = static_cast<double>(w->shape.bytes()) * 1e-9;
                const double gigaflops = 2e-9 * static_cast<double>(tokens * rows * columns);
                if (tokens <= 8) {
                    const auto stream = [&] {
                        sink = bound.stream(static_cast<const std::uint32_t*>(w->shape.data), w->shape.bytes() / 4,
                                            threads());
                    };
                    out.compare(name, "GB/s", gigabytes, "reading", ours, gigabytes, stream);
                } else {
                    const auto gemm = [&] {
                        bound.gemm(x.data(), tokens, static_cast<const float*>(f32.shape.data), rows, columns, y.data(),
                                   threads());
                    };
                    out.compare(name, "GFLOP/s", gigaflops, "Eigen's GEMM", ours, gigaflops, gemm);
                }
            }
        }
    }
}

void add_attention(report& out, const ceilings::products& bound, rw::cache_type type, std::int64_t past,
                   std::int64_t tokens) {
    const auto& kernels = rw::runtime::attention_kernels();
    const attention::llama_config config{
        .hidden_size = 5120, .layers = 1, .heads = 40, .kv_heads = 40, .head_dim = 128};
    attention::kv_cache cache(config, {.type = type});
    const int sequence = cache.add_sequence();
    cache.reserve(sequence, past + tokens);
    std::vector<float> keys = make_rows(past + tokens, config.kv_width());
    const attention::page_layout layout = cache.layout(0);
    const attention::sequence_part all{0, past + tokens, 0, cache.pages(sequence)};
    for (const bool which : {true, false}) kernels.store_rows({keys.data(), all, layout, which}, 0);

    const std::vector<float> q = make_rows(tokens, config.q_width());
    std::vector<float> y(q.size());
    const attention::sequence_part part{0, tokens, past, cache.pages(sequence)};
    const auto ours = [&] { kernels.attend({q.data(), y.data(), config.heads, 0.09F, {&part, 1}, layout}, 0); };
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
    // What the mask leaves.
    const double scores = static_cast<double>(tokens) * (static_cast<double>(past) + static_cast<double>(tokens) / 2);
    const double gigaflops = 4e-9 * scores * static_cast<double>(config.q_width());
    constexpr std::int64_t side = 2048;
    const std::vector<float> a = make_rows(side, side), b = make_rows(side, side);
    std::vector<float> c(static_cast<std::size_t>(side * side));
    const auto gemm = [&] { bound.gemm(a.data(), side, b.data(), side, side, c.data(), threads()); };
    out.compare(name, "GFLOP/s", gigaflops, "Eigen's GEMM", ours, 2e-9 * static_cast<double>(side * side * side), gemm);
}

}  // namespace

int main(int argc, char** argv) {
    const ceilings::products& bound = ceilings::products_for(rw::runtime::instruction_set());
    std::printf("%s, %d threads\n", std::string(rw::runtime::instruction_set()).c_str(), threads());
    report out;
    add_products(out, bound);
    for (const auto type : {rw::cache_type::f32, rw::cache_type::f16, rw::cache_type::bf16, rw::cache_type::i8}) {
        for (const std::int64_t past : {4095, 16383}) add_attention(out, bound, type, past, 1);
    }
    for (const auto type : {rw::cache_type::f32, rw::cache_type::f16}) add_attention(out, bound, type, 0, 4096);
    if (argc > 1) out.write(argv[1]);
}
