"""Stages of length-dependent policies: cached keys move to the frequencies of a longer sequence."""

import numpy as np
import pytest
import ropewalk as rw
import torch
from rope_reference import HALF_ULP, TYPES, exact, make

HEAD_DIM, KEYS = 128, 24
LISTS = {
    "short_factor": [1 + j / 64 for j in range(HEAD_DIM // 2)],
    "long_factor": [1 + j * j / 64 for j in range(HEAD_DIM // 2)],
}
GROWTH = {
    "dynamic": (rw.DynamicNtk(4, original_length=4096), [4096, 6000, 12000, 40000]),
    "dynamic 2048": (rw.policy("dynamic:2,original_length=2048"), [2048, 4096, 8192, 16384]),
    "longrope": (rw.LongRope(**LISTS, factor=32, original_length=4096), [4096, 4097]),
    "longrope far": (rw.LongRope(**LISTS, factor=32, original_length=4096), [1000, 131072]),
}


def scores(queries, keys):
    """Products divided by the norms, [queries, keys]."""
    q, k = exact(queries)[:, 0], exact(keys)[:, 0]
    return (q @ k.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(k, axis=1)


@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("growth", GROWTH)
def test_rerotated_keys_score_like_fresh_ones(growth, type_name):
    policy, lengths = GROWTH[growth]
    numbers = np.random.default_rng(7)
    raw = make("torch", type_name, (0, 1, HEAD_DIM))
    cached, stale, ids = raw, raw, torch.zeros(0, dtype=torch.int64)
    last, done = None, 0
    for length in lengths:
        now = rw.encoding(policy, HEAD_DIM, sequence_length=length)
        if last is not None:
            assert now.stage != last.stage
            rw.rerotate_(cached, last, now, positions=ids)
        added = torch.from_numpy(np.append(numbers.integers(done, length, KEYS - 1), length - 1))
        keys = make("torch", type_name, (KEYS, 1, HEAD_DIM), length)
        fresh = rw.rotate(keys, encoding=now, positions=added)
        raw, ids = torch.cat([raw, keys]), torch.cat([ids, added])
        cached, stale = torch.cat([cached, fresh]), torch.cat([stale, fresh])
        # Queries at the end of the sequence, each similar to one key.
        queries = rw.rotate(raw, encoding=now, positions=torch.full_like(ids, length - 1))
        expected = scores(queries, rw.rotate(raw, encoding=now, positions=ids))
        rounding = 2 * HALF_ULP[type_name] + 3e-7
        assert np.abs(scores(queries, cached) - expected).max() <= rounding
        if last is not None:
            assert np.abs(scores(queries, stale) - expected).max() > 20 * rounding
        last, done = now, length


def test_longrope_switches_above_the_original_length():
    at = {
        length: rw.encoding(rw.LongRope(**LISTS, factor=32, original_length=4096), HEAD_DIM, sequence_length=length)
        for length in (1, 4096, 4097, 131072)
    }
    plain = rw.encoding("default", HEAD_DIM).inv_freq
    for length, key in ((1, "short_factor"), (4096, "short_factor"), (4097, "long_factor"), (131072, "long_factor")):
        np.testing.assert_allclose(at[length].inv_freq, plain / LISTS[key], rtol=1e-15)
    assert at[1].stage == at[4096].stage != at[4097].stage == at[131072].stage
    assert {encoding.attention_factor for encoding in at.values()} == {at[1].attention_factor}
    assert at[1].attention_factor == pytest.approx(np.sqrt(1 + 5 / 12), rel=1e-15)


def test_dynamic_has_one_stage_per_length_above_the_original():
    stages = [rw.encoding("dynamic:4,original_length=64", 32, sequence_length=n).stage for n in (1, 64, 65, 66, 1000)]
    assert stages[0] == stages[1] and len(set(stages)) == 4
