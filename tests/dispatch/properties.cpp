// Properties of rotations: norms, fixed points and scores.
#include "calls.hpp"
#include "support/encodings.hpp"

namespace rw = ropewalk;

namespace properties_tests {
namespace {

double dot(const std::vector<double>& a, const std::vector<double>& b, std::size_t first, std::size_t count) {
    double sum = 0;
    for (std::size_t i = first; i < first + count; ++i) sum += a[i] * b[i];
    return sum;
}
double norm(const std::vector<double>& x) { return std::sqrt(dot(x, x, 0, x.size())); }

/// The score of one query and one key (f32, one head) after their rotation.
double score(const rw::Encoding& e, rw::layout_kind layout, const std::vector<double>& q, const std::vector<double>& k,
             std::int64_t p_q, std::int64_t p_k) {
    const test::extents size{1, 1, 1, e.geometry.head_dim};
    test::array query(rw::element_type::f32, size), key(rw::element_type::f32, size);
    query.set(q), key.set(k);
    test::rotate_q(layout, query, e, rw::offset{p_q});
    test::rotate_k(layout, key, e, rw::offset{p_k});
    return dot(query.values(), key.values(), 0, q.size());
}

std::vector<double> random_head(test::random& numbers, std::int64_t dim) {
    return test::array(rw::element_type::f32, {1, 1, 1, dim}, numbers).values();
}

}  // namespace

TEST_CASE("a rotation keeps the norm of every head", "[properties]") {
    SEEDED(numbers);
    for (const rw::layout_kind layout : test::all_layouts) {
        const rw::Encoding e =
            rw::make_encoding({.head_dim = 96}, rw::Linear{.factor = 4} | rw::Truncated{.length = 4096.0});
        test::array x(rw::element_type::f32, {1, 50, 2, 96}, numbers);
        const auto before = x.values();
        test::rotate_q(layout, x, e, rw::offset{2000000000});
        const auto after = x.values();
        CHECK(after != before);
        for (std::size_t row = 0; row < before.size(); row += 96)
            CHECK(dot(after, after, row, 96) == Approx(dot(before, before, row, 96)).epsilon(6e-7));
    }
}

TEST_CASE("position 0 and a frequency of 0 leave every bit unchanged", "[properties]") {
    SEEDED(numbers);
    const rw::Encoding plain = rw::make_encoding({.head_dim = 64}),
                       still = rw::make_encoding({.head_dim = 64},
                                                 rw::Truncated{.length = {}, .a = 9.0, .b = 9.0, .rho = 0.0});
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            test::array x(type, {1, 1, 3, 64}, numbers);
            const test::array before = x;
            test::rotate_q(layout, x, plain, rw::offset{0});
            CHECK(x == before);
            test::rotate_q(layout, x, still, rw::offset{123456});
            CHECK(x == before);
        }
    }
}

TEST_CASE("without magnitudes the adjoint is the inverse bit for bit", "[properties]") {
    SEEDED(numbers);
    const rw::Encoding e =
        rw::make_encoding({.head_dim = 72, .rotary_dim = 68, .rotary_offset = 2}, rw::Power{.k = 0.5});
    test::array q(rw::element_type::f32, {2, 9, 3, 72}, numbers), k(q), q_adjoint(q), k_adjoint(q);
    test::rotate_both(rw::layout_kind::half_split, q, k, e, rw::offset{1500}, {.direction = rw::direction::inverse});
    test::rotate_both(rw::layout_kind::half_split, q_adjoint, k_adjoint, e, rw::offset{1500},
                      {.direction = rw::direction::adjoint});
    CHECK(q == q_adjoint);
    CHECK(k == k_adjoint);
}

TEST_CASE("scores depend on the distance alone", "[properties]") {
    SEEDED(numbers);
    for (const rw::layout_kind layout : test::all_layouts) {
        for (const char* const expression : {"default", "linear:8", "power:0.5", "linear:4|truncated:4096"}) {
            const rw::Encoding e = rw::make_encoding({.head_dim = 128}, expression);
            const auto q = random_head(numbers, 128), k = random_head(numbers, 128);
            const std::int64_t distance = numbers.integer(-4096, 4096);
            const double near = score(e, layout, q, k, distance, 0);
            for (int i = 0; i < 20; ++i) {
                const std::int64_t p = numbers.integer(-2000000000, 2000000000);
                CHECK(std::fabs(score(e, layout, q, k, p + distance, p) - near) <= 6e-7 * norm(q) * norm(k));
            }
            CHECK(std::fabs(score(e, layout, q, k, distance + 1, 0) - near) > 1e-5);
        }
    }
}

TEST_CASE("an xpos score is the sum over pairs of ζ_j^((p_q − p_k)/S) times the rotated products",
          "[properties][xpos]") {
    SEEDED(numbers);
    const oracle::xpos_magnitude xpos{512, 0.4, 0};
    const auto exact = oracle::encode(oracle::plain(10000, 64));
    for (const std::int64_t length : {0, 8192, 65536}) {
        const rw::Encoding e = rw::make_encoding({.head_dim = 64}, rw::XPos{.length = length});
        for (int i = 0; i < 50; ++i) {
            const auto q = random_head(numbers, 64), k = random_head(numbers, 64);
            const std::int64_t p_k = e.centre + numbers.integer(-4000, 4000), distance = numbers.integer(0, 4000);
            double sum = 0, room = 0;
            for (std::size_t j = 0; j < 32; ++j) {
                const oracle::unit u = oracle::cos_sin(exact.turns[j], {distance, 0});
                const double m = oracle::magnitude(xpos, static_cast<std::int64_t>(j), 32, {distance, 0});
                sum += m * (u.cos * (q[2 * j] * k[2 * j] + q[2 * j + 1] * k[2 * j + 1]) -
                            u.sin * (q[2 * j + 1] * k[2 * j] - q[2 * j] * k[2 * j + 1]));
                room += m * std::hypot(q[2 * j], q[2 * j + 1]) * std::hypot(k[2 * j], k[2 * j + 1]);
            }
            CHECK(std::fabs(score(e, rw::layout_kind::interleaved, q, k, p_k + distance, p_k) - sum) <= 1e-6 * room);
        }
    }
}

}  // namespace properties_tests
