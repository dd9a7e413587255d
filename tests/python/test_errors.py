"""Error messages for arguments of the wrong type, value or shape."""

import copy
import pickle

import numpy as np
import pytest
import ropewalk as rw
import torch
from checks import assert_refused, run_python
from rope_reference import make

ENCODING = rw.encoding("default", head_dim=64)
INTERLEAVED = rw.encoding("default", head_dim=64, layout="interleaved")


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"q": zeros(4, 2, 64, dtype=np.int32)},
            r"q int32 \[4, 2, 64\] of strides \[128, 64, 1\]: expected float32, .* or float64",
        ),
        ({"q": zeros(4, 2, 64, dtype=np.longdouble)}, r"q float128 \[4, 2, 64\]"),
        ({"k": zeros(4, 2, 64, dtype=np.float64)}, "q is f32 but k is f64"),
        ({"q": zeros(4, 2, 64, dtype=">f4")}, r"q >f4 \[4, 2, 64\]"),
        ({"q": zeros(2, 64)}, r"q float32 \[2, 64\].*2 axes"),
        ({"q": zeros(4, 2, 32)}, "head_dim 32.*the encoding is for head_dim 64"),
        ({"k": zeros(3, 2, 64)}, "same batch and tokens"),
        ({"k": zeros(4, 3, 64)}, "multiple of those of k, got 2 and 3"),
        ({"k": zeros(4, 2, 64, dtype=np.float16)}, "q is f32 but k is f16"),
        ({"order": "bshd"}, "has 3 axes, but the order 'bshd' names 4"),
        ({"order": "hsd"}, "order must be 'thd', .*got 'hsd'"),
        ({"q": None}, "both None"),
        ({"q": torch.sparse_coo_tensor(size=(4, 2, 64), check_invariants=True)}, "q has no strided memory"),
        ({"q": torch.ones(4, 2, 64, dtype=torch.cfloat).conj().imag}, "q is a lazy negation"),
        ({"threads": 0}, "from 1 to 4096, got 0"),
    ],
)
def test_errors_write_nothing(change, message):
    q = make("numpy", "float32", (4, 2, 64))
    assert_refused(message, lambda: rw.rotate_(**{"q": q, "encoding": ENCODING, "offset": 3, **change}), q)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (zeros(4, 2, 64), "out must be a pair for q and k, got numpy.ndarray"),
        ((zeros(4, 2, 64),), "out must hold 2 arrays, got 1"),
        ((zeros(4, 2, 64, dtype=np.float16), zeros(4, 2, 64, dtype=np.float16)), "q is f32 but its output is f16"),
        ((zeros(5, 2, 64), zeros(4, 2, 64)), "one shape"),
    ],
)
def test_outputs_of_another_shape_or_type(out, message):
    q = make("numpy", "float32", (4, 2, 64))
    assert_refused(message, lambda: rw.rotate(q, q.copy(), encoding=ENCODING, out=out), q, *out)


@pytest.mark.parametrize("ids", [np.arange(11), np.tile(np.arange(11), (2, 1)), np.arange(9)])
def test_ids_have_one_entry_per_token(ids):
    with pytest.raises(rw.Error, match=rf"positions has {ids.shape[-1]} entries for 10 tokens; set order="):
        rw.rotate(zeros(2, 10, 4, 64), encoding=ENCODING, positions=ids)


TABLE = ENCODING.cos_sin(np.arange(100))
MEANT_BHSD = r"did you mean order='bhsd'\?$"


@pytest.mark.parametrize(
    ("shape", "arguments", "message", "right"),
    [
        ((2, 32, 100, 64), {"k": zeros(2, 8, 100, 64)}, f"have 32 and 8 tokens in the order .*{MEANT_BHSD}", "bhsd"),
        ((2, 32, 1, 64), {"k": zeros(2, 8, 1, 64)}, f"have 32 and 8 tokens in the order .*{MEANT_BHSD}", "bhsd"),
        ((2, 32, 100, 64), {"positions": range(100)}, f"positions has 100 entries for 32 tokens; {MEANT_BHSD}", "bhsd"),
        ((2, 32, 100, 64), {"positions": np.zeros((2, 100), int)}, f"100 entries for 32 tokens; {MEANT_BHSD}", "bhsd"),
        ((2, 32, 100, 64), {"table": [x[None] for x in TABLE]}, f"table has 100 rows for 32 .*{MEANT_BHSD}", "bhsd"),
        ((100, 2, 4, 64), {"positions": range(100)}, r"100 entries for 2 tokens; did you mean order='sbhd'\?$", "sbhd"),
        (
            (2, 100, 32, 64),
            {"positions": range(100), "order": "bhsd"},
            r"100 entries for 32 tokens; did you mean order='bshd'\?$",
            "bshd",
        ),
    ],
)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_another_order_of_the_axes(shape, arguments, message, right, library):
    """The message names the order in which the call succeeds."""
    q = make(library, "float32", shape)
    if library == "torch" and "k" in arguments:
        arguments = {"k": torch.from_numpy(arguments["k"])}
    for function in (rw.rotate_, rw.rotate):
        assert_refused(message, lambda: function(q, encoding=ENCODING, **arguments), q)  # noqa: B023
    rw.rotate(q, encoding=ENCODING, **{**arguments, "order": right})


def test_another_order_with_gradients():
    q, k = (torch.zeros(2, heads, 100, 64, requires_grad=True) * 1 for heads in (32, 8))
    for function in (rw.rotate_, rw.rotate):
        with pytest.raises(rw.Error, match=MEANT_BHSD):
            function(q, k, encoding=ENCODING)


@pytest.mark.parametrize("shape", [(2, 8, 100, 64), (2, 8, 50, 64), (2, 8, 300, 64)])
def test_keys_with_positions_of_their_own_need_an_order(shape):
    """Tokens may differ there, so "bshd" fits these shapes, too."""
    q, k = make("numpy", "float32", (2, 32, 100, 64)), make("numpy", "float32", shape)
    message = r"q \[2, 32, 100, 64\] and k .* can be .*; pass order='bshd' or order='bhsd'"
    for function in (rw.rotate_, rw.rotate):
        assert_refused(message, lambda: function(q, k, encoding=ENCODING, k_offset=3), q, k)  # noqa: B023
    rw.rotate(q, k, encoding=ENCODING, k_offset=3, order="bhsd")
    rw.rotate(q, make("numpy", "float32", (2, 33, 10, 64)), encoding=ENCODING, k_offset=3)  # 33 heads do not fit


def test_three_axes_with_the_heads_first():
    q, ids = make("numpy", "float32", (32, 100, 64)), np.arange(100)
    with pytest.raises(rw.Error, match=r"positions has 100 entries for 32 tokens; pass swapaxes\(0, 1\)"):
        rw.rotate(q, encoding=ENCODING, positions=ids)
    rw.rotate(q.swapaxes(0, 1), encoding=ENCODING, positions=ids)


def test_other_mismatches_have_no_order():
    """A question that leads nowhere would hide the mistake."""
    for shapes in (((2, 9, 4, 64), (2, 3, 2, 64)), ((2, 9, 4, 64), (2, 5, 4, 64))):
        with pytest.raises(rw.Error, match="must have the same batch and tokens") as caught:
            rw.rotate(*map(lambda shape: zeros(*shape), shapes), encoding=ENCODING)
        assert "order=" not in str(caught.value)


def test_a_warning_about_the_order():
    """One warning per process, and none for shapes that can be [batch, tokens, heads, head_dim]."""
    program = """
import warnings
import numpy as np, ropewalk as rw, torch
enc = rw.encoding("default", head_dim=16)

def shapes_that_warn(*shapes, **arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for shape in shapes:
            q = np.zeros(shape, np.float32)
            rw.rotate_(q, encoding=enc, **arguments)
            rw.rotate(q, encoding=enc, **arguments)
            rw.rotate(None, torch.from_numpy(q), encoding=enc, **arguments)
            rw.rerotate_(q, enc, enc, **arguments)
    return [(str(warning.message), warning.filename) for warning in caught]

assert not shapes_that_warn((2, 1, 32, 16), (8, 1, 256, 16), (2, 4096, 32, 16), (1, 300, 257, 16), (300, 257, 16))
assert not shapes_that_warn((2, 32, 257, 16), order="bhsd")
assert not shapes_that_warn((2, 32, 257, 16), order="bshd")
with warnings.catch_warnings(), torch.inference_mode():  # a graph of torch.compile calls the kernel like this
    warnings.simplefilter("error")
    rw.RotaryEmbedding  # registers the operators
    torch.ops.ropewalk.rotate(torch.zeros(2, 32, 257, 16), None, enc.key)
((message, file),) = shapes_that_warn((2, 32, 257, 16), (2, 32, 300, 16))
print(message, file)
"""
    message = (
        "ropewalk: q [2, 32, 257, 16] is read as [batch, tokens, heads, head_dim], with 32 tokens and 257 heads; did "
        "you mean order='bhsd'? Pass order='bshd' if not. This warning is not repeated."
    )
    assert run_python(program) == f"{message} <string>"


def test_the_warning_can_be_an_error():
    program = """
import warnings
import numpy as np, ropewalk as rw
warnings.simplefilter("error")
q = np.ones((2, 32, 300, 64), np.float32)
try:
    rw.rotate_(q, encoding=rw.encoding("default", head_dim=64))
except UserWarning as problem:
    print((q == 1).all(), problem)
"""
    assert run_python(program).startswith("True ropewalk: q [2, 32, 300, 64] is read as")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"q": [[[1.0]]]}, TypeError, r"q must be a NumPy array, a PyTorch tensor .* got list"),
        ({"encoding": "linear:8"}, TypeError, r"encoding must be a ropewalk\.Encoding, got str"),
        ({"offset": 1.0}, TypeError, "offset must be an integer, got float"),
        ({"offset": 2**63}, rw.Error, "offset must be an integer of 64 bits, got 9223372036854775808"),
        ({"offset": True}, TypeError, "offset must be an integer, got bool"),
        ({"threads": True}, TypeError, "threads must be an integer, got bool"),
        ({"inverse": "no"}, TypeError, "inverse must be True or False, got str"),
        ({"inverse": 5}, TypeError, "inverse must be True or False, got int"),
        ({"adjoint": None}, TypeError, "adjoint must be True or False, got NoneType"),
        ({"order": 3}, TypeError, "order must be text, got int"),
        ({"order": "\ud800"}, rw.Error, "order has a lone surrogate"),
    ],
)
def test_rotate_names_the_argument(arguments, error, message):
    for function in (rw.rotate, rw.rotate_):
        with pytest.raises(error, match=message):
            function(**{"q": zeros(4, 2, 64), "encoding": ENCODING, **arguments})


def test_a_boolean_is_no_offset_with_gradients():
    with pytest.raises(TypeError, match="offset must be an integer, got bool"):
        rw.rotate(torch.zeros(4, 2, 64, requires_grad=True), encoding=ENCODING, offset=True)


@pytest.mark.parametrize("kind", [bool, np.bool_])
def test_both_kinds_of_bool_are_taken(kind):
    q = make("numpy", "float32", (4, 2, 64))
    once = rw.rotate(q, encoding=ENCODING, inverse=kind(False))
    np.testing.assert_allclose(rw.rotate(once, encoding=ENCODING, inverse=kind(True)), q, atol=1e-6)


def test_rotate_needs_an_encoding():
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'encoding'"):
        rw.rotate_(zeros(4, 2, 64))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"new_positions": np.arange(9)}, rw.Error, "new_positions has 9 entries for 10 tokens"),
        ({"new_positions": np.arange(10), "new_offset": 5}, rw.Error, "new_positions and an offset exclude each other"),
        ({"offset": 2**63}, rw.Error, "offset must be an integer of 64 bits, got 9223372036854775808"),
        ({"offset": 1.5}, TypeError, "offset must be an integer, got float"),
        ({"new_encoding": INTERLEAVED}, rw.Error, "is for half_split, but new_encoding is for interleaved"),
    ],
)
def test_rerotate_names_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        rw.rerotate_(zeros(10, 2, 64), **{"old_encoding": ENCODING, "new_encoding": ENCODING, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"head_dim": 128.0}, TypeError, "head_dim must be an integer, got float"),
        ({"base": "1e4"}, TypeError, "base must be a number, got str"),
        ({"sequence_length": 1.5}, TypeError, "sequence_length must be an integer, got float"),
        ({"layout": None}, TypeError, "layout must be text, got NoneType"),
        ({"layout": "\ud800"}, rw.Error, "layout has a lone surrogate"),
        ({"head_dim": True}, TypeError, "head_dim must be an integer, got bool"),
        ({"head_dim": 2**70}, rw.Error, "head_dim must be an integer of 64 bits, got 1180591620717411303424"),
        ({"rotary_dim": 0}, rw.Error, "rotary_dim must be even and positive, got 0"),
    ],
)
def test_an_encoding_names_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        rw.encoding("linear:8", **{"head_dim": 128, **arguments})


def test_from_config_names_the_problem(tmp_path):
    for wrong in (None, b"x", [], 3):
        with pytest.raises(TypeError, match=f"config must be a path, a dict or .* got {type(wrong).__name__}"):
            rw.from_config(wrong)
    with pytest.raises(rw.Error, match="policy is empty"):
        rw.from_config({"head_dim": 64, "rope_theta": 1e4}, policy="")
    path = tmp_path / "config.json"
    path.write_bytes(b'{"model_type": "\xff"}')
    with pytest.raises(rw.Error, match=r"config\.json is not UTF-8 text"):
        rw.from_config(path)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_query_temperature_needs_a_finite_scale(scale):
    with pytest.raises(rw.Error, match=f"scale must be finite, got {scale}"):
        rw.query_temperature([8192], scale=scale)


def test_repr_of_infinity_is_python():
    assert repr(rw.XPos(scale_base=float("inf"))) == "XPos(scale_base=float('inf'))"


def without_constructor(kind):
    """As pickle makes them: `copyreg.__newobj__` calls `__new__` alone."""
    return pickle.loads(b"c" + kind.__module__.encode() + b"\n" + kind.__name__.encode() + b"\n)\x81.")


class Derived(rw.Linear):
    """Its instances need the constructor, too."""


METHODS = ["__repr__", "__str__", "__hash__", "__reduce__", "__eq__", "__or__", "__ror__"]


@pytest.mark.parametrize("kind", [rw.Policy, *rw._ropewalk.policy_classes, Derived], ids=lambda kind: kind.__name__)
def test_policies_without_a_constructor_are_refused(kind):
    broken = kind.__new__(kind) if kind is Derived else without_constructor(kind)
    valid, message = rw.Linear(8), f"this (ropewalk._ropewalk.)?{kind.__name__} was made without its constructor"
    calls = [
        lambda name=name: getattr(broken, name)(*[valid] * (name in ("__eq__", "__or__", "__ror__")))
        for name in METHODS
    ]
    calls += [lambda name=name: getattr(broken, name) for name in vars(kind) if isinstance(vars(kind)[name], property)]
    calls += [
        lambda: broken == broken,
        lambda: valid == broken,
        lambda: valid | broken,
        lambda: copy.copy(broken),
        lambda: pickle.dumps(broken),
        lambda: rw.encoding(broken, head_dim=64),
        lambda: rw.from_config({"head_dim": 64, "rope_theta": 1e4}, policy=broken),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=message):
            call()


def test_encodings_without_a_constructor_are_refused():
    broken, q = without_constructor(rw.Encoding), zeros(4, 2, 64)
    names = [name for name, value in vars(rw.Encoding).items() if isinstance(value, property)]
    calls = [lambda name=name: getattr(broken, name) for name in names]
    calls += [lambda name=name: getattr(broken, name)() for name in ("__repr__", "__hash__", "__reduce__", "__str__")]
    calls += [
        lambda: broken == broken,
        lambda: broken == ENCODING,
        lambda: broken.cos_sin([1]),
        lambda: broken.max_position("float32"),
        lambda: rw.rotate(q, encoding=broken),
        lambda: rw.rotate_(q, encoding=broken),
        lambda: rw.rotate(torch.zeros(4, 2, 64, requires_grad=True), encoding=broken),
        lambda: rw.rerotate_(q, broken, ENCODING),
        lambda: rw.rerotate_(q, ENCODING, broken),
        lambda: rw.to_hf_config(broken),
        lambda: rw.to_llama_cpp_flags(broken),
        lambda: rw.inspect(broken),
        lambda: copy.copy(broken),
    ]
    assert len(names) > 10
    for call in calls:
        with pytest.raises(TypeError, match=r"this ropewalk._ropewalk.Encoding was made without its constructor"):
            call()


HUGE = 10**5000  # more digits than Python writes
PLAIN = {"head_dim": 64, "rope_theta": 1e4}


def nested(depth):
    config = {}
    for _ in range(depth):
        config = {"a": config}
    return config


def cyclic():
    config = dict(PLAIN)
    config["a"] = config
    return config


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rw.policy("linear:\ud800"), rw.Error, "expression has a lone surrogate"),
        (lambda: rw.Policy("\ud800"), rw.Error, "expression has a lone surrogate"),
        (lambda: rw.policy(8), TypeError, "expression must be text, got int"),
        (lambda: rw.encoding("\ud800", head_dim=64), rw.Error, "policy has a lone surrogate"),
        (lambda: rw.Encoding.from_key("\ud800"), rw.Error, "key has a lone surrogate"),
        (lambda: rw.Encoding.from_key("a@b@c"), rw.Error, "'a@b@c' is not the key of an encoding"),
        (lambda: rw.Encoding.from_key(8), TypeError, "key must be text, got int"),
        (lambda: rw.from_config(PLAIN, layer_type="\ud800"), rw.Error, "layer_type has a lone surrogate"),
        (lambda: rw.from_config(PLAIN, policy="\ud800"), rw.Error, "policy has a lone surrogate"),
        (lambda: rw.from_config("\ud800"), rw.Error, "config is no path: .*surrogates not allowed"),
        (lambda: rw.from_config("a\0b"), rw.Error, "config is no path: .*null"),
        (lambda: rw.from_config({**PLAIN, "model_type": "\ud800"}), rw.Error, "not valid JSON"),
        (lambda: rw.from_config({**PLAIN, "a": HUGE}), rw.Error, "config cannot be written as JSON: Exceeds the limit"),
        (lambda: rw.from_config({**PLAIN, (1, 2): 3}), rw.Error, "written as JSON: keys must be str"),
        (lambda: rw.from_config(cyclic()), rw.Error, "written as JSON: Circular reference"),
        (lambda: rw.from_config(nested(100000)), rw.Error, "written as JSON: maximum recursion depth"),
        (lambda: rw.from_config(nested(900)), rw.Error, "ropewalk: "),
        (
            lambda: rw.rotate(zeros(4, 2, 64), encoding=ENCODING, offset=HUGE),
            rw.Error,
            "64 bits, got one of 16610 bits",
        ),
        (
            lambda: rw.rotate(zeros(4, 2, 64), encoding=ENCODING, threads=-HUGE),
            rw.Error,
            "threads must be an integer of",
        ),
        (
            lambda: rw.rotate(zeros(4, 2, 64), encoding=ENCODING, positions=HUGE),
            rw.Error,
            "the number one of 16610 bits",
        ),
        (lambda: rw.rotate(zeros(4, 2, 64), encoding=ENCODING, positions=[HUGE] * 4), rw.Error, "positions object"),
        (lambda: rw.encoding("default", head_dim=HUGE), rw.Error, "head_dim must be an integer of 64 bits"),
        (lambda: rw.Linear(HUGE), rw.Error, "factor must be a number of 64 bits, got one of 16610 bits"),
        (lambda: rw.Randomized(HUGE), rw.Error, "length must be an integer of 64 bits"),
        (lambda: rw.alibi_slopes(HUGE), rw.Error, "heads must be an integer of 64 bits"),
    ],
)
def test_no_foreign_exceptions(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "make",
    [
        lambda: rw.Linear(float("nan")),
        lambda: rw.Linear(-2),
        lambda: rw.MRope([-1, 2, 3]),
        lambda: rw.Yarn(factor=float("inf")),
        lambda: rw.LongRope(short_factor=[1.0, float("nan")]),
    ],
)
def test_policies_that_no_geometry_makes_valid_do_not_construct(make):
    with pytest.raises(rw.Error, match=r"factor|sections"):
        make()


@pytest.mark.parametrize("name", ["q", "k", "cos", "sin"])
@pytest.mark.parametrize(
    ("wrong", "got"), [(None, "NoneType"), (np.zeros((1, 4, 64)), "ndarray"), (torch.tensor(1.0), "a scalar")]
)
def test_apply_rotary_transformers_names_the_argument(name, wrong, got):
    right = {"q": torch.zeros(1, 2, 4, 64), "k": torch.zeros(1, 2, 4, 64)}
    right |= {"cos": torch.ones(1, 4, 64), "sin": torch.zeros(1, 4, 64)}
    with pytest.raises(TypeError, match=f"{name} must be a torch.Tensor with axes, got {got}"):
        rw.apply_rotary_transformers(**{**right, name: wrong})


def test_messages_with_part_of_a_character():
    """The reader of JSON quotes bytes up to the fault, which can lie inside of a character."""
    with pytest.raises(rw.Error, match=r"not valid JSON.*\\xc3"):
        rw._ropewalk.encoding_from_config('{"a": "\\u\xc3"}', "the test", None, None, None, None)


def test_messages_do_not_grow_with_other_texts():
    calls = [
        rw.Encoding.from_key,
        ENCODING.max_position,
        lambda text: rw.encoding("default", head_dim=64, layout=text),
        lambda text: rw.rotate(zeros(4, 2, 64), encoding=ENCODING, order=text),
        lambda text: rw.from_config(PLAIN, layer_type=text),
        lambda text: rw.rotate(zeros(4, 2, 64), encoding=ENCODING, offset=[text]),
    ]
    for letter in "aé":
        for call in calls:
            with pytest.raises((rw.Error, TypeError)) as caught:
                call(letter * 100001)
            assert len(str(caught.value)) < 500


def test_without_torch():
    """The package works, except for the functions on models."""
    program = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import ropewalk as rw
from ropewalk import *
assert rw.inspect is inspect and "inspect" in dir(rw) and not hasattr(rw, "patch")
try:
    rw.patch
except AttributeError as problem:
    print(problem)
"""
    assert run_python(program) == "ropewalk.patch needs torch, which is not installed"
