/// @file  Checks that GPU bodies on the host access every element of an array as often as they should.
#pragma once

#include "cases/rotation_case.hpp"
#include "host.hpp"

namespace test {

/// Compares the counts of the bytes of an array with `rotary` for the rotary elements of every head, `other` for the
/// other elements and 0 for all other bytes. Returns the first difference, or "".
std::string counts_problem(const std::vector<std::uint8_t>& counts, array& memory, const oracle::shape& s,
                           std::uint8_t rotary, std::uint8_t other);

/// A device with few and small multiprocessors, so that the few heads of tests make groups of every size.
inline ropewalk::gpu::device_shape random_device(random& numbers) {
    return {static_cast<int>(numbers.integer(1, 4)), numbers.one_of({32, 64, 512, 2048})};
}

}  // namespace test
