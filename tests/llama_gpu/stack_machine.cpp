#include "stack_machine.hpp"

#include "host_machine.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;
namespace llama = ropewalk::llama::gpu;

namespace test {

namespace {

/// Watches nothing: the machine itself knows whose memory is whose.
memory_log& no_log() {
    static memory_log one;
    return one;
}

}  // namespace

template <class Job>
void stack_machine::execute(const Job& job) {
    if constexpr (std::same_as<Job, llama::product>)
        host_machine<float>(no_log()).multiply(job);
    else
        run_on_host(job, no_log());
}
template void stack_machine::execute(const llama::product&);
template void stack_machine::execute(const llama::place_job&);
template void stack_machine::execute(const llama::draw_job&);
template void stack_machine::execute(const llama::pick_job&);
template void stack_machine::execute(const llama::rms_norm_job&);
template void stack_machine::execute(const llama::silu_job&);
template void stack_machine::execute(const llama::attend_job&);
template void stack_machine::execute(const llama::merge_job&);
template void stack_machine::execute(const llama::gather_job&);
template void stack_machine::execute(const llama::soften_job&);
template void stack_machine::execute(const llama::finish_job&);

template <class T>
void stack_machine::append_on_host(rw::layout_kind layout, const gpu::qkv<T>& heads, const gpu::kv_cache& cache,
                                   const gpu::cache_slots& slots, const rw::Encoding& encoding,
                                   const rw::positions& where) {
    const auto& [q, k, v] = heads;
    if (layout == rw::layout_kind::half_split)
        host_machine<T, rw::half_split>(no_log()).append(q, k, v, cache, slots, encoding, where);
    else
        host_machine<T, rw::interleaved>(no_log()).append(q, k, v, cache, slots, encoding, where);
}
template void stack_machine::append_on_host(rw::layout_kind, const gpu::qkv<float>&, const gpu::kv_cache&,
                                            const gpu::cache_slots&, const rw::Encoding&, const rw::positions&);
template void stack_machine::append_on_host(rw::layout_kind, const gpu::qkv<rw::f16>&, const gpu::kv_cache&,
                                            const gpu::cache_slots&, const rw::Encoding&, const rw::positions&);
template void stack_machine::append_on_host(rw::layout_kind, const gpu::qkv<rw::bf16>&, const gpu::kv_cache&,
                                            const gpu::cache_slots&, const rw::Encoding&, const rw::positions&);

void stack_machine::rerotate_on_host(rw::layout_kind layout, const rw::view<float>& k, const rw::Encoding& from,
                                     const rw::positions& from_where, const rw::Encoding& to,
                                     const rw::positions& to_where) {
    run_on_host(layout, gpu::make_rerotation_plan(layout, k, k, from, from_where, to, to_where, {}), no_log());
}

}  // namespace test
