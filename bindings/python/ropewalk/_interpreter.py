"""Refusal of subinterpreters. Imported before the compiled module, whose import would never return there."""

from __future__ import annotations

import ctypes
import sys


def check() -> None:
    """Throw ImportError outside of the main interpreter: pybind11 waits there for a lock that its thread holds."""
    if sys.implementation.name != "cpython":
        return
    current, main = ctypes.pythonapi.PyInterpreterState_Get, ctypes.pythonapi.PyInterpreterState_Main
    current.restype = main.restype = ctypes.c_void_p
    if current() != main():
        raise ImportError("ropewalk: subinterpreters are not supported; import ropewalk in the main interpreter")


check()
