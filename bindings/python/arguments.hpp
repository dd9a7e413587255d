// From the arguments of a Python call to those of the runtime.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include <ropewalk/core/positions.hpp>
#include <ropewalk/core/table.hpp>
#include <ropewalk/core/view.hpp>
#include <ropewalk/encoding.hpp>

#include "array.hpp"

namespace ropewalk::python {

/// The encoding inside a Python object; TypeError when it is something else.
const Encoding& as_encoding(py::handle object, const char* name = "encoding");

/// Queries or keys as the runtime takes them. `order` is None or one of the names of axis_orders.
tensor as_tensor(const array& a, const char* name, py::handle order);

/// Throws unless the memory may be written.
void check_writable(const array& a, const char* name, const char* function);

/// Whether torch must see the call: the tensor wants a gradient, or is of a subclass that only torch understands.
bool needs_operator(py::handle object);

/// Tells autograd that torch tensors have been written, whether or not it is recording; None is no tensor.
void announce_write(py::handle q, py::handle k);

/// Throws where autograd would lose a gradient.
void check_gradient(const array& a, const char* name, const char* function);

/// Positions from Python, with whatever keeps them alive. Not to be moved: `where` may point into `copy`.
struct token_positions {
    positions where;
    array source;
    std::vector<std::int64_t> copy;

    /// At most one of `ids` and `cu_seqlens`; None for neither. Ids for an encoding whose pairs follow several
    /// positions are [3, tokens] or [3, batch, tokens], or [tokens] for all three. They come to lie where `like` does;
    /// those that an encoding draws from, on the host. Only torch can take them from one to the other. `name` is what
    /// messages call the ids.
    token_positions(const Encoding& encoding, py::handle ids, std::int64_t offset, py::handle cu_seqlens,
                    const array& like = {}, const char* name = "positions");
    token_positions(const token_positions&) = delete;
    token_positions& operator=(const token_positions&) = delete;

    /// Ids name every token and no other: more of them are those of another axis.
    void check_tokens(std::int64_t tokens) const;

private:
    const char* name_;

    void read(py::handle object, const char* name, int most_axes, const array& like, bool draws);
    void read_axes(const Encoding& encoding);
};

/// A table with what keeps it alive: a pair may make its arrays, and an array its memory, when it is asked.
struct kept_table {
    cos_sin_table rows;
    std::array<py::object, 4> owners{};
};

/// A foreign (cos, sin) in Hugging Face order, where `like` lies: two axes are rows by index, three [batch or 1,
/// tokens, columns].
kept_table as_table(py::handle pair, const array& like);

/// A copy of host memory, of whatever library, on the device of a torch tensor.
array copy_beside(py::handle object, const array& like, const char* name);

/// None: torch's number where torch is loaded, else OpenMP's, which is 0.
int as_threads(py::handle threads);

layout_kind as_layout(std::string_view name);

}  // namespace ropewalk::python
