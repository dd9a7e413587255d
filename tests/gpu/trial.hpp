/// @file  One call to the GPU's kernels on the host, held against the CPU's kernels, the oracle and the record of
/// memory.
#pragma once

#include <functional>

#include "host.hpp"
#include "support/compare.hpp"
#include "support/encodings.hpp"

namespace test {

/// A call with everything that it is compared to.
struct trial {
    ropewalk::element_type type = ropewalk::element_type::f32;
    ropewalk::layout_kind layout = ropewalk::layout_kind::half_split;
    twin by;
    extents q{2, 3, 4, 128};
    std::int64_t k_heads = 2;  ///< 0: no k
    order where_in_memory = order::bshd;
    bool in_place = true;
    ropewalk::positions where;
    std::vector<oracle::place> places;  ///< the same for the oracle, a position a token
    /// What pair j of token t of the batch must be turned by, where the oracle's encoding does not say it.
    std::function<oracle::unit(std::int64_t pair, std::int64_t token)> map{};
    ropewalk::direction way = ropewalk::direction::forward;
    ropewalk::cos_sin_table table{};
    ropewalk::gpu::device_shape device{};
};

/// The first thing that is wrong with a trial, or "". `bytes` receives the access that the plan chose.
std::string problem_of(const trial& one, random& numbers, int* bytes = nullptr);

/// Whether each element of a tensor in the array that should be was read or written exactly once, and nothing else.
/// Elements [begin, end) of each head are `touched` times touched, the others `beside` times.
std::string counts_problem(const std::vector<std::uint8_t>& counts, array& memory, const oracle::shape& s,
                           std::uint8_t turning, std::uint8_t beside);

inline oracle::way way_of(ropewalk::direction way) {
    return way == ropewalk::direction::forward   ? oracle::way::forward
           : way == ropewalk::direction::adjoint ? oracle::way::adjoint
                                                 : oracle::way::inverse;
}

/// Multiprocessors few and small enough that the tests' few heads make groups of every size.
inline ropewalk::gpu::device_shape random_device(random& numbers) {
    return {static_cast<int>(numbers.integer(1, 4)), numbers.one_of({32, 64, 512, 2048})};
}

}  // namespace test
