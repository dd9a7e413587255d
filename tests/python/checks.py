"""Programs run in a new process, and calls that must raise an error without writing."""

import os
import subprocess
import sys

import numpy as np
import pytest
import ropewalk as rw
from rope_reference import exact


def run(*command, timeout=300, cwd=None, **environment):
    """The finished process, with its output as text. `environment` extends that of the tests."""
    command = [str(word) for word in command]
    if "PYTHONPATH" in environment:
        environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **environment}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout, cwd=cwd, env=environment
    )


def run_python(program, *arguments, **environment):
    """Standard output of a program in a new interpreter, without the final newline. The program must succeed."""
    done = run(sys.executable, "-c", program, *arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.removesuffix("\n")


def assert_refused(message, call, *arrays, error=rw.Error):
    """The call raises `error` with a matching message, and the arrays keep their values."""
    before = [exact(x) for x in arrays]
    with pytest.raises(error, match=message):
        call()
    for x, values in zip(arrays, before):
        np.testing.assert_array_equal(exact(x), values)
