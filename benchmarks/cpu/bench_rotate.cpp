// Benchmarks of rotations, compared with plain loops over the same bytes and with a naive rotation.

#include <optional>

#include <benchmark/benchmark.h>
#include <ropewalk/core/error.hpp>
#include <ropewalk/dispatch.hpp>

#include "compare_row.hpp"
#include "naive.hpp"
#include "register.hpp"
#include "yardstick.hpp"

namespace bench {

namespace {

enum class family { rotate, rotate_bhsd, out_of_place, decode_on_the_fly, decode_table, decode_prepared };

constexpr std::int64_t first_position = 4096;

/// A benchmark row: its memory, its candidates and their checks.
class rotation_row {
public:
    rotation_row(family kind, const shape& size)
        : kind_(kind),
          size_(size),
          axes_(kind == family::rotate_bhsd ? order::bhsd : order::thd),
          in_(size, axes_, memory(0, size.bytes())),
          out_(in_),
          bounds_(size, in_.q.data, kind == family::out_of_place ? memory(1, size.bytes()) : in_.q.data) {
        in_.fill();
        if (kind == family::out_of_place) {
            out_ = workload(size, axes_, memory(1, size.bytes()));
            out_.fill();  // maps its pages before the measurement
        }
        if (kind == family::decode_table) make_table();
        if (kind == family::decode_prepared)
            prepared_ = rw::dispatch::prepare(size.layout, in_.q, in_.k, in_.q, in_.k, encoding_);
        if (size.k_heads == 0) in_.k = out_.k = {};  // queries alone
    }

    void rotate() {
        if (prepared_) return (void)prepared_->run({.q = in_.q.data, .k = in_.k.data}, first_position);
        rw::cpu::options options;
        options.threads = size_.threads;
        options.table = table_;
        rw::dispatch::rotate(size_.layout, in_.q, in_.k, out_.q, out_.k, encoding_, rw::offset{first_position},
                             options);
    }

    /// Runs ropewalk and the naive rotation once and compares both with the oracle. Returns an error message or "".
    [[nodiscard]] std::string check() {
        rotate();
        const double error = error_to_tolerance(out_, first_position);
        in_.fill();
        rotate_naively(in_, first_position);
        const double naive_error = error_to_tolerance(in_, first_position);
        in_.fill();
        if (error <= 1 && naive_error <= 1) return {};
        return rw::detail::format("the error is {} (ropewalk) and {} (naive) times the tolerance", error, naive_error);
    }

    void add_candidates(comparison& times) {
        times.add("ropewalk", [this](int) { rotate(); });
        bounds_.add_candidates(times);
        if (kind_ != family::out_of_place)
            times.add(
                "naive", [this](int) { rotate_naively(in_, first_position); }, true);
    }

    [[nodiscard]] const workload& result() const { return out_; }
    [[nodiscard]] const yardstick& bounds() const { return bounds_; }

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
    yardstick bounds_;
    rw::Encoding encoding_ = rw::make_encoding(rw::Geometry{.head_dim = head_dim, .base = base}, "default");
    std::vector<float> cos_, sin_;
    rw::cos_sin_table table_;
    std::optional<rw::cpu::prepared_rotation> prepared_;
};

void measure(benchmark::State& state, family kind, const shape& size) {
    rotation_row row(kind, size);
    comparison times;
    if (!compare_row(state, row, times)) return;

    const double seconds = times.median("ropewalk");
    state.counters[median_seconds] = seconds;
    state.counters["bytes_per_second"] =
        benchmark::Counter(2.0 * static_cast<double>(size.bytes()) / seconds, {}, benchmark::Counter::kIs1000);
    state.counters["ratio_to_scale"] = row.bounds().scale_seconds(times) / seconds;
    if (rw::size_of(size.type) == 2) state.counters["ratio_to_convert"] = row.bounds().convert_seconds(times) / seconds;
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
                add(family::decode_prepared, "decode", one_token, "prepared");
            }
        }
    }
    register_tables();
}

}  // namespace bench
