"""Fixtures of several files."""

import pytest


@pytest.fixture
def one_thread():
    """Models as small as those of tests lose by waking a second thread, and much where other tests run beside them."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
