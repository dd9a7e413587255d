#include "host.hpp"

#include <ropewalk/gpu/fused_body.hpp>
#include <ropewalk/gpu/rerotate_cache_body.hpp>
#include <ropewalk/gpu/rotate_body.hpp>

namespace rw = ropewalk;

namespace test {

thread_local memory_log* recorded_access::log = nullptr;

void memory_log::watch(const void* first, std::size_t bytes) {
    ranges_.push_back(
        {static_cast<const unsigned char*>(first), std::vector<std::uint8_t>(bytes), std::vector<std::uint8_t>(bytes)});
}

const memory_log::range& memory_log::of(const void* first) const {
    for (const range& r : ranges_) {
        if (r.first == first) return r;
    }
    throw std::logic_error("this memory is not watched");
}

void memory_log::record(const void* address, int bytes, bool writes) {
    const auto* const first = static_cast<const unsigned char*>(address);
    if (reinterpret_cast<std::uintptr_t>(first) % static_cast<std::uintptr_t>(bytes) != 0 && problem_.empty())
        problem_ = "an access of " + std::to_string(bytes) + " bytes is not aligned to them";
    for (range& r : ranges_) {
        const auto size = static_cast<std::ptrdiff_t>(r.reads.size());
        if (first < r.first || first + bytes > r.first + size) continue;
        auto& counts = writes ? r.writes : r.reads;
        for (int i = 0; i < bytes; ++i) ++counts[static_cast<std::size_t>(first - r.first + i)];
        return;
    }
    if (problem_.empty()) problem_ = "an access lies outside the memory of the call";
}

namespace {

template <class T, class L>
void run(const rw::gpu::launch_plan& plan) {
    rw::gpu::with_rates(plan.kernel.rotation, [&]<class Rates>(std::type_identity<Rates>) {
        const auto params = rw::gpu::kernel_params<Rates>(plan);
        rw::gpu::with_access<T, Rates>(plan.shape.bytes, [&](auto bytes) {
            for_each_thread(plan.shape, [&](std::int64_t index) {
                rw::gpu::rotate_body<T, L, bytes(), Rates, recorded_access>(params, index);
            });
        });
    });
}

/// Runs the warps of a body for run_lanes().
template <class Body>
void run_warps(const Body& body, std::int64_t threads) {
    for (std::int64_t index = 0; index < threads; index += rw::gpu::warp_lanes)
        rw::gpu::run_lanes<rw::gpu::host_warp>(body, index);
}

template <class T, class L>
void run(const rw::gpu::fused_plan& plan) {
    rw::gpu::with_fused_kernel<T>(plan, [&]<class Kind>(Kind) {
        using Rates = typename Kind::Rates;
        const auto params = rw::gpu::kernel_params<Rates>(plan);
        run_warps(rw::gpu::fused_body<T, L, Kind::bytes, Rates, Kind::parts, recorded_access>{params}, params.threads);
    });
}

template <class L>
void run(const rw::gpu::rerotate_cache_plan& plan) {
    using Rates = rw::gpu::rerotate_cache_rates;
    const auto params = rw::gpu::kernel_params(plan);
    rw::gpu::with_rerotate_cache_kernel(plan, [&](auto size, auto wide) {
        run_warps(rw::gpu::rerotate_cache_body<size(), L, wide(), Rates, recorded_access>{params}, params.threads);
    });
}

template <class T>
void run(rw::layout_kind layout, const auto& plan) {
    layout == rw::layout_kind::half_split ? run<T, rw::half_split>(plan) : run<T, rw::interleaved>(plan);
}

void run(rw::layout_kind layout, const auto& plan) {
    switch (plan.kernel.rotation.any().type) {
        case rw::element_type::f32:
            return run<float>(layout, plan);
        case rw::element_type::f16:
            return run<rw::f16>(layout, plan);
        default:
            return run<rw::bf16>(layout, plan);
    }
}

}  // namespace

void run_on_host(rw::layout_kind layout, const rw::gpu::launch_plan& plan, memory_log& log) {
    recorded_access::log = &log;
    run(layout, plan);
}

void run_on_host(rw::layout_kind layout, const rw::gpu::fused_plan& plan, memory_log& log) {
    recorded_access::log = &log;
    run(layout, plan);
}

void run_on_host(rw::layout_kind layout, const rw::gpu::rerotate_cache_plan& plan, memory_log& log) {
    recorded_access::log = &log;
    layout == rw::layout_kind::half_split ? run<rw::half_split>(plan) : run<rw::interleaved>(plan);
}

}  // namespace test
