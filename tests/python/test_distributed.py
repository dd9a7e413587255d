"""The example that shares a sequence between two processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "sequence_parallel.py"


def run(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(EXAMPLE)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=300, check=False, env=environment
    )


@pytest.mark.parametrize("policy", ["yarn:8,original_length=4096", "xpos:64"])
def test_two_ranks_equal_one_process(policy):
    done = run("--tokens", "48", "--policy", policy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 ranks, 48 tokens" in done.stdout


def test_tokens_that_cannot_be_shared():
    done = run("--tokens", "30")
    assert done.returncode != 0 and "--tokens must be a multiple of 4, got 30" in done.stderr
