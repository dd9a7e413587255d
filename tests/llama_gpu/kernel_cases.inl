// Cases of the kernels of a Llama's layers, for the host and for a device. The including file defines kernel_kind.
//
// kernel_kind::attend(), rms_norm() and silu() run kernels on arrays that may be the same, and return the first problem
// of their memory accesses, or "". kernel_kind::tolerance multiplies the bounds of the host.

#include <cmath>
#include <string>
#include <vector>

#include "llama_gpu/cache_contents.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/effort.hpp"
#include "support/random.hpp"
#include "support/tensors.hpp"

namespace {

namespace rw = ropewalk;
using std::int64_t;

template <class T>
T any_of(const std::vector<T>& values, test::random& numbers) {
    return values[static_cast<std::size_t>(numbers.integer(0, std::ssize(values) - 1))];
}
rw::element_type any_type(test::random& numbers) {
    return any_of<rw::element_type>({std::begin(test::all_types), std::end(test::all_types)}, numbers);
}

/// Returns the first element that is not a rounding of a number within its bound of the exact value, or "".
std::string first_problem(const test::array& result, const std::vector<double>& exact,
                          const std::vector<double>& bounds) {
    const std::vector<double> got = result.values();
    for (std::size_t i = 0; i < exact.size(); ++i) {
        if (!test::within(got[i], exact[i], kernel_kind::tolerance * bounds[i], result.format()))
            return "element " + std::to_string(i) + " is " + std::to_string(got[i]) + ", exact " +
                   std::to_string(exact[i]) + " within " + std::to_string(bounds[i]);
    }
    return result.guards_intact() ? "" : "bytes around the output changed";
}

// --- attention ---

struct attend_trial {
    rw::element_type type = rw::element_type::f32;
    rw::cache_type cached_as = rw::cache_type::f32;
    test::cache_axes axes = test::cache_axes::nhd;
    test::order where_in_memory = test::order::bshd;
    int64_t head_dim = 64, kv_heads = 2, shared = 1;
    int64_t sequences = 2, most_tokens = 5, page_size = 16, pages = 3;
    bool table = true, in_place = false;
    int64_t splits = 1;

    [[nodiscard]] int64_t heads() const { return kv_heads * shared; }
};

attend_trial random_trial(test::random& numbers) {
    attend_trial trial;
    trial.type = any_type(numbers);
    trial.cached_as = test::cache_types[numbers.integer(0, std::ssize(test::cache_types) - 1)];
    trial.axes = numbers.one_of({test::cache_axes::nhd, test::cache_axes::hnd, test::cache_axes::padded});
    trial.where_in_memory = numbers.one_of({test::order::bshd, test::order::bhsd, test::order::padded});
    trial.head_dim = numbers.one_of<int64_t>({64, 80, 128, 64, 128, 8, 33, 256});
    trial.kv_heads = numbers.integer(1, 3), trial.shared = numbers.one_of<int64_t>({1, 1, 2, 3, 4, 8});
    trial.sequences = numbers.integer(1, 4), trial.most_tokens = numbers.one_of<int64_t>({1, 1, 2, 5, 9, 20});
    trial.page_size = numbers.one_of<int64_t>({1, 16, 5, 64});
    trial.table = numbers.coin();
    trial.pages = trial.table ? 1 + 70 / trial.page_size : 1;
    trial.in_place = numbers.coin();
    trial.splits = numbers.one_of<int64_t>({1, 1, 2, 3, 7});
    return trial;
}

std::string describe(const attend_trial& trial) {
    const auto text = [](int64_t x) { return std::to_string(x); };
    return std::string(rw::to_string(trial.type)) + " cache " + std::string(rw::to_string(trial.cached_as)) + " axes " +
           text(static_cast<int>(trial.axes)) + " head_dim " + text(trial.head_dim) + " heads " + text(trial.heads()) +
           "/" + text(trial.kv_heads) + ", " + text(trial.sequences) + " sequences of at most " +
           text(trial.most_tokens) + " tokens, " + text(trial.pages) + " pages of " + text(trial.page_size) + ", " +
           text(trial.splits) + " splits: ";
}

/// Everything that the kernels of a trial touch.
struct attend_memory {
    const attend_trial& trial;
    test::random& numbers;
    test::batch_case batch;
    test::array q, out;
    test::cache_contents k, v;

    attend_memory(const attend_trial& t, test::random& random)
        : trial(t),
          numbers(random),
          batch(test::random_batch(t.sequences, t.most_tokens, t.page_size, t.pages, t.table, random)),
          k(t.cached_as, {t.pages * t.sequences, t.page_size, t.kv_heads, t.head_dim}, t.axes, random),
          v(t.cached_as, {t.pages * t.sequences, t.page_size, t.kv_heads, t.head_dim}, t.axes, random) {
        make_rows();
    }

    void set_batch(std::vector<std::int32_t> starts, std::vector<std::int32_t> past) {
        batch.tokens = starts.back(), batch.starts = std::move(starts), batch.past = std::move(past);
        make_rows();
    }
    void make_rows() {
        q = test::array(trial.type, {1, batch.tokens, trial.heads(), trial.head_dim}, numbers, trial.where_in_memory);
        out = test::array(trial.type, q.size(), trial.where_in_memory);
    }
    [[nodiscard]] test::array& result() { return trial.in_place ? q : out; }

    [[nodiscard]] test::exact_attention exact(double scale) {
        return test::attention_of(q.values(), trial.heads(), k, v, batch, scale);
    }
    /// `complete`: every row of the output belongs to a sequence.
    std::string run(double scale, bool complete = true) {
        return kernel_kind::attend(q, result(), k, v, batch, scale, trial.splits, complete);
    }
};

std::string problem_of(const attend_trial& trial, test::random& numbers) {
    attend_memory m(trial, numbers);
    const double scale = 1 / std::sqrt(static_cast<double>(trial.head_dim));
    const auto exact = m.exact(scale);
    std::string problem = m.run(scale);
    std::vector<double> bounds = exact.largest;
    for (double& bound : bounds) bound *= 5e-6;
    if (problem.empty()) problem = first_problem(m.result(), exact.rows, bounds);
    return problem.empty() ? problem : describe(trial) + problem;
}

std::vector<double> equal_bounds(std::size_t count) {
    return std::vector<double>(count, 2e-5 / kernel_kind::tolerance);
}

}  // namespace

TEST_CASE("attention over caches of every type and order, ragged, shared and split", "[llama_gpu][attend]") {
    SEEDED(numbers);
    for (int64_t i = 0; i < test::cases(600); ++i) REQUIRE(problem_of(random_trial(numbers), numbers) == "");
    for (const rw::element_type type : test::all_types) {
        for (const rw::cache_type cached_as : test::cache_types) {
            attend_trial trial = random_trial(numbers);
            trial.type = type, trial.cached_as = cached_as;
            REQUIRE(problem_of(trial, numbers) == "");
        }
    }
}

TEST_CASE("attention at every edge of a step, a page and a split", "[llama_gpu][attend]") {
    SEEDED(numbers);
    // Steps have 8, 16 and 4 keys.
    for (const int64_t head_dim : {128, 64, 256}) {
        for (int64_t tokens = 1; tokens <= (test::cases(40) < 9 ? 9 : test::cases(40)); ++tokens) {
            attend_trial trial;
            trial.head_dim = head_dim, trial.kv_heads = 1, trial.sequences = 1, trial.most_tokens = tokens;
            trial.type = rw::element_type::bf16, trial.cached_as = rw::cache_type::bf16;
            trial.page_size = numbers.one_of<int64_t>({1, 16}), trial.pages = 40 / trial.page_size + 1;
            trial.splits = numbers.integer(1, 4);
            REQUIRE(problem_of(trial, numbers) == "");
        }
    }
}

TEST_CASE("values of later tokens never reach a row", "[llama_gpu][attend]") {
    SEEDED(numbers);
    for (const rw::cache_type type : test::cache_types) {
        attend_trial trial;
        trial.cached_as = type, trial.sequences = 1, trial.most_tokens = 1, trial.shared = 2, trial.table = false;
        trial.page_size = 24;
        attend_memory m(trial, numbers);
        m.set_batch({0, 1}, {9});
        const auto exact = m.exact(0.125);
        for (int64_t token = 10; token < 24; ++token) m.k.poison(0, token), m.v.poison(0, token);
        CHECK(m.run(0.125) == "");
        CHECK(first_problem(m.out, exact.rows, equal_bounds(exact.rows.size())) == "");
        // A NaN that a row attends to reaches it.
        m.k.poison(0, 9);
        m.run(0.125);
        CHECK(std::isnan(m.out.values()[5]));
    }
}

TEST_CASE("each row of a tile attends to its own keys only", "[llama_gpu][attend]") {
    SEEDED(numbers);
    attend_trial trial;
    trial.sequences = 1, trial.most_tokens = 4, trial.table = false, trial.page_size = 8, trial.kv_heads = 1;
    attend_memory m(trial, numbers);
    m.set_batch({0, 4}, {0});
    auto exact = m.exact(0.125);
    m.k.poison(0, 3), m.v.poison(0, 3);
    m.run(0.125);
    exact.rows.resize(static_cast<std::size_t>(3 * trial.head_dim));
    CHECK(first_problem(m.out, exact.rows, equal_bounds(exact.rows.size())) == "");
    CHECK(std::isnan(m.out.values().back()));
}

TEST_CASE("no access leaves the memory of the call for any lengths and pages", "[llama_gpu][attend]") {
    SEEDED(numbers);
    for (int64_t i = 0; i < test::cases(100); ++i) {
        const attend_trial trial = random_trial(numbers);
        attend_memory m(trial, numbers);
        const auto spoil = [&](std::vector<std::int32_t>& values) {
            for (std::int32_t& value : values) {
                if (numbers.integer(0, 2) > 0) continue;
                value = static_cast<std::int32_t>(numbers.one_of<int64_t>({-1, -2147483648, 2147483647, 7, 1000}));
            }
        };
        spoil(m.batch.starts), spoil(m.batch.past), spoil(m.batch.table);
        CHECK(m.run(0.1, false) == "");
    }
}

TEST_CASE("keys on missing pages are masked", "[llama_gpu][attend]") {
    SEEDED(numbers);
    attend_trial trial;
    trial.sequences = 2, trial.most_tokens = 1, trial.page_size = 4, trial.pages = 5, trial.splits = 2;
    attend_memory m(trial, numbers);
    m.set_batch({0, 1, 2}, {18, 3});
    // Sequence 0 lacks two of its pages. Sequence 1 lacks its only page, so that its row becomes zeros.
    m.batch.table[1] = -1, m.batch.table[3] = 1000, m.batch.table[5] = -7;
    const auto exact = m.exact(0.125);
    CHECK(m.run(0.125) == "");
    CHECK(first_problem(m.out, exact.rows, equal_bounds(exact.rows.size())) == "");
    CHECK(m.out.values().back() == 0);
}

// --- rows ---

namespace {

/// Widths of models, and some that 16-byte accesses do not divide.
int64_t random_width(test::random& numbers) {
    return numbers.one_of<int64_t>({1, 7, 8, 64, 80, 250, 256, 264, 1000, 4096});
}
test::order random_order(test::random& numbers) { return numbers.coin() ? test::order::bshd : test::order::padded; }

std::string problem_of_norm(test::random& numbers) {
    const int64_t rows = numbers.integer(1, 5), width = random_width(numbers);
    const double epsilon = numbers.one_of({0.0, 1e-6, 1e-5, 0.5});
    test::array x(any_type(numbers), {1, rows, 1, width}, numbers, random_order(numbers));
    test::array weight(any_type(numbers), {1, 1, 1, width}, numbers);
    test::array y(any_type(numbers), x.size(), random_order(numbers));
    test::array& out = numbers.coin() ? x : y;
    std::vector<double> exact = x.values(), bounds;
    const std::vector<double> factors = weight.values();
    for (std::size_t row = 0; row < exact.size(); row += factors.size()) {
        double squares = 0;
        for (std::size_t i = 0; i < factors.size(); ++i) squares += exact[row + i] * exact[row + i];
        const double size = std::sqrt(squares / static_cast<double>(width) + epsilon);
        for (std::size_t i = 0; i < factors.size(); ++i) exact[row + i] *= factors[i] / size;
    }
    for (const double e : exact) bounds.push_back(1e-6 * std::fabs(e));
    std::string problem = kernel_kind::rms_norm(x, weight, epsilon, out);
    if (problem.empty()) problem = first_problem(out, exact, bounds);
    return problem.empty() ? problem : "width " + std::to_string(width) + ": " + problem;
}

std::string problem_of_silu(test::random& numbers) {
    const int64_t rows = numbers.integer(1, 5), width = random_width(numbers);
    test::array gate(any_type(numbers), {1, rows, 1, width}, numbers, random_order(numbers));
    test::array up(gate.type(), gate.size(), numbers, random_order(numbers));
    std::vector<double> g = gate.values();
    for (double& x : g) x = oracle::rounded(x * numbers.logarithmic(0.01, 40), gate.format());
    gate.set(g);
    test::array other(any_type(numbers), gate.size());
    test::array& out = numbers.coin() ? gate : other;
    std::vector<double> exact = up.values(), bounds(exact.size());
    for (std::size_t i = 0; i < exact.size(); ++i) {
        exact[i] *= g[i] / (1 + std::exp(-g[i]));
        bounds[i] = (1e-6 + 2e-7 * std::fabs(g[i])) * std::fabs(exact[i]) + 1e-36;  // e^88 overflows
    }
    std::string problem = kernel_kind::silu(gate, up, out);
    if (problem.empty()) problem = first_problem(out, exact, bounds);
    return problem.empty() ? problem : "width " + std::to_string(width) + ": " + problem;
}

}  // namespace

TEST_CASE("RMSNorm of rows of every type and width", "[llama_gpu][rows]") {
    SEEDED(numbers);
    for (int64_t i = 0; i < test::cases(400); ++i) REQUIRE(problem_of_norm(numbers) == "");
}

TEST_CASE("gates of every type and width", "[llama_gpu][rows]") {
    SEEDED(numbers);
    for (int64_t i = 0; i < test::cases(400); ++i) REQUIRE(problem_of_silu(numbers) == "");
}

TEST_CASE("RMSNorm and gates of zeros, the largest numbers, infinities and NaNs", "[llama_gpu][rows]") {
    test::array x(rw::element_type::f32, {1, 1, 1, 8}), ones(rw::element_type::f32, {1, 1, 1, 8}), y = x;
    ones.set(std::vector<double>(8, 1.0));
    const auto silu = [&](double value) {
        x.set(std::vector<double>(8, value));
        CHECK(kernel_kind::silu(x, ones, y) == "");
        return y.values()[3];
    };
    CHECK(silu(0) == 0);
    CHECK(silu(1e30) == static_cast<double>(1e30F));
    CHECK(silu(-1e30) == 0);
    CHECK(std::isinf(silu(HUGE_VAL)));
    CHECK(std::isnan(silu(NAN)));
    const auto norm = [&](double value, double epsilon) {
        x.set(std::vector<double>(8, value));
        CHECK(kernel_kind::rms_norm(x, ones, epsilon, y) == "");
        return y.values()[3];
    };
    CHECK(norm(0, 1e-5) == 0);
    CHECK(std::isnan(norm(0, 0)));
    CHECK(std::fabs(norm(3, 0) - 1) <= 1e-6);
    CHECK(std::isnan(norm(NAN, 1e-5)));
}
