/// @file  One call to the GPU's kernels on the host, held against the CPU's kernels, the oracle and the record of
/// memory.
#pragma once

#include "host.hpp"
#include "support/rotation_trial.hpp"

namespace test {

/// A call with everything that it is compared to.
struct trial : rotation_trial {
    ropewalk::gpu::device_shape device;
};

/// The first thing that is wrong with a trial, or "". `bytes` receives the access that the plan chose.
std::string problem_of(const trial& one, random& numbers, int* bytes = nullptr);

/// Whether each element of a tensor in the array that should be was read or written exactly once, and nothing else.
/// Elements [begin, end) of each head are `touched` times touched, the others `beside` times.
std::string counts_problem(const std::vector<std::uint8_t>& counts, array& memory, const oracle::shape& s,
                           std::uint8_t turning, std::uint8_t beside);

/// Multiprocessors few and small enough that the tests' few heads make groups of every size.
inline ropewalk::gpu::device_shape random_device(random& numbers) {
    return {static_cast<int>(numbers.integer(1, 4)), numbers.one_of({32, 64, 512, 2048})};
}

/// A trial by an encoding on such a device, whose positions are still to be said.
inline trial random_trial(random& numbers, const twin& by) {
    trial one = random_rotation<trial>(numbers, by, 7);
    one.device = random_device(numbers);
    return one;
}

}  // namespace test
