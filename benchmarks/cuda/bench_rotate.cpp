// Benchmarks of rotations and fused calls on a device, compared with a device-to-device copy of the same bytes.
//
// Each candidate is first checked against float64; if it appends to an 8-bit cache, only its queries are. A wrong
// candidate is not timed. Then graphs of calls on several buffer sets are replayed, alternating between the candidates
// of a workload and the copy. The rows hold the medians.
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>

#include "buffers.hpp"
#include "record.hpp"
#include "timing.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;
using bench::workload;

namespace {

constexpr const char* usage =
    R"(bench_rotate [--quick] [--out rows.json] [part of a candidate's name]...: compares rotations with a copy, on a GPU

  --quick   only the shortest and the longest sizes, with fewer samples
  --out     file of the rows in JSON
)";

constexpr std::int64_t first_position = 1000000;

struct session {
    bool quick = false;
    std::string out;
    std::vector<std::string> filters;  ///< parts of candidate names; empty: all candidates
    bench::effort effort;
    std::vector<bench::row> rows;
    int failures = 0;
};

struct candidate {
    std::string name;
    double bytes = 0;  ///< read and written
    bool in_place = true;
    bench::device_call run;
    double error = 0;
};

/// The largest error of a pair, whose two elements are rounded once.
double tolerance(rw::element_type type) {
    return type == rw::element_type::f32 ? 4e-7 : type == rw::element_type::f16 ? 0x1p-10 : 0x1p-7;
}

/// The number of buffer sets: twice as many bytes as the L2 cache holds, within limits.
int set_count(const workload& size) {
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

/// Times the candidates and the copy, and prints and stores the rows.
void time_candidates(session& s, const workload& size, const bench::buffers& memory,
                     std::vector<candidate> candidates) {
    std::erase_if(candidates, [&](const candidate& c) { return !c.run || !is_selected(s, c.name); });
    if (candidates.empty()) return;
    std::vector<bench::device_call> calls{[&](device::stream_handle on, int set) { memory.copy(on, set); }};
    for (const candidate& timed : candidates) calls.push_back(timed.run);
    const std::vector<bench::outcome> outcomes = bench::time_interleaved(calls, memory.sets(), s.effort);
    const double copied = 2.0 * static_cast<double>(size.bytes());
    const auto store = [&](const candidate& timed, const bench::outcome& outcome) {
        if (!outcome.error.empty()) return fail(s, timed, outcome.error);
        s.rows.push_back({.candidate = timed.name,
                          .type = std::string(rw::to_string(size.type)),
                          .layout = std::string(rw::to_string(size.layout)),
                          .q_heads = size.q_heads,
                          .kv_heads = size.kv_heads,
                          .tokens = size.tokens,
                          .microseconds = outcome.microseconds,
                          .bytes = timed.bytes,
                          .copy_microseconds = outcomes[0].microseconds * timed.bytes / copied,
                          .error = timed.error,
                          .in_place = timed.in_place});
        bench::print(s.rows.back());
    };
    store(
        {.name = size.values ? "device copy of q, k, v" : "device copy", .bytes = copied, .in_place = false, .run = {}},
        outcomes[0]);
    for (std::size_t i = 0; i < candidates.size(); ++i) store(candidates[i], outcomes[i + 1]);
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
        tested.run(nullptr, 0);
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

void bench_rotation(session& s, const workload& size) {
    const int sets = set_count(size);
    if (!fits(size, sets)) return;
    test::random numbers(1);
    bench::buffers memory(size, sets, numbers);
    const test::twin encoding = test::plain_twin({.head_dim = workload::head_dim});
    const auto run = [&](const device::tensors& in, const device::tensors& out, device::stream_handle on, bool early) {
        const gpu::options options{.stream = on, .overlap_previous = early};
        device::with_calls(size.type, size.layout, [&](auto calls) {
            calls.rotate(in, out, encoding.ours, rw::offset{first_position}, options);
        });
    };
    const double bytes = 2.0 * static_cast<double>(size.bytes());
    std::vector<candidate> candidates;
    for (const bool early : {false, true}) {
        const std::string name = early ? ", early launch" : "";
        candidates.push_back({"ropewalk, in place" + name, bytes, true, [&, early](device::stream_handle on, int set) {
                                  run(memory.in(set), memory.in(set), on, early);
                              }});
        candidates.push_back(
            {"ropewalk, out of place" + name, bytes, false,
             [&, early](device::stream_handle on, int set) { run(memory.in(set), memory.out(set), on, early); }});
    }
    for (candidate& tested : candidates)
        check_candidate(s, tested, size, memory, tested.in_place ? memory.in(0) : memory.out(0), encoding);
    memory.fill();
    time_candidates(s, size, memory, std::move(candidates));
}

/// Rotation and append to a contiguous cache in one launch, compared with a rotation and two copies.
void bench_append(session& s, workload size) {
    size.values = true;
    const int sets = set_count(size);
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
    const auto append = [&](gpu::cache_type type) {
        return [&, type](device::stream_handle on, int set) {
            const device::tensors in = memory.in(set);
            gpu::fusion with;
            with.cache = cache_of(set, type), with.slots = gpu::by_sequence(rw::offset{0});
            device::with_fused_calls(size.type, size.layout, [&](auto calls) {
                calls.run(in, {in.q, {}, {}}, with, encoding.ours, rw::offset{first_position}, {.stream = on});
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
    candidates.push_back({"rotate, then copy k and v", full, true, rotate_and_copy});
    candidates.push_back({"append", full, true, append(same_type)});
    candidates.push_back({"append to f8e4m3", narrow, true, append(gpu::cache_type::f8e4m3)});
    candidates.push_back({"append to i8", narrow, true, append(gpu::cache_type::i8)});
    for (std::size_t i = 0; i < candidates.size(); ++i)
        check_candidate(s, candidates[i], size, memory, {memory.in(0).q, i < 2 ? memory.out(0).k : rw::tensor{}, {}},
                        encoding);
    memory.fill();
    time_candidates(s, size, memory, std::move(candidates));
}

/// RMSNorm of queries and keys and their rotation in one pass.
void bench_norm(session& s, const workload& size) {
    const int sets = set_count(size);
    if (!fits(size, sets)) return;
    test::random numbers(3);
    bench::buffers memory(size, sets, numbers);
    const test::twin encoding = test::plain_twin({.head_dim = workload::head_dim});
    const std::vector<float> ones(workload::head_dim, 1.0F);
    const device::memory weight(ones.data(), ones.size() * sizeof(float));
    gpu::fusion with;
    with.q_norm = with.k_norm = gpu::head_norm(static_cast<const float*>(weight.data()));
    const auto run = [&](device::stream_handle on, int set) {
        const device::tensors in = memory.in(set);
        device::with_fused_calls(size.type, size.layout, [&](auto calls) {
            calls.run(in, in, with, encoding.ours, rw::offset{first_position}, {.stream = on});
        });
    };
    candidate fused{"norm and rotate", 2.0 * static_cast<double>(size.bytes()), true, run};
    check_candidate(s, fused, size, memory, memory.in(0), encoding, memory.norm_factor(with.q_norm.epsilon));
    memory.fill();
    time_candidates(s, size, memory, {fused});
}

void run_all(session& s) {
    const bool real = device::is_real();
    const std::vector<std::int64_t> lengths = !real     ? std::vector<std::int64_t>{3}
                                              : s.quick ? std::vector<std::int64_t>{4096, 32768}
                                                        : std::vector<std::int64_t>{4096, 8192, 16384, 32768};
    const std::vector<std::int64_t> steps =
        real ? std::vector<std::int64_t>{1, 2, 4, 8, 16, 32, 64} : std::vector<std::int64_t>{1};
    const std::pair<std::int64_t, std::int64_t> models[] = {{40, 40}, {32, 8}};
    using rw::element_type, rw::layout_kind;
    for (const auto& [q_heads, kv_heads] : models)
        for (const element_type type : {element_type::bf16, element_type::f16, element_type::f32})
            for (const layout_kind layout : {layout_kind::half_split, layout_kind::interleaved})
                for (const std::int64_t tokens : lengths) bench_rotation(s, {type, layout, q_heads, kv_heads, tokens});
    for (const auto& [q_heads, kv_heads] : models)
        for (const std::int64_t tokens : steps)
            bench_rotation(s, {element_type::bf16, layout_kind::half_split, q_heads, kv_heads, tokens});
    for (const auto& [q_heads, kv_heads] : models) {
        for (const std::int64_t tokens : {steps.front(), steps.back(), lengths.front(), lengths.back()}) {
            bench_append(s, {element_type::bf16, layout_kind::half_split, q_heads, kv_heads, tokens});
            bench_norm(s, {element_type::bf16, layout_kind::half_split, q_heads, kv_heads, tokens});
        }
    }
}

/// Parses the command line. Returns nothing for --help.
std::optional<session> read_options(int count, char** arguments) {
    session s;
    for (int i = 1; i < count; ++i) {
        const std::string text = arguments[i];
        if (text == "--help" || text == "-h") return {};
        if (text == "--quick") {
            s.quick = true, s.effort.repeats = 9, s.effort.max_seconds = 0.1;
        } else if (text == "--out") {
            RW_EXPECTS(i + 1 < count, "--out needs a value");
            s.out = arguments[++i];
        } else {
            RW_EXPECTS(!text.starts_with('-') && !text.empty(), "unknown option '{}'; see --help", text);
            s.filters.push_back(text);
        }
    }
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
        << "bytes: every element read once and written once; / copy: time of a device copy of as many bytes in the "
           "same run, divided by the time of the candidate"
        << std::endl;
    bench::print_head();
    run_all(*s);
    std::cout << s->rows.size() << " rows" << (s->failures > 0 ? ", some WRONG" : "") << std::endl;
    const bool empty = s->rows.empty() && s->failures == 0;
    RW_EXPECTS(!empty || s->filters.empty(), "no candidate name contains '{}'", s->filters.front());
    RW_EXPECTS(!empty, "nothing was measured");
    return s->failures == 0 ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << "bench_rotate: " << error.what() << '\n';
    return 1;
}
