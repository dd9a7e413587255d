#include <dispatch/llama/llama.hpp>
#include <ropewalk/llama/cpu/linear.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "llama/generated.hpp"
#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/same_bits.hpp"
#include "support/tensors.hpp"

namespace rw = ropewalk;

namespace linear_tests {
namespace {

using linear_function = decltype(rw::llama::cpu::kernel_table::linear);

/// One product.
void multiply(linear_function linear, const float* x, std::int64_t tokens, const rw::llama::matrix& w, float* y,
              bool add, int threads) {
    const rw::llama::cpu::product one{w, y};
    linear(x, tokens, {&one, 1}, add, threads);
}

/// The kernel compiled with the tests, and the dispatched one.
std::vector<linear_function> both_functions() {
    return {rw::llama::cpu::detail::linear<rw::cpu::native_arch>, rw::dispatch::llama_kernels().linear};
}

/// Weights that begin `shift` elements after the start of a cache line.
class weights {
public:
    weights(rw::element_type type, std::int64_t rows, std::int64_t columns, test::random& numbers, int shift = 0)
        : type_(type), rows_(rows), columns_(columns), format_(test::format_of(type)) {
        values_.resize(static_cast<std::size_t>(rows * columns));
        bytes_.resize((values_.size() + 64) * static_cast<std::size_t>(format_.bytes) + 64);
        const auto address = reinterpret_cast<std::uintptr_t>(bytes_.data());
        first_ = bytes_.data() + (64 - address % 64) % 64 + shift * format_.bytes;
        for (std::size_t i = 0; i < values_.size(); ++i) set(i, numbers.normal());
    }
    void set(std::size_t at, double value) {
        values_[at] = oracle::rounded(value, format_);
        const std::uint32_t bits = oracle::encode(values_[at], format_);
        std::memcpy(first_ + at * static_cast<std::size_t>(format_.bytes), &bits,
                    static_cast<std::size_t>(format_.bytes));
    }
    [[nodiscard]] rw::llama::matrix matrix() const { return {first_, type_, rows_, columns_}; }
    [[nodiscard]] double at(std::int64_t row, std::int64_t column) const {
        return values_[static_cast<std::size_t>(row * columns_ + column)];
    }

private:
    rw::element_type type_;
    std::int64_t rows_, columns_;
    const oracle::format& format_;
    std::vector<double> values_;
    std::vector<unsigned char> bytes_;
    unsigned char* first_;
};

/// Error of y[t, r] against float64, relative to the sum of the magnitudes of its terms.
double error_at(const weights& w, const float* x, double before, float y, std::int64_t row) {
    double sum = before, magnitude = std::fabs(before);
    for (std::int64_t c = 0; c < w.matrix().columns; ++c) {
        const double term = static_cast<double>(x[c]) * w.at(row, c);
        sum += term, magnitude += std::fabs(term);
    }
    const double error = std::fabs(static_cast<double>(y) - sum) / (magnitude + 1e-30);
    return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

/// Bound for sums of a few hundred terms of either sign.
constexpr double bound = 1e-6;
constexpr float untouched = -12345.0F;

/// Largest error of one product. A guard before and one after y must stay unchanged.
double worst_error(linear_function linear, rw::element_type type, std::int64_t rows, std::int64_t columns,
                   std::int64_t tokens, test::random& numbers) {
    const weights w(type, rows, columns, numbers, static_cast<int>(numbers.integer(0, 3)));
    const auto x = test::normals(numbers, tokens * columns + 1);
    auto y = test::normals(numbers, tokens * rows + 2);
    y.front() = y.back() = untouched;
    const auto before = y;
    const bool add = numbers.coin();
    multiply(linear, x.data() + 1, tokens, w.matrix(), y.data() + 1, add, static_cast<int>(numbers.integer(0, 3)));
    double worst = y.front() < untouched || y.front() > untouched || y.back() < untouched || y.back() > untouched
                       ? std::numeric_limits<double>::infinity()
                       : 0;
    for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t r = 0; r < rows; ++r) {
            const auto at = static_cast<std::size_t>(1 + t * rows + r);
            const double start = add ? static_cast<double>(before[at]) : 0.0;
            worst = std::max(worst, error_at(w, x.data() + 1 + t * columns, start, y[at], r));
        }
    }
    return worst;
}

}  // namespace

TEST_CASE("linear agrees with float64 for any shape, type and number of tokens", "[linear]") {
    SEEDED(numbers);
    for (const auto linear : both_functions()) {
        for (const auto type : test::all_types) {
            for (const std::int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33, 48, 49, 130}) {
                for (std::int64_t i = 0; i < test::cases(6); ++i) {
                    const auto rows = numbers.one_of<std::int64_t>({1, 3, 11, 12, 17, 37, 129});
                    const auto columns = numbers.one_of<std::int64_t>({1, 3, 8, 17, 64, 129, 300});
                    INFO(rw::to_string(type) << " " << rows << "x" << columns << ", " << tokens << " tokens");
                    CHECK(worst_error(linear, type, rows, columns, tokens, numbers) <= bound);
                }
            }
        }
    }
}

TEST_CASE("linear agrees with float64 at the edges of panels", "[linear]") {
    SEEDED(numbers);
    constexpr std::int64_t rows = 1030, columns = 523, tokens = 1031;
    for (const auto linear : both_functions()) {
        for (const auto type : test::all_types) {
            const weights w(type, rows, columns, numbers, 1);
            const auto x = test::normals(numbers, tokens * columns);
            std::vector<float> y(static_cast<std::size_t>(tokens * rows), 1.0F);
            multiply(linear, x.data(), tokens, w.matrix(), y.data(), true, 0);
            double worst = 0;
            for (int i = 0; i < 4000; ++i) {
                const std::int64_t t = i < 2000 ? numbers.integer(1020, 1030) : numbers.integer(0, tokens - 1);
                const std::int64_t r = numbers.integer(0, rows - 1);
                worst = std::max(
                    worst, error_at(w, x.data() + t * columns, 1.0, y[static_cast<std::size_t>(t * rows + r)], r));
            }
            CHECK(worst <= bound);
        }
    }
}

TEST_CASE("linear gives the same bits for any number of threads and inside a parallel region", "[linear]") {
    SEEDED(numbers);
    constexpr std::int64_t rows = 1111, columns = 777;
    for (const auto linear : both_functions()) {
        for (const auto type : test::all_types) {
            const weights w(type, rows, columns, numbers);
            for (const std::int64_t tokens : {1, 5, 8, 9, 48, 100}) {
                const auto x = test::normals(numbers, tokens * columns);
                std::vector<float> alone(static_cast<std::size_t>(tokens * rows), 0.5F);
                const auto start = alone;
                multiply(linear, x.data(), tokens, w.matrix(), alone.data(), tokens == 5, 1);
                for (const int threads : {0, 2, 3, 7}) {
                    auto y = start;
                    multiply(linear, x.data(), tokens, w.matrix(), y.data(), tokens == 5, threads);
                    CHECK(test::same_bits(y, alone));
                }
                auto first = start, second = start;
#if defined(_OPENMP)
#pragma omp parallel for num_threads(2)
#endif
                for (int i = 0; i < 2; ++i)
                    multiply(linear, x.data(), tokens, w.matrix(), (i == 0 ? first : second).data(), tokens == 5, 2);
                CHECK(test::same_bits(first, alone));
                CHECK(test::same_bits(second, alone));
            }
        }
    }
}

TEST_CASE("products of one call give the same bits as each alone", "[linear]") {
    SEEDED(numbers);
    constexpr std::int64_t columns = 333;
    using enum rw::element_type;
    for (const auto linear : both_functions()) {
        const weights all[] = {{f32, 41, columns, numbers}, {bf16, 1, columns, numbers}, {f16, 1003, columns, numbers}};
        for (const std::int64_t tokens : {1, 5, 48, 100, 1030}) {
            const bool add = tokens == 5;
            const auto x = test::normals(numbers, tokens * columns);
            std::vector<std::vector<float>> alone, together;
            for (const weights& w : all) {
                alone.emplace_back(static_cast<std::size_t>(tokens * w.matrix().rows), 0.5F);
                together.push_back(alone.back());
                multiply(linear, x.data(), tokens, w.matrix(), alone.back().data(), add, 1);
            }
            std::vector<rw::llama::cpu::product> products;
            for (std::size_t i = 0; i < 3; ++i) products.push_back({all[i].matrix(), together[i].data()});
            for (const int threads : {1, 3}) {
                for (auto& y : together) std::fill(y.begin(), y.end(), 0.5F);
                linear(x.data(), tokens, products, add, threads);
                for (std::size_t i = 0; i < 3; ++i) CHECK(test::same_bits(together[i], alone[i]));
            }
        }
    }
}

TEST_CASE("results of a few tokens equal those of each token alone", "[linear]") {
    SEEDED(numbers);
    constexpr std::int64_t rows = 41, columns = 333;
    for (const auto linear : both_functions()) {
        for (const auto type : test::all_types) {
            const weights w(type, rows, columns, numbers);
            const auto x = test::normals(numbers, 8 * columns);
            std::vector<float> alone(8 * rows);
            for (std::int64_t t = 0; t < 8; ++t)
                multiply(linear, x.data() + t * columns, 1, w.matrix(), alone.data() + t * rows, false, 1);
            for (std::int64_t tokens = 2; tokens <= 8; ++tokens) {
                std::vector<float> y(static_cast<std::size_t>(tokens * rows));
                multiply(linear, x.data(), tokens, w.matrix(), y.data(), false, 0);
                CHECK(std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)) == 0);
            }
        }
    }
}

TEST_CASE("linear accepts no tokens, and an infinite weight affects only its row", "[linear]") {
    SEEDED(numbers);
    for (const auto linear : both_functions()) {
        weights w(rw::element_type::bf16, 13, 40, numbers);
        multiply(linear, nullptr, 0, w.matrix(), nullptr, false, 0);
        w.set(7 * 40 + 39, std::numeric_limits<double>::infinity());
        for (const std::int64_t tokens : {1, 12, 60}) {
            const auto x = test::normals(numbers, tokens * 40);
            std::vector<float> y(static_cast<std::size_t>(tokens * 13));
            multiply(linear, x.data(), tokens, w.matrix(), y.data(), false, 0);
            for (std::size_t i = 0; i < y.size(); ++i) CHECK(std::isfinite(y[i]) == (i % 13 != 7));
        }
    }
}

}  // namespace linear_tests
