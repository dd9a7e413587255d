// Benchmarks of decoding: the rotation of one token, compared with a hand-written loop over a table.
//
// Rows: decode/f32/<layout>/<q heads>x<kv heads>/<calls>, where the time is that of one call and the calls are
//   rotate           rotate() at a new position
//   table            rotate() with the table of the hand-written loop
//   prepared         a prepared rotation at a new position
//   prepared_layers  the same at one position per 40 calls, as the layers of a model make them
// The counter `ratio_to_hand` is the time of a call divided by that of the hand-written loop at the same positions.

#include <benchmark/benchmark.h>
#include <ropewalk/core/error.hpp>
#include <ropewalk/dispatch.hpp>

#include "bandwidth/loops.hpp"
#include "comparison.hpp"
#include "register.hpp"

namespace bench {

namespace {

enum class calls { rotate, table, prepared, prepared_layers };

constexpr std::int64_t layers = 40, table_rows = 4096, pairs = head_dim / 2;

/// One token of queries and keys, with every candidate.
class token {
public:
    explicit token(const shape& size)
        : data_(size, order::thd, memory(0, size.bytes())),
          encoding_(rw::make_encoding(rw::Geometry{.head_dim = head_dim, .base = base}, "default")),
          cos_(table_rows * pairs),
          sin_(cos_.size()),
          prepared_(rw::dispatch::prepare(size.layout, data_.q, data_.k, data_.q, data_.k, encoding_)),
          hand_(loops_for(rw::dispatch::instruction_set()).rotation(size.type, size.layout, true)) {
        rw::dispatch::cos_sin(size.layout, encoding_, rw::offset{0}, table_rows, pairs, cos_, sin_);
        with_table_.table = {
            .cos = cos_.data(), .sin = sin_.data(), .rows = table_rows, .columns = pairs, .stride_row = pairs};
    }

    void rotate_by_hand(std::int64_t position) const {
        const float *cos = cos_.data() + position * pairs, *sin = sin_.data() + position * pairs;
        hand_(data_.q.data, data_.q.heads, head_dim, cos, sin);
        hand_(data_.k.data, data_.k.heads, head_dim, cos, sin);
    }

    void rotate(calls kind, std::int64_t position) {
        if (kind == calls::prepared || kind == calls::prepared_layers) {
            accepted_ = prepared_.run({data_.q.data, data_.k.data}, position) && accepted_;
        } else {
            rw::dispatch::rotate(data_.size.layout, data_.q, data_.k, data_.q, data_.k, encoding_, rw::offset{position},
                                 kind == calls::table ? with_table_ : on_the_fly_);
        }
    }

    /// Compares the call and the hand-written loop with the oracle. Returns an error message or "".
    [[nodiscard]] std::string check(calls kind) {
        for (const std::int64_t position : {0, 1, 2047, 4095}) {
            data_.fill();
            rotate(kind, position);
            const double error = error_to_tolerance(data_, position);
            data_.fill();
            rotate_by_hand(position);
            const double hand_error = error_to_tolerance(data_, position);
            if (!(error <= 1 && hand_error <= 1)) {
                return rw::detail::format(
                    "at position {}, the error is {} (ropewalk) and {} (hand) times the tolerance", position, error,
                    hand_error);
            }
        }
        data_.fill();
        return {};
    }

    /// Returns whether the values are still usable after the measurement.
    [[nodiscard]] bool is_valid() const { return accepted_ && has_initial_magnitude(data_); }

private:
    workload data_;
    rw::Encoding encoding_;
    std::vector<float> cos_, sin_;
    rw::cpu::options on_the_fly_, with_table_;
    rw::cpu::prepared_rotation prepared_;
    rotation_loop hand_;
    bool accepted_ = true;
};

void measure(benchmark::State& state, calls kind, const shape& size) {
    token one(size);
    const std::string problem = one.check(kind);
    if (!problem.empty()) return state.SkipWithError(problem.c_str());

    // A pass is 40 calls, so that the loop of comparison.cpp adds no time per call.
    const auto for_each_call = [kind](int pass, const auto& call) {
        for (std::int64_t layer = 0; layer < layers; ++layer)
            call((kind == calls::prepared_layers ? pass : pass * layers + layer) % table_rows);
    };
    comparison times;
    times.add("ropewalk", [&](int pass) { for_each_call(pass, [&](std::int64_t at) { one.rotate(kind, at); }); });
    times.add("hand", [&](int pass) { for_each_call(pass, [&](std::int64_t at) { one.rotate_by_hand(at); }); });
    for (auto _ : state) times.round();
    times.finish();
    if (!one.is_valid()) return state.SkipWithError("a call failed, or the values drifted during the measurement");

    state.counters[median_seconds] = times.median("ropewalk") / layers;
    state.counters["hand_ns"] = times.median("hand") / layers * 1e9;
    state.counters["ratio_to_hand"] = times.median("ropewalk") / times.median("hand");
}

}  // namespace

void register_rows() {
    constexpr std::pair<calls, const char*> all_calls[] = {{calls::rotate, "rotate"},
                                                           {calls::table, "table"},
                                                           {calls::prepared, "prepared"},
                                                           {calls::prepared_layers, "prepared_layers"}};
    constexpr std::pair<std::int64_t, std::int64_t> all_heads[] = {{40, 8}, {8, 8}, {8, 1}, {1, 1}};
    for (const auto layout : {rw::layout_kind::interleaved, rw::layout_kind::half_split}) {
        for (const auto& [q_heads, k_heads] : all_heads) {
            for (const auto& [kind, name] : all_calls) {
                const std::string row =
                    rw::detail::format("decode/f32/{}/{}x{}/{}", rw::to_string(layout), q_heads, k_heads, name);
                const shape size{.layout = layout, .q_heads = q_heads, .k_heads = k_heads};
                benchmark::RegisterBenchmark(row.c_str(), measure, kind, size)->Unit(benchmark::kNanosecond);
            }
        }
    }
}

}  // namespace bench
