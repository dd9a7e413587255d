// The CPU's kernels as the compiler's flags have them, so that they round as the GPU's do on the host.
#include <ropewalk/cpu/rotate.hpp>

#include "host.hpp"

namespace rw = ropewalk;

namespace {

template <class T>
rw::cpu::range_function kernel(rw::layout_kind layout, std::int64_t pairs) {
    return layout == rw::layout_kind::half_split
               ? rw::cpu::detail::kernel_for<T, rw::half_split, rw::cpu::native_arch>(pairs)
               : rw::cpu::detail::kernel_for<T, rw::interleaved, rw::cpu::native_arch>(pairs);
}

void execute(rw::layout_kind layout, const rw::cpu::plan& prepared) {
    const rw::element_type type = prepared.work.any().type;
    const std::int64_t pairs = prepared.work.pairs;
    rw::cpu::execute(prepared,
                     type == rw::element_type::f32   ? kernel<float>(layout, pairs)
                     : type == rw::element_type::f16 ? kernel<rw::f16>(layout, pairs)
                                                     : kernel<rw::bf16>(layout, pairs),
                     1);
}

}  // namespace

namespace test {

void rotate_on_cpu(rw::layout_kind layout, const rw::tensor& q, const rw::tensor& k, const rw::tensor& q_out,
                   const rw::tensor& k_out, const rw::Encoding& encoding, const rw::positions& where, rw::direction way,
                   const rw::cos_sin_table& table) {
    execute(layout, rw::cpu::make_plan(layout, q, k, q_out, k_out, encoding, where, {.way = way, .table = table}));
}

void rerotate_on_cpu(rw::layout_kind layout, const rw::tensor& k, const rw::tensor& k_out, const rw::Encoding& from,
                     const rw::positions& from_where, const rw::Encoding& to, const rw::positions& to_where) {
    execute(layout, rw::cpu::make_rerotation_plan(layout, k, k_out, from, from_where, to, to_where));
}

}  // namespace test
