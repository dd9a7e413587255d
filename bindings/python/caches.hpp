// Conversion of Python arguments to caches and slots.
#pragma once

#include <array>
#include <string_view>

#include <ropewalk/rotation/cache.hpp>

#include "array.hpp"

namespace ropewalk::python {

/// The type of a cache of these elements. `cache_dtype` is the result of read_cache_dtype().
cache_type cache_type_of(const array& a, const char* name, std::string_view cache_dtype);

/// The axes of a cache or of an output: pages or batch, entries or tokens, and heads. −1: no such axis.
using head_axes = std::array<int, 3>;

/// An array of heads as a cache.
cache_tensor cache_over(const array& a, const char* name, const head_axes& axes, cache_type type);

/// Scales of heads as heads of one element.
array with_element_axis(const array& scales);

/// The number of elements.
std::int64_t count_of(const array& a);

/// The axes of a cache in an order of its name.
head_axes axes_of_cache(const array& a, const char* name, std::string_view order, bool one_head);

/// The type that an explicit cache_dtype names; "" for None. Takes names, PyTorch's and NumPy's types.
std::string_view read_cache_dtype(py::handle dtype);

/// Integers of a call that are no positions, in the memory where the call reads them: slots and pages.
array read_indices(py::handle object, const char* name, const array& like, int max_axes, bool wide);

/// Slots by number from the result of read_indices() for slot_mapping.
cache_slots slots_by_mapping(const array& mapping);

/// Slots from the result of read_indices() for page_table. Throws unless it is [sequences, max_pages] with contiguous
/// rows.
cache_slots slots_by_page_table(const array& table, const positions& entries);

}  // namespace ropewalk::python
