/// @file  One fused call on the host, held against its parts one after the other.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <ropewalk/gpu/fused_plan.hpp>

#include "cache_memory.hpp"
#include "support/encodings.hpp"

namespace test {

/// Weights of a norm in one of the element types.
class weights {
public:
    weights() = default;
    weights(ropewalk::element_type type, std::int64_t count, random& numbers);
    /// No norm where there are none.
    [[nodiscard]] ropewalk::gpu::head_norm norm(double epsilon, bool one_plus);
    void watch(memory_log& log);
    [[nodiscard]] std::vector<double> values() const { return memory_.values(); }

private:
    array memory_;
};

/// What a fused call does. An array of no heads is absent.
struct fused_trial {
    ropewalk::element_type type = ropewalk::element_type::f32;
    ropewalk::layout_kind layout = ropewalk::layout_kind::half_split;
    twin by;
    extents q{2, 3, 4, 64};
    std::int64_t kv_heads = 2, v_dim = 64;
    order where_in_memory = order::bshd;
    bool in_place = true;                    ///< q, and k where it has an output
    bool k_output = false, v_output = true;  ///< beside a cache
    bool q_norm = false, k_norm = false, one_plus = false;
    ropewalk::element_type weight_type = ropewalk::element_type::f32;
    std::optional<ropewalk::gpu::cache_type> k_cache{}, v_cache{};
    cache_order cache_axes = cache_order::nhd;
    std::int64_t page_size = 16;
    slot_kind slots = slot_kind::mapping64;
    std::int64_t misalignment = 0;  ///< of the caches, in elements
    std::int64_t first = 0;         ///< position of the first token
    ropewalk::gpu::device_shape device{};
};

/// The first thing that is wrong with a trial, or "". `bytes` receives the access that the plan chose.
std::string problem_of(const fused_trial& one, random& numbers, int* bytes = nullptr);

/// Executes the launch of a fused call, a warp at a time.
void run_on_host(ropewalk::layout_kind layout, const ropewalk::gpu::fused_plan& prepared, memory_log& log);

/// Makes the plan of a fused call on arrays of any type. An array of no heads is absent.
struct fused_arrays {
    ropewalk::tensor q, k, v, q_out, k_out, v_out;
};
ropewalk::gpu::fused_plan make_plan_of(ropewalk::element_type type, ropewalk::layout_kind layout,
                                       const fused_arrays& arrays, const ropewalk::gpu::fusion& with,
                                       const ropewalk::Encoding& encoding, const ropewalk::positions& where,
                                       const ropewalk::gpu::options& chosen = {},
                                       const ropewalk::gpu::device_shape& device = {});

/// The floats that a norm alone makes of an array, through the fused kernel at position 0.
std::vector<double> normed(const array& x, ropewalk::layout_kind layout, const ropewalk::gpu::head_norm& norm,
                           const ropewalk::Encoding& encoding);

}  // namespace test
