"""Fixtures that several files use."""

import os

import pytest

# PyTorch reads it: an operator whose results share memory is then an error everywhere, not only where CI runs.
os.environ.setdefault("CI", "true")


@pytest.fixture
def one_thread():
    """Runs torch on one thread: tiny models are slower with two, and slower still when tests run in parallel."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
