// Tables of cosines and sines beside storing as many bytes.

#include <cmath>
#include <vector>

#include <benchmark/benchmark.h>
#include <dispatch/dispatch.hpp>

#include "ceilings.hpp"
#include "contest.hpp"
#include "parallel.hpp"
#include "rows.hpp"
#include "worst.hpp"

namespace bench {

namespace {

struct table {
    explicit table(std::int64_t tokens_)
        : tokens(tokens_), cos(static_cast<std::size_t>(tokens * pairs)), sin(cos.size()) {}

    void ours(int threads) {
        rw::dispatch::cos_sin(rw::layout_kind::half_split, encoding, rw::offset{0}, tokens, pairs, cos, sin, threads);
    }
    void store(const ceilings::loops& loops, int threads, float value) {
        in_parts(threads, tokens * pairs, [&](std::int64_t begin, std::int64_t count) {
            loops.store(cos.data() + begin, count, value);
            loops.store(sin.data() + begin, count, value);
        });
    }
    void naive() {
        for (std::int64_t token = 0; token < tokens; ++token) {
            for (std::int64_t pair = 0; pair < pairs; ++pair) {
                const double angle = static_cast<double>(token) * encoding.inv_freq[static_cast<std::size_t>(pair)];
                const auto at = static_cast<std::size_t>(token * pairs + pair);
                cos[at] = static_cast<float>(std::cos(angle));
                sin[at] = static_cast<float>(std::sin(angle));
            }
        }
    }
    /// The largest error of every 97th row.
    [[nodiscard]] double error() const {
        double worst = 0;
        for (std::int64_t token = 0; token < tokens; token += 97) {
            for (std::int64_t pair = 0; pair < pairs; ++pair) {
                const long double theta =
                    std::pow(static_cast<long double>(base), -static_cast<long double>(pair) / pairs);
                const long double angle = static_cast<long double>(token) * theta;
                const auto at = static_cast<std::size_t>(token * pairs + pair);
                worst = ceilings::larger(worst, std::abs(static_cast<double>(cos[at] - std::cos(angle))));
                worst = ceilings::larger(worst, std::abs(static_cast<double>(sin[at] - std::sin(angle))));
            }
        }
        return worst;
    }

    static constexpr std::int64_t pairs = head_dim / 2;
    std::int64_t tokens;
    rw::Encoding encoding = rw::make_encoding(rw::Geometry{.head_dim = head_dim, .base = base}, "default");
    std::vector<float> cos, sin;
};

void measure_table(benchmark::State& state, std::int64_t tokens, int threads) {
    table made(tokens);
    const auto& loops = ceilings::loops_for(rw::dispatch::instruction_set());
    made.ours(threads);
    const double error = made.error();
    if (!(error <= 1.2e-7)) return state.SkipWithError("a cosine or a sine is wrong by more than 1.2e-7");

    contest all;
    all.add("ours", [&](int) { made.ours(threads); });
    all.add("store on one thread", [&](int pass) { made.store(loops, 1, static_cast<float>(pass)); });
    if (threads > 1) all.add("store", [&](int pass) { made.store(loops, threads, static_cast<float>(pass)); });
    all.add(
        "naive", [&](int) { made.naive(); }, true);
    for (auto _ : state) all.round();
    all.finish();

    const double ours = all.median("ours");
    state.counters[median_seconds] = ours;
    state.counters["ratio_to_store"] = all.ceiling(threads, "store", "store on one thread") / ours;
    state.counters["ratio_to_naive"] = all.median("naive") / ours;
    state.counters["error"] = error;
}

}  // namespace

void register_tables() {
    for (const std::int64_t tokens : {4096, 32768, 131072}) {  // second and third cache, third, memory
        for (const int threads : {1, 2}) {
            const std::string name = "table/" + std::to_string(tokens) + "x" + std::to_string(table::pairs) +
                                     "/threads:" + std::to_string(threads);
            benchmark::RegisterBenchmark(name.c_str(), measure_table, tokens, threads)->Unit(benchmark::kMicrosecond);
        }
    }
}

}  // namespace bench
