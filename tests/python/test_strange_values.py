"""Every argument of every public callable refuses strange values by an error of its own, which names the argument."""

import re

import pytest
import ropewalk as rw
from strange_values import BOOLEANS, COMPLEX, MASKED, VALUES, OwnError, entries

# Words of messages about an argument that do not have its name.
ALSO = {
    "table": "cos|sin",
    "head_dim": "rotary_dim|config",
    "rotary_offset": "rotary_dim",
    "positions": "position",
    "k_offset": "position",  # a row of a table
    "expression": "policy",
    "policy": "encoding",
    "order": "cu_seqlens",
    "model": "rotary_emb",
    "q": "rotary_dim",
    "cos": "rotary_dim",
    "latent": "cache",
    "k_rope": "no k",
    **{name: "cache" for name in ("k_cache", "v_cache")},
    **{name: "config" for name in ("config", "rope_theta", "rope_scaling", "text_config")},
}
FLAGS = {"padded_tail", "is_neox", "inverse", "adjoint", "elementwise", "truncate", "interleaved", "one_plus"}
LONGEST = 600  # characters of a message


def problem_of(entry, name, value):
    """The problem with the outcome of a call with a strange value, or None."""
    try:
        entry.call(name, value)
    except OwnError:
        return None
    except OSError as problem:  # of a path that no file has
        return None if name in ("config", "path") else f"{type(problem).__name__}: {problem}"
    except (rw.Error, TypeError, ValueError) as problem:
        if type(problem) not in (rw.Error, TypeError, ValueError):
            return f"{type(problem).__name__}: {problem}"
        text = str(problem)
        if len(text) > LONGEST or not text.replace("\n", "").isprintable():
            return f"a message of {len(text)} characters: {text[:100]!r}"
        if not re.search(rf"{name}|{ALSO.get(name, name)}", text):
            return f"a message without the name: {text[:200]}"
        return None
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"
    return None


def test_every_public_name_is_tried(tmp_path):
    """The table has every function and class of the package."""
    tried = {name.partition(".")[0].partition(" ")[0] for name in entries(tmp_path)}
    without_arguments = {
        "instruction_set",
        "instruction_sets",
        "tuning_profile",
        "policies",
        "decompositions",
        "__version__",
    }
    assert set(rw.__all__) - tried - without_arguments == {"Error", "Inspection"}


@pytest.mark.filterwarnings("ignore")
def test_strange_values(tmp_path):
    problems, attempts = {}, 0
    for where, entry in entries(tmp_path).items():
        for name in entry.arguments:
            for kind, value in VALUES.items():
                attempts += 1
                problem = problem_of(entry, name, value)
                if problem is not None:
                    problems.setdefault((where, name, problem), []).append(kind)
    assert attempts > 10_000
    assert not problems, "\n".join(f"{place}: {kinds}" for place, kinds in problems.items())


@pytest.mark.filterwarnings("ignore")
def test_no_bool_and_no_complex_number_is_a_number(tmp_path):
    """Nor is a number a bool, and no masked number is taken without its mask."""
    taken = []
    for where, entry in entries(tmp_path).items():
        for name in entry.arguments:
            if where in ("unpatch", "patch") or where.startswith("from_config"):  # keys may be of any type
                continue
            refused = {**COMPLEX, **MASKED, **({"one": 1, "none": None, "text": "yes"} if name in FLAGS else BOOLEANS)}
            for kind, value in refused.items():
                try:
                    entry.call(name, value)
                except (rw.Error, TypeError):
                    continue
                taken.append((where, name, kind))
    assert not taken
