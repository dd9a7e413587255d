#include <dispatch/llama/llama.hpp>
#include <ropewalk/llama/cpu/norm.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "llama/generated.hpp"
#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/same_bits.hpp"

namespace rw = ropewalk;

namespace norm_tests {
namespace {

/// The kernels compiled with the tests, and the dispatched ones.
std::vector<rw::llama::cpu::kernel_table> both_tables() {
    using arch = rw::cpu::native_arch;
    rw::llama::cpu::kernel_table native;
    native.rms_norm = rw::llama::cpu::detail::rms_norm<arch>;
    native.silu_multiply = rw::llama::cpu::detail::silu_multiply<arch>;
    return {native, rw::dispatch::llama_kernels()};
}

/// Largest relative error of a normalised row.
double norm_error(const float* x, const std::vector<float>& weight, float epsilon, const float* y) {
    double squares = 0, worst = 0;
    for (std::size_t i = 0; i < weight.size(); ++i) squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    const double root = std::sqrt(squares / static_cast<double>(weight.size()) + static_cast<double>(epsilon));
    for (std::size_t i = 0; i < weight.size(); ++i) {
        const double exact = static_cast<double>(x[i]) / root * static_cast<double>(weight[i]);
        worst = std::max(worst, std::fabs(static_cast<double>(y[i]) - exact) / (std::fabs(exact) + 1e-30));
    }
    return worst;
}

double silu_times(float gate, float up) {
    const double g = static_cast<double>(gate);
    return g / (1 + std::exp(-g)) * static_cast<double>(up);
}

}  // namespace

TEST_CASE("rms_norm agrees with float64, in place and for any number of threads", "[norm]") {
    SEEDED(numbers);
    for (const auto& kernels : both_tables()) {
        for (const std::int64_t width : {1, 3, 17, 64, 129, 5120, 8191}) {
            for (const double scale : {1e-12, 1.0, 1e12}) {
                const std::int64_t tokens = width < 1000 ? numbers.integer(1, 5) : 33;
                const auto x = test::normals(numbers, tokens * width, scale), weight = test::normals(numbers, width);
                const float epsilon = numbers.coin() ? 1e-5F : 0.0F;
                std::vector<float> y(x.size());
                kernels.rms_norm(x.data(), tokens, width, weight.data(), epsilon, y.data(), 1);
                double worst = 0;
                for (std::int64_t t = 0; t < tokens; ++t)
                    worst = std::max(worst, norm_error(x.data() + t * width, weight, epsilon, y.data() + t * width));
                INFO("width " << width << ", scale " << scale);
                CHECK(worst <= 1e-6);
                for (const int threads : {0, 2, 3}) {
                    auto in_place = x;
                    kernels.rms_norm(in_place.data(), tokens, width, weight.data(), epsilon, in_place.data(), threads);
                    CHECK(test::same_bits(in_place, y));
                }
            }
        }
    }
}

TEST_CASE("rms_norm returns the first row whose squares have no finite sum", "[norm]") {
    for (const auto& kernels : both_tables()) {
        for (const float wrong :
             {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), 2e19F}) {
            for (const std::int64_t width : {1, 37, 1024}) {
                for (const int threads : {1, 3}) {
                    std::vector<float> x(static_cast<std::size_t>(200 * width), 1.0F), y(x.size());
                    const std::vector<float> weight(static_cast<std::size_t>(width), 1.0F);
                    const auto run = [&] {
                        return kernels.rms_norm(x.data(), 200, width, weight.data(), 1e-5F, y.data(), threads);
                    };
                    CHECK(run() == -1);
                    for (const std::int64_t row : {199, 120, 7, 0}) {
                        x[static_cast<std::size_t>(row * width + width - 1)] = -wrong;
                        CHECK(run() == row);
                    }
                }
            }
        }
    }
}

TEST_CASE("rms_norm keeps zeros and accepts no tokens", "[norm]") {
    for (const auto& kernels : both_tables()) {
        std::vector<float> row(37, 0.0F);
        const std::vector<float> weight(37, 2.0F), zeros = row;
        kernels.rms_norm(row.data(), 1, 37, weight.data(), 1e-5F, row.data(), 0);
        CHECK(test::same_bits(row, zeros));
        kernels.rms_norm(nullptr, 0, 37, weight.data(), 1e-5F, nullptr, 0);
    }
}

TEST_CASE("silu_multiply agrees with float64 for any count and number of threads", "[norm]") {
    SEEDED(numbers);
    for (const auto& kernels : both_tables()) {
        for (const std::int64_t count : {0, 1, 3, 17, 129, 16385, 100003}) {
            std::vector<float> gate = test::normals(numbers, count), up = test::normals(numbers, count);
            for (auto& x : gate) x *= numbers.one_of({1.0F, 10.0F, 20.0F});
            auto alone = gate;
            kernels.silu_multiply(alone.data(), up.data(), count, 1);
            double worst = 0;
            for (std::size_t i = 0; i < gate.size(); ++i) {
                const double exact = silu_times(gate[i], up[i]);
                worst = std::max(worst,
                                 (std::fabs(static_cast<double>(alone[i]) - exact) - 1e-36) / std::fabs(exact + 1e-37));
            }
            CHECK(worst <= 1e-6);
            for (const int threads : {0, 2, 3}) {
                auto y = gate;
                kernels.silu_multiply(y.data(), up.data(), count, threads);
                CHECK(test::same_bits(y, alone));
            }
        }
    }
}

TEST_CASE("silu_multiply is exact at the limits of float32", "[norm]") {
    constexpr float infinity = std::numeric_limits<float>::infinity(), largest = std::numeric_limits<float>::max();
    const std::vector<float> gates = {0.0F,   -0.0F,   1e-40F,  87.0F,  89.0F,    200.0F,    largest, infinity, -87.0F,
                                      -88.5F, -100.0F, -200.0F, -1e30F, -largest, -infinity, 1e-20F,  -1e-20F,  -20.0F};
    for (const auto& kernels : both_tables()) {
        auto y = gates;
        const std::vector<float> up(gates.size(), 1.0F);
        kernels.silu_multiply(y.data(), up.data(), static_cast<std::int64_t>(y.size()), 0);
        for (std::size_t i = 0; i < gates.size(); ++i) {
            INFO("gate " << gates[i] << " gives " << y[i]);
            if (gates[i] >= infinity) {
                CHECK(y[i] >= infinity);
            } else {
                const double exact = gates[i] <= -infinity ? 0.0 : silu_times(gates[i], 1.0F);
                CHECK(std::fabs(static_cast<double>(y[i]) - exact) <= 1e-6 * std::fabs(exact) + 1e-36);
            }
        }
        std::vector<float> nan = {std::numeric_limits<float>::quiet_NaN()};
        kernels.silu_multiply(nan.data(), up.data(), 1, 0);
        CHECK(std::isnan(nan[0]));
    }
}

}  // namespace norm_tests
