"""One OpenMP runtime beside torch's.

Wheels of torch bring a libgomp of their own, at times under another soname (libgomp-a34b3233.so.1). The module would
then load the system's besides, and two pools of threads that wait for work by spinning would fight for the cores: small
rotations become hundreds of times slower. Symbols are looked for among the global libraries first, so torch's runtime
serves the module too once it is one of them. Imported before the module, for that effect.
"""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec
from pathlib import Path


def share() -> None:
    """Make the libgomp that comes with torch, where there is one, that of this package. Does not import torch."""
    if not sys.platform.startswith("linux"):
        return
    try:
        spec = find_spec("torch")
    except (ImportError, ValueError):  # a torch that somebody has put together by hand
        return
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for library in (*Path(folder, "lib").glob("libgomp*.so*"), *Path(f"{folder}.libs").glob("libgomp*.so*")):
            try:
                ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
            except OSError:  # for another machine, say: the system's has to do
                continue
            return


share()
