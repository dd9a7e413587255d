// Conversion of Python arguments to the arguments of a rotation.
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
#include "constructed.hpp"
#include "encoding_key.hpp"

template <>
struct pybind11::detail::type_caster<ropewalk::Encoding> : ropewalk::python::constructed_caster<ropewalk::Encoding> {};

namespace ropewalk::python {

/// Throws TypeError for an object that is no integer or a bool, ropewalk::error for an integer of more than 64 bits.
std::int64_t as_int64(py::handle number, const char* name);

/// Throws TypeError for an object that is no real number or a bool, ropewalk::error for a number beyond
/// the range of double.
double as_double(py::handle number, const char* name);

/// as_int64() with a message for arrays and lists that points to explicit positions.
std::int64_t as_offset(py::handle number, const char* name = "offset");

/// The position of the first token: one integer, or integers per sequence that are not read yet.
struct token_offset {
    std::int64_t first;
    py::handle each;  ///< null: `first` counts
    const char* name;

    token_offset(std::int64_t first_ = 0, py::handle each_ = {},  // NOLINT(google-explicit-constructor)
                 const char* name_ = "offset")
        : first(first_), each(each_), name(name_) {}
};

/// Takes an integer, or a list or an array of integers. A number on a device is not read, which would wait for it.
token_offset as_token_offset(py::handle object, const char* name = "offset");

/// The characters of a str, in the memory of the object. Throws TypeError for any other object, ropewalk::error for
/// characters that UTF-8 cannot express.
std::string_view as_text(py::handle text, const char* name);

/// Takes True, False and NumPy's bool. Throws TypeError for any other object.
bool as_bool(py::handle truth, const char* name);

/// repr() of an object for a message, or its type if there is none.
std::string repr_of(py::handle object);

/// A new NumPy array of Python's own numbers, of lists of them, or of arrays. Throws as check_plain(), and
/// ropewalk::error for rows of several lengths and for numbers that NumPy cannot hold.
py::object as_numpy(py::handle object, const char* name);

/// The number of threads of PyTorch if that is loaded and `threads` is None, else 0 for OpenMP's own number.
int thread_count(py::handle threads);

/// The encoding inside a Python object. Throws TypeError for any other object.
const Encoding& as_encoding(py::handle object, const char* name = "encoding");

/// A view of queries or keys. `order` is None or one of "thd", "bshd", "bhsd", "sbhd", "hd" and "td".
tensor as_tensor(const array& a, const char* name, py::handle order);

/// Throws unless the memory may be written.
void check_writable(const array& a, const char* name, const char* function);

/// Throws if autograd would lose a gradient.
void check_gradient(const array& a, const char* name, const char* function);

/// Positions from Python with the memory that they refer to. Not movable: `value` may point into `copy`.
struct token_positions {
    positions value;
    array source, offsets;
    std::vector<std::int64_t> copy, offsets_copy;

    /// Takes at most one of `ids` and `cu_seqlens`; None means neither. Offsets are [sequences], or one for all. Ids
    /// for M-RoPE are [1 or 3, batch or 1, tokens], where 1 is one id for all three axes, or [tokens]. Two axes are [3,
    /// tokens] if `like` has no batch axis, else [batch or 1, tokens]. Ids are moved to the device of `like`, or to the
    /// host if the encoding draws its positions; only PyTorch can move them. `name` is the argument's name in messages.
    ///
    /// `rotated` is the view of `like` in this `order`. Throws, before anything is copied, unless there is one id per
    /// token of it: more of them are the ids of another axis. Without `rotated` any number is taken.
    token_positions(const Encoding& encoding, py::handle ids, const token_offset& offset, py::handle cu_seqlens,
                    const array& like = {}, const tensor* rotated = nullptr, py::handle order = py::none(),
                    const char* name = "positions");
    token_positions(const token_positions&) = delete;
    token_positions& operator=(const token_positions&) = delete;

private:
    void read_shape(py::handle object, const char* name, int max_axes);
    void split_axes(const Encoding& encoding, bool batched, const char* name);
    void check_ids(const tensor& rotated, const array& like, py::handle order, const char* name) const;
    void check_sequences(std::int64_t tokens) const;
    void load(const char* name, const array& like, bool draws);
    void load_offsets(const token_offset& given, std::int64_t sequences, bool ragged, const array& like, bool draws);
};

/// A table with the objects that keep it alive: a sequence may make its arrays, and an array its memory, on demand.
struct owned_table {
    cos_sin_table value;
    array cos, sin;
    py::object cos_owner, sin_owner;
};

/// A caller-supplied table on the device of `like`. A pair (cos, sin) of two axes has rows by position, of three it is
/// [batch or 1, tokens, columns]. One array [positions, rotary_dim] has cosines in the first half of a row and sines in
/// the second one, as the cos_sin_cache of inference engines. Without an encoding, which knows rotary_dim, it is
/// refused.
owned_table as_table(py::handle table, const array& like, const Encoding* encoding = nullptr);

/// True for a table that wants a gradient.
bool table_wants_gradient(py::handle table);

/// A copy of host memory, of any library, on the device of a PyTorch tensor.
array copy_to_device(py::handle object, const array& like, const char* name);

}  // namespace ropewalk::python
