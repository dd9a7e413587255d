// The CPU's kernels of the narrowest instruction set, which round as the GPU's do on the host: without fusing.
#include <dispatch/kernels.hpp>

#include <ropewalk/cpu/execute.hpp>
#include <ropewalk/cpu/plan.hpp>

#include "host.hpp"

namespace rw = ropewalk;

namespace {

void execute(rw::layout_kind layout, const rw::cpu::rotate_plan& plan) {
#if defined(__x86_64__)
    const rw::dispatch::kernel_set& kernels = rw::dispatch::baseline_kernels;
#else
    const rw::dispatch::kernel_set& kernels = rw::dispatch::neon_kernels;
#endif
    rw::cpu::execute(plan.params, kernels.rotate(plan.params.any().type, layout, plan.params.pairs), 1);
}

}  // namespace

namespace test {

void rotate_on_cpu(rw::layout_kind layout, const rw::tensor& q, const rw::tensor& k, const rw::tensor& q_out,
                   const rw::tensor& k_out, const rw::Encoding& encoding, const rw::positions& where,
                   rw::direction direction, const rw::cos_sin_table& table) {
    execute(layout,
            rw::cpu::make_plan(layout, q, k, q_out, k_out, encoding, where, {.direction = direction, .table = table}));
}

void rerotate_on_cpu(rw::layout_kind layout, const rw::tensor& k, const rw::tensor& k_out, const rw::Encoding& from,
                     const rw::positions& from_where, const rw::Encoding& to, const rw::positions& to_where) {
    execute(layout, rw::cpu::make_rerotation_plan(layout, k, k_out, from, from_where, to, to_where));
}

}  // namespace test
