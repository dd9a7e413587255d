// Llama-2-13B's queries and keys, encoded for 32,768 tokens by every policy of the Giraffe paper: the time, how much of
// this machine's memory speed that is, and how exact the angles are. `make demo` runs it.
//
//     build/examples/demo [demo.json]     writes build/demo.json, and demo_checksums.json beside it for demo_torch.py

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

#include <dispatch/dispatch.hpp>
#include <nlohmann/json.hpp>
#include <ropewalk/io/hf_config.hpp>
#include <ropewalk/ropewalk.hpp>

#include "ceilings.hpp"
#include "clock.hpp"
#include "output.hpp"
#include "worst.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace {

namespace rw = ropewalk;

constexpr std::int64_t tokens = 32768, heads = 40;
constexpr int rounds = 4;  // of two samples each

constexpr const char* usage =
    R"(demo [FILE]: Llama-2-13B's queries and keys, encoded for 32,768 tokens by every policy of the Giraffe paper

Measures on this machine's CPU, writes the numbers to FILE [build/demo.json], and demo_checksums.json beside it for
demo_torch.py.
)";

struct scheme {
    std::string policy;
    rw::Encoding encoding;
    rw::layout_kind layout;
};

struct measurement {
    double seconds = 0, scale_seconds = 0;
    std::uint64_t checksum = 0;
};

struct angle_errors {
    double ours = 0, float32_product = 0;
};

int threads() {
#if defined(_OPENMP)
    return omp_get_max_threads();
#else
    return 1;
#endif
}

/// q and k behind each other, one allocation for all types.
class heads_in_memory {
public:
    explicit heads_in_memory(std::int64_t head_dim) : head_dim_(head_dim), data_(new float[elements()]) {}

    [[nodiscard]] std::size_t elements() const { return static_cast<std::size_t>(2 * tokens * heads * head_dim_); }
    [[nodiscard]] std::size_t bytes(rw::element_type type) const { return elements() * rw::size_of(type); }
    [[nodiscard]] float* floats() const { return data_.get(); }

    [[nodiscard]] rw::tensor half(rw::element_type type, int which) const {
        char* const start = reinterpret_cast<char*>(data_.get()) + static_cast<std::size_t>(which) * bytes(type) / 2;
        return {start, type, 1, tokens, heads, head_dim_, tokens * heads * head_dim_, heads * head_dim_, head_dim_, 1};
    }

    /// Element i is (40503 i' mod 65536) / 65536 − 1/2 for i' = i mod 8191; demo_torch.py does the same.
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
    std::int64_t head_dim_;
    std::unique_ptr<float[]> data_;
};

/// The largest error of cos and sin at the last position, of ours and of the product float(position) · float(inv_freq).
/// 64-bit products of doubles are exact to 4e-12 there.
angle_errors errors_at_the_end(const rw::Encoding& encoding, rw::layout_kind layout) {
    const auto pairs = static_cast<std::size_t>(encoding.pairs());
    std::vector<float> cos(static_cast<std::size_t>(tokens) * pairs), sin(cos.size());
    rw::dispatch::cos_sin(layout, encoding, rw::offset{0}, tokens, encoding.pairs(), cos, sin);
    long double position = tokens - 1;
    if (encoding.draw_positions) {
        std::vector<rw::fixed_position> numbers(static_cast<std::size_t>(tokens));
        encoding.draw_positions(0, numbers);
        position = static_cast<long double>(numbers.back().value) * 0x1p-32L;
    }
    angle_errors worst;
    for (std::size_t pair = 0; pair < pairs; ++pair) {
        const long double exact = position * static_cast<long double>(encoding.inv_freq[pair]);
        const auto c = static_cast<double>(std::cos(exact)), s = static_cast<double>(std::sin(exact));
        const auto error = [&](float its_cos, float its_sin) {
            return ceilings::larger(std::abs(static_cast<double>(its_cos) - c),
                                    std::abs(static_cast<double>(its_sin) - s));
        };
        const std::size_t last = cos.size() - pairs + pair;
        const float product = static_cast<float>(position) * static_cast<float>(encoding.inv_freq[pair]);
        worst.ours = ceilings::larger(worst.ours, error(cos[last], sin[last]));
        worst.float32_product = ceilings::larger(worst.float32_product, error(std::cos(product), std::sin(product)));
    }
    return worst;
}

/// Turns forwards and backwards, so that the values stay what they are, in turn with a scale over the same bytes.
measurement measure(const scheme& chosen, rw::element_type type, const heads_in_memory& memory) {
    const rw::tensor q = memory.half(type, 0), k = memory.half(type, 1);
    const auto turn = [&](rw::cpu::direction direction) {
        rw::cpu::options options;
        options.direction = direction;
        rw::dispatch::rotate(chosen.layout, q, k, q, k, chosen.encoding, rw::offset{0}, options);
    };
    const auto& loops = ceilings::loops_for(rw::dispatch::instruction_set());
    const auto count = static_cast<std::int64_t>(memory.bytes(type) / 4);
    const int team = threads();
    const auto scale = [&](float factor) {
#if defined(_OPENMP)
#pragma omp parallel for num_threads(team) schedule(static, 1)
#endif
        for (int part = 0; part < team; ++part) {
            const std::int64_t begin = count * part / team, end = count * (part + 1) / team;
            loops.scale(memory.floats() + begin, end - begin, factor);
        }
    };

    type == rw::element_type::f32 ? memory.fill<float>() : memory.fill<rw::bf16>();
    measurement result;
    turn(rw::cpu::direction::forward);
    result.checksum = memory.checksum(type);
    std::vector<double> ours, theirs;
    for (int round = 0; round < rounds; ++round) {
        for (const auto direction : {rw::cpu::direction::inverse, rw::cpu::direction::forward}) {
            ours.push_back(ceilings::seconds([&] { turn(direction); }));
            theirs.push_back(ceilings::seconds([&] { scale(direction == rw::cpu::direction::inverse ? 2.0F : 0.5F); }));
        }
    }
    result.seconds = ceilings::median(ours);
    result.scale_seconds = ceilings::median(theirs);
    return result;
}

std::vector<scheme> schemes() {
    const std::filesystem::path configs = ROPEWALK_CONFIGS;
    const rw::Encoding llama = rw::encoding_from_config_file(configs / "llama-2-13b.json");
    const rw::Encoding together = rw::encoding_from_config_file(configs / "llama-2-7b-32k.json");
    std::vector<scheme> all{{"default", llama, rw::layout_kind::half_split},
                            {"linear:8", together, rw::layout_kind::half_split}};
    RW_EXPECTS(llama.expression == all[0].policy && together.expression == all[1].policy,
               "the configurations say '{}' and '{}'", llama.expression, together.expression);
    rw::Geometry geometry = llama.geometry;
    for (const char* policy : {"power:0.5", "truncated:4096", "xpos:512", "randomized"}) {
        // The paper on xPos pairs neighbours.
        const auto layout =
            std::string_view(policy).starts_with("xpos") ? rw::layout_kind::interleaved : rw::layout_kind::half_split;
        geometry.layout = layout;
        all.push_back({policy, rw::make_encoding(geometry, policy), layout});
    }
    return all;
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

/// Where the numbers go. Nothing: --help was asked for.
std::optional<std::filesystem::path> read_options(int argc, char** argv) {
    std::optional<std::filesystem::path> chosen;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        if (word == "--help" || word == "-h") return {};
        RW_EXPECTS(!word.starts_with('-') && !word.empty(), "unknown option '{}'; --help tells what there is", word);
        RW_EXPECTS(!chosen, "one file at most, got '{}' and '{}'", chosen->string(), word);
        chosen = word;
    }
    return chosen.value_or("build/demo.json");
}

/// Says what is measured: in one line where somebody is looking, in lines of a log elsewhere.
void show_progress(std::size_t row, std::size_t rows, const scheme& one, rw::element_type type) {
    const bool watched = isatty(STDERR_FILENO) != 0;
    std::fprintf(stderr, "%s[%zu/%zu] %-16s %-5s%s", watched ? "\r\033[K" : "", row, rows, one.policy.c_str(),
                 std::string(rw::to_string(type)).c_str(), watched ? "" : "\n");
}

void end_progress() {
    if (isatty(STDERR_FILENO) != 0) std::fputs("\r\033[K", stderr);
}

void run(const std::filesystem::path& path) {
    const std::filesystem::path checksums_path = path.parent_path() / "demo_checksums.json";
    RW_EXPECTS(path != checksums_path, "{} is for the checksums: choose another name", path.string());
    if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path());
    for (const auto& one : {path, checksums_path}) output::check_file(one);
    const std::vector<scheme> all = schemes();
    const std::int64_t head_dim = all.front().encoding.geometry.head_dim;
    const heads_in_memory memory(head_dim);
    std::printf("Llama-2-13B: %lld query and %lld key heads of %lld, %lld tokens, in place, %d thread(s), %s\n",
                static_cast<long long>(heads), static_cast<long long>(heads), static_cast<long long>(head_dim),
                static_cast<long long>(tokens), threads(), std::string(rw::dispatch::instruction_set()).c_str());

    nlohmann::json rows = nlohmann::json::array(), checksums = nlohmann::json::array();
    bool exact = true;
    for (const scheme& one : all) {
        const angle_errors errors = errors_at_the_end(one.encoding, one.layout);
        exact = exact && errors.ours <= 1.2e-7;
        for (const auto type : {rw::element_type::f32, rw::element_type::bf16}) {
            show_progress(rows.size() + 1, 2 * all.size(), one, type);
            const measurement found = measure(one, type, memory);
            const nlohmann::json name = {{"policy", one.policy},
                                         {"type", rw::to_string(type)},
                                         {"layout", rw::to_string(one.layout)},
                                         {"tokens", tokens}};
            nlohmann::json row = name, checksum = name;
            row["milliseconds"] = found.seconds * 1e3;
            row["gigabytes_per_second"] = 2 * static_cast<double>(memory.bytes(type)) / found.seconds / 1e9;
            row["ratio_to_scale"] = found.scale_seconds / found.seconds;
            row["angle_error"] = errors.ours;
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
    RW_EXPECTS(exact, "an angle is wrong by more than 1.2e-7");
}

}  // namespace

int main(int argc, char** argv) try {
    const auto chosen = read_options(argc, argv);
    if (chosen)
        run(*chosen);
    else
        std::fputs(usage, stdout);
    output::check_printed();
} catch (const std::exception& problem) {
    end_progress();
    std::fprintf(stderr, "demo: %s\n", problem.what());
    return 1;
}
