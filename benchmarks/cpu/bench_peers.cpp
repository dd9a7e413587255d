// Benchmarks of rotations in place, compared with the loops of engines in one run.
//
// Rows: peers/<type>/<layout>/40x40/<tokens>/threads:<n>, with the time of ropewalk. Each candidate has the counters
// `ratio_to_scale` (time of the in-place scale over the same bytes, divided by that of the candidate) and `error`
// (relative to the norm of a pair). Their names end with the candidate, except those of ropewalk:
//   hand  the loop written by hand in AVX2 intrinsics, with a table that is computed before
//   libm  a loop like that of llama2.c: powf, cosf and sinf of the C library for each pair of each head. That of
//         llama2.c is a part of forward(). f32 and interleaved only, up to 4096 tokens.
//   ggml  its operator, where the CMake variable ROPEWALK_PEER_GGML names an installed ggml: f32 and f16

#include <benchmark/benchmark.h>
#include <ropewalk/core/error.hpp>
#include <ropewalk/dispatch.hpp>

#include "compare_row.hpp"
#include "register.hpp"
#include "yardstick.hpp"
#ifdef ROPEWALK_PEER_GGML
#include "peer_ggml.hpp"
#endif

namespace bench {

namespace {

constexpr std::int64_t first_position = 4096, pairs = head_dim / 2;
constexpr std::int64_t cached_bytes = std::int64_t{16} << 20;
/// The largest error of an angle that is a float32 product, relative to the norm of a pair: 2^-24 of a position below
/// 2^16, with a margin for ggml, which multiplies once per pair.
constexpr double float32_angle_error = 1e-2;

/// Rotates a token in place at a position, with the angle and its functions in float32.
void rotate_by_libm(float* q, float* k, std::int64_t elements, std::int64_t position) {
    for (std::int64_t i = 0; i < elements; i += 2) {
        const float exponent = static_cast<float>(i % head_dim) / static_cast<float>(head_dim);
        const float angle = static_cast<float>(position) * (1.0F / std::pow(static_cast<float>(base), exponent));
        const float c = std::cos(angle), s = std::sin(angle);
        for (float* const x : {q + i, k + i}) {
            const float a = x[0], b = x[1];
            x[0] = a * c - b * s;
            x[1] = a * s + b * c;
        }
    }
}

struct candidate {
    const char* suffix;  ///< of its counters
    double angle_error;
    std::function<void()> check;    ///< rotates once
    std::function<void()> measure;  ///< rotates `calls` times
    int calls = 1;
    double error = 0;
};

class peers_row {
public:
    explicit peers_row(const shape& size)
        : data_(size, order::thd, memory(0, size.bytes())),
          bounds_(size, data_.q.data, data_.q.data),
          cos_(static_cast<std::size_t>(size.tokens * pairs)),
          sin_(cos_.size()) {
        rw::dispatch::cos_sin(size.layout, encoding_, rw::offset{first_position}, size.tokens, pairs, cos_, sin_);
        add("", stated_error, [this] { rotate(); });
        add("_hand", stated_error, [this] { rotate_by_hand(); });
        const bool pairs_of_f32 = size.type == rw::element_type::f32 && size.layout == rw::layout_kind::interleaved;
        if (pairs_of_f32 && size.tokens <= 4096) add("_libm", float32_angle_error, [this] { rotate_by_libm(); });
#ifdef ROPEWALK_PEER_GGML
        if (size.type == rw::element_type::bf16) return;
        // A graph of an engine has many operators. Forty layers amortise its start where a rotation is short.
        const int layers = size.tokens <= 16 ? 40 : 1;
        const auto once = std::make_shared<ggml_rotation>(data_, first_position, 1);
        const auto model = std::make_shared<ggml_rotation>(data_, first_position, layers);
        candidates_.push_back({"_ggml", float32_angle_error, [once] { (*once)(); }, [model] { (*model)(); }, layers});
#endif
    }

    /// Compares each candidate with the oracle. Returns an error message or "".
    [[nodiscard]] std::string check() {
        for (candidate& entry : candidates_) {
            data_.fill();
            entry.check();
            entry.error = error_to_norm(data_, first_position);
            const double to_tolerance = error_to_tolerance(data_, first_position, entry.angle_error);
            if (!(to_tolerance <= 1)) {
                return rw::detail::format("the error of ropewalk{} is {} times the tolerance", entry.suffix,
                                          to_tolerance);
            }
        }
        data_.fill();
        return {};
    }

    void add_candidates(comparison& times) const {
        for (const candidate& entry : candidates_) times.add(entry.suffix, [&entry](int) { entry.measure(); });
        bounds_.add_candidates(times);
    }

    void report(benchmark::State& state, const comparison& times) const {
        for (const candidate& entry : candidates_) {
            const double seconds = times.median(entry.suffix) / entry.calls;
            if (&entry == &candidates_.front()) {
                state.counters[median_seconds] = seconds;
                if (rw::size_of(data_.size.type) == 2)
                    state.counters["ratio_to_convert"] = bounds_.convert_seconds(times) / seconds;
            }
            state.counters[std::string("ratio_to_scale") + entry.suffix] = bounds_.scale_seconds(times) / seconds;
            state.counters[std::string("error") + entry.suffix] = entry.error;
        }
    }

    [[nodiscard]] const workload& result() const { return data_; }

private:
    void add(const char* suffix, double angle_error, const std::function<void()>& run) {
        candidates_.push_back({suffix, angle_error, run, run});
    }

    void rotate() const {
        rw::cpu::options options;
        options.threads = data_.size.threads;
        rw::dispatch::rotate(data_.size.layout, data_.q, data_.k, data_.q, data_.k, encoding_,
                             rw::offset{first_position}, options);
    }

    template <class F>
    void for_each_token(const F& run) const {
        const auto token_of = [](const rw::tensor& x, std::int64_t token) {
            return static_cast<char*>(x.data) + token * x.stride_token * static_cast<std::int64_t>(rw::size_of(x.type));
        };
        const int threads =
            data_.size.tokens > 1 ? data_.size.threads : 1;  // starting threads takes longer than a token
        for_each_part(threads, data_.size.tokens, [&](std::int64_t begin, std::int64_t count) {
            for (std::int64_t token = begin; token < begin + count; ++token)
                run(token, token_of(data_.q, token), token_of(data_.k, token));
        });
    }

    void rotate_by_hand() const {
        const bool in_cache = data_.size.bytes() <= cached_bytes;
        const rotation_loop rotation = bounds_.loops().rotation(data_.size.type, data_.size.layout, in_cache);
        for_each_token([&](std::int64_t token, void* q, void* k) {
            const float *cos = cos_.data() + token * pairs, *sin = sin_.data() + token * pairs;
            rotation(q, data_.q.heads, head_dim, cos, sin);
            rotation(k, data_.k.heads, head_dim, cos, sin);
        });
    }

    void rotate_by_libm() const {
        for_each_token([this](std::int64_t token, void* q, void* k) {
            bench::rotate_by_libm(static_cast<float*>(q), static_cast<float*>(k), data_.q.heads * head_dim,
                                  first_position + token);
        });
    }

    workload data_;
    yardstick bounds_;
    rw::Encoding encoding_ = rw::make_encoding(rw::Geometry{.head_dim = head_dim, .base = base}, "default");
    std::vector<float> cos_, sin_;
    std::vector<candidate> candidates_;
};

void measure(benchmark::State& state, const shape& size) {
    peers_row row(size);
    comparison times;
    if (!compare_row(state, row, times)) return;
    row.report(state, times);
}

}  // namespace

void register_rows() {
#ifdef ROPEWALK_PEER_GGML
    benchmark::AddCustomContext("ggml", ggml_rotation::version());
#endif
    for (const auto type : {rw::element_type::f32, rw::element_type::f16, rw::element_type::bf16}) {
        for (const auto layout : {rw::layout_kind::half_split, rw::layout_kind::interleaved}) {
            for (const int threads : {1, 2}) {
                for (const std::int64_t tokens : {1, 16, 128, 4096, 32768}) {
                    const shape size{.type = type, .layout = layout, .tokens = tokens, .threads = threads};
                    const std::string name = rw::detail::format("peers/{}/{}/40x40/{}/threads:{}", rw::to_string(type),
                                                                rw::to_string(layout), tokens, threads);
                    benchmark::RegisterBenchmark(name.c_str(), measure, size)->Unit(benchmark::kMicrosecond);
                }
            }
        }
    }
}

}  // namespace bench
