"""The C interface by dlopen, as languages without C++ use it: ctypes, and neither PyTorch nor NumPy.

The oracle is the formula of RoFormer in float64. Arrays are bytes, so that all element types are the same to the test.
"""

import ctypes as c
import json
import math
import os
import random
import struct
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(os.environ.get("ROPEWALK_LIBRARY", ROOT / "build" / "lib" / "libropewalk.so"))
pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason=f"the compiled library is not built: {LIBRARY} is missing")

OK, INVALID_ARGUMENT, UNSUPPORTED = 0, 1, 3
F32, F16, BF16, F64 = 1, 2, 3, 4
HALF_SPLIT, INTERLEAVED = 1, 2
OFFSET, IDS32, IDS64, CU_SEQLENS32, CU_SEQLENS64, SHIFT = range(6)
INVERSE = 1
I64, I32 = c.c_int64, c.c_int32


class Sized(c.Structure):
    """A struct whose first member is its size. All other members are zero unless given."""

    def __init__(self, **members):
        super().__init__(struct_size=c.sizeof(type(self)), **members)


class Geometry(Sized):
    _fields_ = (
        ("struct_size", c.c_size_t),
        ("head_dim", I64),
        ("rotary_dim", I64),
        ("rotary_offset", I64),
        ("base", c.c_double),
        ("sequence_length", I64),
        ("original_length", I64),
        ("layout", I32),
        ("reserved", I32),
    )


class ConfigChoices(Sized):
    _fields_ = (
        ("struct_size", c.c_size_t),
        ("layer_type", c.c_char_p),
        ("policy", c.c_char_p),
        ("sequence_length", I64),
        ("layout", I32),
        ("reserved", I32),
    )


class View(Sized):
    _fields_ = (
        ("struct_size", c.c_size_t),
        ("data", c.c_void_p),
        ("batch", I64),
        ("tokens", I64),
        ("heads", I64),
        ("head_dim", I64),
        ("stride_batch", I64),
        ("stride_token", I64),
        ("stride_head", I64),
        ("type", I32),
        ("reserved", I32),
    )


class Positions(Sized):
    _fields_ = (
        ("struct_size", c.c_size_t),
        ("kind", I32),
        ("reserved", I32),
        ("first", I64),
        ("data", c.c_void_p),
        ("count", I64),
        ("rows", I64),
        ("stride_row", I64),
        ("axes", I64),
        ("stride_axis", I64),
        ("offsets", c.c_void_p),
        ("offset_count", I64),
        ("offset_bits", I64),
    )


class Options(Sized):
    _fields_ = (
        ("struct_size", c.c_size_t),
        ("direction", I32),
        ("threads", I32),
        ("table", c.c_void_p),
        ("pool", c.c_void_p),
        ("fresh_output", I32),
        ("reserved", I32),
    )


def load():
    library = c.CDLL(str(LIBRARY))
    for name in ("version", "last_error", "instruction_set", "tuning_profile", "encoding_expression"):
        getattr(library, f"ropewalk_{name}").restype = c.c_char_p
    for name in ("attention_factor", "softmax_factor"):
        getattr(library, f"ropewalk_encoding_{name}").restype = c.c_double
        getattr(library, f"ropewalk_encoding_{name}").argtypes = [c.c_void_p]
    for name in ("destroy", "pairs", "head_dim", "layout", "expression"):
        getattr(library, f"ropewalk_encoding_{name}").argtypes = [c.c_void_p]
    library.ropewalk_encoding_pairs.restype = library.ropewalk_encoding_head_dim.restype = I64
    library.ropewalk_encoding_inv_freq.argtypes = [c.c_void_p, c.c_void_p, I64]
    view, positions, encoding = c.POINTER(View), c.POINTER(Positions), c.c_void_p
    library.ropewalk_rotate.argtypes = [view, view, encoding, positions, c.POINTER(Options)]
    library.ropewalk_rotate_to.argtypes = [view, view, view, view, encoding, positions, c.POINTER(Options)]
    library.ropewalk_rerotate.argtypes = [view, view, encoding, positions, encoding, positions, c.POINTER(Options)]
    library.ropewalk_cos_sin.argtypes = [encoding, positions, I64, I64, c.c_void_p, c.c_void_p, c.POINTER(Options)]
    prepared = c.c_void_p
    library.ropewalk_prepare.argtypes = [*(view,) * 4, encoding, c.POINTER(Options), c.POINTER(prepared)]
    library.ropewalk_prepared_run.argtypes = [prepared, c.c_void_p, c.c_void_p, I64]
    library.ropewalk_prepared_run_to.argtypes = [prepared, *(c.c_void_p,) * 4, I64]
    library.ropewalk_prepared_destroy.argtypes = [prepared]
    return library


rw = load() if LIBRARY.exists() else None


def message():
    return rw.ropewalk_last_error().decode()


def check(result):
    assert result == OK, message()


def create(expression="default", **geometry):
    encoding = c.c_void_p()
    check(rw.ropewalk_encoding_create(c.byref(Geometry(**geometry)), expression.encode(), c.byref(encoding)))
    return encoding


def to_bf16(value):
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return struct.pack("<H", (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)


def from_bf16(data):
    return struct.unpack("<f", b"\0\0" + data)[0]


FORMATS = {F32: "<f", F16: "<e", F64: "<d"}
ENCODE = {BF16: to_bf16, **{kind: struct.Struct(form).pack for kind, form in FORMATS.items()}}
DECODE = {BF16: from_bf16, **{kind: lambda b, form=form: struct.unpack(form, b)[0] for kind, form in FORMATS.items()}}
SIZE = {F32: 4, F16: 2, BF16: 2, F64: 8}
# One rounding of the type, and the error of the arithmetic in float32.
# float64: the error of the angle 1e5 in the reference.
BOUND = {F32: 3e-7, F16: 2**-11 + 3e-7, BF16: 2**-8 + 3e-7, F64: 2e-11}


class Tensor:
    """[batch, tokens, heads, head_dim] of random elements with gaps of `gap` elements between heads."""

    def __init__(self, numbers, kind, batch, tokens, heads, head_dim, gap=0):
        self.kind, self.shape, stride = kind, (batch, tokens, heads, head_dim), head_dim + gap
        count = batch * tokens * heads * stride
        self.memory = c.create_string_buffer(
            b"".join(ENCODE[kind](numbers.uniform(-2, 2)) for _ in range(count)), count * SIZE[kind]
        )
        self.strides = (tokens * heads * stride, heads * stride, stride)
        self.view = View(
            data=c.addressof(self.memory),
            batch=batch,
            tokens=tokens,
            heads=heads,
            head_dim=head_dim,
            stride_batch=self.strides[0],
            stride_token=self.strides[1],
            stride_head=self.strides[2],
            type=kind,
        )

    def values(self):
        size, raw = SIZE[self.kind], self.memory.raw
        return [DECODE[self.kind](raw[i : i + size]) for i in range(0, len(raw), size)]

    def starts(self):
        """(batch row, token, index of the first element) of each head."""
        batch, tokens, heads, _ = self.shape
        for row in range(batch):
            for token in range(tokens):
                for head in range(heads):
                    steps = zip((row, token, head), self.strides)
                    yield row, token, sum(index * stride for index, stride in steps)


def expected(tensor, layout, theta, position, first=0):
    """(expected elements, norms of their pairs): the exact rotation. Other elements stay as they are."""
    values = tensor.values()
    norms = [0.0] * len(values)
    for row, token, start in tensor.starts():
        for pair, frequency in enumerate(theta):
            i = start + first + (pair if layout == HALF_SPLIT else 2 * pair)
            j = i + (len(theta) if layout == HALF_SPLIT else 1)
            angle = position(row, token) * frequency
            x, y = values[i], values[j]
            values[i] = x * math.cos(angle) - y * math.sin(angle)
            values[j] = y * math.cos(angle) + x * math.sin(angle)
            norms[i] = norms[j] = math.hypot(x, y)
    return values, norms


def largest_error(tensor, wanted):
    """Largest error relative to the norm of the pair; infinite if an element that does not rotate differs."""
    worst = 0.0
    for got, want, norm in zip(tensor.values(), *wanted):
        exact = 0.0 if got == want else math.inf
        worst = max(worst, abs(got - want) / norm if norm else exact)
    return worst


def frequencies(width, base=10000.0):
    return [base ** (-2 * pair / width) for pair in range(width // 2)]


def array_of(kind, values):
    return (kind * len(values))(*values)


@pytest.mark.parametrize("layout", [HALF_SPLIT, INTERLEAVED])
@pytest.mark.parametrize("kind", [F32, F16, BF16, F64])
@pytest.mark.parametrize(("width", "offset", "head_dim"), [(64, 0, 64), (32, 0, 48), (20, 7, 40)])
def test_rotation_in_place(kind, layout, width, offset, head_dim):
    numbers = random.Random(width * kind + layout)
    q = Tensor(numbers, kind, 2, 5, 4, head_dim, gap=3)
    k = Tensor(numbers, kind, 2, 5, 2, head_dim)
    encoding = create("linear:8", head_dim=head_dim, rotary_dim=width, rotary_offset=offset, layout=layout)
    theta = [frequency / 8 for frequency in frequencies(width)]
    wanted = [expected(x, layout, theta, lambda row, token: 100_000 + token, offset) for x in (q, k)]
    check(rw.ropewalk_rotate(q.view, k.view, encoding, Positions(first=100_000), None))
    assert largest_error(q, wanted[0]) < BOUND[kind]
    assert largest_error(k, wanted[1]) < BOUND[kind]
    rw.ropewalk_encoding_destroy(encoding)


@pytest.mark.parametrize("number", [I32, I64])
def test_ids_of_every_batch_row_and_another_output(number):
    numbers = random.Random(5)
    ids = [[7, 0, 3, 90000, 2], [-4, 4, 4, 11, 123456]]
    data = array_of(number, ids[0] + ids[1])
    kind = IDS32 if number is I32 else IDS64
    q, out = Tensor(numbers, F32, 2, 5, 3, 16), Tensor(numbers, F32, 2, 5, 3, 16, gap=5)
    before = q.values()
    encoding = create(head_dim=16, layout=INTERLEAVED)
    exact, norms = expected(q, INTERLEAVED, frequencies(16), lambda row, token: ids[row][token])
    positions = Positions(kind=kind, data=c.addressof(data), count=5, rows=2)
    check(rw.ropewalk_rotate_to(q.view, None, out.view, None, encoding, positions, None))
    assert q.values() == before
    got = out.values()
    for (_, _, source), (_, _, target) in zip(q.starts(), out.starts()):
        for i in range(16):
            assert abs(got[target + i] - exact[source + i]) < BOUND[F32] * norms[source + i]
    # The inverse of the result is the input.
    check(rw.ropewalk_rotate(out.view, None, encoding, positions, Options(direction=INVERSE, threads=1)))
    for (_, _, source), (_, _, target) in zip(q.starts(), out.starts()):
        assert out.values()[target : target + 16] == pytest.approx(before[source : source + 16], abs=1e-6)
    rw.ropewalk_encoding_destroy(encoding)


def test_caller_of_an_older_version():
    """A struct that ends where the first version of it ended: members after its end are never read."""
    q = Tensor(random.Random(12), F32, 1, 4, 2, 16)
    encoding = create(head_dim=16, layout=HALF_SPLIT)
    wanted = expected(q, HALF_SPLIT, frequencies(16), lambda row, token: 30 + token)
    positions = Positions(first=30, offsets=1, offset_count=7, offset_bits=5)
    positions.struct_size = Positions.offsets.offset
    check(rw.ropewalk_rotate(q.view, None, encoding, positions, None))
    assert largest_error(q, wanted) < BOUND[F32]
    for size in (positions.struct_size - 1, positions.struct_size - 8, 0):
        positions.struct_size = size
        assert rw.ropewalk_rotate(q.view, None, encoding, positions, None) == INVALID_ARGUMENT
        assert f"positions.struct_size is {size}, expected its sizeof, {c.sizeof(Positions)}" in message()
    rw.ropewalk_encoding_destroy(encoding)


@pytest.mark.parametrize("number", [I32, I64])
def test_ragged_batch(number):
    bounds = [0, 3, 3, 4, 9]
    data = array_of(number, bounds)
    k = Tensor(random.Random(6), F32, 1, 9, 2, 32)
    encoding = create("power:0.5", head_dim=32, layout=HALF_SPLIT)
    theta = [f * math.sqrt(1 - 2 * pair / 32) for pair, f in enumerate(frequencies(32))]
    counted = [token - max(bound for bound in bounds if bound <= token) for token in range(9)]
    wanted = expected(k, HALF_SPLIT, theta, lambda row, token: 50 + counted[token])
    kind = CU_SEQLENS32 if number is I32 else CU_SEQLENS64
    positions = Positions(kind=kind, data=c.addressof(data), count=5, first=50)
    check(rw.ropewalk_rotate(None, k.view, encoding, positions, None))
    assert largest_error(k, wanted) < BOUND[F32]
    rw.ropewalk_encoding_destroy(encoding)


def test_shift_does_not_apply_the_attention_factor_again():
    encoding = create("yarn:4,original_length=64", head_dim=32, layout=INTERLEAVED)
    inv_freq = (c.c_double * 16)()
    check(rw.ropewalk_encoding_inv_freq(encoding, inv_freq, 16))
    k = Tensor(random.Random(10), F32, 1, 6, 2, 32)
    wanted = expected(k, INTERLEAVED, list(inv_freq), lambda row, token: -300)
    check(rw.ropewalk_rotate(None, k.view, encoding, Positions(kind=SHIFT, first=-300), None))
    assert largest_error(k, wanted) < BOUND[F32]
    rw.ropewalk_encoding_destroy(encoding)


@pytest.mark.parametrize("kind", [F32, F16, BF16, F64])
def test_rerotation(kind):
    k = Tensor(random.Random(7), kind, 1, 6, 2, 32)
    source = create("linear:2", head_dim=32, layout=HALF_SPLIT)
    target = create("ntk:4", head_dim=32, layout=HALF_SPLIT)
    # Keys move from the angle p / 2 · θ to the angle (p + 10) · θ', where base' = base · 4^(d / (d - 2)).
    before, after = frequencies(32), frequencies(32, 10000.0 * 4 ** (32 / 30))
    values, norms = k.values(), [0.0] * len(k.values())
    for _, token, start in k.starts():
        for pair in range(16):
            angle = (token + 10) * after[pair] - token / 2 * before[pair]
            x, y = values[start + pair], values[start + pair + 16]
            values[start + pair] = x * math.cos(angle) - y * math.sin(angle)
            values[start + pair + 16] = y * math.cos(angle) + x * math.sin(angle)
            norms[start + pair] = norms[start + pair + 16] = math.hypot(x, y)
    check(rw.ropewalk_rerotate(k.view, None, source, Positions(), target, Positions(first=10), None))
    assert largest_error(k, (values, norms)) < BOUND[kind]
    rw.ropewalk_encoding_destroy(source)
    rw.ropewalk_encoding_destroy(target)


@pytest.mark.parametrize("layout", [HALF_SPLIT, INTERLEAVED])
@pytest.mark.parametrize("kind", [F32, F16, BF16, F64])
@pytest.mark.parametrize(("heads", "kv_heads"), [(8, 2), (1, 1), (3, 0)])
def test_prepared_decoding_into_a_cache(kind, layout, heads, kv_heads):
    numbers = random.Random(11)
    # One token per batch row; keys go to the slot of their position in a cache [batch, 8, kv_heads, head_dim].
    q = Tensor(numbers, kind, 2, 1, heads, 40)
    k, cache = Tensor(numbers, kind, 2, 1, kv_heads, 40), Tensor(numbers, kind, 2, 8, kv_heads, 40)
    cache.view.tokens = 1
    encoding = create("linear:3", head_dim=40, rotary_dim=32, layout=layout)
    theta = [frequency / 3 for frequency in frequencies(32)]
    keys = (k.view, cache.view) if kv_heads else (None, None)
    prepared = c.c_void_p()
    check(rw.ropewalk_prepare(q.view, keys[0], None, keys[1], encoding, None, c.byref(prepared)))
    rw.ropewalk_encoding_destroy(encoding)
    for position in (0, 5, 5, 7):
        wanted, wanted_keys = (expected(x, layout, theta, lambda row, token, p=position: p) for x in (q, k))
        slot = c.addressof(cache.memory) + position * kv_heads * 40 * SIZE[kind]
        addresses = (k.view.data, q.view.data, slot) if kv_heads else (None, q.view.data, None)
        check(rw.ropewalk_prepared_run_to(prepared, q.view.data, *addresses, position))
        assert largest_error(q, wanted) < BOUND[kind]
        for row in range(2 if kv_heads else 0):
            start = (row * 8 + position) * kv_heads * 40
            part = slice(row * kv_heads * 40, (row + 1) * kv_heads * 40)
            for got, want, norm in zip(cache.values()[start:], wanted_keys[0][part], wanted_keys[1][part]):
                assert abs(got - want) <= BOUND[kind] * norm
    assert rw.ropewalk_prepared_run(prepared, None, None, 0) == INVALID_ARGUMENT
    assert "cannot rotate q at 0x0" in message()
    rw.ropewalk_prepared_destroy(prepared)


@pytest.mark.parametrize("layout", [HALF_SPLIT, INTERLEAVED])
@pytest.mark.parametrize("columns", [8, 16])
def test_table(layout, columns):
    encoding = create(head_dim=16, layout=layout)
    cos, sin = (c.c_float * (40 * columns))(), (c.c_float * (40 * columns))()
    check(rw.ropewalk_cos_sin(encoding, Positions(first=1000), 40, columns, cos, sin, None))
    theta = frequencies(16)
    for token in range(40):
        for column in range(columns):
            pair = column // 2 if columns == 16 and layout == INTERLEAVED else column % 8
            angle = (1000 + token) * theta[pair]
            assert abs(cos[token * columns + column] - math.cos(angle)) < 1.2e-7
            assert abs(sin[token * columns + column] - math.sin(angle)) < 1.2e-7
    rw.ropewalk_encoding_destroy(encoding)


def test_yarn_and_queries():
    encoding = create("yarn:4,original_length=4096", head_dim=64, base=500000.0, layout=HALF_SPLIT)
    factor = 0.1 * math.log(4) + 1
    assert rw.ropewalk_encoding_attention_factor(encoding) == pytest.approx(factor, rel=1e-14)
    assert rw.ropewalk_encoding_softmax_factor(encoding) == 1
    assert rw.ropewalk_encoding_expression(encoding).startswith(b"yarn:4")
    assert (rw.ropewalk_encoding_pairs(encoding), rw.ropewalk_encoding_head_dim(encoding)) == (32, 64)
    assert rw.ropewalk_encoding_layout(encoding) == HALF_SPLIT
    inv_freq = (c.c_double * 32)()
    check(rw.ropewalk_encoding_inv_freq(encoding, inv_freq, 32))
    theta = frequencies(64, 500000.0)
    assert inv_freq[0] == theta[0] and inv_freq[31] == pytest.approx(theta[31] / 4, rel=1e-14)
    # A rotation multiplies by the attention factor.
    q = Tensor(random.Random(8), F32, 1, 3, 1, 64)
    exact, norms = expected(q, HALF_SPLIT, list(inv_freq), lambda row, token: token)
    check(rw.ropewalk_rotate(q.view, None, encoding, Positions(), None))
    assert largest_error(q, ([factor * value for value in exact], norms)) < factor * BOUND[F32]
    rw.ropewalk_encoding_destroy(encoding)


def test_config():
    config = {"model_type": "llama", "hidden_size": 256, "num_attention_heads": 4, "rope_theta": 10000.0}
    config |= {"rope_scaling": {"type": "linear", "factor": 2.0}}
    encoding, text = c.c_void_p(), json.dumps(config).encode()
    check(rw.ropewalk_encoding_from_config(text, None, c.byref(encoding)))
    assert rw.ropewalk_encoding_expression(encoding) == b"linear:2"
    rw.ropewalk_encoding_destroy(encoding)
    dynamic = ConfigChoices(policy=b"dynamic:2,original_length=100", sequence_length=400, layout=INTERLEAVED)
    check(rw.ropewalk_encoding_from_config(text, c.byref(dynamic), c.byref(encoding)))
    assert rw.ropewalk_encoding_layout(encoding) == INTERLEAVED
    inv_freq = (c.c_double * 32)()
    check(rw.ropewalk_encoding_inv_freq(encoding, inv_freq, 32))
    base = 10000.0 * (2 * 400 / 100 - 1) ** (64 / 62)
    assert list(inv_freq) == pytest.approx(frequencies(64, base), rel=1e-13)
    rw.ropewalk_encoding_destroy(encoding)
    for broken, words in (
        (b"[]", "must be an object"),
        (b'{"head_dim": "x"}', "head_dim"),
        (b"\xff", "not valid JSON"),
    ):
        assert rw.ropewalk_encoding_from_config(broken, None, c.byref(encoding)) == INVALID_ARGUMENT
        assert words in message() and encoding.value is None


def test_a_message_is_utf8_and_fits():
    geometry, encoding = Geometry(head_dim=16, layout=HALF_SPLIT), c.c_void_p()
    # U+20AC has three bytes, of which the last may not fit; the others are no UTF-8.
    for quoted in (
        b"\xff\xc0\x80\xe2\x82",
        b"\xed\xa0\x80\xf4\x90\x80\x80",
        b"\xe0\x80\x80\xf0\x80\x80\x80\xf8",
        "\u20ac".encode() * 400,
        "a\u20ac".encode() * 400,
        b"aa" + "\u20ac".encode() * 400,
    ):
        assert rw.ropewalk_encoding_create(c.byref(geometry), quoted, c.byref(encoding)) == INVALID_ARGUMENT
        assert "policy" in message() and len(rw.ropewalk_last_error()) < 1024
        assert "\u20ac" in message() or "?????" in message()


def test_version_and_refusals():
    assert rw.ropewalk_version().decode() == ".".join(
        line.split()[2]
        for line in (ROOT / "include" / "ropewalk" / "version.h").read_text().splitlines()
        if line.startswith("#define ROPEWALK_VERSION_") and line.split()[2:]
    )
    encoding = create(head_dim=16, layout=HALF_SPLIT)
    q = Tensor(random.Random(9), F32, 1, 2, 1, 16)
    before = q.memory.raw
    for arguments, words in (
        ((None, None, encoding, Positions(), None), "q and k are both NULL"),
        ((q.view, None, None, Positions(), None), "encoding is NULL"),
        ((q.view, None, encoding, None, None), "positions is NULL"),
        ((q.view, None, encoding, Positions(kind=IDS64, count=2), None), "positions.data is NULL"),
        ((q.view, None, encoding, Positions(offsets=1, offset_bits=32), None), "offsets"),
        ((q.view, None, encoding, Positions(kind=SHIFT, offset_count=1, offset_bits=32), None), "offsets"),
        ((q.view, None, encoding, Positions(kind=IDS64, data=1, count=2, offsets=1, offset_bits=64), None), "offsets"),
        ((q.view, None, encoding, Positions(), Options(threads=-1)), "threads must not be negative, got -1"),
        ((q.view, None, encoding, Positions(), Options(threads=4097)), "threads must be at most 4096, got 4097"),
        ((View(), None, encoding, Positions(), None), "q.type must be"),
    ):
        assert rw.ropewalk_rotate(*arguments) == INVALID_ARGUMENT
        assert words in message()
    assert q.memory.raw == before
    rw.ropewalk_encoding_destroy(encoding)
