/// @file  Kernels of every element type and layout as plain functions, so that tests and benchmarks are host code and
/// each kernel is compiled once.
#pragma once

#include <ropewalk/gpu/fused.hpp>
#include <ropewalk/gpu/options.hpp>
#include <ropewalk/rotation/cache.hpp>

#include <ropewalk/core/layout.hpp>
#include <ropewalk/core/view.hpp>
#include <ropewalk/encoding.hpp>

#include "support/view_of.hpp"

namespace device {

/// Queries, keys and values, absent where data is null.
struct tensors {
    ropewalk::tensor q, k, v;
};

/// The calls of ropewalk::gpu for one element type and layout.
template <class T, class L>
struct calls {
    /// Rotates in place if `out` is `in`.
    static void rotate(const tensors& in, const tensors& out, const ropewalk::Encoding& encoding,
                       const ropewalk::positions& where, const ropewalk::gpu::options& chosen);
    static void rerotate(const ropewalk::tensor& k, const ropewalk::Encoding& from,
                         const ropewalk::positions& from_where, const ropewalk::Encoding& to,
                         const ropewalk::positions& to_where, const ropewalk::gpu::options& chosen);
};
/// The fused calls for one element type and layout.
template <class T, class L>
struct fused_calls {
    static void run(const tensors& in, const tensors& out, const ropewalk::gpu::fusion& with,
                    const ropewalk::Encoding& encoding, const ropewalk::positions& where,
                    const ropewalk::gpu::options& chosen);
};

/// Calls f(Calls<T, L>{}) for a type and layout known at run time.
template <template <class, class> class Calls, class F>
void choose(ropewalk::element_type type, ropewalk::layout_kind layout, const F& f) {
    const auto of_type = [&]<class T>(T /*type*/) {
        layout == ropewalk::layout_kind::half_split ? f(Calls<T, ropewalk::half_split>{})
                                                    : f(Calls<T, ropewalk::interleaved>{});
    };
    switch (type) {
        case ropewalk::element_type::f32:
            return of_type(float{});
        case ropewalk::element_type::f16:
            return of_type(ropewalk::f16{});
        default:
            return of_type(ropewalk::bf16{});
    }
}
template <class F>
void with_calls(ropewalk::element_type type, ropewalk::layout_kind layout, const F& f) {
    choose<calls>(type, layout, f);
}
template <class F>
void with_fused_calls(ropewalk::element_type type, ropewalk::layout_kind layout, const F& f) {
    choose<fused_calls>(type, layout, f);
}

using test::view_of;

}  // namespace device
