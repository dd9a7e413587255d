// Detection of arrays whose axes are in another order than a call assumes.
#pragma once

#include <string>

#include "array.hpp"

namespace ropewalk::python {

/// Throws for q and k that do not fit together, but would in the order "bhsd". Warns once per process about an array
/// without `order` that looks like [batch, heads, tokens, head_dim], if `may_warn`. `q` or `k` may be absent. Returns
/// whether it has warned, which can run Python code.
bool check_order(const array& q, const array& k, py::handle order, bool may_warn);

/// The same where q and k may have different numbers of tokens. Throws without `order` if axis 1 can be the heads: then
/// "bhsd" fits, and "bshd" may fit, too.
void check_order_named(const array& q, const array& k, py::handle order);

/// The end of a message about `count` entries for another number of tokens of `a`: a question that names the order in
/// which `a` has `count` tokens, or the advice to name the token axis.
std::string order_hint(const array& a, py::handle order, std::int64_t count);

}  // namespace ropewalk::python
