// Benchmarks of rotations and fused calls on a device, compared with device-to-device copies of the same bytes.
//
// Each candidate is first checked against float64; if it appends to an 8-bit cache, only its queries are. A wrong
// candidate is not timed. Then graphs of calls on several buffer sets are replayed, alternating between the candidates
// of a workload and the copies. The rows hold the medians.
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <optional>

#include "buffers.hpp"
#include "copy.hpp"
#include "record.hpp"
#include "timing.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;
using bench::workload;

namespace {

constexpr const char* usage =
    R"(bench_rotate [--quick] [--sweep | --profile] [--out rows.json] [part of a candidate's name]...
compares rotations and fused calls with copies, on a GPU

  --quick    only the shortest and the longest sizes, with fewer samples
  --sweep    the main candidates with 1 to 16 heads per thread instead of the number that the launch plan chooses
  --profile  launches the main candidates twice without timing them, for a profiler; rows are in the order of launches
  --out      file of the rows in JSON
)";

constexpr std::int64_t first_position = 1000000;

struct session {
    bool quick = false, sweep = false, profile = false;
    std::string out;
    std::vector<std::string> filters;  ///< parts of candidate names; empty: all candidates
    std::vector<int> heads{0};         ///< per thread; 0: chosen by the launch plan
    bench::effort effort;
    std::vector<bench::row> rows;
    int failures = 0;

    [[nodiscard]] bool main_only() const { return sweep || profile; }
};

struct candidate {
    std::string name;
    double bytes = 0;  ///< read and written
    bool in_place = true;
    bench::device_call run;
    int heads = 0;  ///< per thread
    double error = 0;
};

/// The largest error of a pair, whose two elements are rounded once.
double tolerance(rw::element_type type) {
    return type == rw::element_type::f32 ? 4e-7 : type == rw::element_type::f16 ? 0x1p-10 : 0x1p-7;
}

/// The number of buffer sets: twice as many bytes as the L2 cache holds, within limits. A profiler saves all of them.
int set_count(const session& s, const workload& size) {
    if (s.profile) return 2;
    const std::size_t enough = 2 * device::look().l2 / std::max<std::size_t>(size.bytes(), 1) + 1;
    return static_cast<int>(std::clamp<std::size_t>(enough, 4, 64));
}

bool is_selected(const session& s, const std::string& name) {
    for (const std::string& filter : s.filters)
        if (name.find(filter) != std::string::npos) return true;
    return s.filters.empty();
}

void fail(session& s, const candidate& failed, const std::string& error) {
    ++s.failures;
    std::cout << "WRONG: " << failed.name << ": " << error << std::endl;
}

bench::row row_of(const candidate& timed, const workload& size) {
    return {.candidate = timed.name,
            .type = std::string(rw::to_string(size.type)),
            .layout = std::string(rw::to_string(size.layout)),
            .q_heads = size.q_heads,
            .kv_heads = size.kv_heads,
            .tokens = size.tokens,
            .bytes = timed.bytes,
            .error = timed.error,
            .in_place = timed.in_place,
            .heads_per_thread = timed.heads};
}

/// Launches a candidate on one set. For a profiler, the row stands for the launch.
void launch(session& s, const candidate& launched, const workload& size, int set) {
    launched.run(nullptr, set);
    if (s.profile) s.rows.push_back(row_of(launched, size));
}

/// Times the candidates and the copies, and prints and stores the rows.
void time_candidates(session& s, const workload& size, const bench::buffers& memory,
                     std::vector<candidate> candidates) {
    std::erase_if(candidates, [&](const candidate& c) { return !c.run || !is_selected(s, c.name); });
    if (candidates.empty()) return;
    const double copied = 2.0 * static_cast<double>(size.bytes());
    const std::string copies = size.values ? " of q, k, v" : "";
    const auto copy = [&](device::stream_handle on, int set) { memory.copy(on, set); };
    const auto copy_by_kernel = [&](device::stream_handle on, int set) {
        bench::copy_by_kernel(on, memory.out(set).q.data, memory.in(set).q.data, size.bytes());
    };
    const std::vector<candidate> yardsticks{{"device copy" + copies, copied, false, copy},
                                            {"stream copy" + copies, copied, false, copy},
                                            {"copy kernel" + copies, copied, false, copy_by_kernel}};
    if (s.profile) {
        launch(s, yardsticks[2], size, 1);
        for (const candidate& timed : candidates) launch(s, timed, size, 1);
        return device::finish();
    }
    std::vector<bench::timed_call> calls{{copy, true}, {copy, false}, {copy_by_kernel, true}};
    for (const candidate& timed : candidates) calls.push_back({timed.run, true});
    const std::vector<bench::outcome> outcomes = bench::time_interleaved(calls, memory.sets(), s.effort);
    const auto store = [&](const candidate& timed, const bench::outcome& outcome) {
        if (!outcome.error.empty()) return fail(s, timed, outcome.error);
        bench::row row = row_of(timed, size);
        const double share = timed.bytes / copied;
        row.microseconds = outcome.microseconds;
        row.copies = {.graph = outcomes[0].microseconds * share,
                      .stream = outcomes[1].microseconds * share,
                      .kernel = outcomes[2].microseconds * share};
        s.rows.push_back(row);
        bench::print(row);
    };
    for (std::size_t i = 0; i < yardsticks.size(); ++i) store(yardsticks[i], outcomes[i]);
    for (std::size_t i = 0; i < candidates.size(); ++i) store(candidates[i], outcomes[yardsticks.size() + i]);
    // Written after each workload, so that a later failure loses no rows.
    if (!s.out.empty()) bench::write(s.out, s.rows);
}

bool fits(const workload& size, int sets) {
    const std::size_t needed = 2 * size.bytes() * static_cast<std::size_t>(sets) + (std::size_t{1} << 28);
    const std::size_t free = device::look().free;
    if (device::is_real() && free < needed)
        std::printf("skipped: %ld tokens of %s need %zu MiB, %zu are free\n", static_cast<long>(size.tokens),
                    std::string(rw::to_string(size.type)).c_str(), needed >> 20, free >> 20);
    return !device::is_real() || free >= needed;
}

/// Calls a candidate once, on the first set, and checks `result`, whose heads were multiplied by `factor` first. A
/// candidate that fails or is wrong is not timed.
void check_candidate(session& s, candidate& tested, const workload& size, bench::buffers& memory,
                     const device::tensors& result, const test::twin& encoding, double factor = 1) {
    if (!is_selected(s, tested.name)) return;
    memory.fill();
    try {
        launch(s, tested, size, 0);
    } catch (const std::exception& error) {
        tested.run = nullptr;
        return fail(s, tested, error.what());
    }
    tested.error = memory.error(result, encoding, first_position, factor);
    if (tested.error <= tolerance(size.type)) return;
    tested.run = nullptr;
    char text[32];
    std::snprintf(text, sizeof text, "%.2e", tested.error);
    fail(s, tested, std::string(rw::to_string(size.type)) + ", error " + text + " of the norm");
}

/// The table of a number of tokens, made once.
const bench::device_table& table_of(const test::twin& encoding, std::int64_t tokens) {
    static std::map<std::int64_t, bench::device_table> tables;
    return tables.try_emplace(tokens, encoding, first_position, tokens).first->second;
}

void bench_rotation(session& s, const workload& size) {
    const int sets = set_count(s, size);
    if (!fits(size, sets)) return;
    test::random numbers(1);
    bench::buffers memory(size, sets, numbers);
    const test::twin encoding = test::plain_twin({.head_dim = workload::head_dim});
    std::vector<candidate> candidates;
    const auto add = [&](const std::string& name, bool in_place, gpu::options options) {
        for (const int heads : s.heads) {
            options.heads_per_thread = heads;
            const auto run = [&, in_place, options](device::stream_handle on, int set) {
                gpu::options chosen = options;
                chosen.stream = on;
                device::with_calls(size.type, size.layout, [&](auto calls) {
                    calls.rotate(memory.in(set), in_place ? memory.in(set) : memory.out(set), encoding.ours,
                                 rw::offset{first_position}, chosen);
                });
            };
            candidates.push_back({name, 2.0 * static_cast<double>(size.bytes()), in_place, run, heads});
        }
    };
    add("ropewalk, in place", true, {});
    add("ropewalk, table, in place", true, {.table = table_of(encoding, size.tokens).view()});
    if (!s.main_only()) {
        add("ropewalk, out of place", false, {});
        add("ropewalk, in place, early launch", true, {.overlap_previous = true});
        add("ropewalk, out of place, early launch", false, {.overlap_previous = true});
    }
    for (candidate& tested : candidates)
        check_candidate(s, tested, size, memory, tested.in_place ? memory.in(0) : memory.out(0), encoding);
    memory.fill();
    time_candidates(s, size, memory, std::move(candidates));
}

/// Rotation and append to a contiguous cache in one launch, compared with a rotation and two copies.
void bench_append(session& s, workload size) {
    size.values = true;
    const int sets = set_count(s, size);
    if (!fits(size, sets)) return;
    test::random numbers(2);
    bench::buffers memory(size, sets, numbers);
    const test::twin encoding = test::plain_twin({.head_dim = workload::head_dim});
    const device::memory scales(static_cast<std::size_t>(size.tokens * size.kv_heads) * 8);
    const auto value_bytes = static_cast<double>(size.bytes_of(size.kv_heads));

    // The output buffer of a set serves as the cache. Its k and v are large enough for every cache type.
    const auto cache_of = [&](int set, gpu::cache_type type) {
        const device::tensors to = memory.out(set);
        gpu::kv_cache cache;
        cache.k =
            gpu::nhd_cache(static_cast<std::int8_t*>(to.k.data), 1, size.tokens, size.kv_heads, workload::head_dim);
        cache.v = cache.k, cache.v.data = to.v.data;
        cache.k.type = cache.v.type = type;
        if (type == gpu::cache_type::i8) {
            cache.k.scales = static_cast<float*>(scales.data());
            cache.v.scales = cache.k.scales + size.tokens * size.kv_heads;
        }
        return cache;
    };
    const auto append = [&](gpu::cache_type type, int heads) {
        return [&, type, heads](device::stream_handle on, int set) {
            const device::tensors in = memory.in(set);
            gpu::fusion with;
            with.cache = cache_of(set, type), with.slots = gpu::by_sequence(rw::offset{0});
            device::with_fused_calls(size.type, size.layout, [&](auto calls) {
                calls.run(in, {in.q, {}, {}}, with, encoding.ours, rw::offset{first_position},
                          {.stream = on, .heads_per_thread = heads});
            });
        };
    };
    const auto rotate_and_copy = [&](device::stream_handle on, int set) {
        const device::tensors in = memory.in(set), out = memory.out(set);
        const device::tensors queries_and_keys{in.q, in.k, {}};
        device::with_calls(size.type, size.layout, [&](auto calls) {
            calls.rotate(queries_and_keys, queries_and_keys, encoding.ours, rw::offset{first_position}, {.stream = on});
        });
        device::copy_on(on, out.k.data, in.k.data, size.bytes_of(size.kv_heads));
        device::copy_on(on, out.v.data, in.v.data, size.bytes_of(size.kv_heads));
    };
    const auto same_type = size.type == rw::element_type::f32   ? gpu::cache_type::f32
                           : size.type == rw::element_type::f16 ? gpu::cache_type::f16
                                                                : gpu::cache_type::bf16;
    const double full = 2.0 * static_cast<double>(size.bytes());
    const double narrow = full - 2 * value_bytes * (1 - 1.0 / static_cast<double>(rw::size_of(size.type)));
    std::vector<candidate> candidates;
    if (!s.main_only()) candidates.push_back({"rotate, then copy k and v", full, true, rotate_and_copy});
    for (const int heads : s.heads) {
        candidates.push_back({"append", full, true, append(same_type, heads), heads});
        candidates.push_back({"append to f8e4m3", narrow, true, append(gpu::cache_type::f8e4m3, heads), heads});
        candidates.push_back({"append to i8", narrow, true, append(gpu::cache_type::i8, heads), heads});
    }
    for (candidate& tested : candidates) {
        const bool narrows = tested.bytes < full;
        check_candidate(s, tested, size, memory, {memory.in(0).q, narrows ? rw::tensor{} : memory.out(0).k, {}},
                        encoding);
    }
    memory.fill();
    time_candidates(s, size, memory, std::move(candidates));
}

/// RMSNorm of queries and keys and their rotation in one pass.
void bench_norm(session& s, const workload& size) {
    const int sets = set_count(s, size);
    if (!fits(size, sets)) return;
    test::random numbers(3);
    bench::buffers memory(size, sets, numbers);
    const test::twin encoding = test::plain_twin({.head_dim = workload::head_dim});
    const std::vector<float> ones(workload::head_dim, 1.0F);
    const device::memory weight(ones.data(), ones.size() * sizeof(float));
    gpu::fusion with;
    with.q_norm = with.k_norm = gpu::head_norm(static_cast<const float*>(weight.data()));
    std::vector<candidate> candidates;
    for (const int heads : s.heads) {
        const auto run = [&, heads](device::stream_handle on, int set) {
            const device::tensors in = memory.in(set);
            device::with_fused_calls(size.type, size.layout, [&](auto calls) {
                calls.run(in, in, with, encoding.ours, rw::offset{first_position},
                          {.stream = on, .heads_per_thread = heads});
            });
        };
        candidates.push_back({"norm and rotate", 2.0 * static_cast<double>(size.bytes()), true, run, heads});
    }
    for (candidate& tested : candidates)
        check_candidate(s, tested, size, memory, memory.in(0), encoding, memory.norm_factor(with.q_norm.epsilon));
    memory.fill();
    time_candidates(s, size, memory, std::move(candidates));
}

/// The most important workloads first, because the time may end before the last.
void run_all(session& s) {
    const bool real = device::is_real(), ends_only = s.quick || s.main_only();
    const std::vector<std::int64_t> lengths = !real       ? std::vector<std::int64_t>{3}
                                              : ends_only ? std::vector<std::int64_t>{4096, 32768}
                                                          : std::vector<std::int64_t>{4096, 8192, 16384, 32768};
    const std::vector<std::int64_t> steps =
        real ? std::vector<std::int64_t>{1, 2, 4, 8, 16, 32, 64} : std::vector<std::int64_t>{1};
    using rw::element_type, rw::layout_kind;
    const auto for_models = [](const std::vector<std::int64_t>& tokens, const auto& f) {
        for (const auto& [q_heads, kv_heads] : {std::pair{40, 40}, std::pair{32, 8}})
            for (const std::int64_t count : tokens)
                f(workload{element_type::bf16, layout_kind::half_split, q_heads, kv_heads, count});
    };
    const auto rotation = [&](const workload& size) { bench_rotation(s, size); };
    const auto fused = [&](const workload& size) { bench_append(s, size), bench_norm(s, size); };
    for_models(lengths, rotation);
    for_models({lengths.front(), lengths.back()}, fused);
    if (s.main_only()) return;
    for_models(steps, rotation);
    for_models({steps.front(), steps.back()}, fused);
    for_models(lengths, [&](workload size) {
        for (const element_type type : {element_type::bf16, element_type::f16, element_type::f32}) {
            for (const layout_kind layout : {layout_kind::half_split, layout_kind::interleaved}) {
                if (type == size.type && layout == layout_kind::half_split) continue;
                workload other = size;
                other.type = type, other.layout = layout;
                bench_rotation(s, other);
            }
        }
    });
}

/// Parses the command line. Returns nothing for --help.
std::optional<session> read_options(int count, char** arguments) {
    session s;
    for (int i = 1; i < count; ++i) {
        const std::string text = arguments[i];
        if (text == "--help" || text == "-h") return {};
        if (text == "--quick") {
            s.quick = true, s.effort.repeats = 9, s.effort.max_seconds = 0.1;
        } else if (text == "--sweep") {
            s.sweep = true, s.effort.repeats = 9, s.effort.max_seconds = 0.1;
            for (int heads = 1; heads <= 16; heads += device::is_real() ? 1 : 5) s.heads.push_back(heads);
        } else if (text == "--profile") {
            s.profile = true;
        } else if (text == "--out") {
            RW_EXPECTS(i + 1 < count, "--out needs a value");
            s.out = arguments[++i];
        } else {
            RW_EXPECTS(!text.starts_with('-') && !text.empty(), "unknown option '{}'; see --help", text);
            s.filters.push_back(text);
        }
    }
    RW_EXPECTS(!s.sweep || !s.profile, "--sweep and --profile exclude each other");
    return s;
}

}  // namespace

int main(int count, char** arguments) try {
    std::optional<session> s = read_options(count, arguments);
    if (!s) {
        std::cout << usage;
        return 0;
    }
    std::cout
        << device::describe() << '\n'
        << "bytes: every element read once and written once, without tables; / copy, / stream, / kernel: time of a "
           "copy of as many bytes in the same run (memcpy node of a graph, cudaMemcpyAsync, kernel of 16-byte "
           "accesses), divided by the time of the candidate; hpt: forced heads per thread"
        << std::endl;
    if (!s->profile) bench::print_head();
    run_all(*s);
    if (s->profile && !s->out.empty()) bench::write(s->out, s->rows);
    std::cout << s->rows.size() << " rows" << (s->failures > 0 ? ", some WRONG" : "") << std::endl;
    const bool empty = s->rows.empty() && s->failures == 0;
    RW_EXPECTS(!empty || s->filters.empty(), "no candidate name contains '{}'", s->filters.front());
    RW_EXPECTS(!empty, "nothing was measured");
    return s->failures == 0 ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << "bench_rotate: " << error.what() << '\n';
    return 1;
}
