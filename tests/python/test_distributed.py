"""Two processes: the example sequence_parallel.py, and DTensors."""

import sys
from pathlib import Path

import pytest
from checks import run

EXAMPLE = Path(__file__).parents[2] / "examples" / "sequence_parallel.py"


def run_ranks(*arguments):
    command = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    return run(*command, *arguments, OMP_NUM_THREADS="1")


def run_example(*arguments):
    return run_ranks(EXAMPLE, *arguments)


@pytest.mark.parametrize("policy", ["yarn:8,original_length=4096", "xpos:64"])
def test_two_ranks_equal_one_process(policy):
    done = run_example("--tokens", "48", "--policy", policy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 ranks, 48 tokens" in done.stdout


def test_tokens_must_be_divisible():
    done = run_example("--tokens", "30")
    assert done.returncode != 0 and "--tokens must be a multiple of 4, got 30" in done.stderr


def test_dtensors():
    done = run_ranks(Path(__file__).with_name("dtensor_ranks.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") == 5
