"""Command line `python -m ropewalk`: exit codes, messages, cards, JSON and plots."""

import io
import json
import re
import struct
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import ropewalk as rw
from checks import run
from policy_examples import EXAMPLES
from ropewalk import _card, _target
from ropewalk.__main__ import main, make_parser

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "examples" / "configs"


def command(*arguments, **environment):
    return run(sys.executable, "-m", "ropewalk", *arguments, **environment)


def json_of(capsys, *arguments):
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def config(folder, **entries):
    folder.mkdir(exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps({"hidden_size": 4096, "num_attention_heads": 32, **entries}))
    return path


def plot_size(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", content[16:24])


def test_a_card_in_a_pipe():
    result = command("inspect", "yarn:16,original_length=4096")
    assert result.returncode == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "yarn:16,original_length=4096" and rw.Yarn.about in " ".join(result.stdout.split())
    assert max(map(len, lines)) <= 100 and result.stdout.isascii()
    assert "38 of 64 pairs within 4,096 tokens, 46 within 65,536" in result.stdout
    assert "1.27726" in result.stdout  # 0.1 ln 16 + 1


@pytest.mark.parametrize("name", rw.policies())
def test_every_policy_has_a_card(name, capsys):
    assert main(["inspect", str(EXAMPLES[name])]) == 0
    card = capsys.readouterr().out
    assert EXAMPLES[name].about in " ".join(card.split())
    assert max(map(len, card.splitlines())) <= 100


def test_help_names_every_policy(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["inspect", "--help"])
    text = capsys.readouterr().out
    for name in rw.policies():
        assert re.search(rf"^  {name} +{re.escape(EXAMPLES[name].about)}$", text, re.MULTILINE)


@pytest.mark.parametrize("policy", ["yarn:16", f"longrope:factor=32,short_factor=[{'1.0625,' * 63}1]"])
def test_a_card_on_a_terminal(policy):
    """rich prints the same words in a box of 100 columns."""
    from rich.console import Console

    card = _card.inspection_card(rw.inspect(rw.encoding(f"{policy},original_length=4096", head_dim=128)))
    screen = io.StringIO()
    _card.print_box(card, Console(file=screen, width=100, force_terminal=True))
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert "\x1b[" in screen.getvalue() and max(map(len, text.splitlines())) <= 100
    for name, value in card.facts:
        assert name in text and value.split()[0] in text


def test_json_is_the_inspection(capsys):
    ours = json_of(capsys, "inspect", "linear:4|truncated:4096", "--head-dim", 64, "--base", 500000, "--length", 9000)
    expected = rw.inspect(rw.encoding("linear:4|truncated:4096", head_dim=64, base=5e5), length=9000)
    assert ours == json.loads(json.dumps(expected.to_dict()))


def test_options_reach_the_encoding(capsys):
    ours = json_of(
        capsys,
        *("inspect", "linear:8", "--head-dim", 96, "--rotary-dim", 32, "--layout", "interleaved"),
        *("--original-length", 1000, "--sequence-length", 77),
    )
    assert (ours["head_dim"], ours["rotary_dim"], ours["layout"]) == (96, 32, "interleaved")
    assert (ours["original_length"], ours["length"], ours["sequence_length"]) == (1000, 8000, 77)


def test_length_dependent_policies_are_shown_at_the_extended_length(capsys):
    dynamic = "dynamic:4,original_length=4096"
    extended = json_of(capsys, "inspect", dynamic)
    assert extended["sequence_length"] == extended["length"] == 16384 and extended["stage"] != 0
    np.testing.assert_allclose(extended["ratio"][-1], 1 / 13, rtol=1e-12)  # 4 * 16384/4096 - 3
    original = json_of(capsys, "inspect", dynamic, "--sequence-length", 4096)
    assert original["stage"] == 0 and original["most_changed_pair"] is None
    assert json_of(capsys, "inspect", "linear:4")["sequence_length"] is None


@pytest.mark.parametrize(
    ("entries", "lengths"),
    [
        ({"max_position_embeddings": 4096}, (4096, 4096)),
        ({}, (4096, 4096)),
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "linear", "factor": 8.0}}, (4096, 32768)),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 8.0}}, (4096, 32768)),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, (4096, 16384)),
    ],
)
def test_lengths_of_a_configuration(entries, lengths, tmp_path, capsys):
    """Some configurations hold the extended length, others the original length and a factor."""
    path = config(tmp_path, **entries)
    for target in (path, tmp_path):
        ours = json_of(capsys, "inspect", target)
        assert (ours["original_length"], ours["length"]) == lengths


def test_lengths_of_a_configuration_with_both(tmp_path):
    options = make_parser().parse_args(["inspect", "x"])
    path = config(tmp_path, max_position_embeddings=131072)
    for stated, lengths in ((32768, (32768, 131072)), (131072, (131072, None))):
        encoding = rw.encoding(f"yarn:4,original_length={stated}", head_dim=128)
        assert _target.config_lengths(str(path), encoding) == lengths
    assert _target.load(str(path), options).length == 131072


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.json")), ids=lambda path: path.stem)
def test_configurations_of_real_models(path, capsys):
    """Each has a card. If its layers differ, the message lists their types."""
    choices = []
    if main(["inspect", str(path)]) != 0:
        message = capsys.readouterr().err
        assert "--layer-type must be one of" in message and "full_attention" in message
        choices = ["--layer-type", "full_attention"]
    capsys.readouterr()
    ours = json_of(capsys, "inspect", path, *choices)
    entries = json.loads(path.read_text())
    entries = entries.get("text_config", entries)
    assert 2048 <= ours["original_length"] <= ours["length"] <= 10 * entries["max_position_embeddings"]
    assert ours["error_length"] < 1.2e-7


def test_the_text_part_of_a_larger_model(tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"text_config": {"head_dim": 64, "max_position_embeddings": 8192}}))
    ours = json_of(capsys, "inspect", path, "--layout", "interleaved")
    assert (ours["head_dim"], ours["original_length"], ours["layout"]) == (64, 8192, "interleaved")


def test_compare_all(tmp_path):
    expressions = [str(policy) for policy in EXAMPLES.values()]
    result = command("compare", *expressions, CONFIGS / "llama-2-7b-32k.json", "--plot", tmp_path / "all.png")
    assert result.returncode == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    header = next(i for i, line in enumerate(lines) if line.startswith("policy"))
    rows = lines[header + 2 :][: len(expressions) + 1]
    names = [_card.short(expression, 30) for expression in expressions]
    assert [row.split()[0] for row in rows] == [*names, "linear:8"]
    width, height = plot_size(tmp_path / "all.png")
    assert 800 < width < 1300 and height > 600 and (tmp_path / "all.png").stat().st_size < 300_000


def test_compare_shares_the_lengths(tmp_path, capsys):
    def lengths(*arguments):
        return {(row["original_length"], row["length"]) for row in json_of(capsys, "compare", *arguments)}

    policies = ("default", "linear:8", "llama3:2", "dynamic:2,original_length=4096")
    assert lengths(*policies) == {(8192, 65536)}
    rows = json_of(capsys, "compare", *policies)
    assert rows[3]["sequence_length"] == 65536 and rows[1]["sequence_length"] is None
    assert [row["expression"] for row in rows][:2] == ["default", "linear:8"]
    assert lengths("default", "yarn:2,original_length=1024") == {(1024, 2048)}
    configs = [config(tmp_path / str(length), max_position_embeddings=length) for length in (2048, 4096)]
    assert lengths(*configs) == {(4096, 4096)}
    assert lengths("default", "linear:8", "--original-length", 1024, "--length", 2048) == {(1024, 2048)}


def facts(capsys, *arguments):
    """The facts of a card by name, each on one line."""
    assert main([*map(str, arguments)]) == 0
    found, name = {}, None
    for line in capsys.readouterr().out.splitlines():
        if match := re.match(r"(head|lengths) {2,}(.*)", line):
            name = match[1]
            found[name] = match[2]
        elif name and line.startswith(" " * _card.NAME_WIDTH):
            found[name] += " " + line.strip()
        else:
            name = None
    return found


@pytest.mark.parametrize("command", ["inspect", "compare"])
def test_cards_say_what_they_assume(command, tmp_path, capsys):
    assumed = facts(capsys, command, "linear:8")
    assert assumed["head"] == "128 elements, base 10,000 (assumed; set --head-dim, --base or --config)"
    assert assumed["lengths"].endswith("32,768 extended (assumed; set --original-length or --config)")
    stated = facts(capsys, command, "llama3", "--head-dim", 64, "--base", 5e5)
    assert stated["head"] == "64 elements, base 500,000"
    assert stated["lengths"] == "8,192 tokens originally, 65,536 extended (of the policy)"
    head = facts(capsys, command, "linear:2", "--base", 500)["head"]
    assert head == "128 elements, base 500 (head_dim assumed; set --head-dim or --config)"
    given = facts(capsys, command, "linear:2", "--original-length", 100)["lengths"]
    assert given == "100 tokens originally, 200 extended"
    path = config(tmp_path, max_position_embeddings=8192, rope_theta=500.0)
    own = facts(capsys, command, path)
    assert own["head"] == f"128 elements, base 500 (of {path})"
    assert own["lengths"] == f"8,192 tokens originally (of {path})"


def test_compare_lists_heads_that_differ(capsys):
    heads = facts(capsys, "compare", "linear:8", "linear:4", CONFIGS / "pythia-1.4b.json")["head"]
    assert heads.startswith("128 elements, base 10,000 (assumed; set --head-dim, --base or --config); 128 elements, 32")


def test_expressions_with_the_geometry_of_a_model(tmp_path, capsys):
    """--config states head, base, layout and original length; a policy's own original length has the last word."""
    entries = {"head_dim": 64, "partial_rotary_factor": 0.5, "rope_theta": 5e5, "model_type": "cohere2"}
    scaling = {"type": "linear", "factor": 8.0}
    path = config(tmp_path, **entries, max_position_embeddings=2048 * 8, rope_scaling=scaling)
    rows = json_of(capsys, "compare", "default", "linear:2", "ntk:4", "--config", path)
    for row in rows:
        assert (row["head_dim"], row["rotary_dim"], row["base"], row["layout"]) == (64, 32, 5e5, "interleaved")
        assert (row["original_length"], row["length"]) == (2048, 8192)
    np.testing.assert_allclose(rows[1]["inv_freq"], rw.encoding("linear:2", 64, 5e5, 32).inv_freq, rtol=1e-15)
    one = json_of(capsys, "inspect", "yarn:4,original_length=1024", "--config", tmp_path)
    assert (one["original_length"], one["length"], one["base"]) == (1024, 4096, 5e5)
    assert "(of the policy)" in facts(capsys, "inspect", "yarn:4,original_length=1024", "--config", path)["lengths"]
    assert facts(capsys, "inspect", "ntk:2", "--config", path)["lengths"].endswith(f"(of {path})")
    gemma = ("--config", CONFIGS / "gemma-4.json", "--layer-type", "sliding_attention")
    assert json_of(capsys, "inspect", "linear:2", *gemma)["base"] == 10000
    mixed = json_of(capsys, "compare", "linear:2", CONFIGS / "llama-2-13b.json", "--config", path)
    assert [row["base"] for row in mixed] == [5e5, 1e4]


def test_write(tmp_path, capsys):
    path = config(tmp_path, max_position_embeddings=8192, rope_theta=500.0, other=1)
    assert main(["write", "yarn:4", str(tmp_path), "--base", "600"]) == 0
    first, base, vllm, llama_cpp = capsys.readouterr().out.splitlines()
    assert first == f"{path}: yarn:4,original_length=8192 (head_dim 128, base 600, half_split)"
    assert base == "base: 500 -> 600"
    overrides = json.loads(re.search("--hf-overrides '(.*)'$", vllm)[1])
    assert overrides["rope_parameters"]["rope_type"] == "yarn" and overrides["rope_parameters"]["rope_theta"] == 600
    assert llama_cpp.startswith("llama.cpp: --rope-scaling yarn --rope-scale 4 ")
    assert rw.from_config(path) == rw.encoding("yarn:4,original_length=8192", 128, 600.0)
    assert json.loads(path.read_text())["other"] == 1
    assert main(["write", "power:0.5", str(path)]) == 0
    assert "llama.cpp: llama.cpp has no flags for 'power'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("policy", "name", "message"),
    [
        ("xpos:512", "llama-2-13b", "has magnitudes that depend on the position"),
        ("linear:2", "gemma-4", "--layer-type must be one of full_attention, sliding_attention"),
        ("linear:2", "gemma-3-12b", "pass --layer-type, one of full_attention, sliding_attention"),
        ("liner:2", "llama-2-13b", "unknown policy 'liner'"),
    ],
)
def test_mistakes_of_write(policy, name, message, tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_bytes((CONFIGS / f"{name}.json").read_bytes())
    assert main(["write", policy, str(path)]) == 2
    output = capsys.readouterr()
    assert output.out == "" and message in output.err
    assert path.read_bytes() == (CONFIGS / f"{name}.json").read_bytes()


def test_png_plots(tmp_path):
    result = command("inspect", "yarn:16,original_length=4096", "--plot", tmp_path / "one.png")
    assert result.returncode == 0 and result.stderr == ""
    assert plot_size(tmp_path / "one.png")[0] > 800
    assert 20_000 < (tmp_path / "one.png").stat().st_size < 150_000


def test_svg_plots_are_reproducible(tmp_path, capsys):
    for name in ("one.svg", "two.svg"):
        assert main(["inspect", "truncated:4096", "--length", "16384", "--plot", str(tmp_path / name)]) == 0
    content = (tmp_path / "one.svg").read_text()
    assert content == (tmp_path / "two.svg").read_text()
    assert ElementTree.fromstring(content).tag.endswith("svg")
    for words in ("Tokens per full turn", "Score by distance", "for each policy", "never rotate", "linear:4"):
        assert f"<!-- {words}" in content or words in content


@pytest.mark.parametrize("arguments", [("default", "--length", 1, "--original-length", 1), ("proportional:0",)])
@pytest.mark.filterwarnings("error")
def test_plots_of_a_single_pair(arguments, tmp_path, capsys):
    path = tmp_path / "pair.png"
    assert main([*map(str, ("inspect", *arguments, "--head-dim", 2, "--plot", path))]) == 0
    assert plot_size(path)[0] > 800


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "yarm:16"), "unknown policy 'yarm'"),
        (("inspect", "linear:8|"), "expected the name of a policy, got the end"),
        (("inspect", "linear:-8"), "factor must be a positive number, got -8"),
        (("inspect", "linear:8", "--head-dim", "7"), "rotary_dim must be even"),
        (("inspect", "linear:8", "--length", "0"), "length must be in"),
        (("inspect", "missing/config.json"), "missing/config.json: No such file or directory"),
        (("inspect", "linear:8", "--plot", "missing/picture.png"), "missing/picture.png: No such file or directory"),
        (("inspect", "linear:8", "--plot", "picture.jpg"), "'picture.jpg' must end in .png or .svg"),
        (("inspect", str(CONFIGS / "llama-2-13b.json"), "--head-dim", "64"), "--head-dim needs an expression"),
        (("compare", str(CONFIGS / "llama-2-13b.json"), "--base", "5000"), "--base needs an expression"),
        (("compare", "linear:8", "linear:x"), "expected a number"),
        (("inspect", str(CONFIGS), "--config", str(CONFIGS / "llama-2-13b.json")), "--config needs an expression"),
        (("inspect", "linear:8", "--config", "x.json", "--base", "5"), "--base and --config exclude each other"),
        (("inspect", "linear:8", "--config", "missing/x.json"), "missing/x.json: No such file or directory"),
        (("inspect", "linear:8", "--config", "\udcff"), "'\\udcff' is not UTF-8 text"),
        (("inspect", "linear:8", "--config", "/dev/zero"), "/dev/zero is a character device, expected a file"),
        (("write", "linear:8"), "required: config"),
        (("write", "linear:8", "missing/x.json"), "missing/x.json: No such file or directory"),
        (
            ("inspect", "linear:8", "--layer-type", "zz"),
            "--layer-type needs a configuration, got the expression linear:8",
        ),
        (("inspect", str(CONFIGS / "gemma-4.json")), "--layer-type must be one of full_attention, sliding_attention"),
        (("inspect", "linear:99999999"), "got 4.096e+11, the original length of 4096 times"),
        (("inspect", "linear:1e300|linear:1e300"), "got inf"),
        (("inspect", "linear:\udcff"), "'linear:\\udcff' is not UTF-8 text"),
        (("inspect", "missing/\udcff.json"), "is not UTF-8 text"),
        (("inspect", str(CONFIGS), "--layer-type", "\udcff"), "'\\udcff' is not UTF-8 text"),
        *(
            (("inspect", "linear:8", name, "9" * 20), f"{name} must be in [1, 2^63), got {'9' * 20}")
            for name in ("--head-dim", "--rotary-dim", "--sequence-length")
        ),
        (("compare",), "required: target"),
        ((), "required: command"),
    ],
)
def test_mistakes(arguments, message):
    result = command(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert message in result.stderr and "Traceback" not in result.stderr


def test_an_error_marks_the_character():
    lines = command("inspect", "linear:8|yarm:16").stderr.splitlines()
    assert lines[0].startswith("ropewalk: unknown policy 'yarm'") and lines[0].count("ropewalk:") == 1
    assert lines[1:] == ["  linear:8|yarm:16", "           ^"]


def test_commands_of_the_documentation(monkeypatch, tmp_path, capsys):
    """The site shows their output. This test runs the commands without the site."""
    monkeypatch.chdir(ROOT)
    text = "".join(page.read_text(encoding="utf-8") for page in Path("docs").rglob("*.md"))
    commands = re.findall(r"^\$ python -m ropewalk ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    commands = [words.replace("\\\n", " ") for words in commands if "--help" not in words and words[:5] != "write"]
    assert len(commands) >= 4
    for words in commands:
        words, _, plot = words.partition(" --plot ")
        assert main([*words.split(), *(["--plot", str(tmp_path / "plot.png")] if plot else [])]) == 0
        assert len(capsys.readouterr().out.splitlines()) > 5
        assert not plot or (tmp_path / "plot.png").stat().st_size < 150_000


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"head_dim": 64, "rope_scaling": {"type": "no"}}', b"\xff\xfe\x00"]
)
def test_broken_configurations(content, tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert main(["inspect", str(path)]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith("ropewalk: ")


def test_without_matplotlib(tmp_path):
    """Cards do not need it, and the error of a plot names the package."""
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('no', name='matplotlib')")
    assert command("inspect", "linear:8", PYTHONPATH=str(tmp_path)).returncode == 0
    result = command("inspect", "linear:8", "--plot", tmp_path / "x.png", PYTHONPATH=str(tmp_path))
    message = "ropewalk: --plot needs matplotlib: pip install 'ropewalk[plot]'\n"
    assert result.returncode == 2 and result.stderr == message


def test_a_closed_pipe():
    result = run("bash", "-c", f"{sys.executable} -m ropewalk inspect linear:8 --json | head -c 10")
    assert result.stderr == "" and len(result.stdout) == 10


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk():
    result = run("bash", "-c", f"{sys.executable} -m ropewalk inspect linear:8 --json > /dev/full")
    assert result.returncode == 2 and result.stderr == "ropewalk: standard output: No space left on device\n"


def test_an_interruption(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_target, "load_all", interrupt)
    assert main(["inspect", "linear:8"]) == 130
    assert capsys.readouterr().err == ""
