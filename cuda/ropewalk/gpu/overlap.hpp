// Overlap of a kernel with its neighbours in a stream (programmatic dependent launch). Nothing happens on the host and
// in code for less than compute capability 9.0.
#pragma once

#include "ropewalk/core/compiler.hpp"

namespace ropewalk::gpu::detail {

/// Lets the next kernel start where its launch overlaps. That kernel waits for the end of this one before it accesses
/// memory, so this call needs no place after the last store.
RW_HD RW_INLINE void start_next() {
#if defined(RW_GPU_CODE) && RW_GPU_CODE >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/// Waits for the previous kernel where the launch overlaps with it. Returns at once otherwise. Every thread calls it
/// before its first access to memory.
RW_HD RW_INLINE void wait_for_previous() {
#if defined(RW_GPU_CODE) && RW_GPU_CODE >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace ropewalk::gpu::detail
