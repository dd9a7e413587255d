// Search for the tuning profile of this machine: `make tune`. Measures the alternatives of a few numbers at a time, in
// turn with their bound (the in-place scale, or for 16 bits in cache the scale that converts), keeps what is faster
// over all types, layouts and threads, and compares the result with the profile in use and with every profile of this
// version.

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <ropewalk/core/error.hpp>
#include <ropewalk/cpu/machine_profile.hpp>
#include <ropewalk/dispatch.hpp>

#include "clock.hpp"
#include "context.hpp"
#include "cpu/workload.hpp"
#include "cpu/yardstick.hpp"

namespace bench {

namespace {

using rw::cpu::tuning_profile;
using numbers = std::vector<std::int64_t>;

constexpr std::size_t rounds = 9;
constexpr double sample_seconds = 5e-4;
/// A change must gain this much: smaller differences are noise.
constexpr double least_gain = 0.03;

/// A kind of call that is measured.
struct cell {
    shape size;
    order axes = order::thd;
    bool out_of_place = false;

    /// Returns whether conversion bounds the call: 16-bit elements in cache.
    [[nodiscard]] bool converts() const {
        return rw::size_of(size.type) == 2 && size.bytes() <= rw::dispatch::tuning_profile().l3_bytes;
    }

    [[nodiscard]] std::string name() const {
        return std::string(rw::to_string(size.type)) + " " + std::string(rw::to_string(size.layout)) +
               (axes == order::bhsd ? " bhsd" : "") + (out_of_place ? " out of place" : "") + ", " +
               std::to_string(size.tokens) + " tokens, " + std::to_string(size.threads) +
               (size.threads == 1 ? " thread" : " threads");
    }
};

/// Median seconds of the bound and of each candidate, which take turns.
struct times {
    double bound;
    std::vector<double> candidates;
};

times measure(const cell& c, const std::vector<const tuning_profile*>& candidates) {
    static const rw::Encoding encoding = rw::make_encoding(rw::Geometry{.head_dim = head_dim, .base = base}, "default");
    const std::int64_t bytes = c.size.bytes();
    const workload in(c.size, c.axes, memory(0, bytes)), out(c.size, c.axes, memory(c.out_of_place ? 1 : 0, bytes));
    in.fill();
    if (c.out_of_place) out.fill();
    const yardstick bounds(c.size, in.q.data, out.q.data);
    const auto bound = [&](int threads) { c.converts() ? bounds.convert(threads) : bounds.scale(threads); };
    std::vector<std::function<void()>> runs{[&] { bound(1); }, [&] { bound(c.size.threads); }};
    for (const tuning_profile* const profile : candidates) {
        rw::cpu::options options;
        options.threads = c.size.threads;
        options.tuning = profile;
        runs.emplace_back([&, options] {
            rw::dispatch::rotate(c.size.layout, in.q, in.k, out.q, out.k, encoding, rw::offset{4096}, options);
        });
    }
    std::vector<std::vector<double>> samples(runs.size());
    std::vector<int> passes(runs.size());
    for (std::size_t round = 0; round < rounds; ++round) {
        for (std::size_t turn = 0; turn < runs.size(); ++turn) {
            const std::size_t i = (turn + 5 * round) % runs.size();  // each follows different ones
            if (i == 1 && c.size.threads == 1) continue;
            runs[i]();
            if (passes[i] == 0)
                passes[i] = std::clamp(static_cast<int>(sample_seconds / std::max(seconds(runs[i]), 1e-8)), 1, 1 << 16);
            const double sample = seconds([&] {
                for (int pass = 0; pass < passes[i]; ++pass) runs[i]();
            });
            samples[i].push_back(sample / passes[i]);
        }
    }
    // A small scale is faster on one thread, so the bound is the faster one.
    times result{median(samples[0]), {}};
    if (c.size.threads > 1) result.bound = std::min(result.bound, median(samples[1]));
    for (std::size_t i = 2; i < runs.size(); ++i) result.candidates.push_back(median(samples[i]));
    return result;
}

/// Values of some fields of a profile, and the calls that they matter for.
struct stage {
    std::string_view title;
    std::vector<std::string_view> fields;
    std::vector<numbers> choices;  ///< per candidate, one value per field
    std::vector<cell> cells;
};

const rw::cpu::tuning_field& field_of(std::string_view name) {
    for (const rw::cpu::tuning_field& field : rw::cpu::tuning_fields)
        if (field.name == name) return field;
    rw::detail::fail("no field is called {}", name);
}

std::string describe(const tuning_profile& profile, const std::vector<std::string_view>& fields) {
    std::string text;
    for (const std::string_view field : fields)
        text += (text.empty() ? "" : ", ") + std::string(field) + " " + std::to_string(profile.*field_of(field).value);
    return text;
}

/// Mean logarithm, over the calls of a stage, of the time of each candidate divided by its bound.
std::vector<double> mean_logarithms(const stage& s, const std::vector<const tuning_profile*>& candidates) {
    std::vector<double> means(candidates.size(), 0);
    for (const cell& c : s.cells) {
        const times t = measure(c, candidates);
        for (std::size_t i = 0; i < candidates.size(); ++i)
            means[i] += std::log(t.candidates[i] / t.bound) / static_cast<double>(s.cells.size());
    }
    return means;
}

/// Takes the best choice of a stage into `best` if a second measurement confirms its gain: the best of many candidates
/// owes a part of its lead to chance.
void search(const stage& s, tuning_profile& best) {
    std::deque<tuning_profile> candidates;
    std::vector<const tuning_profile*> pointers;
    for (const numbers& choice : s.choices) {
        tuning_profile& profile = candidates.emplace_back(best);
        for (std::size_t i = 0; i < s.fields.size(); ++i) profile.*field_of(s.fields[i]).value = choice[i];
        pointers.push_back(&profile);
    }
    const std::vector<double> first = mean_logarithms(s, pointers);
    const tuning_profile& winner = *pointers[static_cast<std::size_t>(std::ranges::min_element(first) - first.begin())];
    const std::vector<double> second = mean_logarithms(s, {&best, &winner});
    const double gain = std::exp(second[0] - second[1]) - 1;
    std::printf("  in use %.3f: %s\n  best   %.3f: %s\n  %s: %+.1f %%\n", std::exp(-second[0]),
                describe(best, s.fields).c_str(), std::exp(-second[1]), describe(winner, s.fields).c_str(),
                gain < least_gain ? "kept, within the noise" : "taken", 100 * gain);
    if (gain >= least_gain) best = winner;
}

/// All combinations of the values of several fields.
std::vector<numbers> combinations(const std::vector<numbers>& values) {
    std::vector<numbers> all{{}};
    for (const numbers& field : values) {
        std::vector<numbers> longer;
        for (const numbers& start : all) {
            for (const std::int64_t value : field) {
                longer.push_back(start);
                longer.back().push_back(value);
            }
        }
        all = longer;
    }
    return all;
}

/// Calls of 40 + 40 heads that read about `bytes`, in all the given types and both layouts.
std::vector<cell> cells_of(std::int64_t bytes, const std::vector<int>& threads,
                           const std::vector<rw::element_type>& types, order axes = order::thd,
                           bool out_of_place = false) {
    std::vector<cell> cells;
    for (const rw::element_type type : types) {
        for (const auto layout : {rw::layout_kind::half_split, rw::layout_kind::interleaved}) {
            for (const int count : threads) {
                cell c{{.type = type, .layout = layout, .threads = count}, axes, out_of_place};
                c.size.tokens = std::max<std::int64_t>(bytes / c.size.bytes(), 1);
                cells.push_back(c);
            }
        }
    }
    return cells;
}

std::vector<cell> joined(std::initializer_list<std::vector<cell>> parts) {
    std::vector<cell> all;
    for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
}

constexpr rw::element_type f32 = rw::element_type::f32, f16 = rw::element_type::f16, bf16 = rw::element_type::bf16;

std::vector<stage> stages(const tuning_profile& in_use, const std::vector<int>& threads) {
    const std::int64_t l2 = in_use.l2_bytes * 6 / 10, l3 = in_use.l3_bytes * 4 / 10;
    const std::int64_t beyond = std::max<std::int64_t>(5 * in_use.l3_bytes, 84 * rw::cpu::tuning::mebi);
    const std::vector<int> one{1}, all{threads.back()};
    std::vector<cell> growing;  // from what L1 holds to what L3 holds
    for (std::int64_t bytes = 128 * rw::cpu::tuning::kibi; bytes <= in_use.l3_bytes / 2; bytes *= 2)
        growing = joined({growing, cells_of(bytes, all, {f32, bf16})});
    std::vector<stage> list{
        {"from memory: traversal and prefetch",
         {"alternating_bytes", "memory_prefetches_lines", "memory_prefetch_bytes", "memory_by_heads"},
         combinations({{0, 1024, 2048, 4096}, {0}, {0, 4096}, {0, 1}}),
         cells_of(beyond, threads, {f32, f16, bf16})},
        {"from memory: tiles of queries and keys",
         {"memory_tile_tokens"},
         combinations({{16, 64, 128, 512}}),
         cells_of(beyond, threads, {f32, bf16})},
        {"from memory, heads before tokens",
         {"heads_major_group_from_memory", "heads_major_tile_floats"},
         combinations({{4, 8, 16}, {72 * 1024, 144 * 1024, 288 * 1024}}),
         cells_of(beyond, one, {f32, bf16}, order::bhsd)},
        {"from L3, heads before tokens",
         {"heads_major_group"},
         combinations({{2, 4, 8}}),
         cells_of(l3, one, {f32, bf16}, order::bhsd)},
        {"from memory, out of place: streaming stores",
         {"streaming_stores"},
         combinations({{0, 1}}),
         cells_of(beyond, threads, {f32, bf16}, order::thd, true)},
        {"from L2: prefetch",
         {"l2_prefetch_bytes"},
         combinations({{0, 512, 1024, 2048}}),
         cells_of(l2, one, {f32, f16, bf16})},
        {"from L3: tiles of queries and keys",
         {"l3_tile_tokens"},
         combinations({{1, 16, 64, 256}}),
         cells_of(l3, threads, {f32, f16, bf16})},
        {"f16 in cache: bits of a register",
         {"f16_cached_by_256_bits"},
         combinations({{0, 1}}),
         joined({cells_of(l2, one, {f16}), cells_of(l3, one, {f16})})},
    };
    for (const numbers& every_line : combinations({{0, 1024, 2048, 4096}, {1}, {1024, 2048, 4096, 8192}, {0, 1}}))
        list[0].choices.push_back(every_line);
    if (threads.size() > 1)
        list.push_back({"threads",
                        {"bytes_per_thread"},
                        combinations({{64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20}}),
                        growing});
    return list;
}

/// Rows of the final comparison.
struct comparison_row {
    cell what;
    times seconds;
};

double ratio(const comparison_row& row, std::size_t candidate) {
    return row.seconds.bound / row.seconds.candidates[candidate];
}

std::string title_of(const std::vector<const tuning_profile*>& profiles, std::size_t index) {
    return index == 0 ? "in use" : index == 1 ? "tuned" : std::string(profiles[index]->name);
}

void print_comparison(const std::vector<comparison_row>& rows, const std::vector<const tuning_profile*>& profiles) {
    std::printf("\n%-44s %6s %6s %7s\n", "ratio to the bound", "in use", "tuned", "gain");
    for (const comparison_row& row : rows)
        std::printf("%-44s %6.2f %6.2f %+5.0f %%\n", row.what.name().c_str(), ratio(row, 0), ratio(row, 1),
                    100 * (ratio(row, 1) / ratio(row, 0) - 1));
    std::printf("\nprofile           worst cell  mean of all cells\n");
    for (std::size_t i = 0; i < profiles.size(); ++i) {
        double worst = INFINITY, sum = 0;
        for (const comparison_row& row : rows) {
            worst = std::min(worst, ratio(row, i));
            sum += std::log(ratio(row, i));
        }
        std::printf("%-17s %10.2f %18.2f\n", title_of(profiles, i).c_str(), worst,
                    std::exp(sum / static_cast<double>(rows.size())));
    }
}

/// Closes a file that was written. Throws where a write failed.
void close(std::FILE* file, const std::string& path) {
    const bool failed = std::ferror(file) != 0;
    RW_EXPECTS(std::fclose(file) == 0 && !failed, "cannot write {}: {}", path, std::strerror(errno));
}

std::FILE* open_to_write(const std::string& path) {
    std::FILE* const file = std::fopen(path.c_str(), "w");
    RW_EXPECTS(file != nullptr, "cannot write {}: {}", path, std::strerror(errno));
    return file;
}

void write_json(const std::string& path, const std::vector<comparison_row>& rows,
                const std::vector<const tuning_profile*>& profiles, double elapsed) {
    std::FILE* const file = open_to_write(path);
    std::fprintf(file,
                 "{\"context\": {\"date\": \"%s\", \"machine\": \"%s\", \"compiler\": \"%s\", \"commit\": \"%s\", "
                 "\"instruction_set\": \"%s\", \"tuning_profile\": \"%s\", \"seconds\": %.0f},\n\"rows\": [\n",
                 date().c_str(), machine().c_str(), compiler().c_str(), commit().c_str(),
                 std::string(rw::dispatch::instruction_set()).c_str(), std::string(profiles[0]->name).c_str(), elapsed);
    for (std::size_t r = 0; r < rows.size(); ++r) {
        const shape& size = rows[r].what.size;
        std::fprintf(file,
                     "{\"type\": \"%s\", \"layout\": \"%s\", \"tokens\": %d, \"threads\": %d, \"ratio_to_bound\": {",
                     std::string(rw::to_string(size.type)).c_str(), std::string(rw::to_string(size.layout)).c_str(),
                     static_cast<int>(size.tokens), size.threads);
        for (std::size_t i = 0; i < profiles.size(); ++i)
            std::fprintf(file, "%s\"%s\": %.3f", i == 0 ? "" : ", ", title_of(profiles, i).c_str(), ratio(rows[r], i));
        std::fprintf(file, "}}%s\n", r + 1 < rows.size() ? "," : "");
    }
    std::fprintf(file, "]}\n");
    close(file, path);
}

void tune(const std::string& target) {
    const auto start = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    const tuning_profile& in_use = rw::dispatch::tuning_profile();
    const int most = rw::cpu::detail::thread_count(1 << 20, 0);
    const std::vector<int> threads = most > 1 ? std::vector<int>{1, most} : std::vector<int>{1};
    std::printf("%s, %s, profile %s, %d threads\n", machine().c_str(),
                std::string(rw::dispatch::instruction_set()).c_str(), std::string(in_use.name).c_str(), most);
    tuning_profile best = in_use;
    const std::vector<stage> all = stages(in_use, threads);
    for (std::size_t i = 0; i < all.size(); ++i) {
        std::printf("%zu/%zu %s: %zu candidates, %zu kinds of calls (%.0f s so far)\n", i + 1, all.size() + 1,
                    std::string(all[i].title).c_str(), all[i].choices.size(), all[i].cells.size(), elapsed());
        std::fflush(stdout);
        search(all[i], best);
    }

    std::printf("%zu/%zu comparison of the profiles (%.0f s so far)\n", all.size() + 1, all.size() + 1, elapsed());
    std::fflush(stdout);
    std::vector<const tuning_profile*> profiles{&in_use, &best};
    for (const tuning_profile& profile : rw::cpu::tuning_profiles) profiles.push_back(&profile);
    std::vector<comparison_row> rows;
    for (const std::int64_t tokens : {16, 128, 4096}) {
        for (const rw::element_type type : {f32, f16, bf16}) {
            for (const auto layout : {rw::layout_kind::half_split, rw::layout_kind::interleaved}) {
                for (const int count : threads) {
                    const cell c{{.type = type, .layout = layout, .tokens = tokens, .threads = count}};
                    rows.push_back({c, measure(c, profiles)});
                }
            }
        }
    }
    print_comparison(rows, profiles);

    const std::string name = target.substr(target.find_last_of('/') + 1), path = target + ".profile";
    best.name = name;
    const std::string text = "# Tuning profile of " + machine() + ", " + date() + ". ROPEWALK_PROFILE=" + name +
                             ".profile takes it.\n" + rw::cpu::format_profile(best);
    std::FILE* const file = open_to_write(path);
    std::fputs(text.c_str(), file);
    close(file, path);
    write_json(target + ".json", rows, profiles, elapsed());
    std::printf("\n%.0f s: %s and %s.json. Use it with ROPEWALK_PROFILE=%s\n", elapsed(), path.c_str(), target.c_str(),
                path.c_str());
}

}  // namespace

}  // namespace bench

int main(int count, char** arguments) {
    if (count != 2 || arguments[1][0] == '-') {
        std::fprintf(stderr, "usage: %s FOLDER/NAME\nWrites FOLDER/NAME.profile and FOLDER/NAME.json.\n", arguments[0]);
        return 2;
    }
    try {
        bench::tune(arguments[1]);
    } catch (const std::exception& problem) {
        std::fprintf(stderr, "tune: %s\n", problem.what());
        return 1;
    }
    return 0;
}
