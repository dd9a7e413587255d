// Plans of rotations with extents and strides near the ends of 64 bits. The sanitizers report an overflow.
#include <ropewalk/cpu/plan.hpp>
#include <ropewalk/dispatch.hpp>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/errors.hpp"
#include "support/extremes.hpp"

namespace rw = ropewalk;

TEST_CASE("extents and strides near 2^63 are refused or planned without overflow", "[extremes]") {
    SEEDED(numbers);
    const rw::Encoding plain = rw::make_encoding({.head_dim = 64}),
                       magnitudes = rw::make_encoding({.head_dim = 64}, "xpos");
    std::int64_t accepted = 0, refused = 0;
    for (std::int64_t i = 0; i < test::cases(20000); ++i) {
        const test::extreme_call call(numbers, numbers.coin() ? plain : magnitudes);
        const rw::rotate_args& a = call.args;
        const std::string message = test::message_of([&] { (void)rw::cpu::make_plan(a, numbers.coin()); });
        const rw::cpu::options options{.table = a.table};
        const bool few = a.any().batch <= 2 && a.any().tokens <= 3;
        const std::string prepared =
            few && a.target_positions.source == rw::positions::kind::offset ? test::message_of([&] {
                (void)rw::dispatch::prepare(a.layout, a.q_in, a.k_in, a.q_out, a.k_out, *a.target, options);
            })
                                                                            : "";
        INFO(message << prepared);
        CHECK((message.empty() ? test::problem_of_accepted(a) : "") == "");
        (message.empty() ? accepted : refused) += 1;
    }
    CHECK((accepted > test::cases(20000) / 50 && refused > test::cases(20000) / 2));
}

TEST_CASE("views, ids and starts of sequences near 2^63 are made or refused without overflow", "[extremes]") {
    SEEDED(numbers);
    std::vector<float> memory(64);
    const std::vector<std::int64_t> ids(6);
    for (std::int64_t i = 0; i < test::cases(20000); ++i) {
        const std::int64_t a = test::extreme(numbers), b = test::extreme(numbers), c = test::extreme(numbers),
                           d = test::extreme(numbers);
        const auto fits = [&](const auto& make) {
            const std::string message = test::message_of([&] { (void)make(); });
            const double product = static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c);
            INFO(a << ' ' << b << ' ' << c << ' ' << d << ' ' << message);
            // An accepted shape of a buffer with 64 elements has no more of them.
            CHECK((!message.empty() || std::fabs(product * static_cast<double>(d)) <= 64));
        };
        fits([&] { return rw::bshd(memory, a, b, c, d); });
        fits([&] { return rw::bhsd(memory, a, b, c, d); });
        fits([&] { return rw::sbhd(memory, a, b, c, d); });
        fits([&] { return rw::strided(memory, {.batch = a, .tokens = b, .heads = c, .head_dim = d}); });
        (void)test::message_of([&] { (void)rw::thd(memory, a, b, c); });
        (void)rw::thd(memory.data(), a, b, c);
        (void)rw::view<float>(memory.data(), a, b, c);
        (void)test::message_of([&] { (void)rw::ids(std::span<const std::int64_t>(ids), a); });
        (void)test::message_of([&] { (void)rw::axis_ids(std::span<const std::int64_t>(ids), a); });
        CHECK_REFUSED(rw::axis_ids(std::span<const std::int64_t>(), std::min<std::int64_t>(a, 0)), "equal rows");
        (void)test::message_of([&] { (void)rw::axis_ids(std::span<const std::int64_t>(), a); });
    }
}
