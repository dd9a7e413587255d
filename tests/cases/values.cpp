// NaN, infinities, large and subnormal numbers in rotations of every type and layout.
#include "cases/values.hpp"

#include "cases/rotation_case.hpp"

namespace rw = ropewalk;

namespace value_cases {
namespace {

/// Compares the elements pair by pair. Returns the first problem, or "".
std::string problem_of(const test::rotation_case& c, const test::operand& x, oracle::role role) {
    const std::vector<double> before = x.before.values(), got = x.result().values(),
                              exact = test::expected(c, x.in.size(), before, role);
    const oracle::shape shape = test::shape_of(x.in.size(), c.geometry(), c.layout);
    for (std::int64_t row = 0; row < std::ssize(got) / shape.head_dim; ++row) {
        for (std::int64_t pair = 0; pair < shape.width / 2; ++pair) {
            for (const std::int64_t element : {shape.first(pair), shape.second(pair)}) {
                const auto first = static_cast<std::size_t>(row * shape.head_dim + shape.first(pair)),
                           second = static_cast<std::size_t>(row * shape.head_dim + shape.second(pair)),
                           at = static_cast<std::size_t>(row * shape.head_dim + element);
                const double room = 4e-7 * std::hypot(before[first], before[second]) + 0x1p-147;
                if (!test::same_value(got[at], exact[at], room, x.in.format()))
                    return test::describe_pair(row, pair, got.data() + row * shape.head_dim,
                                               exact.data() + row * shape.head_dim, shape);
            }
        }
    }
    return x.result().guards_intact() ? "" : "bytes around the tensor changed";
}

}  // namespace

TEST_CASE("rotations keep NaN, infinities and subnormal numbers", "[values]") {
    SEEDED(numbers);
    for (const rw::element_type type : test::types_of_backend()) {
        for (const rw::layout_kind layout : test::all_layouts) {
            for (const bool in_place : {true, false}) {
                test::rotation_case c = test::case_at(test::plain_twin({.head_dim = 64}), 3);
                c.type = type, c.layout = layout, c.in_place = in_place;
                c.elements = test::special_heads(64);
                // The signs and payloads of NaN may differ from those of other kernels.
                c.host_validates = false;
                const test::rotated result = rotate(c, numbers);
                INFO(test::describe(c));
                CHECK(result.problem == "");
                CHECK(problem_of(c, result.q, oracle::role::query) == "");
                CHECK(problem_of(c, result.k, oracle::role::key) == "");
            }
        }
    }
}

}  // namespace value_cases
