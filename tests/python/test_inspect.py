"""Numbers of inspect(), compared with formulas in float64."""

import base64
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import ropewalk as rw
from checks import run_python
from policy_examples import EXAMPLES
from rope_reference import plain, power, truncated
from ropewalk import _card, _html, _inspect


def yarn(theta, factor, length, base):
    """Interpolation by parts, between the pairs with 32 turns and with 1 turn (arXiv 2309.00071, section 3.2)."""
    d = 2 * len(theta)
    low, high = (d * np.log(length / (2 * np.pi * turns)) / (2 * np.log(base)) for turns in (32, 1))
    low, high = max(np.floor(low), 0), min(np.ceil(high), d - 1)
    ramp = np.clip((np.arange(len(theta)) - low) / (high - low), 0, 1)
    return theta / factor * ramp + theta * (1 - ramp)


THETA = plain(128)
SCHEMES = {
    "default": (THETA, 1),
    "linear:8": (THETA / 8, 1),
    "power:0.5": (power(THETA, 0.5), 1),
    "truncated:4096": (truncated(THETA, 4096), 1),
    "linear:4|truncated:4096": (truncated(THETA / 4, 4096), 1),
    "yarn:16,original_length=4096": (yarn(THETA, 16, 4096, 1e4), 0.1 * np.log(16) + 1),
}


@pytest.mark.parametrize("expression", SCHEMES)
def test_wavelengths(expression):
    theta, factor = SCHEMES[expression]
    report = rw.inspect(rw.encoding(expression, head_dim=128), original_length=4096, length=20000)
    waves = 2 * np.pi / theta[theta > 0]
    np.testing.assert_allclose(report.wavelength[theta > 0], waves, rtol=1e-12)
    np.testing.assert_allclose(report.ratio, theta / THETA, rtol=1e-12)
    assert np.isinf(report.wavelength[theta == 0]).all()
    assert report.never_rotating == (theta == 0).sum()
    assert report.full_turns_within_original == (4096 * theta >= 2 * np.pi).sum()
    assert report.full_turns_within_length == (20000 * theta >= 2 * np.pi).sum()
    assert report.shortest_wavelength == pytest.approx(waves.min(), rel=1e-12)
    assert report.longest_wavelength == pytest.approx(waves.max(), rel=1e-12)
    assert report.attention_factor == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(
    ("expression", "pair"),
    [
        ("default", None),
        ("xpos:512", None),
        ("linear:8", 0),
        ("power:0.5", 63),
        ("truncated:4096", 60),  # the first with frequency 0
        ("yarn:16,original_length=4096", 46),  # the first that is interpolated fully
    ],
)
def test_the_most_changed_pair(expression, pair):
    assert rw.inspect(rw.encoding(expression, head_dim=128), length=8192).most_changed_pair == pair


@pytest.mark.parametrize("expression", [*SCHEMES, "xpos:300,gamma=0.5"])
def test_scores_by_distance(expression):
    theta, factor = SCHEMES.get(expression, (THETA, 1))
    distance = np.arange(9000)[:, None]
    terms = np.cos(distance * theta)
    if expression.startswith("xpos"):
        terms *= ((2 * np.arange(64) / 128 + 0.5) / 1.5) ** (distance / 300)
    expected = terms.mean(axis=1) * factor**2
    encoding = rw.encoding(expression, head_dim=128)
    np.testing.assert_allclose(_inspect.mean_scores(encoding, distance[:, 0]), expected, atol=3e-7)
    report = rw.inspect(encoding, original_length=1000, length=8999)
    assert report.mean_score_beyond_original == pytest.approx(np.abs(expected[1001:]).mean(), rel=1e-5)
    assert rw.inspect(encoding, original_length=1000, length=1000).mean_score_beyond_original is None


@pytest.mark.parametrize("length", [4096, 65536])
def test_errors_of_angles(length):
    """The oracle takes all positions of the upper half, inspect() 512 of them; float64 is exact to 1e-11 there."""
    theta = SCHEMES["yarn:16,original_length=4096"][0]
    positions = np.arange(length // 2, length)[:, None]
    exact, product = positions * theta, np.float32(positions) * np.float32(theta)
    worst = max(np.abs(f(product.astype(np.float64)) - f(exact)).max() for f in (np.cos, np.sin))
    report = rw.inspect(rw.encoding("yarn:16,original_length=4096", head_dim=128), length=length)
    assert 0.7 * worst <= report.float32_error_length <= worst * (1 + 1e-6)
    assert 1e-8 < report.error_length < 1.2e-7
    if length == 4096:
        assert report.float32_error_original == report.float32_error_length


def test_errors_of_angles_near_2_31():
    report = rw.inspect(rw.encoding("default", head_dim=128), length=2**31 - 1)
    assert report.float32_error_length > 1.9 and report.error_length < 1.2e-7


def test_the_largest_position_of_xpos():
    report = rw.inspect(rw.encoding("xpos:512,length=2000", head_dim=128))
    steepest = -np.log2(0.4 / 1.4) / 512  # pair 0
    assert report.max_position["float16"] == pytest.approx(1000 + np.log2(65504) / steepest, abs=1)
    assert report.max_position["float32"] == report.max_position["bfloat16"]
    assert report.max_position["float32"] == pytest.approx(1000 + 126 / steepest, abs=1)
    assert rw.inspect(rw.encoding("linear:8", head_dim=128)).max_position is None


@pytest.mark.parametrize(
    ("expression", "given", "expected"),
    [
        ("default", {}, (4096, 4096)),
        ("linear:8", {}, (4096, 32768)),
        ("linear:8", {"original_length": 2048}, (2048, 16384)),
        ("linear:8", {"length": 10000}, (4096, 10000)),
        ("linear:4|ntk:2", {}, (4096, 32768)),
        ("linear:0.5", {}, (4096, 4096)),
        ("yarn:4,original_length=32768", {}, (32768, 131072)),
        ("llama3:32", {}, (8192, 262144)),
    ],
)
def test_lengths(expression, given, expected):
    report = rw.inspect(rw.encoding(expression, head_dim=16), **given)
    assert (report.original_length, report.length) == expected


@pytest.mark.parametrize("name", ["original_length", "length"])
@pytest.mark.parametrize("value", [0, -1, 2**31])
def test_lengths_out_of_range(name, value):
    with pytest.raises(rw.Error, match=f"{name} must be in .*, got {value}"):
        rw.inspect(rw.encoding("default", head_dim=16), **{name: value})


@pytest.mark.parametrize("name", ["original_length", "length"])
@pytest.mark.parametrize("value", ["4096", 1.5, 4096.0])
def test_lengths_must_be_integers(name, value):
    with pytest.raises(TypeError, match=f"ropewalk: {name} must be an integer, got {type(value).__name__}"):
        rw.inspect(rw.encoding("default", head_dim=16), **{name: value})


def test_the_default_length():
    encoding = rw.encoding("linear:99999999", head_dim=16)
    with pytest.raises(rw.Error, match=r"must be in .* 4096 times the policies' factor of 1e\+08; pass length"):
        rw.inspect(encoding)
    longest = rw.inspect(rw.encoding("default", head_dim=16), original_length=2**31 - 1)
    assert longest.length == 2**31 - 1
    assert rw.inspect(encoding, length=np.int64(8192)).length == 8192


def test_inspect_needs_an_encoding():
    with pytest.raises(TypeError, match=r"encoding must be a ropewalk\.Encoding, got str; call ropewalk\.encoding\(\)"):
        rw.inspect("linear:8")


@pytest.mark.parametrize("name", rw.policies())
def test_every_policy(name):
    report = rw.inspect(rw.encoding(EXAMPLES[name], head_dim=128))
    assert report.expression == str(EXAMPLES[name]) and report.about == (EXAMPLES[name].about,)
    assert report.about[0].endswith(".") and report.about[0] in type(EXAMPLES[name]).__doc__
    assert 0 <= report.full_turns_within_original <= report.full_turns_within_length <= 64 - report.never_rotating
    assert report.error_original < 1.2e-7 and report.error_length < 1.2e-7
    again = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert again["expression"] == report.expression and len(again["wavelength"]) == 64
    assert again["wavelength"].count(None) == report.never_rotating


class Page(HTMLParser):
    """Texts and pictures of a card. Every element must be closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.texts, self.pictures = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            kind, _, data = dict(attrs)["src"].partition(";base64,")
            self.pictures.append((kind, base64.b64decode(data)))
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize(
    ("thing", "notes"),
    [
        (rw.encoding("yarn:16,original_length=4096", head_dim=64, base=5e5), ()),
        (rw.Yarn(16, original_length=4096), ("128 elements, base 10,000 (assumed)",)),
        (rw.Linear(4) | rw.MRope([8, 12, 12]), ("64 elements, base 10,000 (assumed)", "16,384 extended (assumed)")),
        (rw.LongRope([1.5] * 24, original_length=4096), ("48 elements, base 10,000 (assumed)",)),
    ],
)
def test_cards_for_notebooks(thing, notes):
    page = Page(thing._repr_html_())
    text = "".join(page.texts)
    first = rw.policy(str(getattr(thing, "expression", thing)).split("|")[0])
    assert first.about in text and "wavelengths" in text
    assert all(note in text for note in notes) and ("assumed" in text) == bool(notes)
    ((kind, picture),) = page.pictures
    assert kind == "data:image/png" and picture.startswith(b"\x89PNG") and len(picture) < 200_000


def test_an_inspection_in_a_notebook():
    report = rw.inspect(rw.encoding("linear:8", 64, 1e6, 32, 16, "interleaved"), 1000, 3000)
    assert str(report) == (
        "linear:8: 1,000 tokens originally, 3,000 extended; every pair is 8 times slower than default"
    )
    page = Page(report._repr_html_())
    text = "".join(page.texts)
    assert "64 elements, 32 of them rotary from element 16 on, base 1,000,000" in text
    assert "1,000 tokens originally, 3,000 extended" in text and len(page.pictures) == 1


def test_cards_are_escaped():
    card = _card.Card("<b>", ["a & b"], [("<i>", '"<script>"')], [_card.Table(("<x>",), [["<y>"]])])
    html = "".join(_html.body_of(card))
    assert "".join(Page(html).texts) == '<b>a & b<i>"<script>"<x><x><y>'
    assert "<script>" not in html and "<y>" not in html


def test_cards_without_a_picture(tmp_path):
    """matplotlib is optional, and what inspect() refuses has its repr()."""
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('no', name='matplotlib')")
    program = """
import ropewalk as rw
print(rw.Linear(8)._repr_html_().count("<table>"), "<img" in rw.Linear(8)._repr_html_())
print(rw.encoding("linear:99999999", head_dim=64)._repr_html_())
print((rw.XPos(64) | rw.XPos(32))._repr_html_())
"""
    card, encoding, policy = run_python(program, PYTHONPATH=str(tmp_path)).splitlines()
    assert card == "3 False" and policy == "<code>XPos(scale_base=64.0) | XPos(scale_base=32.0)</code>"
    assert encoding.startswith("<code>ropewalk.Encoding(&quot;linear:99999999&quot;, head_dim=64")


def test_drawn_positions_do_not_change_the_numbers():
    """Distances are differences of drawn positions, even if the policy draws few."""
    drawn = rw.inspect(rw.encoding("linear:8|randomized:1024", head_dim=64), length=8192)
    given = rw.inspect(rw.encoding("linear:8", head_dim=64), length=8192)
    assert drawn.draws_positions and not given.draws_positions
    for name in ("mean_score_beyond_original", "float32_error_length", "error_length"):
        assert getattr(drawn, name) == getattr(given, name)


def test_part_of_a_head():
    report = rw.inspect(rw.encoding("linear:2", 64, 1e6, 32, 16, "interleaved"))
    assert (report.head_dim, report.rotary_dim, report.rotary_offset, report.layout) == (64, 32, 16, "interleaved")
    np.testing.assert_allclose(report.inv_freq, plain(32, 1e6) / 2, rtol=1e-12)
    np.testing.assert_allclose(report.ratio, 0.5, rtol=1e-12)
