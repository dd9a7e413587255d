/// @file  Views of tensors whose element type a test knows.
#pragma once

#include <ropewalk/core/view.hpp>

namespace test {

template <class T>
ropewalk::view<T> view_of(const ropewalk::tensor& tensor) {
    ropewalk::view<T> result;
    static_cast<ropewalk::tensor&>(result) = tensor;
    return result;
}

}  // namespace test
