// Benchmarks of cos and sin tables, compared with storing as many bytes.

#include <cmath>
#include <vector>

#include <benchmark/benchmark.h>
#include <ropewalk/dispatch.hpp>

#include "bandwidth/loops.hpp"
#include "comparison.hpp"
#include "max_error.hpp"
#include "parallel.hpp"
#include "register.hpp"

namespace bench {

namespace {

struct table {
    explicit table(std::int64_t tokens_)
        : tokens(tokens_), cos(static_cast<std::size_t>(tokens * pairs)), sin(cos.size()) {}

    void fill(int threads) {
        rw::dispatch::cos_sin(rw::layout_kind::half_split, encoding, rw::offset{0}, tokens, pairs, cos, sin, threads);
    }
    void store(const bandwidth_loops& loops, int threads, float value) {
        for_each_part(threads, tokens * pairs, [&](std::int64_t begin, std::int64_t count) {
            loops.store(cos.data() + begin, count, value);
            loops.store(sin.data() + begin, count, value);
        });
    }
    void fill_naively() {
        for (std::int64_t token = 0; token < tokens; ++token) {
            for (std::int64_t pair = 0; pair < pairs; ++pair) {
                const double angle = static_cast<double>(token) * encoding.inv_freq[static_cast<std::size_t>(pair)];
                const auto entry = static_cast<std::size_t>(token * pairs + pair);
                cos[entry] = static_cast<float>(std::cos(angle));
                sin[entry] = static_cast<float>(std::sin(angle));
            }
        }
    }
    /// The largest error of every 97th row.
    [[nodiscard]] double error() const {
        double largest = 0;
        for (std::int64_t token = 0; token < tokens; token += 97) {
            for (std::int64_t pair = 0; pair < pairs; ++pair) {
                const long double theta =
                    std::pow(static_cast<long double>(base), -static_cast<long double>(pair) / pairs);
                const long double angle = static_cast<long double>(token) * theta;
                const auto entry = static_cast<std::size_t>(token * pairs + pair);
                largest = max_error(largest, std::abs(static_cast<double>(cos[entry] - std::cos(angle))));
                largest = max_error(largest, std::abs(static_cast<double>(sin[entry] - std::sin(angle))));
            }
        }
        return largest;
    }

    static constexpr std::int64_t pairs = head_dim / 2;
    std::int64_t tokens;
    rw::Encoding encoding = rw::make_encoding(rw::Geometry{.head_dim = head_dim, .base = base}, "default");
    std::vector<float> cos, sin;
};

void measure_table(benchmark::State& state, std::int64_t tokens, int threads) {
    table values(tokens);
    const auto& loops = loops_for(rw::dispatch::instruction_set());
    values.fill(threads);
    const double error = values.error();
    if (!(error <= 1.2e-7)) return state.SkipWithError("the error of a cosine or sine exceeds 1.2e-7");

    comparison times;
    times.add("ropewalk", [&](int) { values.fill(threads); });
    times.add("store on one thread", [&](int pass) { values.store(loops, 1, static_cast<float>(pass)); });
    if (threads > 1) times.add("store", [&](int pass) { values.store(loops, threads, static_cast<float>(pass)); });
    times.add(
        "naive", [&](int) { values.fill_naively(); }, true);
    for (auto _ : state) times.round();
    times.finish();

    const double seconds = times.median("ropewalk");
    state.counters[median_seconds] = seconds;
    state.counters["ratio_to_store"] = times.bound(threads, "store", "store on one thread") / seconds;
    state.counters["ratio_to_naive"] = times.median("naive") / seconds;
    state.counters["error"] = error;
}

}  // namespace

void register_tables() {
    for (const std::int64_t tokens : {4096, 32768, 131072}) {  // in the L2 and L3 cache, in the L3 cache, in memory
        for (const int threads : {1, 2}) {
            const std::string name = "table/" + std::to_string(tokens) + "x" + std::to_string(table::pairs) +
                                     "/threads:" + std::to_string(threads);
            benchmark::RegisterBenchmark(name.c_str(), measure_table, tokens, threads)->Unit(benchmark::kMicrosecond);
        }
    }
}

}  // namespace bench
