// Benchmarks of rotations, compared with plain loops over the same bytes and with a naive rotation.

#include <benchmark/benchmark.h>
#include <ropewalk/core/error.hpp>
#include <ropewalk/dispatch.hpp>

#include "bandwidth/loops.hpp"
#include "comparison.hpp"
#include "naive.hpp"
#include "parallel.hpp"
#include "register.hpp"

namespace bench {

namespace {

enum class family { rotate, rotate_bhsd, out_of_place, decode_on_the_fly, decode_table };

constexpr std::int64_t first_position = 4096;

/// Alternates between a power of two and its inverse: both are exact, so values do not drift over thousands of passes.
float factor(int pass) { return pass % 2 == 0 ? 2.0F : 0.5F; }

/// A benchmark row: its memory, its candidates and their checks.
class rotation_row {
public:
    rotation_row(family kind, const shape& size)
        : kind_(kind),
          size_(size),
          axes_(kind == family::rotate_bhsd ? order::bhsd : order::thd),
          in_(size, axes_, memory(0, size.bytes())),
          out_(in_),
          loops_(loops_for(rw::dispatch::instruction_set(size.type, rw::cpu::footprint_of(size.bytes(), rw::dispatch::tuning_profile())))) {
        in_.fill();
        if (kind == family::out_of_place) {
            out_ = workload(size, axes_, memory(1, size.bytes()));
            out_.fill();  // maps its pages before the measurement
        }
        if (kind == family::decode_table) make_table();
        if (size.k_heads == 0) in_.k = out_.k = {};  // queries alone
    }

    void rotate() const {
        rw::cpu::options options;
        options.threads = size_.threads;
        options.table = table_;
        rw::dispatch::rotate(size_.layout, in_.q, in_.k, out_.q, out_.k, encoding_, rw::offset{first_position},
                             options);
    }

    /// The float32 scale over the same number of bytes, in separate memory.
    void scale(int threads, int pass) const {
        const std::int64_t floats = size_.bytes() / 4;
        auto* const data = static_cast<float*>(memory(2, size_.bytes()));
        auto* const target = kind_ == family::out_of_place ? static_cast<float*>(memory(3, size_.bytes())) : data;
        for_each_part(threads, floats, [&](std::int64_t begin, std::int64_t count) {
            if (target == data) return loops_.scale(data + begin, count, factor(pass));
            loops_.scale_into(data + begin, target + begin, count, factor(pass));
        });
    }

    void convert(int threads, int pass) const {
        for_each_part(threads, size_.elements(), [&](std::int64_t begin, std::int64_t count) {
            if (size_.type == rw::element_type::f16) {
                loops_.convert_f16(static_cast<rw::f16*>(in_.q.data) + begin, count, factor(pass));
            } else {
                loops_.convert_bf16(static_cast<rw::bf16*>(in_.q.data) + begin, count, factor(pass));
            }
        });
    }

    /// Runs ropewalk and the naive rotation once and compares both with the oracle. Returns an error message or "".
    [[nodiscard]] std::string check() const {
        rotate();
        const double error = error_to_tolerance(out_, first_position);
        in_.fill();
        rotate_naively(in_, first_position);
        const double naive_error = error_to_tolerance(in_, first_position);
        in_.fill();
        for (const int buffer : {2, 3}) {
            if (buffer == 3 && kind_ != family::out_of_place) continue;
            shape floats{.q_heads = size_.q_heads, .k_heads = size_.k_heads, .tokens = size_.tokens};
            if (rw::size_of(size_.type) == 2) floats.q_heads /= 2, floats.k_heads /= 2;
            workload(floats, order::thd, memory(buffer, floats.bytes())).fill();
        }
        if (error <= 1 && naive_error <= 1) return {};
        return rw::detail::format("the error is {} (ropewalk) and {} (naive) times the tolerance", error, naive_error);
    }

    void add_candidates(comparison& times) const {
        times.add("ropewalk", [this](int) { rotate(); });
        times.add("scale on one thread", [this](int pass) { scale(1, pass); });
        if (size_.threads > 1) times.add("scale", [this](int pass) { scale(size_.threads, pass); });
        if (rw::size_of(size_.type) == 2) {
            times.add("convert on one thread", [this](int pass) { convert(1, pass); });
            if (size_.threads > 1) times.add("convert", [this](int pass) { convert(size_.threads, pass); });
        }
        if (kind_ != family::out_of_place)
            times.add(
                "naive", [this](int) { rotate_naively(in_, first_position); }, true);
    }

    [[nodiscard]] const workload& result() const { return out_; }

private:
    void make_table() {
        const std::int64_t rows = first_position + size_.tokens;
        cos_.resize(static_cast<std::size_t>(rows * encoding_.pairs()));
        sin_.resize(cos_.size());
        rw::dispatch::cos_sin(size_.layout, encoding_, rw::offset{0}, rows, encoding_.pairs(), cos_, sin_);
        table_ = {.cos = cos_.data(),
                  .sin = sin_.data(),
                  .type = rw::element_type::f32,
                  .rows = rows,
                  .columns = encoding_.pairs(),
                  .stride_row = encoding_.pairs()};
    }

    family kind_;
    shape size_;
    order axes_;
    workload in_, out_;
    const bandwidth_loops& loops_;
    rw::Encoding encoding_ = rw::make_encoding(rw::Geometry{.head_dim = head_dim, .base = base}, "default");
    std::vector<float> cos_, sin_;
    rw::cos_sin_table table_;
};

void measure(benchmark::State& state, family kind, const shape& size) {
    const rotation_row row(kind, size);
    const std::string problem = row.check();
    if (!problem.empty()) return state.SkipWithError(problem.c_str());

    comparison times;
    row.add_candidates(times);
    for (auto _ : state) times.round();
    times.finish();
    if (!has_initial_magnitude(row.result())) return state.SkipWithError("the values drifted during the measurement");

    const double seconds = times.median("ropewalk");
    state.counters[median_seconds] = seconds;
    state.counters["bytes_per_second"] =
        benchmark::Counter(2.0 * static_cast<double>(size.bytes()) / seconds, {}, benchmark::Counter::kIs1000);
    state.counters["ratio_to_scale"] = times.bound(size.threads, "scale", "scale on one thread") / seconds;
    if (rw::size_of(size.type) == 2) {
        state.counters["ratio_to_convert"] = times.bound(size.threads, "convert", "convert on one thread") / seconds;
    }
    if (kind != family::out_of_place) state.counters["ratio_to_naive"] = times.median("naive") / seconds;
}

std::string heads_of(const shape& size) { return std::to_string(size.q_heads) + "x" + std::to_string(size.k_heads); }

/// Registers a row like "rotate/f32/half_split/40x40/4096/threads:1". `variant` is the number of tokens, or the source
/// of the angles of decode rows.
void add(family kind, const std::string& name, const shape& size, const std::string& variant) {
    const std::string full = name + "/" + std::string(rw::to_string(size.type)) + "/" +
                             std::string(rw::to_string(size.layout)) + "/" + heads_of(size) + "/" + variant +
                             "/threads:" + std::to_string(size.threads);
    benchmark::RegisterBenchmark(full.c_str(), measure, kind, size)->Unit(benchmark::kMicrosecond);
}

}  // namespace

void register_rows() {
    for (const auto type : {rw::element_type::f32, rw::element_type::f16, rw::element_type::bf16}) {
        for (const auto layout : {rw::layout_kind::half_split, rw::layout_kind::interleaved}) {
            for (const std::int64_t k_heads : {40, 8}) {
                const std::int64_t q_heads = k_heads == 40 ? 40 : 32;
                for (const int threads : {1, 2}) {
                    for (const std::int64_t tokens : {1, 16, 128, 4096, 32768}) {
                        const shape size{type, layout, q_heads, k_heads, tokens, threads};
                        add(family::rotate, "rotate", size, std::to_string(tokens));
                        const shape one_tensor{type, layout, k_heads, 0, tokens, threads};
                        if (k_heads == 40 || tokens >= 4096)
                            add(family::rotate, "rotate", one_tensor, std::to_string(tokens));
                        if (k_heads != 40 || (tokens != 128 && tokens != 4096)) continue;
                        add(family::rotate_bhsd, "rotate_bhsd", size, std::to_string(tokens));
                        add(family::out_of_place, "out_of_place", size, std::to_string(tokens));
                    }
                }
                const shape one_token{type, layout, q_heads, k_heads, 1, 1};
                add(family::decode_on_the_fly, "decode", one_token, "on_the_fly");
                add(family::decode_table, "decode", one_token, "table");
            }
        }
    }
    register_tables();
}

}  // namespace bench
