"""The checks are scripts which import each other by name, and the compile-fail harness stands beside them."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "compile_fail")]
