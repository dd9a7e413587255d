#include <ropewalk/llama/gpu/norm.hpp>
#include <ropewalk/llama/gpu/silu.hpp>

#include "host_device.hpp"
#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace llama = ropewalk::llama::gpu;

namespace {

rw::element_type random_type(test::random& numbers) {
    return test::all_types[numbers.integer(0, std::ssize(test::all_types) - 1)];
}
/// Widths of models, and some that wide accesses do not divide.
std::int64_t random_width(test::random& numbers) {
    return numbers.one_of<std::int64_t>({1, 7, 8, 64, 80, 250, 256, 264, 1000, 4096});
}
test::order random_order(test::random& numbers) { return numbers.coin() ? test::order::bshd : test::order::padded; }

/// RMSNorm of one call; what is wrong with it, or "".
std::string problem_of_norm(test::random& numbers) {
    const std::int64_t rows = numbers.integer(1, 5), width = random_width(numbers);
    const double epsilon = numbers.one_of({0.0, 1e-6, 1e-5, 0.5});
    test::array x(random_type(numbers), {1, rows, 1, width}, numbers, random_order(numbers));
    test::array weight(random_type(numbers), {1, 1, 1, width}, numbers);
    const bool in_place = numbers.coin();
    test::array y = in_place ? test::array() : test::array(random_type(numbers), x.size(), random_order(numbers));
    test::array& out = in_place ? x : y;
    const std::vector<double> before = x.values(), by = weight.values();
    test::memory_log log;
    log.watch(x), log.watch(weight);
    if (!in_place) log.watch(y);

    test::run_on_host(llama::make_rms_norm(test::matrix_of(x), test::matrix_of(weight), epsilon, test::matrix_of(out)),
                      log);
    std::vector<double> exact = before, room(before.size());
    for (std::int64_t row = 0; row < rows; ++row) {
        double squares = 0;
        const auto begin = static_cast<std::size_t>(row * width);
        for (std::size_t i = 0; i < static_cast<std::size_t>(width); ++i)
            squares += before[begin + i] * before[begin + i];
        const double factor = 1 / std::sqrt(squares / static_cast<double>(width) + epsilon);
        for (std::size_t i = 0; i < static_cast<std::size_t>(width); ++i) {
            exact[begin + i] = before[begin + i] * factor * by[i];
            room[begin + i] = 1e-6 * std::fabs(exact[begin + i]);
        }
    }
    std::string wrong = log.problem();
    if (wrong.empty()) wrong = test::first_wrong(out.values(), exact, room, out.format());
    if (wrong.empty()) wrong = test::writes_problem(log, out);
    return wrong.empty() ? wrong : "width " + std::to_string(width) + ": " + wrong;
}

std::string problem_of_silu(test::random& numbers) {
    const std::int64_t rows = numbers.integer(1, 5), width = random_width(numbers);
    const rw::element_type type = random_type(numbers);
    test::array gate(type, {1, rows, 1, width}, numbers, random_order(numbers));
    test::array up(type, gate.size(), numbers, random_order(numbers));
    std::vector<double> g = gate.values();
    for (double& one : g) one = oracle::rounded(one * numbers.logarithmic(0.01, 40), gate.format());
    gate.set(g);
    const bool in_place = numbers.coin();
    test::array other = in_place ? test::array() : test::array(random_type(numbers), gate.size());
    test::array& out = in_place ? gate : other;
    test::memory_log log;
    log.watch(gate), log.watch(up);
    if (!in_place) log.watch(other);
    std::vector<double> exact = up.values(), room(exact.size());
    for (std::size_t i = 0; i < exact.size(); ++i) {
        exact[i] *= g[i] / (1 + std::exp(-g[i]));
        room[i] = (1e-6 + 2e-7 * std::fabs(g[i])) * std::fabs(exact[i]) + 1e-36;  // e^88 overflows
    }
    test::run_on_host(llama::make_silu(test::matrix_of(gate), test::matrix_of(up), test::matrix_of(out)), log);
    std::string wrong = log.problem();
    if (wrong.empty()) wrong = test::first_wrong(out.values(), exact, room, out.format());
    if (wrong.empty()) wrong = test::writes_problem(log, out);
    return wrong.empty() ? wrong : "width " + std::to_string(width) + ": " + wrong;
}

}  // namespace

TEST_CASE("rows are normed, of every type and width", "[llama_gpu][rows]") {
    SEEDED(numbers);
    for (std::int64_t i = 0; i < test::cases(400); ++i) REQUIRE(problem_of_norm(numbers) == "");
}

TEST_CASE("gates multiply, of every type and width", "[llama_gpu][rows]") {
    SEEDED(numbers);
    for (std::int64_t i = 0; i < test::cases(400); ++i) REQUIRE(problem_of_silu(numbers) == "");
}

TEST_CASE("numbers at the edges: zeros, the largest, infinities and NaNs", "[llama_gpu][rows]") {
    test::array x(rw::element_type::f32, {1, 1, 1, 8}), ones(rw::element_type::f32, {1, 1, 1, 8}), y = x;
    ones.set(std::vector<double>(8, 1.0));
    test::memory_log log;
    for (test::array* each : {&x, &ones, &y}) log.watch(*each);
    const auto silu = [&](double value) {
        x.set(std::vector<double>(8, value));
        test::run_on_host(llama::make_silu(test::matrix_of(x), test::matrix_of(ones), test::matrix_of(y)), log);
        return y.values()[3];
    };
    CHECK(silu(0) == 0);
    CHECK(silu(1e30) == static_cast<double>(1e30F));
    CHECK(silu(-1e30) == 0);
    CHECK(std::isinf(silu(HUGE_VAL)));
    CHECK(std::isnan(silu(NAN)));
    const auto norm = [&](double value, double epsilon) {
        x.set(std::vector<double>(8, value));
        test::run_on_host(llama::make_rms_norm(test::matrix_of(x), test::matrix_of(ones), epsilon, test::matrix_of(y)),
                          log);
        return y.values()[3];
    };
    CHECK(norm(0, 1e-5) == 0);
    CHECK(std::isnan(norm(0, 0)));
    CHECK(norm(3, 0) == Approx(1).epsilon(1e-6));
    CHECK(std::isnan(norm(NAN, 1e-5)));
}

TEST_CASE("rows that do not fit are refused, with their shapes", "[llama_gpu][rows]") {
    const auto rows = [](std::int64_t count, std::int64_t width, std::uintptr_t address = 0x10000) {
        return llama::matrix_view{reinterpret_cast<void*>(address), rw::element_type::bf16, count, width, width};
    };
    CHECK_REFUSED(llama::make_rms_norm(rows(3, 64), rows(1, 63), 1e-5, rows(3, 64)), "[1, 63]", "[3, 64]");
    CHECK_REFUSED(llama::make_rms_norm(rows(3, 64), rows(1, 64), 1e-5, rows(2, 64)), "y bf16 [2, 64]", "[3, 64]");
    CHECK_REFUSED(llama::make_rms_norm(rows(3, 64), rows(1, 64), -1.0, rows(3, 64)), "epsilon", "-1");
    CHECK_REFUSED(llama::make_rms_norm(rows(3, 64), rows(1, 64), 1e-5, rows(3, 64, 0x10080)), "overlaps");
    CHECK_REFUSED(llama::make_rms_norm(rows(3, 64, 0x10001), rows(1, 64), 1e-5, rows(3, 64)), "not aligned");
    CHECK_REFUSED(llama::make_rms_norm(rows(3, 64, 0), rows(1, 64), 1e-5, rows(3, 64)), "no memory");
    CHECK_REFUSED(llama::make_silu(rows(3, 64), rows(3, 32, 0x20000), rows(3, 64)), "[3, 32]", "[3, 64]");
}
