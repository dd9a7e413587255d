"""Uses of ropewalk by other projects: find_package, the core component alone, pkg-config and add_subdirectory.

The same uses are checked without xsimd, nlohmann/json, DLPack and a network, as on a bare machine with a GPU.
"""

import argparse
import os
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from common import ROOT, finish

PROJECTS = ROOT / "tests" / "consumer"


def run(*command, **environment):
    """Returns the output of a command that failed, or None."""
    merged = {**os.environ, **environment}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=merged)
    return f"{' '.join(command)}\n{result.stdout}{result.stderr}" if result.returncode else None


def cmake_project(cmake, compiler, name, build, *definitions):
    configure = [cmake, "-S", str(PROJECTS / name), "-B", str(build), f"-DCMAKE_CXX_COMPILER={compiler}", *definitions]
    return run(*configure) or run(cmake, "--build", str(build)) or run(str(build / "consumer"))


def hidden(*packages):
    """CMake definitions that hide packages from find_package."""
    return [f"-DCMAKE_DISABLE_FIND_PACKAGE_{package}=ON" for package in packages]


def pkg_config_program(compiler, prefix, build):
    path = os.pathsep.join(str(folder) for folder in prefix.rglob("pkgconfig"))
    environment = {**os.environ, "PKG_CONFIG_PATH": path}
    query = ["pkg-config", "--cflags", "--libs", "ropewalk"]
    result = subprocess.run(query, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        return result.stderr
    program = str(build / "consumer")
    source = str(PROJECTS / "main.cpp")
    build.mkdir(exist_ok=True)
    return run(compiler, source, "-o", program, *result.stdout.split()) or run(program)


class Bare:
    """ropewalk configured for Python on a machine that has only a compiler, CMake, pybind11 and PyTorch."""

    def __init__(self, cmake, compiler, folder):
        self.cmake = cmake
        self.compiler = compiler
        self.build = folder / "build"
        self.prefix = folder / "prefix"

    def configure(self, *definitions):
        off = [f"-DROPEWALK_BUILD_{part}=OFF" for part in ("TESTS", "BENCHMARKS", "EXAMPLES", "CUDA")]
        missing = ["-DFETCHCONTENT_FULLY_DISCONNECTED=ON", *hidden("xsimd", "nlohmann_json", "dlpack")]
        tree = ["-S", str(ROOT), "-B", str(self.build), f"-DCMAKE_CXX_COMPILER={self.compiler}"]
        return run(self.cmake, *tree, *off, *missing, *definitions)

    def refusal(self):
        message = self.configure() or "configured without an error"
        return None if "ROPEWALK_XSIMD=OFF" in message else f"the message does not name the options: {message}"

    def compiles(self):
        """Compiles the kernels and the replacement of the file that needs JSON. The other files need neither."""
        python = f"-I{sysconfig.get_paths()['include']}"
        source = ROOT / "bindings" / "python" / "config_none.cpp"
        folders = [f"-I{ROOT / folder}" for folder in ("include", "bindings")]
        return run(self.cmake, "--build", str(self.build), "--target", "ropewalk_kernels") or run(
            self.compiler, "-std=c++20", "-fsyntax-only", python, *folders, str(source)
        )

    def outcomes(self, folder):
        yield "bare machine: refusal", self.refusal()
        problem = self.configure("-DROPEWALK_XSIMD=OFF", "-DROPEWALK_JSON=OFF")
        yield "bare machine: configure", problem
        if problem is None:
            yield "bare machine: kernels", self.compiles()
            yield "bare machine: install", run(self.cmake, "--install", str(self.build), "--prefix", str(self.prefix))
            installed = (f"-DCMAKE_PREFIX_PATH={self.prefix}", *hidden("xsimd"))
            found = cmake_project(self.cmake, self.compiler, "find_package", folder / "d", *installed)
            yield "bare machine: find_package", found
            yield "bare machine: pkg-config", pkg_config_program(self.compiler, self.prefix, folder / "e")


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
            missing = hidden("xsimd", "OpenMP")
            outcomes["core alone"] = cmake_project(*tools, "find_core", root / "b", installed, *missing)
            missing = hidden("OpenMP", "CUDAToolkit")
            outcomes["no OpenMP, no CUDA"] = cmake_project(*tools, "find_optional", root / "o", installed, *missing)
            outcomes["pkg-config"] = pkg_config_program(options.compiler, prefix, root / "p")
        outcomes["add_subdirectory"] = cmake_project(*tools, "subdirectory", root / "c", f"-DROPEWALK_SOURCE={ROOT}")
        outcomes.update(Bare(*tools, root / "bare").outcomes(root))
    problems = [f"{name} fails:\n{output}" for name, output in outcomes.items() if output]
    finish(problems, f"{len(outcomes)} ways to use ropewalk")


if __name__ == "__main__":
    main()
