// Kernel of a rotation: one function per element type, layout, instruction set and head width.
#pragma once

#include "ropewalk/cpu/traversal/alternating.hpp"
#include "ropewalk/cpu/traversal/heads_major.hpp"
#include "ropewalk/cpu/traversal/per_token.hpp"
#include "ropewalk/cpu/traversal/streaming.hpp"

namespace ropewalk::cpu::detail {

/// Runs the traversal that choose_loop() chose. Pairs: their number where it is a constant, 0 for any number.
template <class T, class L, class A, std::int64_t Pairs>
void rotate_kernel(const rotate_params& params, std::int64_t begin, std::int64_t end, float* scratch) {
    switch (params.loop.order) {
        case traversal::per_token:
            return per_token<T, L, A, Pairs>::run(params, begin, end, scratch);
        case traversal::heads_major:
            return heads_major<T, L, A, Pairs>::run(params, begin, end, scratch);
        case traversal::alternating:
            return alternating<T, L, A, Pairs>::run(params, begin, end, scratch);
        case traversal::streaming:
            return streaming<T, L, A, Pairs>::run(params, begin, end, scratch);
    }
}

/// The kernel for a number of pairs: a constant for the head widths of published models.
template <class T, class L, class A>
kernel_function kernel_for(std::int64_t pairs) {
    switch (pairs) {
        case 32:
            return rotate_kernel<T, L, A, 32>;
        case 40:
            return rotate_kernel<T, L, A, 40>;
        case 48:
            return rotate_kernel<T, L, A, 48>;
        case 64:
            return rotate_kernel<T, L, A, 64>;
        case 128:
            return rotate_kernel<T, L, A, 128>;
        default:
            return rotate_kernel<T, L, A, 0>;
    }
}

}  // namespace ropewalk::cpu::detail
