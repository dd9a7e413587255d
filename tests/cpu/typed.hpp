/// @file  Element types and layouts of the tests of the headers, and the head that they rotate.
#pragma once

#include <ropewalk/core/element.hpp>
#include <ropewalk/core/geometry.hpp>
#include <ropewalk/core/layout.hpp>

namespace test {

inline constexpr ropewalk::Geometry partial_head{.head_dim = 100, .rotary_dim = 94, .rotary_offset = 4};

template <class T, class L>
struct typed {
    using type = T;
    using layout = L;
};
using f32_half_split = typed<float, ropewalk::half_split>;
using f16_interleaved = typed<ropewalk::f16, ropewalk::interleaved>;
using f64_interleaved = typed<double, ropewalk::interleaved>;
using bf16_half_split = typed<ropewalk::bf16, ropewalk::half_split>;

}  // namespace test
