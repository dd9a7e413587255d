// Example calls of a user with a paged cache and norms, compiled for every architecture by tests/house/nvcc.py.
#include <ropewalk/gpu/fused.cuh>

namespace rw = ropewalk;

using heads = rw::view<rw::bf16>;

void append(const heads& q, const heads& k, const heads& v, rw::bf16* k_pages, rw::bf16* v_pages, std::int64_t pages,
            std::span<const std::int64_t> slots, std::span<const std::int64_t> positions, const rw::Encoding& encoding,
            cudaStream_t stream) {
    const rw::gpu::kv_cache cache{rw::gpu::nhd_cache(k_pages, pages, 16, 8, 128),
                                  rw::gpu::nhd_cache(v_pages, pages, 16, 8, 128)};
    rw::gpu::append<rw::half_split>(q, k, v, cache, rw::gpu::by_mapping(slots), encoding, rw::ids(positions),
                                    {.stream = stream});
}

void norm_rotate(const heads& q, const heads& k, const rw::bf16* q_weights, const rw::bf16* k_weights,
                 const rw::Encoding& encoding, cudaStream_t stream) {
    rw::gpu::norm_rotate<rw::half_split>(q, k, rw::gpu::head_norm(q_weights), rw::gpu::head_norm(k_weights), encoding,
                                         rw::offset{0}, {.stream = stream});
}
