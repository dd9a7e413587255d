#include "host_backend.hpp"

#include <ropewalk/gpu/fused_body.hpp>

namespace rw = ropewalk;
namespace gpu = ropewalk::llama::gpu;

namespace test {

template <class Params>
void host_backend::run(const Params& params) const {
    recorded_access::log = &log_;
    with_body(params, [&]<class Body>(std::type_identity<Body>) {
        for (std::int64_t index = 0; index < params.threads; index += gpu::warp_lanes)
            Body::template run<gpu::host_lanes, recorded_access>(params, index);
    });
    ++launches;
}
template void host_backend::run(const gpu::locate_params&) const;
template void host_backend::run(const gpu::draw_params&) const;
template void host_backend::run(const gpu::advance_params&) const;
template void host_backend::run(const gpu::gather_rows_params&) const;
template void host_backend::run(const gpu::rms_norm_params&) const;
template void host_backend::run(const gpu::silu_params&) const;
template void host_backend::run(const gpu::attend_params&) const;
template void host_backend::run(const gpu::merge_params&) const;
template void host_backend::run(const gpu::gather_cache_params&) const;
template void host_backend::run(const gpu::softmax_params&) const;
template void host_backend::run(const gpu::finish_params&) const;

void host_backend::multiply(const gpu::product& p) const {
    recorded_access::log = &log_;
    const auto value = [](const gpu::operand& o, std::int64_t index) {
        double result = 0;
        rw::llama::with_element(o.type, [&]<class E>(E) {
            const float element = gpu::detail::load_one<E, recorded_access>(static_cast<const E*>(o.data) + index);
            result = static_cast<double>(element);
        });
        return result;
    };
    for (std::int64_t i = 0; i < p.batch * p.m * p.n; ++i) {
        const std::int64_t column = i % p.n, row = i / p.n % p.m, matrix = i / p.n / p.m;
        double sum = 0;
        for (std::int64_t k = 0; k < p.k; ++k) {
            const std::int64_t b = p.transposed ? column * p.b.stride + k : k * p.b.stride + column;
            sum += value(p.a, matrix * p.a.batch + row * p.a.stride + k) * value(p.b, matrix * p.b.batch + b);
        }
        const std::int64_t index = matrix * p.c.batch + row * p.c.stride + column;
        if (p.beta != 0) sum += static_cast<double>(p.beta) * value(p.c, index);
        const float result[1] = {static_cast<float>(sum)};
        rw::llama::with_element(p.c.type, [&]<class E>(E) {
            rw::gpu::detail::store_elements<E, recorded_access>(static_cast<E*>(p.c.data) + index, result);
        });
    }
    ++launches;
}

template <class T>
void host_backend::append(rw::layout_kind layout, const rw::gpu::qkv<T>& heads, const rw::gpu::kv_cache& cache,
                          const rw::gpu::cache_slots& slots, const rw::Encoding& encoding,
                          const rw::positions& where) const {
    run_on_host(layout,
                rw::gpu::make_fused_plan<T>(layout, heads, {heads.q, {}, {}}, {.cache = cache, .slots = slots},
                                            encoding, where, {}),
                log_);
    ++launches;
}
template void host_backend::append(rw::layout_kind, const rw::gpu::qkv<float>&, const rw::gpu::kv_cache&,
                                   const rw::gpu::cache_slots&, const rw::Encoding&, const rw::positions&) const;
template void host_backend::append(rw::layout_kind, const rw::gpu::qkv<rw::f16>&, const rw::gpu::kv_cache&,
                                   const rw::gpu::cache_slots&, const rw::Encoding&, const rw::positions&) const;
template void host_backend::append(rw::layout_kind, const rw::gpu::qkv<rw::bf16>&, const rw::gpu::kv_cache&,
                                   const rw::gpu::cache_slots&, const rw::Encoding&, const rw::positions&) const;

void host_backend::rerotate(rw::layout_kind layout, const rw::view<float>& k, const rw::Encoding& source,
                            const rw::positions& source_positions, const rw::Encoding& target,
                            const rw::positions& target_positions) const {
    run_on_host(layout,
                rw::gpu::make_rerotation_plan(layout, k, k, source, source_positions, target, target_positions, {}),
                log_);
    ++launches;
}

}  // namespace test
