"""Uses of ropewalk by other projects: find_package with each component, pkg-config, add_subdirectory and FetchContent.

The installed package is that of a build tree. The same uses are checked without xsimd, nlohmann/json, DLPack and a
network, as on a bare machine with a GPU. Only the project that fetches ropewalk compiles kernels, those without xsimd.
"""

import argparse
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import pybind11
from common import ROOT, finish

PROJECTS = ROOT / "tests" / "consumer"
CACHE = {f"CMAKE_{language}_COMPILER_LAUNCHER": "ccache" for language in ("C", "CXX") if shutil.which("ccache")}


def run(*command, **environment):
    """Returns the output of a command that failed, or None."""
    merged = {**os.environ, **CACHE, **environment}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=merged)
    return f"{' '.join(command)}\n{result.stdout}{result.stderr}" if result.returncode else None


def cmake_project(cmake, compiler, name, build, *definitions):
    """Configures and builds a project, and runs all of its programs."""
    configure = [cmake, "-S", str(PROJECTS / name), "-B", str(build), f"-DCMAKE_CXX_COMPILER={compiler}", *definitions]
    problem = run(*configure) or run(cmake, "--build", str(build))
    if problem:
        return problem
    programs = [str(path) for path in build.glob("consumer*") if path.is_file()]
    return next(filter(None, map(run, programs)), None) if programs else f"{name} builds no program"


def hidden(*packages):
    """CMake definitions that hide packages from find_package."""
    return [f"-DCMAKE_DISABLE_FIND_PACKAGE_{package}=ON" for package in packages]


def pkg_config_program(compiler, prefix, build, source="main.cpp", package="ropewalk", static=False):
    (folder,) = prefix.rglob("pkgconfig")
    query = ["pkg-config", "--cflags", "--libs", *(["--static"] if static else []), package]
    environment = {**os.environ, "PKG_CONFIG_PATH": str(folder)}
    result = subprocess.run(query, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        return result.stderr
    link = "-static" if static else f"-Wl,-rpath,{folder.parent}"
    standard = "-std=c99" if source.endswith(".c") else "-std=c++20"
    build.mkdir(exist_ok=True)
    program = str(build / "consumer")
    command = [compiler, standard, str(PROJECTS / source), "-o", program, link, *result.stdout.split(), "-lm"]
    return run(*command) or run(program)


class Bare:
    """ropewalk configured for Python on a machine that has only a compiler, CMake, pybind11 and PyTorch."""

    missing = ("-DFETCHCONTENT_FULLY_DISCONNECTED=ON", *hidden("xsimd", "nlohmann_json", "dlpack"))
    alone = ("-DROPEWALK_XSIMD=OFF", "-DROPEWALK_JSON=OFF")

    def __init__(self, cmake, compiler, folder):
        self.cmake = cmake
        self.compiler = compiler
        self.build = folder / "build"
        self.prefix = folder / "prefix"

    def configure(self, *definitions):
        off = [f"-DROPEWALK_BUILD_{part}=OFF" for part in ("TESTS", "BENCHMARKS", "EXAMPLES", "CUDA", "DISPATCH")]
        tree = ["-S", str(ROOT), "-B", str(self.build), f"-DCMAKE_CXX_COMPILER={self.compiler}"]
        return run(self.cmake, *tree, *off, *self.missing, *definitions)

    def refusal(self):
        message = self.configure() or "configured without an error"
        return None if "ROPEWALK_XSIMD=OFF" in message else f"the message does not name the options: {message}"

    def compiles(self):
        """Compiles the replacement of the file that needs JSON. The other files do not."""
        python = [f"-I{folder}" for folder in (sysconfig.get_paths()["include"], pybind11.get_include())]
        source = ROOT / "bindings" / "python" / "config_none.cpp"
        folders = [f"-I{ROOT / folder}" for folder in ("include", "bindings")]
        return run(self.compiler, "-std=c++20", "-fsyntax-only", *python, *folders, str(source))

    def lacks_dispatch(self, build, installed):
        message = cmake_project(self.cmake, self.compiler, "find_dispatch", build, *installed) or "found dispatch"
        return None if "ROPEWALK_BUILD_DISPATCH=OFF" in message else f"the message does not name the option: {message}"

    def outcomes(self, folder):
        yield "bare machine: refusal", self.refusal()
        problem = self.configure(*self.alone)
        yield "bare machine: configure", problem
        if problem is None:
            yield "bare machine: without JSON", self.compiles()
            yield "bare machine: install", run(self.cmake, "--install", str(self.build), "--prefix", str(self.prefix))
            installed = (f"-DCMAKE_PREFIX_PATH={self.prefix}", *hidden("xsimd"))
            found = cmake_project(self.cmake, self.compiler, "find_package", folder / "d", *installed)
            yield "bare machine: find_package", found
            yield "bare machine: no dispatch", self.lacks_dispatch(folder / "f", installed)
            yield "bare machine: pkg-config", pkg_config_program(self.compiler, self.prefix, folder / "e")
        fetched = (f"-DFETCHCONTENT_SOURCE_DIR_ROPEWALK={ROOT}", *self.missing, *self.alone)
        yield "bare machine: FetchContent", cmake_project(self.cmake, self.compiler, "fetch", folder / "g", *fetched)


def installed_package(options, root):
    """Uses of the package that a build tree installs into an empty prefix."""
    prefix = root / "prefix"
    problem = run(options.cmake, "--install", str(options.build), "--prefix", str(prefix))
    yield "install", problem
    if problem:
        return
    found = f"-DCMAKE_PREFIX_PATH={prefix}"
    tools = (options.cmake, options.compiler)
    yield "find_package", cmake_project(*tools, "find_package", root / "a", found)
    yield "core alone", cmake_project(*tools, "find_core", root / "b", found, *hidden("xsimd", "OpenMP"))
    missing = hidden("OpenMP", "CUDAToolkit")
    yield "no OpenMP, no CUDA", cmake_project(*tools, "find_optional", root / "o", found, *missing)
    yield "dispatch", cmake_project(*tools, "find_dispatch", root / "h", found, *hidden("xsimd"))
    yield "C", cmake_project(*tools, "find_c", root / "i", found, *hidden("xsimd", "OpenMP"))
    yield "pkg-config", pkg_config_program(options.compiler, prefix, root / "p")
    for compiler, source in ((options.compiler, "dispatch.cpp"), (options.c_compiler, "c_program.c")):
        for static in (False, True):
            outcome = pkg_config_program(compiler, prefix, root / "q", source, "ropewalk-dispatch", static)
            yield f"pkg-config, {source}, {'static' if static else 'shared'}", outcome


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True, help="a build tree of ropewalk with its compiled library")
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--c-compiler", default="cc")
    parser.add_argument("--cmake", default="cmake")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tools = (options.cmake, options.compiler)
        outcomes = dict(installed_package(options, root))
        outcomes["add_subdirectory"] = cmake_project(*tools, "subdirectory", root / "c", f"-DROPEWALK_SOURCE={ROOT}")
        outcomes.update(Bare(*tools, root / "bare").outcomes(root))
    problems = [f"{name} fails:\n{output}" for name, output in outcomes.items() if output]
    finish(problems, f"{len(outcomes)} ways to use ropewalk")


if __name__ == "__main__":
    main()
