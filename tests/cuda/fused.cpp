// Norm, rotation and cache in one pass, against the float64 oracle and against the parts one after the other.
#include "fused.hpp"
#include "support/effort.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace {

enum class goes : std::uint8_t { nowhere, in_place, elsewhere };

/// A fused call on slices of one packed tensor: heads of q, then of k, then of v.
struct fused_trial {
    rw::element_type type;
    rw::layout_kind layout;
    test::twin by;
    test::extents packed;
    std::int64_t q_heads = 4, kv_heads = 2;
    test::order where_in_memory = test::order::bshd;
    std::int64_t first = 0;
    goes q = goes::in_place, k = goes::nowhere, v = goes::nowhere;
    bool caches = true, norms = false;
    gpu::cache_type cached_as = gpu::cache_type::bf16;
    bool hnd = false;
};

rw::tensor heads_of(rw::tensor t, std::int64_t first, std::int64_t count) {
    t.data = static_cast<char*>(t.data) + first * t.stride_head * std::int64_t(rw::size_of(t.type));
    t.heads = count;
    return t;
}

fused_trial random_trial(test::random& numbers) {
    fused_trial one;
    one.type = test::random_type(numbers), one.layout = test::random_layout(numbers);
    const std::int64_t dim = numbers.one_of<std::int64_t>({44, 64, 80, 128, 256, 512});
    rw::Geometry head{.head_dim = dim};
    if (dim < 512 && numbers.integer(0, 2) == 0)
        head.rotary_dim = dim - 16, head.rotary_offset = numbers.coin() ? 16 : 0;
    one.by = numbers.coin() ? test::plain_twin(head) : test::xpos_twin(head, {.length = 4096});
    one.kv_heads = numbers.integer(1, 3), one.q_heads = one.kv_heads * numbers.integer(1, 5);
    one.packed = {numbers.integer(1, 3), numbers.integer(1, 30), one.q_heads + 2 * one.kv_heads, dim};
    // Slices of a padded tensor lie between each other at strides by which nobody can tell that they do not overlap.
    one.where_in_memory = test::all_orders[numbers.integer(0, 2)];
    one.first = numbers.integer(0, 4000);
    one.caches = numbers.integer(0, 3) > 0, one.norms = numbers.coin();
    one.q = numbers.coin() ? goes::in_place : goes::elsewhere;
    one.k = one.caches && numbers.coin() ? goes::nowhere : one.q;
    one.v = one.caches ? goes::nowhere : goes::elsewhere;
    one.cached_as = numbers.one_of({gpu::cache_type::f32, gpu::cache_type::f16, gpu::cache_type::bf16,
                                    gpu::cache_type::f8e4m3, gpu::cache_type::i8});
    one.hnd = numbers.coin();
    return one;
}

std::string describe(const fused_trial& one, const test::slot_choice& slots) {
    std::ostringstream text;
    text << to_string(one.type) << ' ' << to_string(one.layout) << " head_dim " << one.packed.head_dim << " width "
         << one.by.ours.geometry.width() << " at " << one.by.ours.geometry.rotary_offset << ", '"
         << one.by.ours.expression << "', batch " << one.packed.batch << " tokens " << one.packed.tokens << " heads "
         << one.q_heads << '/' << one.kv_heads << ", order " << static_cast<int>(one.where_in_memory) << ", goes "
         << static_cast<int>(one.q) << static_cast<int>(one.k) << static_cast<int>(one.v)
         << (one.norms ? ", normed" : "");
    if (one.caches)
        text << ", cache " << gpu::to_string(one.cached_as) << (one.hnd ? " hnd" : " nhd") << ", slots of kind "
             << static_cast<int>(slots.slots.source) << ", " << slots.pages << " pages of " << slots.page_size;
    return text.str() + ": ";
}

/// What every head of the packed tensor becomes, in the order of the tensor's axes.
std::vector<double> exact_heads(const fused_trial& one, std::vector<double> x, const test::norm_choice& q_norm,
                                const test::norm_choice& k_norm) {
    const auto dim = static_cast<std::size_t>(one.packed.head_dim);
    const oracle::shape shape = test::shape_of({1, 1, 1, one.packed.head_dim}, one.by.ours.geometry, one.layout);
    for (std::size_t row = 0; row * dim < x.size(); ++row) {
        const auto head = static_cast<std::int64_t>(row) % one.packed.heads;
        const std::int64_t token = static_cast<std::int64_t>(row) / one.packed.heads % one.packed.tokens;
        if (head >= one.q_heads + one.kv_heads) continue;
        const bool is_key = head >= one.q_heads;
        const std::span<double> values(x.data() + row * dim, dim);
        if (one.norms) (is_key ? k_norm : q_norm).apply(values);
        const auto turned = oracle::rotate(shape, {values.begin(), values.end()}, one.by.exact,
                                           {{one.first + token, 0}}, is_key ? oracle::role::key : oracle::role::query);
        std::copy(turned.begin(), turned.end(), values.begin());
    }
    return x;
}

double room_of(const fused_trial& one, std::span<const double> head) {
    double squares = 0;
    for (const double x : head) squares += x * x;
    return (one.norms ? 2e-6 : 4e-7) * std::sqrt(squares);
}

/// Compares heads that were written to `result`, and the others with what they were `before`.
std::string problem_of_heads(const fused_trial& one, const test::array& result, const std::vector<double>& before,
                             const std::vector<double>& exact, goes here) {
    const std::vector<double> got = result.values();
    const auto dim = static_cast<std::size_t>(one.packed.head_dim);
    for (std::size_t row = 0; row * dim < got.size(); ++row) {
        const auto head = static_cast<std::int64_t>(row) % one.packed.heads;
        const bool is_value = head >= one.q_heads + one.kv_heads;
        const goes to = head < one.q_heads ? one.q : is_value ? one.v : one.k;
        const std::span<const double> should(exact.data() + row * dim, dim);
        const double room = room_of(one, should);
        for (std::size_t i = 0; i < dim; ++i) {
            const double was = before[row * dim + i], is = got[row * dim + i];
            const bool right = to != here ? is == was
                               : is_value ? is == should[i]
                                          : test::within(is, should[i], room, result.format());
            if (!right)
                return "head row " + std::to_string(row) + " element " + std::to_string(i) + " is " +
                       check::text_of(is) + ", was " + check::text_of(was) + ", exact " + check::text_of(should[i]);
        }
    }
    return result.guards_intact() ? "" : "bytes around the tensor changed";
}

std::string problem_of_cache(const fused_trial& one, test::cache_memory& cache, std::int64_t first_head,
                             const std::vector<double>& exact, const test::slot_choice& slots) {
    cache.fetch();
    const auto dim = static_cast<std::size_t>(one.packed.head_dim);
    for (std::size_t token = 0; token < slots.of_token.size(); ++token) {
        if (!slots.of_token[token]) continue;
        for (std::int64_t head = 0; head < one.kv_heads; ++head) {
            const std::size_t row =
                token * static_cast<std::size_t>(one.packed.heads) + static_cast<std::size_t>(first_head + head);
            const std::span<const double> should(exact.data() + row * dim, dim);
            std::string wrong = cache.problem(*slots.of_token[token], head, should, room_of(one, should));
            if (!wrong.empty()) return "token " + std::to_string(token) + ": " + wrong;
        }
    }
    return cache.rest_intact() ? "" : "the cache was written beside its slots";
}

/// The first thing that is wrong with a fused call, or "".
std::string problem_of(const fused_trial& one, test::random& numbers) {
    test::array in(one.type, one.packed, numbers, one.where_in_memory), out(one.type, one.packed, one.where_in_memory);
    const auto before = in.values(), pristine = out.values();
    test::device_array in_there(in), out_there(out);
    const test::norm_choice q_norm(numbers, one.packed.head_dim), k_norm(numbers, one.packed.head_dim);
    const test::slot_choice slots = test::choose_slots(numbers, one.packed.batch, one.packed.tokens);
    test::cache_memory k_cache(one.cached_as, one.hnd, slots.pages, slots.page_size, one.kv_heads, one.packed.head_dim),
        v_cache(one.cached_as, one.hnd, slots.pages, slots.page_size, one.kv_heads, one.packed.head_dim);

    const auto side = [&](const rw::tensor& packed, int which) {
        const std::int64_t first[] = {0, one.q_heads, one.q_heads + one.kv_heads};
        return heads_of(packed, first[which], which == 0 ? one.q_heads : one.kv_heads);
    };
    const auto target = [&](goes to, int which) {
        if (to == goes::nowhere) return rw::tensor{};
        return side((to == goes::in_place ? in_there : out_there).tensor(), which);
    };
    const device::tensors from{side(in_there.tensor(), 0), side(in_there.tensor(), 1), side(in_there.tensor(), 2)};
    const device::tensors to{target(one.q, 0), target(one.k, 1), target(one.v, 2)};
    gpu::fusion with;
    if (one.norms) with.q_norm = q_norm.norm, with.k_norm = k_norm.norm;
    if (one.caches) with.cache = {k_cache.get(), v_cache.get()}, with.slots = slots.slots;
    device::with_fused_calls(one.type, one.layout,
                             [&](auto calls) { calls.run(from, to, with, one.by.ours, rw::offset{one.first}, {}); });
    device::finish();
    in_there.fetch(), out_there.fetch();

    const auto exact = exact_heads(one, before, q_norm, k_norm);
    std::string wrong = problem_of_heads(one, in, before, exact, goes::in_place);
    if (wrong.empty()) wrong = problem_of_heads(one, out, pristine, exact, goes::elsewhere);
    if (wrong.empty() && one.caches) wrong = problem_of_cache(one, k_cache, one.q_heads, exact, slots);
    if (wrong.empty() && one.caches) wrong = problem_of_cache(one, v_cache, one.q_heads + one.kv_heads, exact, slots);
    return wrong.empty() ? wrong : describe(one, slots) + wrong;
}

}  // namespace

TEST_CASE("norms, rotations and caches of every type, in every combination", "[cuda][fused]") {
    SEEDED(numbers);
    for (std::int64_t i = 0; i < test::cases(1000); ++i) CHECK(problem_of(random_trial(numbers), numbers) == "");
}

TEST_CASE("a long append in one launch", "[cuda][fused]") {
    SEEDED(numbers);
    if (test::cases(100) < 100) SKIP("long");
    for (const gpu::cache_type type : {gpu::cache_type::bf16, gpu::cache_type::f8e4m3, gpu::cache_type::i8}) {
        fused_trial one = random_trial(numbers);
        one.by = test::plain_twin({.head_dim = 128});
        one.type = rw::element_type::bf16, one.q_heads = 32, one.kv_heads = 8, one.packed = {1, 600, 48, 128};
        one.where_in_memory = test::order::bshd, one.caches = true, one.cached_as = type;
        CHECK(problem_of(one, numbers) == "");
    }
}

TEST_CASE("without norm and cache a fused call has the bits of a rotation", "[cuda][fused]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin({.head_dim = 128});
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            test::array x(type, {2, 33, 8, 128}, numbers), y(x);
            test::device_array x_there(x), y_there(y);
            const device::tensors one{.q = x_there.tensor(), .k = {}, .v = {}},
                other{.q = y_there.tensor(), .k = {}, .v = {}};
            device::with_calls(type, layout,
                               [&](auto calls) { calls.rotate(one, one, t.ours, rw::offset{1000000}, {}); });
            device::with_fused_calls(type, layout,
                                     [&](auto calls) { calls.run(other, other, {}, t.ours, rw::offset{1000000}, {}); });
            device::finish();
            x_there.fetch(), y_there.fetch();
            CHECK(x.bytes() == y.bytes());
        }
    }
}
