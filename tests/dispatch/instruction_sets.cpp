// Agreement of the instruction sets, and the choice among them.
#include <dispatch/kernels.hpp>
#include <ropewalk/dispatch.hpp>

#include <algorithm>
#include <cstdlib>
#include <map>

#include <ropewalk/cpu/execute.hpp>
#include <ropewalk/cpu/kernel.hpp>
#include <ropewalk/cpu/plan.hpp>

#include "portable_kernels.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/encodings.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace {

/// The kernels of an instruction set, or null if the build has none.
const dispatch::kernel_set* kernels(std::string_view name) {
    for (const dispatch::kernel_set* const set : dispatch::compiled_kernels()) {
        if (name == set->name) return set;
    }
    return nullptr;
}

struct inputs {
    test::array q, k;
};

inputs run(rw::cpu::kernel_function kernel, inputs x, rw::layout_kind layout, const rw::Encoding& e,
           const rw::positions& positions) {
    rw::cpu::options options;
    const auto plan =
        rw::cpu::make_plan(layout, x.q.tensor(), x.k.tensor(), x.q.tensor(), x.k.tensor(), e, positions, options);
    rw::cpu::execute(plan.params, kernel, 1);
    return x;
}

/// The results without xsimd and of every instruction set of this machine.
std::map<std::string, inputs> results_of_all_sets(const inputs& x, rw::layout_kind layout, const rw::Encoding& e,
                                                  const rw::positions& positions) {
    std::map<std::string, inputs> results{
        {"portable", run(test::portable_kernel(x.q.type(), layout).run, x, layout, e, positions)}};
    for (const std::string_view name : dispatch::instruction_sets()) {
        const dispatch::kernel_set* const set = kernels(name);
        REQUIRE(set != nullptr);
        results[std::string(name)] = run(set->rotate(x.q.type(), layout).run, x, layout, e, positions);
    }
    return results;
}

void check_agreement(test::random& numbers, const rw::Encoding& e, rw::element_type type, rw::layout_kind layout) {
    const test::extents size{1, 19, 3, e.geometry.head_dim};
    const inputs x{test::array(type, size, numbers, test::order::padded),
                   test::array(type, size, numbers, test::order::bhsd)};
    const auto shape = test::shape_of(size, e.geometry, layout);
    std::map<std::string, inputs> results = results_of_all_sets(x, layout, e, rw::offset{12345});
    INFO(rw::to_string(type) << ' ' << rw::to_string(layout) << " width " << e.geometry.width() << ' ' << e.expression);
    for (const auto& [name, result] : results) {
        INFO(name);
        // Sets round products and sums separately, or once with fused multiply-add. With magnitudes each result is only
        // known to be within f32_bound of the exact one: some seeds reach 3.5e-7 between two sets.
        const double rounding = std::ldexp(1.0, -x.q.format().digits) * 2;
        const double bound = rounding + (e.has_magnitude() ? 2 * test::f32_bound : 2e-7);
        CHECK_THAT(result.q, test::matches(results["portable"].q.values(), shape, bound));
        CHECK_THAT(result.k, test::matches(results["portable"].k.values(), shape, bound));
    }
    // Sets with fused multiply-add agree to the bit, and so do those without.
    if (results.count("avx512") != 0) {
        CHECK(results["avx512"].q == results["avx2"].q);
        CHECK(results["avx512"].k == results["avx2"].k);
    }
#if !defined(__FMA__)
    if (results.count("baseline") != 0) {
        CHECK(results["baseline"].q == results["portable"].q);
        CHECK(results["baseline"].k == results["portable"].k);
    }
#endif
}

}  // namespace

TEST_CASE("all instruction sets agree with the kernels without xsimd", "[instruction_sets]") {
    SEEDED(numbers);
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            for (const std::int64_t width : {2, 6, 14, 34, 62, 64, 80, 96, 126, 128, 200, 256}) {
                const rw::Geometry g{.head_dim = width + 2, .rotary_dim = width, .rotary_offset = 1};
                check_agreement(numbers, rw::make_encoding(g, "linear:3|power:0.5"), type, layout);
                check_agreement(numbers, rw::make_encoding(g, "xpos:length=20000"),
                                type == rw::element_type::f16 ? rw::element_type::f32 : type, layout);
            }
        }
    }
}

TEST_CASE("the set in use is the value of ROPEWALK_ISA, or else the widest", "[instruction_sets]") {
    const auto sets = dispatch::instruction_sets();
    REQUIRE_FALSE(sets.empty());
    const char* const wanted = std::getenv("ROPEWALK_ISA");
    CHECK(dispatch::instruction_set() ==
          (wanted != nullptr && *wanted != '\0' ? std::string_view(wanted) : sets.front()));
    for (const auto name : sets) CHECK(kernels(name) != nullptr);
    using rw::cpu::footprint;
    for (const rw::element_type type : test::all_types) {
        CHECK(dispatch::instruction_set(type, footprint::memory) == dispatch::instruction_set());
        if (type == rw::element_type::f16 && (wanted == nullptr || *wanted == '\0')) continue;
        CHECK(dispatch::instruction_set(type, footprint::l2) == dispatch::instruction_set());
    }
}

TEST_CASE("the kernels of the set in use are executed", "[instruction_sets]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding({.head_dim = 128});
    for (const rw::element_type type : test::all_types) {
        inputs x{test::array(type, {1, 50, 2, 128}, numbers), test::array(type, {1, 50, 2, 128}, numbers)};
        auto results = results_of_all_sets(x, rw::layout_kind::interleaved, e, rw::offset{3});
        dispatch::rotate(rw::layout_kind::interleaved, x.q.tensor(), x.k.tensor(), x.q.tensor(), x.k.tensor(), e,
                         rw::offset{3});
        CHECK(x.q == results[std::string(dispatch::instruction_set(type, rw::cpu::footprint::l2))].q);
        if (type == rw::element_type::f32 && results.count("avx2") != 0)
            CHECK_FALSE(results["avx2"].q == results["baseline"].q);
    }
}
