"""Command lines of giraffe_13b and the demonstration: errors, their order, and reports."""

import json
import os
import shutil
import subprocess
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import llama_checkpoints as lc
import pytest
import torch

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not lc.GIRAFFE.exists(), reason=f"{lc.GIRAFFE} is not built"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of three layers."""
    path = tmp_path_factory.mktemp("linear")
    lc.make_model(lc.make_config("linear", num_key_value_heads=2)).save_pretrained(path)
    return path


def giraffe(folder, *flags):
    return lc.run(lc.GIRAFFE, "--weights", folder, "--prompt-ids", "1,5,9", *flags)


def tokens_of(done):
    assert done.returncode == 0, done.stderr
    return [int(one) for one in done.stdout.splitlines()[-1].split(",")]


TOO_MANY_LAYERS = ["--layers", 4], "--layers 4: the model has 3"
FLAGS = {
    "unknown": (["--scalings", "linear:8"], "unknown option '--scalings'"),
    "no value": (["--scaling"], "--scaling needs a value"),
    "not a number": (["--layers", "two"], "--layers needs a whole number from 1 to 68719476736, got 'two'"),
    "too many layers": TOO_MANY_LAYERS,
    "no such policy": (["--scaling", "abacus:8"], "\n  abacus:8\n  ^\n"),
    "no such type": (["--dtype", "f64"], "--dtype must be f32, bf16 or f16, got 'f64'"),
    "no such cache": (["--cache", "f8"], "--cache must be f32, f16, bf16 or i8, got 'f8'"),
    "an empty id": (["--prompt-ids", "1,,2"], "--prompt-ids needs a whole number from 0 to 2147483647, got ''"),
    "an id outside the vocabulary": (["--prompt-ids", "1,128"], "token id 128 is not among the 128 of the vocabulary"),
    "a prompt longer than the context": (
        ["--context", "2", "--prompt-ids", lc.joined([1] * 300)],
        "300 tokens of --prompt-ids and 4 of --generate make 304, --context allows 2",
    ),
    "tokens beyond the context": (["--context", "6"], "and 4 of --generate make 7, --context allows 6"),
    "too many tokens": (
        ["--context", 2**63 - 1, "--decode", 2**63 - 1],
        "--context needs a whole number from 1 to 68719476736, got '9223372036854775807'",
    ),
    "too large chunks": (["--chunk", 2**36 + 1], "from 1 to 68719476736, got '68719476737'"),
    "a negative seed": (["--seed", "-1"], "--seed needs a whole number from 0 to 9223372036854775807, got '-1'"),
    **{
        f"an empty {flag}": ([flag, ""], f"{flag} needs a value, got ''")
        for flag in ("--weights", "--config", "--json")
    },
    "a missing configuration": (["--config", "/no/such/config.json"], "/no/such/config.json"),
    "a file that cannot be written": (["--json", "/no/such/folder/out.json"], "/no/such/folder/out.json"),
}


@pytest.mark.parametrize("what", FLAGS)
def test_command_line_errors(folder, what):
    flags, message = FLAGS[what]
    done = giraffe(folder, "--generate", 4, *flags)
    assert done.returncode == 1
    assert done.stderr.startswith("giraffe_13b: ") and done.stderr.count("\n") == max(1, message.count("\n"))
    assert message in done.stderr


def test_an_unwritable_report_is_refused_before_the_model_is_read(folder, tmp_path):
    for path in (tmp_path, "/no/such/folder/out.json"):
        done = giraffe(folder, "--json", path, *TOO_MANY_LAYERS[0])
        assert done.returncode == 1 and done.stderr == f"giraffe_13b: ropewalk: cannot write {path}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("flags", [["--help"], ["--decode", 1]])
def test_a_full_disk_is_an_error(folder, flags):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [lc.GIRAFFE, "--weights", folder, "--prompt-ids", "1,5", *map(str, flags)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("giraffe_13b: ropewalk: cannot write to standard output")


def test_weights_that_are_not_finite_are_an_error(tmp_path):
    model = lc.make_model(lc.make_config("linear", num_key_value_heads=2))
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[5, 7] = float("nan")
    model.save_pretrained(tmp_path)
    (tmp_path / "ids.json").write_text("[1, 5, 9, 2]")
    for flags in (["--generate", 4], ["--decode", 1]):
        done = giraffe(tmp_path, *flags)
        assert done.returncode == 1
        message = "the hidden state of the token at position 0 is not finite after layer 1: "
        assert done.stderr.startswith(f"giraffe_13b: ropewalk: {message}") and done.stderr.count("\n") == 1
    done = lc.run(lc.GIRAFFE, "--weights", tmp_path, "--perplexity", tmp_path / "ids.json")
    assert done.returncode == 1 and message in done.stderr


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc/self/maps")
def test_a_checkpoint_that_is_truncated_while_it_is_mapped_ends_the_program_with_its_name(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    command = [lc.GIRAFFE, "--weights", tmp_path / "model", "--prompt-ids", "1,5", "--generate", 10**6]
    running = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        maps = Path(f"/proc/{running.pid}/maps")
        while running.poll() is None and str(file) not in maps.read_text():
            time.sleep(0.01)
        os.truncate(file, 0)
        _, stderr = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode == 1, stderr
    assert stderr == (
        f"giraffe_13b: ropewalk: cannot read {file}: the file was truncated while it was mapped, or its device failed "
        "(SIGBUS)\n"
    )


def test_the_comparison_of_engines_is_skipped_without_llama_cpp(folder):
    if find_spec("xllamacpp") and find_spec("gguf"):
        pytest.skip("llama.cpp is installed")
    script = lc.ROOT / "benchmarks/llama/bench_engines.py"
    done = lc.run(sys.executable, script, "--gguf", folder / "config.json", "--weights", folder)
    assert done.returncode == 0 and done.stdout.startswith("skipped: ") and "not installed" in done.stdout


def test_rows_of_the_comparison_of_engines(monkeypatch):
    monkeypatch.syspath_prepend(str(lc.ROOT / "benchmarks/llama"))
    engines = import_module("bench_engines")
    seconds = {"llama.cpp": [(4.0, 0.2), (6.0, 0.4), (9.0, 0.3)], "avx2": [(2.0, 0.1), (2.0, 0.1), (4.5, 0.3)]}
    (row,) = engines.rows_of("f16", 2, 100, seconds)
    assert (row["type"], row["threads"], row["tokens"], row["instruction_set"]) == ("f16", 2, 100, "avx2")
    speeds = [row[f"{part}_tokens_per_second{of}"] for part in ("prefill", "decode") for of in ("", "_of_llama_cpp")]
    assert speeds == pytest.approx([50, 100 / 6, 10, 10 / 3])
    assert [row["prefill_speedup"], row["decode_speedup"]] == pytest.approx([2, 2])
    assert [engines.same_start(" one two", text) for text in ("one two!", "one to", "x")] == [7, 5, 0]


DEMO = lc.GIRAFFE.with_name("demo").resolve()
DEMO_FLAGS = {
    "unknown": (["--out"], "unknown option '--out'"),
    "two files": (["a.json", "b.json"], "expected at most one file, got 'a.json' and 'b.json'"),
    "an empty name": ([""], "unknown option ''"),
    "a folder": (["."], "cannot write ."),
    "no such folder": (["/proc/demo.json"], "cannot write /proc/demo.json"),
    "the other file's name": (["demo_checksums.json"], "is reserved for the checksums"),
}


@pytest.mark.skipif(not DEMO.exists(), reason=f"{DEMO} is not built")
@pytest.mark.parametrize("what", DEMO_FLAGS)
def test_the_demonstration_refuses_before_it_measures(what, tmp_path):
    flags, message = DEMO_FLAGS[what]
    done = subprocess.run([DEMO, *flags], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 1 and done.stdout == "" and not list(tmp_path.iterdir())
    assert done.stderr.startswith("demo: ropewalk: ") and done.stderr.count("\n") == 1 and message in done.stderr


@pytest.mark.skipif(not DEMO.exists(), reason=f"{DEMO} is not built")
def test_help_of_the_demonstration_measures_nothing(tmp_path):
    done = subprocess.run([DEMO, "--help"], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0 and done.stdout.startswith("demo [FILE]: ") and not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{}", "[]", "x", '[{"policy": "default"}]'])
def test_an_empty_comparison_fails(content, tmp_path):
    path = tmp_path / "checksums.json"
    path.write_text(content)
    done = lc.run(sys.executable, lc.ROOT / "examples/demo_python.py", path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"ropewalk: {path} ") and done.stderr.count("\n") == 1


def test_a_failed_run_leaves_the_report_unchanged(folder, tmp_path):
    old, new, link = tmp_path / "old.json", tmp_path / "new.json", tmp_path / "link.json"
    old.write_text("old")
    link.symlink_to(new)
    flags, message = TOO_MANY_LAYERS
    for path in (old, new, link):
        done = giraffe(folder, "--json", path, *flags)
        assert done.returncode == 1 and message in done.stderr
    assert old.read_text() == "old" and link.is_symlink() and not new.exists()
    for path in (old, link):
        made = tokens_of(giraffe(folder, "--generate", 4, "--json", path))
        assert json.loads(path.read_text())["tokens"] == made


def test_a_sequence_fills_its_context_at_most(folder):
    whole = ["--context", 7, "--chunk", 2]
    made = tokens_of(giraffe(folder, "--generate", 4, *whole))
    assert len(made) == 4 and made == tokens_of(giraffe(folder, "--generate", 4))
    assert giraffe(folder, "--decode", 4, *whole).returncode == 0
    assert giraffe(folder, *whole).returncode == 0  # the default of 8 steps is reduced to fit
    done = giraffe(folder, "--decode", 5, *whole)
    assert done.returncode == 1
    assert "3 tokens of --prompt-ids and 5 of --decode make 8, --context allows 7" in done.stderr
    # A generated prompt is as long as the context; generated tokens come on top.
    assert len(tokens_of(lc.run(lc.GIRAFFE, "--weights", folder, "--generate", 4, "--context", 300))) == 4


@pytest.mark.parametrize("scaling, cache", [("linear:4", "f16"), ("dynamic:4,original_length=8", "f32")])
def test_keys_that_are_re_rotated_are_cached_in_f32(folder, scaling, cache):
    assert f"bf16 weights, {cache} cache" in giraffe(folder, "--dtype", "bf16", "--scaling", scaling).stdout


def test_a_run_beyond_the_memory_is_refused(tmp_path):
    """2^50 bytes of states exceed the address space."""
    wide = {"hidden_size": 4096, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16}
    (tmp_path / "config.json").write_text(lc.make_config("linear", **wide).to_json_string(use_diff=False))
    done = lc.run(lc.GIRAFFE, "--config", tmp_path, "--context", 2**36, "--chunk", 2**36, "--decode", 0)
    assert done.returncode == 1
    message = "no memory for 3 layers of 4096 and a sequence of up to 68719476736 tokens, 68719476736 at once"
    assert done.stderr == f"giraffe_13b: ropewalk: {message}\n"
