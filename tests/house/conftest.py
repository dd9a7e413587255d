"""Import paths of the checks, which are scripts that import each other by name, and of the compile-fail check."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "compile_fail")]
