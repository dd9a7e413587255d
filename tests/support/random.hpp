/// @file  Random numbers whose seed is printed when a check fails. `--rng-seed` of the test program changes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <random>

#include "support/catch.hpp"

namespace test {

inline std::uint64_t program_seed() {
#if __has_include(<catch2/catch_get_random_seed.hpp>)
    return Catch::getSeed();
#else
    return Catch::rngSeed();
#endif
}

class random {
public:
    explicit random(std::uint64_t salt) : engine_(program_seed() * 1000003U + salt) {}

    std::uint64_t bits() { return engine_(); }
    /// An integer in [low, high].
    std::int64_t integer(std::int64_t low, std::int64_t high) {
        return std::uniform_int_distribution<std::int64_t>(low, high)(engine_);
    }
    double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(engine_); }
    /// Between low and high, with all factors of two equally likely.
    double logarithmic(double low, double high) { return std::exp(uniform(std::log(low), std::log(high))); }
    double normal() { return normal_(engine_); }
    bool coin() { return (engine_() >> 63) != 0; }
    template <class T>
    T one_of(std::initializer_list<T> choices) {
        return choices.begin()[static_cast<std::size_t>(integer(0, static_cast<std::int64_t>(choices.size()) - 1))];
    }

private:
    std::mt19937_64 engine_;
    std::normal_distribution<double> normal_;
};

}  // namespace test

/// Declares a generator and prints its seed with every later failure.
#define SEEDED(name)                                         \
    test::random name(static_cast<std::uint64_t>(__LINE__)); \
    INFO("random seed " << test::program_seed() << " (--rng-seed), line " << __LINE__)
