"""No copies, strides respected, read-only memory left alone."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import ropewalk as rw
import torch
from rope_reference import assert_close, exact, make, plain, turn

ENCODING = rw.encoding("default", head_dim=64)
THETA = plain(64)


@pytest.mark.parametrize("type_name", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_packed_qkv_in_place(library, type_name):
    packed = make(library, type_name, (2, 12, 8 + 2 + 2, 64))
    before = exact(packed)
    q, k = packed[:, :, :8], packed[:, :, 8:10]
    address = q.data_ptr() if library == "torch" else q.ctypes.data
    turned_q, turned_k = rw.rotate_(q, k, encoding=ENCODING)
    assert turned_q is q and turned_k is k
    assert (q.data_ptr() if library == "torch" else q.ctypes.data) == address
    after = exact(packed)
    assert_close(after[:, :, :10], turn(before[:, :, :10], THETA, np.arange(12)[None]), type_name)
    np.testing.assert_array_equal(after[:, :, 10:], before[:, :, 10:])


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_transposed_and_stepped(library):
    """[b, s, h, d] memory seen as [b, h, s, d], every second token of it."""
    whole = make(library, "float32", (2, 20, 4, 64))
    before = exact(whole)
    seen = whole[:, ::2].transpose(1, 2) if library == "torch" else whole[:, ::2].transpose(0, 2, 1, 3)
    rw.rotate_(seen, encoding=ENCODING, order="bhsd")
    expected = before.copy()
    expected[:, ::2] = turn(before[:, ::2], THETA, np.arange(10)[None])
    assert_close(exact(whole), expected, "float32")
    np.testing.assert_array_equal(exact(whole)[:, 1::2], before[:, 1::2])


def test_negative_strides():
    whole = make("numpy", "float32", (10, 2, 64))
    before = whole.copy()
    rw.rotate_(whole[::-1], encoding=ENCODING)
    assert_close(whole[None, ::-1], turn(before[None, ::-1], THETA, np.arange(10)[None]), "float32")


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_new_tensors_of_strided_input(library):
    whole = make(library, "float32", (2, 3, 7, 64))
    if library == "torch":
        seen, expanded = whole.transpose(1, 2), whole[:, :1].expand(-1, 5, -1, -1)
    else:
        seen, expanded = whole.transpose(0, 2, 1, 3), np.broadcast_to(whole[:, :1], (2, 5, 7, 64))
    assert_close(exact(rw.rotate(seen, encoding=ENCODING)), turn(exact(seen), THETA, np.arange(7)[None]), "float32")
    assert_close(
        exact(rw.rotate(expanded, encoding=ENCODING)), turn(exact(expanded), THETA, np.arange(5)[None]), "float32"
    )


def test_expanded_tensors_are_not_written():
    q = torch.randn(1, 2, 64).expand(5, 2, 64)
    before = q.clone()
    with pytest.raises(rw.Error, match="share memory along the token axis"):
        rw.rotate_(q, encoding=ENCODING)
    assert torch.equal(q, before)


def test_last_stride_must_be_one():
    q = np.zeros((3, 2, 128), np.float32)[..., ::2]
    with pytest.raises(rw.Error, match=r"strides \[.*2\].*last stride 1"):
        rw.rotate_(q, encoding=ENCODING)


def test_read_only_arrays():
    q = make("numpy", "float32", (3, 2, 64))
    before = q.copy()
    q.flags.writeable = False
    with pytest.raises(rw.Error, match=r"q float32 \[3, 2, 64\].*read-only"):
        rw.rotate_(q, encoding=ENCODING, offset=4)
    np.testing.assert_array_equal(q, before)
    rw.rotate(q, encoding=ENCODING)  # reading is fine
    with pytest.raises(rw.Error, match=r"out of q .*read-only and rotate would write it; pass writable memory"):
        rw.rotate(before, encoding=ENCODING, out=q)
    np.testing.assert_array_equal(q, before)


def test_output_that_overlaps():
    memory = make("numpy", "float32", (6, 2, 64))
    before = memory.copy()
    with pytest.raises(rw.Error, match="overlap"):
        rw.rotate(memory[:5], encoding=ENCODING, out=memory[1:])
    np.testing.assert_array_equal(memory, before)
    result = rw.rotate(memory, encoding=ENCODING, out=memory)
    assert result is memory
    assert_close(memory[None], turn(before[None], THETA, np.arange(6)[None]), "float32")


@pytest.mark.parametrize("shape", [(0, 2, 64), (3, 0, 64)])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_empty(library, shape):
    q = make(library, "float32", shape)
    assert rw.rotate_(q, encoding=ENCODING) is q
    assert tuple(rw.rotate(q, encoding=ENCODING).shape) == shape
    wrong = make(library, "float32", (*shape[:2], 32))
    with pytest.raises(rw.Error, match="head_dim 64"):
        rw.rotate_(wrong, encoding=ENCODING)


class Wrapped:
    """An array of some other library: it has DLPack and nothing else."""

    def __init__(self, inner, versioned=True, device=None):
        self.inner, self.versioned, self.device = inner, versioned, device

    def __dlpack_device__(self):
        return self.device or self.inner.__dlpack_device__()

    def __dlpack__(self, **arguments):
        if not self.versioned:
            if arguments:
                raise TypeError("max_version is unknown here")
            return self.inner.__dlpack__()
        return self.inner.__dlpack__(**arguments)


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("type_name", ["float32", "float16", "bfloat16"])
def test_dlpack(type_name, versioned):
    inner = make("torch", type_name, (4, 6, 64))[:, ::2]
    before = exact(inner)
    foreign = Wrapped(inner, versioned)
    fresh = rw.rotate(foreign, encoding=ENCODING, offset=3)
    assert isinstance(fresh, np.ndarray)
    assert fresh.dtype == (ml_dtypes.bfloat16 if type_name == "bfloat16" else type_name)
    assert rw.rotate_(foreign, encoding=ENCODING, offset=3) is foreign
    expected = turn(before[None], THETA, np.arange(3, 7)[None])
    assert_close(exact(inner)[None], expected, type_name)
    assert_close(exact(fresh)[None], expected, type_name)


def test_read_only_dlpack():
    inner = make("numpy", "float32", (2, 2, 64))
    inner.flags.writeable = False
    with pytest.raises(rw.Error, match="read-only"):
        rw.rotate_(Wrapped(inner), encoding=ENCODING)
    rw.rotate(Wrapped(inner), encoding=ENCODING)


def test_a_copy_by_dlpack_is_not_written():
    """The owner of the numbers would not see it."""

    class Copies(Wrapped):
        def __dlpack__(self, **arguments):
            return self.inner.__dlpack__(**arguments, copy=True)

    inner = make("numpy", "float32", (2, 2, 64))
    before = inner.copy()
    with pytest.raises(rw.Error, match=r"q .* is read-only and rotate_ would write it"):
        rw.rotate_(Copies(inner), encoding=ENCODING, offset=1)
    np.testing.assert_array_equal(inner, before)
    np.testing.assert_array_equal(
        rw.rotate(Copies(inner), encoding=ENCODING, offset=1), rw.rotate(inner, encoding=ENCODING, offset=1)
    )


def test_other_devices():
    with pytest.raises(rw.Error, match="q is on DLPack device 10:0"):
        rw.rotate_(Wrapped(torch.zeros(2, 2, 64), device=(10, 0)), encoding=ENCODING)  # ROCm
    with pytest.raises(rw.Error, match="q is on the device meta"):
        rw.rotate_(torch.zeros(2, 2, 64, device="meta"), encoding=ENCODING)


@pytest.mark.parametrize("kind", [np.ndarray, torch.Tensor, Wrapped])
def test_a_class_is_no_array(kind):
    with pytest.raises(TypeError, match=r"q must be a NumPy array, .*, got "):
        rw.rotate(kind, encoding=ENCODING)


def test_what_stands_for_an_array_has_no_memory():
    """As inside of jax.jit (JAX 0.10.2), where an array has __dlpack__ and no __dlpack_device__."""

    class Tracer:
        def __dlpack__(self, **options):
            raise NotImplementedError

    with pytest.raises(rw.Error, match=r"q is a Tracer without memory, like .* inside of jax.jit, grad and vmap"):
        rw.rotate(Tracer(), encoding=ENCODING)


def test_memory_is_released():
    """Nothing keeps a tensor after the call."""
    import gc
    import weakref

    q = make("numpy", "float32", (2, 2, 64))
    foreign = Wrapped(torch.zeros(2, 2, 64))
    rw.rotate_(q, encoding=ENCODING, positions=[1, 2])
    rw.rotate_(foreign, encoding=ENCODING)
    alive = weakref.ref(q), weakref.ref(foreign.inner)
    del q, foreign
    gc.collect()
    assert [one() for one in alive] == [None, None]


def test_arrays_of_jax_are_read_but_never_written():
    """A stand-in from a module of that name: JAX itself was tried by hand (0.10.2)."""

    def __dlpack__(self, **options):
        return self.memory.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.memory.__dlpack_device__()

    kind = type("Array", (), {"__dlpack__": __dlpack__, "__dlpack_device__": __dlpack_device__})
    kind.__module__ = "jaxlib._jax"
    array, encoding = kind(), rw.encoding("linear:8", head_dim=64)
    array.memory = np.ones((4, 2, 64), np.float32)
    turned = rw.rotate(array, encoding=encoding, offset=3)
    np.testing.assert_array_equal(turned, rw.rotate(array.memory, encoding=encoding, offset=3))
    with pytest.raises(rw.Error, match="is read-only and rotate_ would write it"):
        rw.rotate_(array, encoding=encoding, offset=3)
    assert (array.memory == 1).all()


# Prints what torch tensors of many kinds become, and what is said of those that are refused. With an argument torch has
# no C functions for DLPack, as before its version 2.10.
TORCH_BY_EITHER_WAY = """
import sys
import torch

if len(sys.argv) > 1:
    del torch.Tensor.__dlpack_c_exchange_api__
import ropewalk as rw

encoding = rw.encoding("linear:8", head_dim=64)
whole = torch.arange(2 * 6 * 3 * 64).reshape(2, 6, 3, 64) / 1000 - 1
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    x = whole.to(dtype)
    parts = [x, x[:, 1:5:2], x.expand(2, 6, 3, 64), x[:1, :0], torch.nn.Parameter(x[0], requires_grad=False)]
    for one in parts:
        print(rw.rotate(one, encoding=encoding, offset=7).double().sum().item())
    turned = rw.rotate(x, x, encoding=encoding, positions=torch.arange(12, dtype=torch.int32).view(2, 6))
    out = torch.empty_like(x), torch.empty_like(x)
    rw.rotate(x.transpose(1, 2), x.transpose(1, 2), encoding=encoding, order="bhsd", offset=1,
              out=tuple(one.transpose(1, 2) for one in out))
    rw.rotate_(x[:, :, 1:], encoding=encoding, positions=torch.arange(12)[::2])
    print(turned[0].double().sum().item(), out[1].double().sum().item(), x.double().square().sum().item(), x._version)
for refused in (
    whole.double(), whole.to("meta"), whole.to_sparse(), whole[..., ::2], torch.ones(4, 2, 64).cfloat().conj().imag,
    torch.ones((1,) * 9)
):
    try:
        rw.rotate(refused, encoding=encoding)
    except rw.Error as problem:
        print(problem)
"""


@pytest.mark.skipif(not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"), reason="torch has one way only")
def test_torch_tensors_are_read_alike_with_and_without_its_functions_for_dlpack():
    by_functions, by_attributes = (
        subprocess.run(
            [sys.executable, "-c", TORCH_BY_EITHER_WAY, *more], capture_output=True, text=True, check=True
        ).stdout
        for more in ([], ["without"])
    )
    assert by_functions == by_attributes
    assert len(by_functions.splitlines()) == 3 * 6 + 6
