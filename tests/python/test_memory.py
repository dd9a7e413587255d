"""Memory of other libraries: views are rotated without a copy, and read-only memory is never written."""

import collections
import contextlib
import gc
import weakref

import ml_dtypes
import numpy as np
import pytest
import ropewalk as rw
import torch
from checks import assert_refused, run_python
from rope_reference import LIBRARIES, TYPES, assert_close, exact, make, plain, rotate_exactly

ENCODING = rw.encoding("default", head_dim=64)
THETA = plain(64)


@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("library", LIBRARIES)
def test_packed_qkv_in_place(library, type_name):
    packed = make(library, type_name, (2, 12, 8 + 2 + 2, 64))
    before = exact(packed)
    q, k = packed[:, :, :8], packed[:, :, 8:10]
    rotated_q, rotated_k = rw.rotate_(q, k, encoding=ENCODING)
    assert rotated_q is q and rotated_k is k
    assert_close(packed[:, :, :10], rotate_exactly(before[:, :, :10], THETA, np.arange(12)))
    np.testing.assert_array_equal(exact(packed[:, :, 10:]), before[:, :, 10:])


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_second_token_of_transposed_memory(library):
    """Memory [b, s, h, d] as a view [b, h, s, d]."""
    whole = make(library, "float32", (2, 20, 4, 64))
    expected = exact(whole)
    rw.rotate_(whole[:, ::2].swapaxes(1, 2), encoding=ENCODING, order="bhsd")
    expected[:, ::2] = rotate_exactly(expected[:, ::2], THETA, np.arange(10))
    assert_close(whole[:, ::2], expected[:, ::2])
    np.testing.assert_array_equal(exact(whole[:, 1::2]), expected[:, 1::2])


def test_negative_strides():
    whole = make("numpy", "float32", (10, 2, 64))
    expected = rotate_exactly(whole[::-1], THETA, np.arange(10))
    rw.rotate_(whole[::-1], encoding=ENCODING)
    assert_close(whole[::-1], expected)


@pytest.mark.parametrize("library", LIBRARIES)
def test_new_tensors_of_strided_input(library):
    whole = make(library, "float32", (2, 3, 7, 64))
    expanded = torch.broadcast_to if library == "torch" else np.broadcast_to
    for view in (whole.swapaxes(1, 2), expanded(whole[:, :1], (2, 5, 7, 64))):
        assert_close(rw.rotate(view, encoding=ENCODING), rotate_exactly(view, THETA, np.arange(view.shape[1])))


def test_memory_that_cannot_be_written_in_place():
    q = torch.randn(1, 2, 64).expand(5, 2, 64)
    assert_refused("share memory along the token axis", lambda: rw.rotate_(q, encoding=ENCODING), q)
    q = np.zeros((3, 2, 128), np.float32)[..., ::2]
    assert_refused(r"strides \[.*2\].*last stride 1", lambda: rw.rotate_(q, encoding=ENCODING))


def test_read_only_arrays():
    q = make("numpy", "float32", (3, 2, 64))
    x = q.copy()
    q.flags.writeable = False
    message = r"q float32 \[3, 2, 64\].*read-only"
    assert_refused(message, lambda: rw.rotate_(q, encoding=ENCODING, offset=4), q)
    np.testing.assert_array_equal(rw.rotate(q, encoding=ENCODING), rw.rotate(x, encoding=ENCODING))
    message = r"out of q .*read-only and rotate would write it; pass writable memory"
    assert_refused(message, lambda: rw.rotate(x, encoding=ENCODING, out=q), q)


def test_output_that_overlaps():
    memory = make("numpy", "float32", (6, 2, 64))
    assert_refused("overlap", lambda: rw.rotate(memory[:5], encoding=ENCODING, out=memory[1:]), memory)
    expected = rotate_exactly(memory, THETA, np.arange(6))
    assert rw.rotate(memory, encoding=ENCODING, out=memory) is memory
    assert_close(memory, expected)


@pytest.mark.parametrize("shape", [(0, 2, 64), (3, 0, 64)])
@pytest.mark.parametrize("library", LIBRARIES)
def test_empty(library, shape):
    q = make(library, "float32", shape)
    assert rw.rotate_(q, encoding=ENCODING) is q
    assert tuple(rw.rotate(q, encoding=ENCODING).shape) == shape
    with pytest.raises(rw.Error, match="head_dim 64"):
        rw.rotate_(make(library, "float32", (*shape[:2], 32)), encoding=ENCODING)


class Wrapped:
    """An array that supports DLPack only."""

    def __init__(self, inner, versioned=True, device=None, **options):
        self.inner, self.versioned, self.device, self.options = inner, versioned, device, options

    def __dlpack_device__(self):
        return self.device or self.inner.__dlpack_device__()

    def __dlpack__(self, **arguments):
        if not self.versioned and arguments:
            raise TypeError("max_version is not supported")
        return self.inner.__dlpack__(**arguments, **self.options)


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("type_name", TYPES)
def test_dlpack(type_name, versioned):
    inner = make("torch", type_name, (4, 6, 64))[:, ::2]
    expected = rotate_exactly(inner, THETA, np.arange(3, 7))
    foreign = Wrapped(inner, versioned)
    fresh = rw.rotate(foreign, encoding=ENCODING, offset=3)
    assert isinstance(fresh, np.ndarray)
    assert fresh.dtype == (ml_dtypes.bfloat16 if type_name == "bfloat16" else type_name)
    assert rw.rotate_(foreign, encoding=ENCODING, offset=3) is foreign
    assert_close(inner, expected)
    assert_close(fresh, expected)


def test_read_only_dlpack():
    inner = make("numpy", "float32", (2, 2, 64))
    inner.flags.writeable = False
    with pytest.raises(rw.Error, match="read-only"):
        rw.rotate_(Wrapped(inner), encoding=ENCODING)
    rw.rotate(Wrapped(inner), encoding=ENCODING)


def test_a_dlpack_export_that_is_a_copy_is_not_written():
    """A write would not reach the memory of the owner."""
    inner = make("numpy", "float32", (2, 2, 64))
    copies = Wrapped(inner, copy=True)
    message = r"q .* is read-only and rotate_ would write it"
    assert_refused(message, lambda: rw.rotate_(copies, encoding=ENCODING, offset=1), inner)
    expected = rw.rotate(inner, encoding=ENCODING, offset=1)
    np.testing.assert_array_equal(rw.rotate(copies, encoding=ENCODING, offset=1), expected)


def test_other_devices():
    with pytest.raises(rw.Error, match="q is on DLPack device 10:0"):
        rw.rotate_(Wrapped(torch.zeros(2, 2, 64), device=(10, 0)), encoding=ENCODING)  # ROCm
    with pytest.raises(rw.Error, match="q is on the device meta"):
        rw.rotate_(torch.zeros(2, 2, 64, device="meta"), encoding=ENCODING)


class WithUnits(np.ndarray):
    """NumPy's functions on it are its own, as in astropy and unyt."""

    def __array_ufunc__(self, *args, **kwargs):
        return NotImplemented


class Named(np.ndarray):
    """Its elements are plain numbers."""


class Proxy:
    """As the quantities of pint, it has the interface of the array inside."""

    __array_function__ = None
    __array_struct__ = np.zeros((4, 2, 64), np.float32).__array_struct__


def scipy_like_sparse():
    """Sparse arrays have a dtype and a shape, but no memory of all elements."""
    return type("csr_array", (), {"dtype": np.dtype("float32"), "shape": (4, 2, 64)})()


def masked(values):
    return np.ma.masked_array(values, mask=np.zeros(np.shape(values), bool))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"q": masked(np.zeros((4, 2, 64), np.float32))}, r"q is a numpy.ma(.core)?.MaskedArray, and its mask would"),
        ({"k": masked(np.zeros((4, 2, 64), np.float32))}, "k is a .*MaskedArray"),
        ({"positions": masked(np.arange(4))}, "positions is a .*MaskedArray"),
        ({"cu_seqlens": masked(np.array([0, 4]))}, "cu_seqlens is a .*MaskedArray"),
        ({"table": [masked(x) for x in ENCODING.cos_sin(range(4))]}, "cos is a .*MaskedArray"),
        (
            {"q": np.zeros((4, 2, 64), np.float32).view(WithUnits)},
            "q is a test_memory.WithUnits, and its meaning would",
        ),
        ({"positions": np.arange(4).view(WithUnits)}, "positions is a test_memory.WithUnits"),
        ({"q": Proxy()}, "q is a test_memory.Proxy"),
        ({"q": scipy_like_sparse()}, "q must be a NumPy array, a PyTorch tensor .*, got csr_array"),
    ],
)
def test_arrays_that_mean_more_than_their_numbers_are_refused(arguments, message):
    q = np.zeros((4, 2, 64), np.float32)
    for function in (rw.rotate_, rw.rotate):
        assert_refused(message, lambda: function(**{"q": q, "encoding": ENCODING, **arguments}), q, error=TypeError)  # noqa: B023
    if "q" not in arguments and "k" not in arguments:  # the operators of PyTorch, too
        x = torch.zeros(4, 2, 64, requires_grad=True)
        assert_refused(message, lambda: rw.rotate(x, encoding=ENCODING, **arguments), error=TypeError)


def test_object_arrays_are_refused():
    with pytest.raises(rw.Error, match=r"q object .*expected float32"):
        rw.rotate(np.zeros((4, 2, 64), object), encoding=ENCODING)
    with pytest.raises(rw.Error, match=r"positions object .*expected int64"):
        rw.rotate(np.zeros((4, 2, 64)), encoding=ENCODING, positions=np.arange(4).astype(object))


def test_masked_positions_of_other_functions():
    for call in (ENCODING.cos_sin, rw.query_temperature):
        with pytest.raises(TypeError, match=r"positions is a .*MaskedArray"):
            call(masked(np.arange(4)))
        with pytest.raises(TypeError, match=r"positions contains a .*MaskedArray"):
            call([masked(np.arange(4))])


MEANT = {
    "masked array": masked(np.arange(4)),
    "masked number": np.ma.masked,
    "units": np.arange(4).view(WithUnits),
    "proxy": Proxy(),
}


@pytest.mark.parametrize("kind", MEANT)
@pytest.mark.parametrize("nest", [lambda x: [x], lambda x: [0, 1, 2, (3, [x])], lambda x: collections.deque([0, x])])
def test_arrays_that_mean_more_inside_of_lists(kind, nest):
    value = nest(MEANT[kind])
    name = type(MEANT[kind]).__name__
    for q in (np.zeros((4, 2, 64), np.float32), torch.zeros(4, 2, 64, requires_grad=True)):
        starts = [0] * len(value) + [4]  # one sequence per entry, whose numbers are then read
        for arguments in ({"positions": value}, {"cu_seqlens": value}, {"cu_seqlens": starts, "offset": value}):
            with pytest.raises(TypeError, match=f"{list(arguments)[-1]} contains a .*{name}, and its (mask|meaning)"):
                rw.rotate(q, encoding=ENCODING, **arguments)
    with pytest.raises(TypeError, match=f"short_factor contains a .*{name}"):
        rw.LongRope(short_factor=[value])


def test_numpy_numbers_inside_of_lists():
    expected = ENCODING.cos_sin([5, 6, 7])[0]
    for ids in ([np.int64(5), np.uint8(6), 7], [np.array(5), np.array(6), np.array(7)], list(np.arange(5, 8))):
        np.testing.assert_array_equal(ENCODING.cos_sin(ids)[0], expected)


def test_a_list_that_contains_itself():
    """NumPy would read 2^64 items."""
    inner = []
    inner += [inner, (inner,)]
    for call in (ENCODING.cos_sin, rw.query_temperature):
        with pytest.raises(rw.Error, match="positions is a list that contains itself"):
            call(inner)


@pytest.mark.parametrize("name", ["cu_seqlens", "offset"])
def test_masked_sequences(name):
    arguments = {"cu_seqlens": np.array([0, 4]), "offset": np.array([7]), "padded_tail": True}
    arguments[name] = masked(arguments[name])
    with pytest.raises(TypeError, match=f"{name} is a .*MaskedArray"):
        rw.rotate(np.zeros((4, 2, 64), np.float32), encoding=ENCODING, **arguments)


def test_subclasses_of_plain_numbers(tmp_path):
    q = make("numpy", "float32", (4, 64))
    expected = rotate_exactly(q[:, None], THETA, np.arange(4))[:, 0]
    mapped = np.memmap(tmp_path / "q", np.float32, "w+", shape=q.shape)
    for x in (mapped, np.matrix(q), q.copy().view(Named)):
        x[:] = q
        assert_close(np.asarray(rw.rotate(x, encoding=ENCODING, order="td")), expected)
        assert rw.rotate_(x, encoding=ENCODING, order="td") is x
        assert_close(np.asarray(x), expected)


class Resizing:
    """An integer that frees the memory of an array while it is read."""

    def __init__(self, array, number):
        self.array, self.number = array, number

    def __index__(self):
        self.array.resize((64, 8, 64), refcheck=False)
        self.array[:] = 1
        return self.number


@pytest.mark.parametrize("name", ["offset", "threads"])
@pytest.mark.parametrize("function", [rw.rotate_, rw.rotate])
def test_an_index_that_moves_the_array(function, name):
    """The call sees the array as it is after all integers are read."""
    q = np.zeros((2, 1, 64), np.float32)
    result = function(q, encoding=ENCODING, **{name: Resizing(q, 1)})
    expected = rotate_exactly(np.ones((64, 8, 64)), THETA, np.arange(64) + (name == "offset"))
    assert_close(np.array(result), expected)


@pytest.mark.parametrize("name", ["offset", "new_offset", "threads"])
def test_an_index_that_moves_the_keys(name):
    k = np.zeros((2, 1, 64), np.float32)
    rw.rerotate_(k, ENCODING, ENCODING, **{"new_offset": 0, name: Resizing(k, 1)})
    shift = {"offset": -1, "new_offset": 1, "threads": 0}[name]
    assert_close(np.array(k), rotate_exactly(np.ones((64, 8, 64)), THETA, np.full(64, shift)))


class Moving:
    """Arrays, sequences and integers that call a function when they are read."""

    def __init__(self, move, value):
        self.move, self.value = move, value

    def __index__(self):
        self.move()
        return self.value


@pytest.mark.parametrize("number", [1, 2])
def test_an_index_that_moves_the_positions(number):
    ids = np.array([3, 4])
    cos, _ = ENCODING.cos_sin(ids, threads=Moving(lambda: ids.resize(64, refcheck=False), number))
    np.testing.assert_array_equal(cos, ENCODING.cos_sin(np.append([3, 4], np.zeros(62, int)))[0])


class MovingArray(Moving):
    def __array__(self, *arguments, **named):
        self.move()
        return np.asarray(self.value)


class MovingExport(Moving):
    def __dlpack__(self, **named):
        self.move()
        return self.value.__dlpack__(**named)

    def __dlpack_device__(self):
        return self.value.__dlpack_device__()


class MovingStruct(Moving):
    @property
    def __array_struct__(self):
        self.move()
        return self.value.__array_struct__


class MovingSequence(Moving):
    def __len__(self):
        return len(self.value)

    def __getitem__(self, at):
        self.move()
        return self.value[at]


IDS = np.arange(4)
TABLE = ENCODING.cos_sin(IDS)


@pytest.mark.parametrize(
    "argument",
    [
        lambda move: {"positions": MovingArray(move, IDS)},
        lambda move: {"positions": [MovingArray(move, 3)] * 4},
        lambda move: {"positions": MovingExport(move, IDS)},
        lambda move: {"positions": MovingStruct(move, IDS)},
        lambda move: {"positions": MovingSequence(move, IDS.tolist())},
        lambda move: {"cu_seqlens": MovingSequence(move, [0, 4])},
        lambda move: {"table": MovingSequence(move, TABLE)},
        lambda move: {"table": (TABLE[0], MovingExport(move, TABLE[1]))},
        lambda move: {"k": MovingStruct(move, np.zeros((4, 2, 64), np.float32))},
        lambda move: {"k": MovingExport(move, np.zeros((4, 2, 64), np.float32))},
    ],
)
@pytest.mark.parametrize("moved", ["q", "positions", "out"])
def test_arguments_that_move_an_array(argument, moved):
    """The call fails without a write to the old memory, or has read the array after it moved."""
    arrays = {
        "q": np.zeros((4, 2, 64), np.float32),
        "positions": IDS.copy(),
        "out": np.zeros((4, 2, 64), np.float32),
    }

    def move():
        if moved == "positions":
            arrays[moved].resize(2**16, refcheck=False)
        else:
            arrays[moved].resize((2**10, 2, 64), refcheck=False)

    given = argument(move)
    if moved == "positions" and given.keys() & {"positions", "cu_seqlens"}:
        return
    q, out = arrays["q"], arrays["out"]
    calls = [lambda: rw.rotate(q, encoding=ENCODING, **given)] if moved != "out" else []
    if moved != "out":
        calls.append(lambda: rw.rotate_(q, encoding=ENCODING, **given))
    else:
        to = (out, np.zeros_like(out)) if "k" in given else out
        calls.append(lambda: rw.rotate(q, encoding=ENCODING, out=to, **given))
    if moved == "positions":
        given["positions"] = arrays["positions"]
    for call in calls:
        with contextlib.suppress(rw.Error, TypeError):  # objects in lists are of no type that NumPy knows
            call()
        assert np.isfinite(q).all() and np.isfinite(out).all()


def test_an_array_that_moved_is_an_error():
    q = np.zeros((4, 2, 64), np.float32)
    positions = MovingArray(lambda: q.resize((64, 2, 64), refcheck=False), IDS)
    with pytest.raises(rw.Error, match=r"q float32 \[64, 2, 64\] .* was \[4, 2, 64\], and Python code of another"):
        rw.rotate_(q, encoding=ENCODING, positions=positions)
    k = np.zeros((4, 2, 64), np.float32)
    positions = MovingArray(lambda: k.resize((64, 2, 64), refcheck=False), IDS)
    with pytest.raises(rw.Error, match=r"k float32 \[64, 2, 64\] .* was \[4, 2, 64\]"):
        rw.rerotate_(k, ENCODING, ENCODING, new_positions=positions)


def test_a_warning_that_moves_the_array():
    program = """
import warnings
import numpy as np, ropewalk as rw
q = np.ones((2, 32, 300, 64), np.float32)
warnings.showwarning = lambda *arguments: q.resize((1, 1, 1, 64), refcheck=False)
try:
    rw.rotate_(q, encoding=rw.encoding("default", head_dim=64))
except rw.Error as problem:
    print(problem)
"""
    assert "q float32 [1, 1, 1, 64]" in run_python(program)


@pytest.mark.parametrize("kind", [np.ndarray, torch.Tensor, Wrapped])
def test_a_class_is_not_an_array(kind):
    with pytest.raises(TypeError, match=r"q must be a NumPy array, .*, got "):
        rw.rotate(kind, encoding=ENCODING)


def test_a_tracer_has_no_memory():
    """In jax.jit (JAX 0.10.2) an array has __dlpack__ but not __dlpack_device__."""

    class Tracer:
        def __dlpack__(self, **options):
            raise NotImplementedError

    with pytest.raises(rw.Error, match=r"q is a Tracer without memory; in jax.jit, .* call ropewalk.jax.rotate"):
        rw.rotate(Tracer(), encoding=ENCODING)


def test_memory_is_released():
    q, foreign = make("numpy", "float32", (2, 2, 64)), Wrapped(torch.zeros(2, 2, 64))
    rw.rotate_(q, encoding=ENCODING, positions=[1, 2])
    rw.rotate_(foreign, encoding=ENCODING)
    alive = weakref.ref(q), weakref.ref(foreign.inner)
    del q, foreign
    gc.collect()
    assert [reference() for reference in alive] == [None, None]


def test_arrays_of_jax_are_read_but_never_written():
    """A stand-in from a module with the name of JAX's. The test with JAX 0.10.2 itself was manual."""
    kind = type("Array", (Wrapped,), {"__module__": "jaxlib._jax"})
    array = kind(np.ones((4, 2, 64), np.float32))
    rotated = rw.rotate(array, encoding=ENCODING, offset=3)
    np.testing.assert_array_equal(rotated, rw.rotate(array.inner, encoding=ENCODING, offset=3))
    message = "is read-only and rotate_ would write it"
    assert_refused(message, lambda: rw.rotate_(array, encoding=ENCODING, offset=3), array.inner)


# Prints the results for many kinds of tensors, and the messages for those that are refused. With an argument the
# program first removes the C functions for DLPack that torch has since version 2.10.
TORCH_EXCHANGE = """
import sys
import torch

if len(sys.argv) > 1:
    del torch.Tensor.__dlpack_c_exchange_api__
import ropewalk as rw

encoding = rw.encoding("linear:8", head_dim=64)
whole = torch.arange(2 * 6 * 3 * 64).reshape(2, 6, 3, 64) / 1000 - 1
for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
    x = whole.to(dtype)
    for view in (x, x[:, 1:5:2], x.expand(2, 6, 3, 64), x[:1, :0], torch.nn.Parameter(x[0], requires_grad=False)):
        print(rw.rotate(view, encoding=encoding, offset=7).double().sum().item())
    rotated = rw.rotate(x, x, encoding=encoding, positions=torch.arange(12, dtype=torch.int32).view(2, 6))
    out = torch.empty_like(x), torch.empty_like(x)
    rw.rotate(x.transpose(1, 2), x.transpose(1, 2), encoding=encoding, order="bhsd", offset=1,
              out=tuple(y.transpose(1, 2) for y in out))
    for ids in (torch.int8, torch.int16, torch.uint8, torch.uint16, torch.uint32, torch.int64):
        rw.rotate_(x[:, :, 1:], encoding=encoding, positions=torch.arange(12).to(ids)[::2])
    print(rotated[0].double().sum().item(), out[1].double().sum().item(), x.double().square().sum().item(), x._version)
for refused in (
    whole.int(), whole.to("meta"), whole.to_sparse(), whole[..., ::2], torch.ones(4, 2, 64).cfloat().conj().imag,
    torch.ones((1,) * 9)
):
    try:
        rw.rotate(refused, encoding=encoding)
    except rw.Error as problem:
        print(problem)
"""


@pytest.mark.skipif(not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"), reason="torch exports no C functions")
def test_both_ways_to_read_a_torch_tensor_agree():
    by_functions, by_attributes = run_python(TORCH_EXCHANGE), run_python(TORCH_EXCHANGE, "without")
    assert by_functions == by_attributes
    assert len(by_functions.splitlines()) == 4 * 6 + 6
