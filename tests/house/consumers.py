"""Strangers can use ropewalk: find_package, its core component alone, pkg-config, add_subdirectory."""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from common import ROOT, finish

PROJECTS = ROOT / "tests" / "consumer"


def run(*command, **environment):
    """What a command printed if it failed, else None."""
    merged = {**os.environ, **environment}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=merged)
    return f"{' '.join(command)}\n{result.stdout}{result.stderr}" if result.returncode else None


def cmake_project(cmake, compiler, name, build, *definitions):
    configure = [cmake, "-S", str(PROJECTS / name), "-B", str(build), f"-DCMAKE_CXX_COMPILER={compiler}", *definitions]
    return run(*configure) or run(cmake, "--build", str(build)) or run(str(build / "consumer"))


def pkg_config_program(compiler, prefix, build):
    path = os.pathsep.join(str(folder) for folder in prefix.rglob("pkgconfig"))
    environment = {**os.environ, "PKG_CONFIG_PATH": path}
    query = ["pkg-config", "--cflags", "--libs", "ropewalk"]
    result = subprocess.run(query, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        return result.stderr
    program = str(build / "consumer")
    source = str(PROJECTS / "main.cpp")
    return run(compiler, "-std=c++20", source, "-o", program, *result.stdout.split()) or run(program)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True, help="a configured build tree of ropewalk")
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--cmake", default="cmake")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prefix = root / "prefix"
        installed = f"-DCMAKE_PREFIX_PATH={prefix}"
        tools = (options.cmake, options.compiler)
        outcomes = {"install": run(options.cmake, "--install", str(options.build), "--prefix", str(prefix))}
        if outcomes["install"] is None:
            outcomes["find_package"] = cmake_project(*tools, "find_package", root / "a", installed)
            without_xsimd = ("-DCMAKE_DISABLE_FIND_PACKAGE_xsimd=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON")
            outcomes["core alone"] = cmake_project(*tools, "find_core", root / "b", installed, *without_xsimd)
            outcomes["pkg-config"] = pkg_config_program(options.compiler, prefix, root)
        outcomes["add_subdirectory"] = cmake_project(*tools, "subdirectory", root / "c", f"-DROPEWALK_SOURCE={ROOT}")
    problems = [f"{name} fails:\n{wrong}" for name, wrong in outcomes.items() if wrong]
    finish(problems, f"{len(outcomes)} ways to use ropewalk")


if __name__ == "__main__":
    main()
