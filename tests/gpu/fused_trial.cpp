#include "fused_trial.hpp"

#include <sstream>

#include <ropewalk/gpu/fused_body.hpp>

#include "trial.hpp"

namespace rw = ropewalk;

namespace test {

weights::weights(rw::element_type type, std::int64_t count, random& numbers)
    : memory_(type, {1, 1, 1, count}, numbers) {}

rw::gpu::head_norm weights::norm(double epsilon, bool one_plus) {
    rw::gpu::head_norm result;
    if (memory_.bytes().empty()) return result;
    result.weight = memory_.tensor().data, result.type = memory_.type();
    result.epsilon = epsilon, result.one_plus = one_plus;
    return result;
}

void weights::watch(memory_log& log) {
    if (!memory_.bytes().empty()) log.watch(memory_);
}

namespace {

template <class T>
rw::view<T> as(const rw::tensor& t) {
    rw::view<T> result;
    static_cast<rw::tensor&>(result) = t;
    return result;
}

template <class T, class L>
void run(const rw::gpu::fused_plan& prepared) {
    rw::gpu::with_fused_kernel<T>(prepared, [&]<class Rates>(std::type_identity<Rates>, auto bytes) {
        const auto job = rw::gpu::kernel_params<Rates>(prepared);
        const rw::gpu::fused_body<T, L, bytes(), Rates, recorded_access> body{job};
        for (std::int64_t index = 0; index < job.threads; index += rw::gpu::warp_lanes)
            rw::gpu::run_lanes<rw::gpu::host_warp>(body, index);
    });
}

/// Calls f with a number of the element type.
template <class F>
auto with_type(rw::element_type type, const F& f) {
    if (type == rw::element_type::f32) return f(float{});
    return type == rw::element_type::f16 ? f(rw::f16{}) : f(rw::bf16{});
}

/// The same array as floats.
array widened(const array& x) {
    array result(rw::element_type::f32, x.size());
    result.set(x.values());
    return result;
}

}  // namespace

void run_on_host(rw::layout_kind layout, const rw::gpu::fused_plan& prepared, memory_log& log) {
    recorded_access::log = &log;
    with_type(prepared.kernel.rotation.any().type, [&](auto type) {
        using T = decltype(type);
        layout == rw::layout_kind::half_split ? run<T, rw::half_split>(prepared) : run<T, rw::interleaved>(prepared);
    });
}

rw::gpu::fused_plan make_plan_of(rw::element_type type, rw::layout_kind layout, const fused_arrays& a,
                                 const rw::gpu::fusion& with, const rw::Encoding& encoding, const rw::positions& where,
                                 const rw::gpu::options& chosen, const rw::gpu::device_shape& device) {
    return with_type(type, [&](auto element) {
        using T = decltype(element);
        return rw::gpu::make_fused_plan<T>(layout, {as<const T>(a.q), as<const T>(a.k), as<const T>(a.v)},
                                           {as<T>(a.q_out), as<T>(a.k_out), as<T>(a.v_out)}, with, encoding, where,
                                           chosen, device);
    });
}

std::vector<double> normed(const array& x, rw::layout_kind layout, const rw::gpu::head_norm& norm,
                           const rw::Encoding& encoding) {
    array floats = widened(x);
    const std::vector<std::int64_t> zeros(static_cast<std::size_t>(x.size().tokens), 0);
    memory_log log;
    log.watch(floats);
    log.watch(norm.weight, static_cast<std::size_t>(x.size().head_dim) * rw::size_of(norm.type));
    run_on_host(layout,
                make_plan_of(rw::element_type::f32, layout, {floats.tensor(), {}, {}, floats.tensor(), {}, {}},
                             {.q_norm = norm}, encoding, rw::ids(std::span<const std::int64_t>(zeros))),
                log);
    return floats.values();
}

namespace {

/// The floats that norm and rotation make of an array, one after the other.
std::vector<double> composed(const array& x, rw::layout_kind layout, const rw::gpu::head_norm& norm,
                             const rw::Encoding& encoding, const rw::positions& where, bool is_key) {
    array floats = widened(x);
    if (norm.weight != nullptr) floats.set(normed(x, layout, norm, encoding));
    const rw::tensor t = floats.tensor(), absent{};
    memory_log log;
    log.watch(floats);
    run_on_host(layout,
                rw::gpu::make_plan(layout, is_key ? absent : t, is_key ? t : absent, is_key ? absent : t,
                                   is_key ? t : absent, encoding, where, {}),
                log);
    return floats.values();
}

/// q, k or v of a trial.
struct fused_side {
    array in, out;
    std::vector<double> results;  ///< before the last rounding
    bool present = true, in_place = true, outputs = true, turns = true;

    [[nodiscard]] rw::tensor input() { return present ? in.tensor() : none(); }
    [[nodiscard]] rw::tensor output() { return !outputs || !present ? none() : in_place ? in.tensor() : out.tensor(); }

    /// What is wrong: every element must be as the parts make it, read once and written once, all else as it was.
    std::string problem(const fused_trial& one, const memory_log& log, const array& before, bool is_normed) {
        if (!present) return {};
        oracle::shape shape = shape_of(in.size(), one.by.ours.geometry, one.layout);
        if (!turns) shape.offset = 0, shape.width = 0;
        if (std::string wrong = counts_problem(log.reads(in), in, shape, 1, 1); !wrong.empty())
            return "reads: " + wrong;
        if (!outputs) return in == before ? "" : "the input changed";
        if (!in_place && !(in == before)) return "the input changed";
        array& result = in_place ? in : out;
        array expected(in.type(), in.size());
        expected.set(results);
        if (result.values() != expected.values()) return "other numbers than the parts make";
        if (!result.guards_intact()) return "bytes around the tensor changed";
        // In place, what is neither normed nor turned stays.
        const std::uint8_t beside = in_place && !is_normed ? 0 : 1;
        if (std::string wrong = counts_problem(log.writes(result), result, shape, 1, beside); !wrong.empty())
            return "writes: " + wrong;
        return {};
    }
};

std::string describe(const fused_trial& one, const rw::gpu::fused_plan& made, const std::string& problem) {
    const rw::Geometry& g = one.by.ours.geometry;
    std::ostringstream text;
    text << rw::to_string(one.type) << ' ' << rw::to_string(one.layout) << " head_dim " << g.head_dim << " width "
         << g.width() << " at " << g.rotary_offset << ", v " << one.v_dim << ", batch " << one.q.batch << " tokens "
         << one.q.tokens << " heads " << one.q.heads << '/' << one.kv_heads << ", order "
         << static_cast<int>(one.where_in_memory) << (one.in_place ? ", in place" : ", out of place") << ", norms "
         << one.q_norm << one.k_norm << one.one_plus << ", caches "
         << (one.k_cache ? rw::gpu::to_string(*one.k_cache) : "none") << ' '
         << (one.v_cache ? rw::gpu::to_string(*one.v_cache) : "none") << " axes " << static_cast<int>(one.cache_axes)
         << " pages of " << one.page_size << " slots " << static_cast<int>(one.slots) << ", '" << one.by.ours.expression
         << "', access " << made.shape.bytes << ", " << made.kernel.lanes << " lanes: " << problem;
    return text.str();
}

}  // namespace

std::string problem_of(const fused_trial& one, random& numbers, int* bytes) {
    const extents kv{one.q.batch, one.q.tokens, one.kv_heads, one.q.head_dim};
    const extents values{one.q.batch, one.q.tokens, one.kv_heads, one.v_dim};
    const extents* const sizes[] = {&one.q, &kv, &values};
    fused_side sides[3];
    for (int i = 0; i < 3; ++i) {
        fused_side& s = sides[i];
        s.present = sizes[i]->heads > 0;
        s.in = array(one.type, *sizes[i], numbers, one.where_in_memory);
        s.out = array(one.type, *sizes[i], one.where_in_memory);
        s.turns = i < 2, s.in_place = s.turns && one.in_place;
    }
    auto& [q, k, v] = sides;
    const std::int64_t positions = one.q.batch * one.q.tokens;
    const std::int64_t pages = 3 * ((positions + one.page_size - 1) / one.page_size + 2);
    const bool sequences = one.slots == slot_kind::by_sequence_offset || one.slots == slot_kind::by_sequence_ids;
    const cache_memory::extents k_size{sequences ? one.q.batch : pages,
                                       sequences ? std::max(one.page_size, one.q.tokens) : one.page_size, one.kv_heads,
                                       one.q.head_dim};
    cache_memory::extents v_size = k_size;
    v_size.head_dim = one.v_dim;
    std::optional<cache_memory> k_cache, v_cache;
    if (one.k_cache) k_cache.emplace(*one.k_cache, k_size, one.cache_axes, 0.03F, one.misalignment);
    if (one.v_cache) v_cache.emplace(*one.v_cache, v_size, one.cache_axes, 0.5F, one.misalignment);
    k.outputs = !k_cache || one.k_output, v.outputs = !v_cache || one.v_output;

    weights q_weights, k_weights;
    if (one.q_norm) q_weights = weights(one.weight_type, one.q.head_dim, numbers);
    if (one.k_norm) k_weights = weights(one.weight_type, one.q.head_dim, numbers);
    const slot_case slots = random_slots(one.slots, one.q.batch, one.q.tokens, k_size, numbers);
    const bool cached = k_cache || v_cache;
    const rw::positions where = slots.starts.empty() ? rw::positions(rw::offset{one.first}) : slots.where;
    const rw::gpu::fusion with{.q_norm = q_weights.norm(1e-6, one.one_plus),
                               .k_norm = k_weights.norm(1e-5, one.one_plus),
                               .cache = {k_cache ? k_cache->tensor() : rw::gpu::cache_tensor{},
                                         v_cache ? v_cache->tensor() : rw::gpu::cache_tensor{}},
                               .slots = cached ? slots.slots : rw::gpu::cache_slots{}};

    if (q.present) q.results = composed(q.in, one.layout, with.q_norm, one.by.ours, where, false);
    if (k.present) k.results = composed(k.in, one.layout, with.k_norm, one.by.ours, where, true);
    if (v.present) v.results = v.in.values();
    const array before[] = {q.in, k.in, v.in};

    const rw::gpu::fused_plan made =
        make_plan_of(one.type, one.layout, {q.input(), k.input(), v.input(), q.output(), k.output(), v.output()}, with,
                     one.by.ours, where, {}, one.device);
    if (bytes != nullptr) *bytes = made.shape.bytes;
    memory_log log;
    for (fused_side& each : sides) log.watch(each.in), log.watch(each.out);
    q_weights.watch(log), k_weights.watch(log);
    if (k_cache) k_cache->watch(log);
    if (v_cache) v_cache->watch(log);
    run_on_host(one.layout, made, log);

    std::string problem = log.problem();
    for (int i = 0; i < 3 && problem.empty(); ++i) {
        problem = sides[i].problem(one, log, before[i], i == 0 ? one.q_norm : i == 1 && one.k_norm);
        if (!problem.empty()) problem = std::string(1, "qkv"[i]) + ": " + problem;
    }
    const auto check_cache = [&](std::optional<cache_memory>& cache, const fused_side& from, std::int64_t head_dim) {
        if (!cache || !problem.empty()) return;
        for (std::int64_t row = 0; row < positions * one.kv_heads; ++row) {
            const auto& place = slots.places[static_cast<std::size_t>(row / one.kv_heads)];
            if (place)
                cache->expect(place->page, place->token, row % one.kv_heads, from.results.data() + row * head_dim);
        }
        problem = cache->problem(log);
        if (!problem.empty()) problem = "the " + problem;
    };
    check_cache(k_cache, k, one.q.head_dim);
    check_cache(v_cache, v, one.v_dim);
    return problem.empty() ? problem : describe(one, made, problem);
}

}  // namespace test
