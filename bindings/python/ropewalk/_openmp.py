"""Sharing of PyTorch's OpenMP runtime.

PyTorch wheels contain their own libgomp, sometimes under another soname (libgomp-a34b3233.so.1). The compiled module
would then load the system's libgomp as well, and the spinning threads of two pools would compete for the cores: small
rotations become hundreds of times slower. The dynamic linker searches global libraries first, so making PyTorch's
libgomp global makes the module use it. This file does so when it is imported, before the module.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from importlib.util import find_spec
from pathlib import Path


@functools.lru_cache
def _folders() -> list[str] | None:
    """Return the folders of PyTorch without importing it, or None if it is not installed."""
    try:
        spec = find_spec("torch")
    except ImportError:
        return None
    except ValueError:  # a hand-made module without a spec
        return []
    return None if spec is None else list(spec.submodule_search_locations or [])


def has_torch() -> bool:
    """Return whether PyTorch can be imported."""
    return _folders() is not None


def share() -> None:
    """Make the libgomp of PyTorch, if it contains one, global."""
    if not sys.platform.startswith("linux"):
        return
    for folder in _folders() or []:
        for library in (*Path(folder, "lib").glob("libgomp*.so*"), *Path(f"{folder}.libs").glob("libgomp*.so*")):
            try:
                ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
            except OSError:  # for example of another architecture: the system's libgomp is used
                continue
            return


share()
