/// @file  Backend that runs the kernels of a Llama's layers on the host, warp by warp, and products by three loops.
#pragma once

#include <cstdint>

#include <ropewalk/llama/gpu/forward.hpp>

#include "gpu/host.hpp"

namespace test {

/// A backend of forward() and attend_by_blocks(). Records every access in a log, those of products too.
class host_backend {
public:
    explicit host_backend(memory_log& log) : log_(log) {}

    // Defined for the parameters of every kernel in host_backend.cpp, because kernels take long to compile.
    template <class Params>
    void run(const Params& params) const;
    void multiply(const ropewalk::llama::gpu::product& p) const;
    template <class T>
    void append(ropewalk::layout_kind layout, const ropewalk::gpu::qkv<T>& heads, const ropewalk::gpu::kv_cache& cache,
                const ropewalk::gpu::cache_slots& slots, const ropewalk::Encoding& encoding,
                const ropewalk::positions& where) const;
    void rerotate(ropewalk::layout_kind layout, const ropewalk::view<float>& k, const ropewalk::Encoding& source,
                  const ropewalk::positions& source_positions, const ropewalk::Encoding& target,
                  const ropewalk::positions& target_positions) const;
    void enter(ropewalk::llama::gpu::step_part /*part*/) const {}

    mutable std::int64_t launches = 0;

private:
    memory_log& log_;
};

/// A matrix of the tokens of an array with one head.
inline ropewalk::llama::gpu::matrix_view matrix_of(array& memory) {
    const ropewalk::tensor t = memory.tensor();
    return {t.data, t.type, t.tokens, t.head_dim, t.stride_token};
}

/// Returns the address in `memory` that workspaces need, a multiple of 256 bytes. `memory` has 256 bytes to spare.
inline void* aligned(std::vector<float>& memory) {
    return reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 255) & ~std::uintptr_t{255});
}

}  // namespace test
