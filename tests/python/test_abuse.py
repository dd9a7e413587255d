"""A short run of abuse.py, whose long runs are in docs/robustness.md."""

import resource

import abuse
import pytest

SCALES = {"threads": 0.3, "forks": 0.4, "signals": 0.3, "low_memory": 0.5, "few_processes": 0.5, "pickles": 0.3}


@pytest.mark.parametrize("part", abuse.PARTS)
def test_random_use(part):
    if part in ("low_memory", "few_processes") and not hasattr(resource, "RLIMIT_NPROC"):
        pytest.skip("the system has no such limits")
    attempts, problem = abuse.round_of(part, 1, SCALES.get(part, 0.3))
    assert problem is None
    assert attempts > 20


def test_a_finding_is_reported(monkeypatch):
    """A process that ends by a signal, and an exception that the documentation does not name."""
    for program, reason in (("import os; os.abort()", "exit -6"), ("raise KeyError(3)", "exit 1: KeyError: 3")):
        monkeypatch.setattr(abuse, "COMMAND", ["-c", program])
        assert abuse.round_of("pickles", 1, 1)[1].startswith(reason)
