// Plan of a re-encoding of cached keys on the CPU, and its execution.
#pragma once

#include "ropewalk/cpu/fused_plan.hpp"
#include "ropewalk/rotation/host_slots.hpp"
#include "ropewalk/rotation/rerotate_cache_args.hpp"

namespace ropewalk::cpu {

/// A validated re-encoding of cached keys, with everything that it owns.
struct rerotate_cache_plan {
    rotate_plan rotation;
    cache_tensor keys{};            ///< without a scale in memory
    std::vector<cache_slot> slots;  ///< of every token; page −1: none
};

/// Re-encodes the tokens [begin, end) of a plan, counted through the batch.
using rerotate_cache_function = void (*)(const rotate_kernel& kernel, const rerotate_cache_plan& plan,
                                         std::int64_t begin, std::int64_t end, float* scratch);

namespace detail {
inline namespace RW_ISA {

/// Elements of float32 that stay in the nearest cache while they are rotated.
inline constexpr std::int64_t block_elements = 4096;

/// Scratch floats of a thread: those of a rotation, and a block of heads in float32 (at least one head).
inline std::int64_t scratch_floats(const rerotate_cache_plan& plan) {
    const bool converts = size_of(plan.keys.type) == 1;
    return cpu::scratch_floats(plan.rotation.params) + (converts ? std::max(block_elements, plan.keys.head_dim) : 0);
}

}  // namespace RW_ISA
}  // namespace detail

inline namespace RW_ISA {

/// Validates the arguments, slots included. Encodings, positions and cache must outlive the plan.
inline rerotate_cache_plan make_rerotate_cache_plan(const rerotate_cache_args& args) {
    rerotate_cache_plan plan;
    const rerotate_cache_params params =
        make_rerotate_cache_params(args, memory_space::host, [&](const rotate_args& rotation) {
            plan.rotation = make_plan(rotation);
            return static_cast<const ropewalk::rotate_params&>(plan.rotation.params);
        });
    plan.keys = detail::with_scale("the cache of k", args.keys);
    plan.slots = read_slots(params.slots, args.at.batch, args.at.tokens);
    return plan;
}

/// Runs a plan on at most the given threads. Throws ropewalk::error, with nothing written, where `given` is invalid.
RW_INLINE void execute(const rerotate_cache_plan& plan, const rotate_kernel& kernel, rerotate_cache_function function,
                       const threads& given) {
    const rotate_params& params = plan.rotation.params;
    execute(params.batch() * params.tokens(), detail::bytes_of(params), params.loop.bytes_per_thread,
            detail::scratch_floats(plan), given,
            [&](std::int64_t begin, std::int64_t end, float* scratch) { function(kernel, plan, begin, end, scratch); });
}

}  // namespace RW_ISA

}  // namespace ropewalk::cpu
