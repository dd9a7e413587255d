// Rotations and fused calls beside a device-to-device copy of the same bytes in the same run.
//
// Each candidate is checked against float64 first, of those that append to a cache of 8 bits the queries; what is wrong
// is not timed. Then the candidates of a problem and the copy take turns: graphs of calls on several buffer sets are
// replayed between two events, and medians compared.
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>

#include "buffers.hpp"
#include "timing.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;
using bench::problem;

namespace {

constexpr const char* usage =
    R"(bench_rotate [--quick] [--out rows.json] [part of a candidate's name]...: rotations beside a copy, on a GPU

  --quick   the shortest and the longest sizes, less often
  --out     where the rows go as JSON
)";

constexpr std::int64_t first_position = 1000000;

struct plan {
    bool quick = false;
    std::string out;
    std::vector<std::string> parts;
    bench::effort effort;
    std::vector<bench::row> rows;
    int wrong = 0;
};

struct candidate {
    std::string name;
    double bytes = 0;  ///< that must move
    bool in_place = true;
    bench::work run;
    double error = 0;
};

/// What may be wrong in a pair: both elements are rounded once.
double allowed(rw::element_type type) {
    return type == rw::element_type::f32 ? 4e-7 : type == rw::element_type::f16 ? 0x1p-10 : 0x1p-7;
}

/// At least 4 sets, and more than the L2 cache holds twice, while that is not too many.
int sets_for(const problem& what) {
    const std::size_t enough = 2 * device::look().l2 / std::max<std::size_t>(what.bytes(), 1) + 1;
    return static_cast<int>(std::clamp<std::size_t>(enough, 4, 64));
}

bool chosen(const plan& p, const std::string& name) {
    for (const std::string& part : p.parts)
        if (name.find(part) != std::string::npos) return true;
    return p.parts.empty();
}

void fail(plan& p, const candidate& one, const std::string& problem) {
    ++p.wrong;
    std::cout << "WRONG: " << one.name << ": " << problem << std::endl;
}

/// Times the candidates beside the copy, prints and keeps the rows.
void compete(plan& p, const problem& what, const bench::buffers& memory, std::vector<candidate> candidates) {
    std::erase_if(candidates, [&](const candidate& one) { return !one.run || !chosen(p, one.name); });
    if (candidates.empty()) return;
    std::vector<bench::work> works{[&](device::stream_handle on, int set) { memory.copy(on, set); }};
    for (const candidate& one : candidates) works.push_back(one.run);
    const std::vector<bench::outcome> outcomes = bench::contest(works, memory.sets(), p.effort);
    const double copied = 2.0 * static_cast<double>(what.bytes());
    const auto keep = [&](const candidate& one, const bench::outcome& came) {
        if (!came.problem.empty()) return fail(p, one, came.problem);
        p.rows.push_back({one.name, std::string(rw::to_string(what.type)), std::string(rw::to_string(what.layout)),
                          what.q_heads, what.kv_heads, what.tokens, came.microseconds, one.bytes,
                          outcomes[0].microseconds * one.bytes / copied, one.error, one.in_place});
        bench::print(p.rows.back());
    };
    keep(
        {.name = what.values ? "device copy of q, k, v" : "device copy", .bytes = copied, .in_place = false, .run = {}},
        outcomes[0]);
    for (std::size_t i = 0; i < candidates.size(); ++i) keep(candidates[i], outcomes[i + 1]);
    // What there is by now stays, whatever becomes of the rest.
    if (!p.out.empty()) bench::write(p.out, p.rows);
}

bool fits(const problem& what, int sets) {
    const std::size_t needed = 2 * what.bytes() * static_cast<std::size_t>(sets) + (std::size_t{1} << 28);
    const std::size_t free = device::look().free;
    if (device::is_real() && free < needed)
        std::printf("skipped: %ld tokens of %s need %zu MiB, %zu are free\n", static_cast<long>(what.tokens),
                    std::string(rw::to_string(what.type)).c_str(), needed >> 20, free >> 20);
    return !device::is_real() || free >= needed;
}

/// Calls a candidate once, on the first set, and looks at what it left in `result`, of heads multiplied by `factor`.
/// What cannot run or is wrong is not timed.
void try_out(plan& p, candidate& one, const problem& what, bench::buffers& memory, const device::tensors& result,
             const test::twin& t, double factor = 1) {
    if (!chosen(p, one.name)) return;
    memory.fill();
    try {
        one.run(nullptr, 0);
    } catch (const std::exception& problem) {
        one.run = nullptr;
        return fail(p, one, problem.what());
    }
    one.error = memory.error(result, t, first_position, factor);
    if (one.error <= allowed(what.type)) return;
    one.run = nullptr;
    char text[32];
    std::snprintf(text, sizeof text, "%.2e", one.error);
    fail(p, one, std::string(rw::to_string(what.type)) + ", off by " + text + " of the norm");
}

void bench_rotation(plan& p, const problem& what) {
    const int sets = sets_for(what);
    if (!fits(what, sets)) return;
    test::random numbers(1);
    bench::buffers memory(what, sets, numbers);
    const test::twin t = test::plain_twin({.head_dim = problem::head_dim});
    const auto run = [&](const device::tensors& in, const device::tensors& out, device::stream_handle on, bool early) {
        const gpu::options options{.stream = on, .overlap_previous = early};
        device::with_calls(what.type, what.layout,
                           [&](auto calls) { calls.rotate(in, out, t.ours, rw::offset{first_position}, options); });
    };
    const double bytes = 2.0 * static_cast<double>(what.bytes());
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
    for (candidate& one : candidates) try_out(p, one, what, memory, one.in_place ? memory.in(0) : memory.out(0), t);
    memory.fill();
    compete(p, what, memory, std::move(candidates));
}

/// Rotation and append to a contiguous cache in one launch, beside a rotation and two copies.
void bench_append(plan& p, problem what) {
    what.values = true;
    const int sets = sets_for(what);
    if (!fits(what, sets)) return;
    test::random numbers(2);
    bench::buffers memory(what, sets, numbers);
    const test::twin t = test::plain_twin({.head_dim = problem::head_dim});
    const device::memory scales(static_cast<std::size_t>(what.tokens * what.kv_heads) * 8);
    const auto half = static_cast<double>(what.bytes_of(what.kv_heads));

    // The second buffer of a set is the cache: its k and v are as large as what goes there, or larger.
    const auto cache = [&](int set, gpu::cache_type type) {
        const device::tensors to = memory.out(set);
        gpu::kv_cache both;
        both.k = gpu::nhd_cache(static_cast<std::int8_t*>(to.k.data), 1, what.tokens, what.kv_heads, problem::head_dim);
        both.v = both.k, both.v.data = to.v.data;
        both.k.type = both.v.type = type;
        if (type == gpu::cache_type::i8) {
            both.k.scales = static_cast<float*>(scales.data());
            both.v.scales = both.k.scales + what.tokens * what.kv_heads;
        }
        return both;
    };
    const auto append = [&](gpu::cache_type type) {
        return [&, type](device::stream_handle on, int set) {
            const device::tensors in = memory.in(set);
            gpu::fusion with;
            with.cache = cache(set, type), with.slots = gpu::by_sequence(rw::offset{0});
            device::with_fused_calls(what.type, what.layout, [&](auto calls) {
                calls.run(in, {in.q, {}, {}}, with, t.ours, rw::offset{first_position}, {.stream = on});
            });
        };
    };
    const auto apart = [&](device::stream_handle on, int set) {
        const device::tensors in = memory.in(set), out = memory.out(set);
        const device::tensors both{in.q, in.k, {}};
        device::with_calls(what.type, what.layout, [&](auto calls) {
            calls.rotate(both, both, t.ours, rw::offset{first_position}, {.stream = on});
        });
        device::copy_on(on, out.k.data, in.k.data, what.bytes_of(what.kv_heads));
        device::copy_on(on, out.v.data, in.v.data, what.bytes_of(what.kv_heads));
    };
    const auto same = what.type == rw::element_type::f32   ? gpu::cache_type::f32
                      : what.type == rw::element_type::f16 ? gpu::cache_type::f16
                                                           : gpu::cache_type::bf16;
    const double all = 2.0 * static_cast<double>(what.bytes());
    const double narrow = all - 2 * half * (1 - 1.0 / static_cast<double>(rw::size_of(what.type)));
    std::vector<candidate> candidates;
    candidates.push_back({"rotate, then copy k and v", all, true, apart});
    candidates.push_back({"append", all, true, append(same)});
    candidates.push_back({"append to f8e4m3", narrow, true, append(gpu::cache_type::f8e4m3)});
    candidates.push_back({"append to i8", narrow, true, append(gpu::cache_type::i8)});
    for (std::size_t i = 0; i < candidates.size(); ++i)
        try_out(p, candidates[i], what, memory, {memory.in(0).q, i < 2 ? memory.out(0).k : rw::tensor{}, {}}, t);
    memory.fill();
    compete(p, what, memory, std::move(candidates));
}

/// RMSNorm of queries and keys and their rotation in one pass.
void bench_norm(plan& p, const problem& what) {
    const int sets = sets_for(what);
    if (!fits(what, sets)) return;
    test::random numbers(3);
    bench::buffers memory(what, sets, numbers);
    const test::twin t = test::plain_twin({.head_dim = problem::head_dim});
    const std::vector<float> ones(problem::head_dim, 1.0F);
    const device::memory weight(ones.data(), ones.size() * sizeof(float));
    gpu::fusion with;
    with.q_norm = with.k_norm = gpu::head_norm(static_cast<const float*>(weight.data()));
    const auto run = [&](device::stream_handle on, int set) {
        const device::tensors in = memory.in(set);
        device::with_fused_calls(what.type, what.layout, [&](auto calls) {
            calls.run(in, in, with, t.ours, rw::offset{first_position}, {.stream = on});
        });
    };
    candidate one{"norm and rotate", 2.0 * static_cast<double>(what.bytes()), true, run};
    try_out(p, one, what, memory, memory.in(0), t, memory.norm_factor(with.q_norm.epsilon));
    memory.fill();
    compete(p, what, memory, {one});
}

void run_all(plan& p) {
    const bool real = device::is_real();
    const std::vector<std::int64_t> lengths = !real     ? std::vector<std::int64_t>{3}
                                              : p.quick ? std::vector<std::int64_t>{4096, 32768}
                                                        : std::vector<std::int64_t>{4096, 8192, 16384, 32768};
    const std::vector<std::int64_t> steps =
        real ? std::vector<std::int64_t>{1, 2, 4, 8, 16, 32, 64} : std::vector<std::int64_t>{1};
    const std::pair<std::int64_t, std::int64_t> models[] = {{40, 40}, {32, 8}};
    using rw::element_type, rw::layout_kind;
    for (const auto& [q_heads, kv_heads] : models)
        for (const element_type type : {element_type::bf16, element_type::f16, element_type::f32})
            for (const layout_kind layout : {layout_kind::half_split, layout_kind::interleaved})
                for (const std::int64_t tokens : lengths) bench_rotation(p, {type, layout, q_heads, kv_heads, tokens});
    for (const auto& [q_heads, kv_heads] : models)
        for (const std::int64_t tokens : steps)
            bench_rotation(p, {element_type::bf16, layout_kind::half_split, q_heads, kv_heads, tokens});
    for (const auto& [q_heads, kv_heads] : models) {
        for (const std::int64_t tokens : {steps.front(), steps.back(), lengths.front(), lengths.back()}) {
            bench_append(p, {element_type::bf16, layout_kind::half_split, q_heads, kv_heads, tokens});
            bench_norm(p, {element_type::bf16, layout_kind::half_split, q_heads, kv_heads, tokens});
        }
    }
}

/// Nothing: --help was asked for.
std::optional<plan> read_options(int count, char** arguments) {
    plan p;
    for (int i = 1; i < count; ++i) {
        const std::string text = arguments[i];
        if (text == "--help" || text == "-h") return {};
        if (text == "--quick") {
            p.quick = true, p.effort.repeats = 9, p.effort.seconds = 0.1;
        } else if (text == "--out") {
            RW_EXPECTS(i + 1 < count, "--out needs a value");
            p.out = arguments[++i];
        } else {
            RW_EXPECTS(!text.starts_with('-') && !text.empty(), "unknown option '{}'; --help tells what there is",
                       text);
            p.parts.push_back(text);
        }
    }
    return p;
}

}  // namespace

int main(int count, char** arguments) try {
    std::optional<plan> p = read_options(count, arguments);
    if (!p) {
        std::cout << usage;
        return 0;
    }
    std::cout << device::describe() << '\n'
              << "bytes: every element read once and written once; / copy: the device copy's time over as many bytes, "
                 "in the same run"
              << std::endl;
    bench::print_head();
    run_all(*p);
    std::cout << p->rows.size() << " rows" << (p->wrong > 0 ? ", some WRONG" : "") << std::endl;
    const bool nothing = p->rows.empty() && p->wrong == 0;
    RW_EXPECTS(!nothing || p->parts.empty(), "no candidate's name holds '{}'", p->parts.front());
    RW_EXPECTS(!nothing, "nothing was measured");
    return p->wrong == 0 ? 0 : 1;
} catch (const std::exception& problem) {
    std::cerr << "bench_rotate: " << problem.what() << '\n';
    return 1;
}
