// Overloads of rotate() and rerotate() for calls that are not valid. Each stops the compiler with one message.
#pragma once

#include "ropewalk/gpu/options.hpp"
#include "ropewalk/rotation/mistakes.hpp"

namespace ropewalk::gpu {

template <Layout L, class... Args>
    requires(!ropewalk::detail::RotateCall<options, Args...>)
void rotate(const Args&... /*args*/) {
    ropewalk::detail::report_mistake<Args...>();
}
template <Layout L, class... Args>
    requires(!ropewalk::detail::RerotateCall<options, Args...>)
void rerotate(const Args&... /*args*/) {
    ropewalk::detail::report_mistake<Args...>();
}

using ropewalk::detail::no_layout::rerotate;
using ropewalk::detail::no_layout::rotate;

}  // namespace ropewalk::gpu
