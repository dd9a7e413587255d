// Rotations beside what the machine can do with the same bytes.

#include <benchmark/benchmark.h>
#include <dispatch/dispatch.hpp>
#include <ropewalk/core/error.hpp>

#include "ceilings.hpp"
#include "contest.hpp"
#include "naive.hpp"
#include "parallel.hpp"
#include "rows.hpp"

namespace bench {

namespace {

enum class family { rotate, rotate_bhsd, out_of_place, decode_on_the_fly, decode_table };

constexpr std::int64_t first_position = 4096;

/// A power of two and its inverse in turn: exact, so that nothing drifts away over thousands of passes.
float factor(int pass) { return pass % 2 == 0 ? 2.0F : 0.5F; }

/// One row: its memory, what it runs, and how that is checked.
class rotation_row {
public:
    rotation_row(family kind, const shape& what)
        : kind_(kind),
          what_(what),
          axes_(kind == family::rotate_bhsd ? order::bhsd : order::thd),
          in_(what, axes_, memory(0, what.bytes())),
          out_(in_),
          loops_(ceilings::loops_for(rw::dispatch::instruction_set(what.type, rw::cpu::footprint_of(what.bytes())))) {
        in_.fill();
        if (kind == family::out_of_place) {
            out_ = workload(what, axes_, memory(1, what.bytes()));
            out_.fill();  // so that its pages are mapped before the clock starts
        }
        if (kind == family::decode_table) make_table();
        if (what.k_heads == 0) in_.k = out_.k = {};  // queries alone
    }

    void ours() const {
        rw::cpu::options chosen;
        chosen.threads = what_.threads;
        chosen.table = table_;
        rw::dispatch::rotate(what_.layout, in_.q, in_.k, out_.q, out_.k, encoding_, rw::offset{first_position}, chosen);
    }

    /// The float32 scale over the same number of bytes, in memory of its own.
    void scale(int threads, int pass) const {
        const std::int64_t floats = what_.bytes() / 4;
        auto* const data = static_cast<float*>(memory(2, what_.bytes()));
        auto* const target = kind_ == family::out_of_place ? static_cast<float*>(memory(3, what_.bytes())) : data;
        in_parts(threads, floats, [&](std::int64_t begin, std::int64_t count) {
            if (target == data) return loops_.scale(data + begin, count, factor(pass));
            loops_.scale_into(data + begin, target + begin, count, factor(pass));
        });
    }

    void convert(int threads, int pass) const {
        in_parts(threads, what_.elements(), [&](std::int64_t begin, std::int64_t count) {
            if (what_.type == rw::element_type::f16) {
                loops_.convert_f16(static_cast<rw::f16*>(in_.q.data) + begin, count, factor(pass));
            } else {
                loops_.convert_bf16(static_cast<rw::bf16*>(in_.q.data) + begin, count, factor(pass));
            }
        });
    }

    /// Runs ours and the naive twin once and compares each with the oracle. An empty text when all is well.
    [[nodiscard]] std::string check() const {
        ours();
        const double found = error_in_limits(out_, first_position);
        in_.fill();
        rotate_naively(in_, first_position);
        const double naive = error_in_limits(in_, first_position);
        in_.fill();
        for (const int which : {2, 3}) {
            if (which == 3 && kind_ != family::out_of_place) continue;
            shape floats{.q_heads = what_.q_heads, .k_heads = what_.k_heads, .tokens = what_.tokens};
            if (rw::size_of(what_.type) == 2) floats.q_heads /= 2, floats.k_heads /= 2;
            workload(floats, order::thd, memory(which, floats.bytes())).fill();
        }
        if (found <= 1 && naive <= 1) return {};
        return rw::detail::format("wrong by {} (ours) and {} (naive) times what is allowed", found, naive);
    }

    void enter(contest& all) const {
        all.add("ours", [this](int) { ours(); });
        all.add("scale on one thread", [this](int pass) { scale(1, pass); });
        if (what_.threads > 1) all.add("scale", [this](int pass) { scale(what_.threads, pass); });
        if (rw::size_of(what_.type) == 2) {
            all.add("convert on one thread", [this](int pass) { convert(1, pass); });
            if (what_.threads > 1) all.add("convert", [this](int pass) { convert(what_.threads, pass); });
        }
        if (kind_ != family::out_of_place)
            all.add(
                "naive", [this](int) { rotate_naively(in_, first_position); }, true);
    }

    [[nodiscard]] const workload& result() const { return out_; }

private:
    void make_table() {
        const std::int64_t rows = first_position + what_.tokens;
        cos_.resize(static_cast<std::size_t>(rows * encoding_.pairs()));
        sin_.resize(cos_.size());
        rw::dispatch::cos_sin(what_.layout, encoding_, rw::offset{0}, rows, encoding_.pairs(), cos_, sin_);
        table_.cos = cos_.data(), table_.sin = sin_.data();
        table_.rows = rows, table_.columns = table_.stride_row = encoding_.pairs();
    }

    family kind_;
    shape what_;
    order axes_;
    workload in_, out_;
    const ceilings::loops& loops_;
    rw::Encoding encoding_ = rw::make_encoding(rw::Geometry{.head_dim = head_dim, .base = base}, "default");
    std::vector<float> cos_, sin_;
    rw::cos_sin_table table_;
};

void measure(benchmark::State& state, family kind, const shape& what) {
    const rotation_row row(kind, what);
    const std::string problem = row.check();
    if (!problem.empty()) return state.SkipWithError(problem.c_str());

    contest all;
    row.enter(all);
    for (auto _ : state) all.round();
    all.finish();
    if (!still_sane(row.result())) return state.SkipWithError("the values have drifted away");

    const double ours = all.median("ours");
    state.counters[median_seconds] = ours;
    state.counters["bytes_per_second"] =
        benchmark::Counter(2.0 * static_cast<double>(what.bytes()) / ours, {}, benchmark::Counter::kIs1000);
    state.counters["ratio_to_scale"] = all.ceiling(what.threads, "scale", "scale on one thread") / ours;
    if (rw::size_of(what.type) == 2) {
        state.counters["ratio_to_convert"] = all.ceiling(what.threads, "convert", "convert on one thread") / ours;
    }
    if (kind != family::out_of_place) state.counters["ratio_to_naive"] = all.median("naive") / ours;
}

std::string heads_of(const shape& what) { return std::to_string(what.q_heads) + "x" + std::to_string(what.k_heads); }

/// "rotate/f32/half_split/40x40/4096/threads:1"; decode rows name the source of their angles instead of the tokens.
void add(family kind, const std::string& name, const shape& what, const std::string& variant) {
    const std::string full = name + "/" + std::string(rw::to_string(what.type)) + "/" +
                             std::string(rw::to_string(what.layout)) + "/" + heads_of(what) + "/" + variant +
                             "/threads:" + std::to_string(what.threads);
    benchmark::RegisterBenchmark(full.c_str(), measure, kind, what)->Unit(benchmark::kMicrosecond);
}

}  // namespace

void register_rotations() {
    for (const auto type : {rw::element_type::f32, rw::element_type::f16, rw::element_type::bf16}) {
        for (const auto layout : {rw::layout_kind::half_split, rw::layout_kind::interleaved}) {
            for (const std::int64_t k_heads : {40, 8}) {
                const std::int64_t q_heads = k_heads == 40 ? 40 : 32;
                for (const int threads : {1, 2}) {
                    for (const std::int64_t tokens : {1, 16, 128, 4096, 32768}) {
                        const shape what{type, layout, q_heads, k_heads, tokens, threads};
                        add(family::rotate, "rotate", what, std::to_string(tokens));
                        const shape alone{type, layout, k_heads, 0, tokens, threads};
                        if (k_heads == 40 || tokens >= 4096)
                            add(family::rotate, "rotate", alone, std::to_string(tokens));
                        if (k_heads != 40 || (tokens != 128 && tokens != 4096)) continue;
                        add(family::rotate_bhsd, "rotate_bhsd", what, std::to_string(tokens));
                        add(family::out_of_place, "out_of_place", what, std::to_string(tokens));
                    }
                }
                const shape one{type, layout, q_heads, k_heads, 1, 1};
                add(family::decode_on_the_fly, "decode", one, "on_the_fly");
                add(family::decode_table, "decode", one, "table");
            }
        }
    }
}

}  // namespace bench
