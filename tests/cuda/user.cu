// Example calls of a user, compiled for every architecture by tests/house/nvcc.py.
#include <ropewalk/gpu/rotate.cuh>

namespace rw = ropewalk;

void encode(rw::bf16* q, rw::bf16* k, std::int64_t tokens, const rw::Encoding& encoding, cudaStream_t stream) {
    rw::gpu::rotate<rw::half_split>(rw::thd(q, tokens, 32, 128), rw::thd(k, tokens, 8, 128), encoding, rw::offset{0},
                                    {.stream = stream});
}

void encode(float* q, std::int64_t tokens, const rw::Encoding& encoding, cudaStream_t stream) {
    rw::gpu::rotate<rw::interleaved>(rw::thd(q, tokens, 32, 128), encoding, rw::offset{0}, {.stream = stream});
}
