"""One OpenMP runtime beside torch's.

Wheels of torch bring a libgomp of their own, at times under another soname (libgomp-a34b3233.so.1). The module would
then load the system's besides, and two pools of threads that wait for work by spinning would fight for the cores: small
rotations become hundreds of times slower. Symbols are looked for among the global libraries first, so torch's runtime
serves the module too once it is one of them. Imported before the module, for that effect.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from importlib.util import find_spec
from pathlib import Path


@functools.lru_cache
def _folders() -> list[str] | None:
    """Where torch lies, without importing it; None where there is none."""
    try:
        spec = find_spec("torch")
    except ImportError:
        return None
    except ValueError:  # a torch that somebody has put together by hand
        return []
    return None if spec is None else list(spec.submodule_search_locations or [])


def has_torch() -> bool:
    """Whether torch can be imported."""
    return _folders() is not None


def share() -> None:
    """Make the libgomp that comes with torch, where there is one, that of this package."""
    if not sys.platform.startswith("linux"):
        return
    for folder in _folders() or []:
        for library in (*Path(folder, "lib").glob("libgomp*.so*"), *Path(f"{folder}.libs").glob("libgomp*.so*")):
            try:
                ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
            except OSError:  # for another machine, say: the system's has to do
                continue
            return


share()
