// Kernels of the element type CHECK_TYPE and the layout CHECK_LAYOUT.
#include "calls.hpp"

#include <ropewalk/gpu/rotate.cuh>

namespace rw = ropewalk;

namespace device {

template <class T, class L>
void calls<T, L>::rotate(const tensors& in, const tensors& out, const rw::Encoding& encoding,
                         const rw::positions& where, const rw::gpu::options& chosen) {
    if (in.q == out.q && in.k == out.k)
        return rw::gpu::rotate<L>(view_of<T>(in.q), view_of<T>(in.k), encoding, where, chosen);
    rw::gpu::rotate<L>(view_of<const T>(in.q), view_of<const T>(in.k), view_of<T>(out.q), view_of<T>(out.k), encoding,
                       where, chosen);
}

template <class T, class L>
void calls<T, L>::rerotate(const rw::tensor& k, const rw::Encoding& from, const rw::positions& from_where,
                           const rw::Encoding& to, const rw::positions& to_where, const rw::gpu::options& chosen) {
    rw::gpu::rerotate<L>(view_of<T>(k), from, from_where, to, to_where, chosen);
}

template struct calls<CHECK_TYPE, CHECK_LAYOUT>;

}  // namespace device
