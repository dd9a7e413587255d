// Demonstration: rotates the queries and keys of Llama-2-13B for 32,768 tokens with every policy of the Giraffe paper.
// Prints the time, its ratio to a plain scale of the same memory, and the error of the angles. `make demo` runs it.
//
//     build/examples/demo [demo.json]     writes build/demo.json, and demo_checksums.json next to it for demo_python.py

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

#include <nlohmann/json.hpp>
#include <ropewalk/dispatch.hpp>
#include <ropewalk/io/hf_config.hpp>
#include <ropewalk/ropewalk.hpp>

#include "output.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace {

namespace rw = ropewalk;

constexpr std::int64_t tokens = 32768, heads = 40;
constexpr int rounds = 4;  // of two samples each

constexpr const char* usage =
    R"(demo [FILE]: rotates the queries and keys of Llama-2-13B for 32,768 tokens with every policy of the Giraffe paper

Measures on the CPU and writes the results to FILE [build/demo.json], and demo_checksums.json next to it for
demo_python.py.
)";

/// A policy expression and its encoding.
struct case_to_run {
    std::string policy;
    rw::Encoding encoding;
    rw::layout_kind layout;
};

struct measurement {
    double seconds = 0, scale_seconds = 0;
    std::uint64_t checksum = 0;
};

struct angle_errors {
    double ropewalk = 0, float32_product = 0;
};

int threads() {
#if defined(_OPENMP)
    return omp_get_max_threads();
#else
    return 1;
#endif
}

/// Seconds of a call.
template <class F>
double seconds(const F& run) {
    const auto start = std::chrono::steady_clock::now();
    run();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> samples) {
    std::sort(samples.begin(), samples.end());
    return samples[samples.size() / 2];
}

/// The larger error, where NaN counts as infinity.
double max_error(double a, double b) {
    return std::isnan(a) || std::isnan(b) ? std::numeric_limits<double>::infinity() : std::max(a, b);
}

/// The in-place scale: the fastest loop over the same bytes. A plain loop reaches the bandwidth of memory.
void scale(float* data, std::int64_t count, float factor) {
#if defined(_OPENMP)
#pragma omp parallel for
#endif
    for (std::int64_t i = 0; i < count; ++i) data[i] *= factor;
}

/// q followed by k, in one allocation for all element types.
class queries_and_keys {
public:
    explicit queries_and_keys(std::int64_t head_dim) : head_dim_(head_dim), data_(new float[elements()]) {}

    [[nodiscard]] std::size_t elements() const { return static_cast<std::size_t>(2 * tokens * heads * head_dim_); }
    [[nodiscard]] std::size_t bytes(rw::element_type type) const { return elements() * rw::size_of(type); }
    [[nodiscard]] float* floats() const { return data_.get(); }

    [[nodiscard]] rw::tensor q(rw::element_type type) const { return tensor_at(0, type); }
    [[nodiscard]] rw::tensor k(rw::element_type type) const { return tensor_at(bytes(type) / 2, type); }

    /// Sets element i to (40503 i' mod 65536) / 65536 − 1/2 for i' = i mod 8191, like demo_python.py.
    template <class T>
    void fill() const {
        std::vector<T> pattern;
        for (std::uint32_t i = 0; i < 8191; ++i)
            pattern.emplace_back(static_cast<float>(i * 40503U % 65536U) / 65536 - 0.5F);
        auto* const target = reinterpret_cast<T*>(data_.get());
        for (std::size_t at = 0; at < elements(); at += pattern.size()) {
            std::memcpy(target + at, pattern.data(), std::min(pattern.size(), elements() - at) * sizeof(T));
        }
    }

    /// The sum of all 32-bit words.
    [[nodiscard]] std::uint64_t checksum(rw::element_type type) const {
        std::uint64_t sum = 0;
        for (std::size_t at = 0; at < bytes(type) / 4; ++at) {
            std::uint32_t word = 0;
            std::memcpy(&word, data_.get() + at, 4);
            sum += word;
        }
        return sum;
    }

private:
    [[nodiscard]] rw::tensor tensor_at(std::size_t byte, rw::element_type type) const {
        return {.data = reinterpret_cast<char*>(data_.get()) + byte,
                .type = type,
                .batch = 1,
                .tokens = tokens,
                .heads = heads,
                .head_dim = head_dim_,
                .stride_batch = tokens * heads * head_dim_,
                .stride_token = heads * head_dim_,
                .stride_head = head_dim_};
    }

    std::int64_t head_dim_;
    std::unique_ptr<float[]> data_;
};

/// The largest error of cos and sin at the last position: of ropewalk, and of the float32 product of position and
/// inv_freq. The reference is a long double product, exact to 4e-12 at this position.
angle_errors errors_at_last_position(const rw::Encoding& encoding, rw::layout_kind layout) {
    const auto pairs = static_cast<std::size_t>(encoding.pairs());
    std::vector<float> cos(static_cast<std::size_t>(tokens) * pairs), sin(cos.size());
    rw::dispatch::cos_sin(layout, encoding, rw::offset{0}, tokens, encoding.pairs(), cos, sin);
    long double position = tokens - 1;
    if (encoding.draw_positions) {
        std::vector<rw::fixed_position> numbers(static_cast<std::size_t>(tokens));
        encoding.draw_positions(0, numbers);
        position = static_cast<long double>(numbers.back().value) * 0x1p-32L;
    }
    angle_errors errors;
    for (std::size_t pair = 0; pair < pairs; ++pair) {
        const long double exact = position * static_cast<long double>(encoding.inv_freq[pair]);
        const auto c = static_cast<double>(std::cos(exact)), s = static_cast<double>(std::sin(exact));
        const auto error = [&](float found_cos, float found_sin) {
            return max_error(std::abs(static_cast<double>(found_cos) - c),
                             std::abs(static_cast<double>(found_sin) - s));
        };
        const std::size_t last = cos.size() - pairs + pair;
        const float product = static_cast<float>(position) * static_cast<float>(encoding.inv_freq[pair]);
        errors.ropewalk = max_error(errors.ropewalk, error(cos[last], sin[last]));
        errors.float32_product = max_error(errors.float32_product, error(std::cos(product), std::sin(product)));
    }
    return errors;
}

/// Times rotations and scales of the same bytes alternately. Each rotation is followed by its inverse, so that the
/// values stay the same.
measurement measure(const case_to_run& demo, rw::element_type type, const queries_and_keys& memory) {
    const rw::tensor q = memory.q(type), k = memory.k(type);
    const auto rotate = [&](rw::cpu::direction direction) {
        rw::cpu::options options;
        options.direction = direction;
        rw::dispatch::rotate(demo.layout, q, k, q, k, demo.encoding, rw::offset{0}, options);
    };
    const auto count = static_cast<std::int64_t>(memory.bytes(type) / 4);

    type == rw::element_type::f32 ? memory.fill<float>() : memory.fill<rw::bf16>();
    measurement result;
    rotate(rw::cpu::direction::forward);
    result.checksum = memory.checksum(type);
    std::vector<double> rotations, scales;
    for (int round = 0; round < rounds; ++round) {
        for (const auto direction : {rw::cpu::direction::inverse, rw::cpu::direction::forward}) {
            rotations.push_back(seconds([&] { rotate(direction); }));
            const float factor = direction == rw::cpu::direction::inverse ? 2.0F : 0.5F;
            scales.push_back(seconds([&] { scale(memory.floats(), count, factor); }));
        }
    }
    result.seconds = median(rotations);
    result.scale_seconds = median(scales);
    return result;
}

std::vector<case_to_run> cases() {
    const std::filesystem::path configs = ROPEWALK_CONFIGS;
    const rw::Encoding llama = rw::encoding_from_config_file(configs / "llama-2-13b.json");
    const rw::Encoding together = rw::encoding_from_config_file(configs / "llama-2-7b-32k.json");
    std::vector<case_to_run> list{{"default", llama, rw::layout_kind::half_split},
                                  {"linear:8", together, rw::layout_kind::half_split}};
    RW_EXPECTS(llama.expression == list[0].policy && together.expression == list[1].policy,
               "expected configurations of 'default' and 'linear:8', got '{}' and '{}'", llama.expression,
               together.expression);
    rw::Geometry geometry = llama.geometry;
    for (const char* policy : {"power:0.5", "truncated:4096", "xpos:512", "randomized"}) {
        // The xPos paper rotates interleaved pairs.
        const auto layout =
            std::string_view(policy).starts_with("xpos") ? rw::layout_kind::interleaved : rw::layout_kind::half_split;
        geometry.layout = layout;
        list.push_back({policy, rw::make_encoding(geometry, policy), layout});
    }
    return list;
}

void print_table(const nlohmann::json& rows) {
    std::printf("%-15s %-5s %-12s %9s %8s %10s %13s %15s\n", "policy", "type", "layout", "time", "GB/s", "of a scale",
                "angle error", "float32 product");
    for (const auto& row : rows) {
        std::printf("%-15s %-5s %-12s %6.1f ms %8.1f %8.0f %% %13.1e %15.1e\n",
                    row["policy"].get<std::string>().c_str(), row["type"].get<std::string>().c_str(),
                    row["layout"].get<std::string>().c_str(), row["milliseconds"].get<double>(),
                    row["gigabytes_per_second"].get<double>(), 100 * row["ratio_to_scale"].get<double>(),
                    row["angle_error"].get<double>(), row["float32_product_angle_error"].get<double>());
    }
}

void save(const std::filesystem::path& path, const nlohmann::json& content) {
    std::ofstream file(path);
    file << content.dump(2) << "\n";
    RW_EXPECTS(file.flush(), "cannot write {}", path.string());
}

/// Returns the path of the results, or nothing for --help.
std::optional<std::filesystem::path> read_options(int argc, char** argv) {
    std::optional<std::filesystem::path> path;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        if (word == "--help" || word == "-h") return {};
        RW_EXPECTS(!word.starts_with('-') && !word.empty(), "unknown option '{}'; see --help", word);
        RW_EXPECTS(!path, "expected at most one file, got '{}' and '{}'", path->string(), word);
        path = word;
    }
    return path.value_or("build/demo.json");
}

/// Prints the current row: on one line of a terminal, on separate lines of a log.
void show_progress(std::size_t row, std::size_t rows, const case_to_run& demo, rw::element_type type) {
    const bool terminal = isatty(STDERR_FILENO) != 0;
    std::fprintf(stderr, "%s[%zu/%zu] %-16s %-5s%s", terminal ? "\r\033[K" : "", row, rows, demo.policy.c_str(),
                 std::string(rw::to_string(type)).c_str(), terminal ? "" : "\n");
}

void end_progress() {
    if (isatty(STDERR_FILENO) != 0) std::fputs("\r\033[K", stderr);
}

void run(const std::filesystem::path& path) {
    const std::filesystem::path checksums_path = path.parent_path() / "demo_checksums.json";
    RW_EXPECTS(path != checksums_path, "{} is reserved for the checksums; choose another name", path.string());
    if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path());
    for (const auto& file : {path, checksums_path}) output::check_file(file);
    const std::vector<case_to_run> demos = cases();
    const std::int64_t head_dim = demos.front().encoding.geometry.head_dim;
    const queries_and_keys memory(head_dim);
    std::printf("Llama-2-13B: %lld query and %lld key heads of %lld, %lld tokens, in place, %d thread(s), %s\n",
                static_cast<long long>(heads), static_cast<long long>(heads), static_cast<long long>(head_dim),
                static_cast<long long>(tokens), threads(), std::string(rw::dispatch::instruction_set()).c_str());

    nlohmann::json rows = nlohmann::json::array(), checksums = nlohmann::json::array();
    bool exact = true;
    for (const case_to_run& demo : demos) {
        const angle_errors errors = errors_at_last_position(demo.encoding, demo.layout);
        exact = exact && errors.ropewalk <= 1.2e-7;
        for (const auto type : {rw::element_type::f32, rw::element_type::bf16}) {
            show_progress(rows.size() + 1, 2 * demos.size(), demo, type);
            const measurement found = measure(demo, type, memory);
            const nlohmann::json name = {{"policy", demo.policy},
                                         {"type", rw::to_string(type)},
                                         {"layout", rw::to_string(demo.layout)},
                                         {"tokens", tokens}};
            nlohmann::json row = name, checksum = name;
            row["milliseconds"] = found.seconds * 1e3;
            row["gigabytes_per_second"] = 2 * static_cast<double>(memory.bytes(type)) / found.seconds / 1e9;
            row["ratio_to_scale"] = found.scale_seconds / found.seconds;
            row["angle_error"] = errors.ropewalk;
            row["float32_product_angle_error"] = errors.float32_product;
            checksum["checksum"] = found.checksum;
            rows.push_back(row);
            checksums.push_back(checksum);
        }
    }
    end_progress();
    print_table(rows);
    save(path, rows);
    save(checksums_path, checksums);
    std::printf("written to %s\n", path.string().c_str());
    RW_EXPECTS(exact, "the error of an angle exceeds 1.2e-7");
}

}  // namespace

int main(int argc, char** argv) try {
    const auto path = read_options(argc, argv);
    if (path)
        run(*path);
    else
        std::fputs(usage, stdout);
    output::check_printed();
} catch (const std::exception& problem) {
    end_progress();
    std::fprintf(stderr, "demo: %s\n", problem.what());
    return 1;
}
