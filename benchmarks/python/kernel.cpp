// C function over the C++ kernels, for bench_peers.py: shows the cost of calls through Python and PyTorch.
#include <ropewalk/dispatch.hpp>

namespace rw = ropewalk;

/// Rotates contiguous q and k [tokens, heads, head_dim] in place, `passes` times. Returns 0, or 1 on failure.
extern "C" __attribute__((visibility("default"))) int ropewalk_rotate(void* q, void* k, int is_bf16, int is_interleaved,
                                                                      std::int64_t tokens, std::int64_t heads,
                                                                      std::int64_t head_dim, std::int64_t first,
                                                                      int threads, std::int64_t passes) {
    try {
        const auto view = [&](void* data) {
            rw::tensor tensor = rw::thd(static_cast<float*>(nullptr), tokens, heads, head_dim);
            tensor.data = data;
            tensor.type = is_bf16 != 0 ? rw::element_type::bf16 : rw::element_type::f32;
            return tensor;
        };
        const rw::tensor queries = view(q), keys = view(k);
        static const rw::Encoding encoding = rw::make_encoding(rw::Geometry{.head_dim = 128});
        if (head_dim != encoding.geometry.head_dim) return 1;
        const auto layout = is_interleaved != 0 ? rw::layout_kind::interleaved : rw::layout_kind::half_split;
        for (std::int64_t i = 0; i < passes; ++i)
            rw::dispatch::rotate(layout, queries, keys, queries, keys, encoding, rw::offset{first},
                                 {.threads = threads});
        return 0;
    } catch (...) {
        return 1;
    }
}
