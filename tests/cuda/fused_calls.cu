// Fused kernels of the element type CHECK_TYPE and the layout CHECK_LAYOUT.
#include "calls.hpp"

#include <ropewalk/gpu/fused.cuh>

namespace rw = ropewalk;

namespace device {

template <class T, class L>
void fused_calls<T, L>::run(const tensors& in, const tensors& out, const rw::gpu::fusion& with,
                            const rw::Encoding& encoding, const rw::positions& where, const rw::gpu::options& chosen) {
    rw::gpu::fused<L, T>({view_of<const T>(in.q), view_of<const T>(in.k), view_of<const T>(in.v)},
                         {view_of<T>(out.q), view_of<T>(out.k), view_of<T>(out.v)}, with, encoding, where, chosen);
}

template struct fused_calls<CHECK_TYPE, CHECK_LAYOUT>;

}  // namespace device
