"""Handler of XLA's foreign-function interface, called through its C structures without JAX. test_jax.py needs JAX."""

import ctypes
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_int32, c_int64, c_size_t, c_uint32, c_void_p

import numpy as np
import pytest
import ropewalk as rw

TYPES = {"float32": 11, "float16": 10, "float64": 12, "int32": 4, "int64": 5}
EXECUTE = 3


class Extension(Structure):
    _fields_ = (("size", c_size_t), ("type", c_int32), ("next", c_void_p))


class Version(Structure):
    _fields_ = (("size", c_size_t), ("extensions", c_void_p), ("major", c_int32), ("minor", c_int32))


class Metadata(Structure):
    _fields_ = (("size", c_size_t), ("version", Version), ("traits", c_uint32), ("state", c_int64))


class MetadataExtension(Structure):
    _fields_ = (("head", Extension), ("metadata", POINTER(Metadata)))


class Problem(Structure):
    _fields_ = (("size", c_size_t), ("extensions", c_void_p), ("message", c_char_p), ("code", c_int32))


MakeError = CFUNCTYPE(c_void_p, POINTER(Problem))


class Functions(Structure):
    _fields_ = (("size", c_size_t), ("extensions", c_void_p), ("version", Version), ("internal", c_void_p))
    _fields_ += (("make_error", MakeError),)


class Buffer(Structure):
    _fields_ = (("size", c_size_t), ("extensions", c_void_p), ("type", c_int32), ("data", c_void_p))
    _fields_ += (("rank", c_int64), ("dims", POINTER(c_int64)))


class Text(Structure):
    _fields_ = (("data", c_char_p), ("size", c_size_t))


class Scalar(Structure):
    _fields_ = (("type", c_int32), ("value", c_void_p))


class Values(Structure):
    _fields_ = (("size", c_size_t), ("extensions", c_void_p), ("count", c_int64), ("types", POINTER(c_int32)))
    _fields_ += (("items", POINTER(c_void_p)),)


class Attributes(Structure):
    _fields_ = (("size", c_size_t), ("extensions", c_void_p), ("count", c_int64), ("types", POINTER(c_int32)))
    _fields_ += (("names", POINTER(c_void_p)), ("items", POINTER(c_void_p)))


class Call(Structure):
    _fields_ = (("size", c_size_t), ("extensions", c_void_p), ("api", POINTER(Functions)), ("context", c_void_p))
    _fields_ += (("stage", c_int32), ("arguments", Values), ("results", Values), ("named", Attributes))


ctypes.pythonapi.PyCapsule_GetPointer.restype = c_void_p
ctypes.pythonapi.PyCapsule_GetPointer.argtypes = (ctypes.py_object, c_char_p)
ADDRESS = ctypes.pythonapi.PyCapsule_GetPointer(rw._ropewalk.xla_handler(), None)
handler = CFUNCTYPE(c_void_p, POINTER(Call))(ADDRESS)


def pointers(structures):
    return (c_void_p * len(structures))(*(ctypes.addressof(s) for s in structures))


def values_of(arrays, kept):
    buffers = []
    for array in arrays:
        dims = (c_int64 * array.ndim)(*array.shape)
        buffers.append(Buffer(0, None, TYPES[array.dtype.name], array.ctypes.data, array.ndim, dims))
    types, items = (c_int32 * len(arrays))(*[1] * len(arrays)), pointers(buffers)
    kept += [buffers, types, items]
    return Values(0, None, len(arrays), types, items)


def attributes_of(named, kept):
    names = [Text(name.encode(), len(name)) for name in sorted(named)]
    items, types = [], []
    for _, value in sorted(named.items()):
        if isinstance(value, str):
            items.append(Text(value.encode(), len(value)))
            types.append(4)
        else:
            kept.append(c_int64(value))
            items.append(Scalar(5, ctypes.addressof(kept[-1])))
            types.append(3)
    arrays = (c_int32 * len(types))(*types), pointers(names), pointers(items)
    kept += [names, items, arrays]
    return Attributes(0, None, len(types), *arrays)


def call(arguments, results, **named):
    """The message of the error, or None."""
    messages, kept = [], []

    @MakeError
    def make_error(problem):
        messages.append((problem.contents.code, problem.contents.message.decode()))
        return 1

    api = Functions(0, None, Version(), None, make_error)
    defaults = {"order": "thd", "offset": 0, "direction": 0, "threads": 0}
    frame = Call(
        *(0, None, ctypes.pointer(api), None, EXECUTE),
        *(values_of(arguments, kept), values_of(results, kept), attributes_of({**defaults, **named}, kept)),
    )
    assert bool(handler(byref(frame))) == bool(messages)
    return messages[0] if messages else None


def test_the_version():
    metadata = Metadata(0, Version(0, None, -1, -1), 7)
    extension = MetadataExtension(Extension(0, 1, None), ctypes.pointer(metadata))
    assert handler(byref(Call(0, ctypes.addressof(extension)))) is None
    assert (metadata.version.major, metadata.version.minor, metadata.traits) == (0, 1, 0)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_queries_and_keys(dtype):
    encoding = rw.encoding("yarn:4,original_length=4096", 32, 1e6, 16, layout="interleaved")
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((9, 4, 32)).astype(dtype), rng.standard_normal((9, 2, 32)).astype(dtype)
    out = np.zeros_like(q), np.zeros_like(k)
    assert call((q, k), out, given="qk", encoding=encoding.key, offset=100) is None
    for ours, expected in zip(out, rw.rotate(q, k, encoding=encoding, offset=100)):
        np.testing.assert_array_equal(ours, expected)
    assert call((k,), out[1:], given="k", encoding=encoding.key, offset=7, direction=3, threads=1) is None
    expected = rw.rotate(None, k, encoding=encoding, offset=7, inverse=True, adjoint=True)
    np.testing.assert_array_equal(out[1], expected)


@pytest.mark.parametrize("order", ["bshd", "bhsd", "sbhd"])
@pytest.mark.parametrize("ids", ["int32", "int64"])
def test_axes_of_vmap(order, ids):
    encoding = rw.encoding("linear:8", head_dim=16)
    sizes = {"b": 3, "s": 5, "h": 2, "d": 16}
    q = np.random.default_rng(1).standard_normal((2, 4, *(sizes[axis] for axis in order))).astype(np.float32)
    positions = np.random.default_rng(2).integers(0, 10**6, (2, 4, 1, 3, 5)).astype(ids)
    out = np.zeros_like(q)
    assert call((q, positions), (out,), given="q", encoding=encoding.key, order=order) is None
    for i in np.ndindex(2, 4):
        expected = rw.rotate(q[i], encoding=encoding, positions=positions[i][0], order=order)
        np.testing.assert_array_equal(out[i], expected)


def test_errors_have_a_message():
    encoding, q = rw.encoding("xpos:512", head_dim=16), np.zeros((1, 2, 16), np.float32)
    code, message = call((q,), (q.copy(),), given="q", encoding=encoding.key, offset=10**8)
    assert code == 3 and "'xpos' cannot hold position 100000000 in f32" in message
    _, message = call((q,), (q.copy(),), given="q", encoding="linear:8")
    assert message == "ropewalk: 'linear:8' is not the key of an encoding; pass Encoding.key"
    _, message = call((q.astype(np.int32),), (q.copy(),), given="q", encoding=encoding.key)
    assert "expected float32, float16, bfloat16 or float64, got XLA's type 4" in message


@pytest.mark.parametrize(
    "change", [lambda key: key + "@", lambda key: key.replace("@", "@x", 1), lambda key: key.rpartition("@")[0]]
)
def test_broken_keys(change):
    key = rw.encoding("linear:4|truncated:4096", 64, 1e6, 32, 16, "interleaved", 77).key
    assert rw.Encoding.from_key(key).key == key
    with pytest.raises(rw.Error, match="is not the key of an encoding"):
        rw.Encoding.from_key(change(key))
