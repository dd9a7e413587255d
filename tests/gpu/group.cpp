#include <ropewalk/gpu/group.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

namespace gpu = ropewalk::gpu;

namespace {

/// The sum of neighbours by definition: halves of a power of two, with zeros after the last value.
float sum_by_halves(const std::vector<float>& values, std::size_t begin, std::size_t count) {
    if (count == 1) return begin < values.size() ? values[begin] : 0.0F;
    return sum_by_halves(values, begin, count / 2) + sum_by_halves(values, begin + count / 2, count / 2);
}

/// A body whose lane l sums N values from l · N on, in groups of `lanes`.
template <int N>
struct summing {
    static constexpr int heads_in_flight = 1;
    const std::vector<float>& values;
    int lanes;
    float* totals;
    std::uint32_t* maxima;

    struct state {
        std::int64_t index;
        float sum;
        std::uint32_t largest;
    };
    [[nodiscard]] int steps() const { return 1; }
    [[nodiscard]] int group() const { return lanes; }
    // One lane that needs a reduction is enough.
    static constexpr bool can_sum = true, can_measure = true;
    [[nodiscard]] bool sums(const state& s) const { return s.index == 7; }
    [[nodiscard]] bool measures(const state& s) const { return s.index == 0; }
    [[nodiscard]] float at(const state& s, int i) const {
        const auto place = static_cast<std::size_t>(s.index * N + i);
        return place < values.size() ? values[place] : 0.0F;
    }

    void begin(state& s, std::int64_t index) const { s.index = index; }
    void load(state& /*s*/) const {}
    void prepare(state& /*s*/) const {}
    void widen(state& /*s*/, int /*head*/) const {}
    [[nodiscard]] float sum(const state& s) const {
        float part[N];
        for (int i = 0; i < N; ++i) part[i] = at(s, i);
        return gpu::sum_of_neighbours(part);
    }
    void take_sum(state& s, float sum) const { s.sum = sum; }
    void rotate(state& /*s*/) const {}
    [[nodiscard]] std::uint32_t measure(const state& s) const {
        std::uint32_t largest = 0;
        for (int i = 0; i < N; ++i) largest = gpu::larger{}(largest, gpu::magnitude_bits(at(s, i)));
        return largest;
    }
    void take_measure(state& s, std::uint32_t largest) const { s.largest = largest; }
    void store(const state& s) const {
        totals[s.index] = s.sum;
        maxima[s.index] = s.largest;
    }
};

}  // namespace

TEST_CASE("sums depend on the order of the values alone, for any number of values per lane", "[gpu][group]") {
    SEEDED(numbers);
    for (const std::size_t count : {1U, 5U, 40U, 64U, 96U, 128U}) {
        std::vector<float> values(count);
        for (float& value : values) value = static_cast<float>(numbers.logarithmic(1e-6, 1e6));
        const float expected = sum_by_halves(values, 0, 128);
        float largest = 0;
        for (const float value : values) largest = std::max(largest, value);
        const auto check = [&]<int N>(std::integral_constant<int, N>) {
            float sums[gpu::warp_lanes];
            std::uint32_t maxima[gpu::warp_lanes];
            gpu::run_lanes<gpu::host_warp>(summing<N>{values, 128 / N, sums, maxima}, 0);
            for (int lane = 0; lane < 128 / N; ++lane) {
                CHECK(std::bit_cast<std::uint32_t>(sums[lane]) == std::bit_cast<std::uint32_t>(expected));
                CHECK(std::bit_cast<float>(maxima[lane]) == largest);
            }
        };
        check(std::integral_constant<int, 4>{});
        check(std::integral_constant<int, 8>{});
        check(std::integral_constant<int, 16>{});
    }
}

TEST_CASE("groups of a warp are independent", "[gpu][group]") {
    std::vector<float> values(32);
    for (int i = 0; i < 32; ++i) values[static_cast<std::size_t>(i)] = static_cast<float>(i);
    for (const int lanes : {1, 2, 4, 8, 16, 32}) {
        float sums[gpu::warp_lanes];
        std::uint32_t maxima[gpu::warp_lanes];
        gpu::run_lanes<gpu::host_warp>(summing<1>{values, lanes, sums, maxima}, 0);
        for (int lane = 0; lane < 32; ++lane) {
            const int first = lane / lanes * lanes, last = first + lanes - 1;
            CHECK(sums[lane] == static_cast<float>((first + last) * lanes / 2.0));
            CHECK(std::bit_cast<float>(maxima[lane]) == static_cast<float>(last));
        }
    }
}

TEST_CASE("the largest magnitude ignores signs and keeps NaNs", "[gpu][group]") {
    using gpu::magnitude_bits;
    CHECK(magnitude_bits(-3.0F) == magnitude_bits(3.0F));
    CHECK(magnitude_bits(-0.0F) == 0);
    CHECK(magnitude_bits(HUGE_VALF) > magnitude_bits(1e38F));
    CHECK(magnitude_bits(std::nanf("")) > magnitude_bits(-HUGE_VALF));
    CHECK(gpu::larger{}(magnitude_bits(1e-45F), 0) == magnitude_bits(1e-45F));
}
