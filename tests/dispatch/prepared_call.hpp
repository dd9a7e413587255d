/// @file  The addresses of a fused call, as a prepared one takes them.
#pragma once

#include <ropewalk/dispatch.hpp>

namespace test {

inline ropewalk::cpu::prepared_fused::side side_of(const ropewalk::tensor& in, const ropewalk::tensor& out,
                                                   const ropewalk::cache_tensor& quantised,
                                                   const ropewalk::cache_tensor& cache, const void* norm) {
    return {.in = in.data,
            .out = quantised.exists()    ? quantised.data
                   : out.data == in.data ? nullptr
                                         : out.data,
            .cache = cache.data,
            .scales = quantised.scales != nullptr ? quantised.scales : cache.scales,
            .norm = norm};
}

/// The memory of a fused call.
inline ropewalk::cpu::prepared_fused::addresses addresses_of(const ropewalk::fused_args& args) {
    const auto& [rotation, v_in, v_out, with] = args;
    return {.q = side_of(rotation.q_in, rotation.q_out, with.quantised.q, {}, with.q_norm.weight),
            .k = side_of(rotation.k_in, rotation.k_out, with.quantised.k, with.cache.k, with.k_norm.weight),
            .v = side_of(v_in, v_out, with.quantised.v, with.cache.v, nullptr)};
}

}  // namespace test
