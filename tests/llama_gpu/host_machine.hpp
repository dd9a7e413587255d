/// @file  The host in a device's place: executes whole attention calls, kernels warp by warp, products by three loops.
#pragma once

#include <ropewalk/gpu/fused_body.hpp>
#include <ropewalk/llama/gpu/llama.hpp>

#include "host_device.hpp"

namespace test {

/// What llama_forward() and attend_by_blocks() take for a device. Every access lies in the log, those of products too.
template <class T, class L = ropewalk::half_split>
class host_machine {
public:
    using element = T;

    explicit host_machine(memory_log& log) : log_(log) {}

    template <class Job>
    void run(const Job& job) const {
        run_on_host(job, log_);
        ++launches;
    }

    void multiply(const ropewalk::llama::gpu::product& p) const {
        recorded_access::log = &log_;
        for (std::int64_t i = 0; i < p.batch * p.m * p.n; ++i) {
            const std::int64_t column = i % p.n, row = i / p.n % p.m, which = i / p.n / p.m;
            double sum = 0;
            for (std::int64_t k = 0; k < p.k; ++k) {
                const std::int64_t b = p.transposed ? column * p.b.stride + k : k * p.b.stride + column;
                sum += value(p.a, which * p.a.batch + row * p.a.stride + k) * value(p.b, which * p.b.batch + b);
            }
            const std::int64_t at = which * p.c.batch + row * p.c.stride + column;
            if (p.beta != 0) sum += static_cast<double>(p.beta) * value(p.c, at);
            const float result[1] = {static_cast<float>(sum)};
            with(p.c, [&](auto* c) {
                ropewalk::gpu::detail::store_elements<std::remove_pointer_t<decltype(c)>, recorded_access>(c + at,
                                                                                                           result);
            });
        }
        ++launches;
    }

    void append(const ropewalk::view<T>& q, const ropewalk::view<T>& k, const ropewalk::view<T>& v,
                const ropewalk::gpu::kv_cache& cache, const ropewalk::gpu::cache_slots& slots,
                const ropewalk::Encoding& encoding, const ropewalk::positions& where) const {
        namespace gpu = ropewalk::gpu;
        recorded_access::log = &log_;
        const auto plan = gpu::make_fused_plan<T>(ropewalk::kind_of<L>, {q, k, v}, {q, {}, {}},
                                                  {.cache = cache, .slots = slots}, encoding, where, {});
        gpu::with_fused_kernel<T>(plan, [&]<class Rates>(std::type_identity<Rates>, auto bytes) {
            const auto job = gpu::kernel_params<Rates>(plan);
            const gpu::fused_body<T, L, bytes(), Rates, recorded_access> body{job};
            for (std::int64_t i = 0; i < job.threads; i += gpu::warp_lanes) gpu::run_lanes<gpu::host_warp>(body, i);
        });
        ++launches;
    }

    mutable std::int64_t launches = 0;

private:
    using operand = ropewalk::llama::gpu::operand;

    template <class F>
    static auto with(const operand& o, const F& f) {
        if (o.type == ropewalk::element_type::f32) return f(static_cast<float*>(o.data));
        if (o.type == ropewalk::element_type::f16) return f(static_cast<ropewalk::f16*>(o.data));
        return f(static_cast<ropewalk::bf16*>(o.data));
    }
    static double value(const operand& o, std::int64_t at) {
        return with(o, [&](auto* data) {
            using E = std::remove_pointer_t<decltype(data)>;
            return static_cast<double>(ropewalk::llama::gpu::detail::load_one<E, recorded_access>(data + at));
        });
    }

    memory_log& log_;
};

}  // namespace test
