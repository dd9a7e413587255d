// Overloads of rotate() and rerotate() for calls that are not valid. Each stops the compiler with one message.
#pragma once

#include "ropewalk/cpu/options.hpp"
#include "ropewalk/rotation/mistakes.hpp"

namespace ropewalk::cpu {

template <Layout L, class... Args>
    requires(!ropewalk::detail::RotateCall<options, Args...>)
void rotate(const Args&... /*args*/) {
    ropewalk::detail::report_mistake<Args...>();
}
template <Layout L, class... Args>
    requires(!ropewalk::detail::RerotateCall<threads, Args...>)
void rerotate(const Args&... /*args*/) {
    ropewalk::detail::report_mistake<Args...>();
}

template <class NoLayout, class... Args>
    requires(!Layout<NoLayout>)
void rotate(const Args&... /*args*/) {
    ropewalk::detail::report_no_layout<NoLayout>();
}
template <class NoLayout, class... Args>
    requires(!Layout<NoLayout>)
void rerotate(const Args&... /*args*/) {
    ropewalk::detail::report_no_layout<NoLayout>();
}
template <class Q, class... Args>
void rotate(const Q& /*q*/, const Args&... /*args*/) {
    ropewalk::detail::report_no_layout<Q>();
}
template <class K, class... Args>
void rerotate(const K& /*k*/, const Args&... /*args*/) {
    ropewalk::detail::report_no_layout<K>();
}

}  // namespace ropewalk::cpu
