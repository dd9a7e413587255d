"""`pip install .` from a clean checkout: builds the wheel, checks its contents and installs it into a new environment.
Also makes the source distribution, checks its contents and configures it.

The files that git does not ignore are copied to a new folder and built there with the tools of this Python, without a
network. Compiling takes minutes, so the check uses the wheel of `make python` where no source is newer. The new
environment has NumPy and no torch; the check imports the package there and prints how long the import takes. Then the
environment gets the other packages of this Python, for the Python snippets of the documentation (snippets.py).
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from common import ROOT, finish

LARGEST = 5_000_000  # bytes, compressed
CONTENTS = re.compile(
    r"ropewalk/((evaluation/)?\w+\.pyi?|py\.typed|_(ropewalk|cuda)\.[\w.-]+\.so)|ropewalk-[\w.]+\.dist-info/(METADATA|WHEEL|RECORD|"
    r"entry_points\.txt|licenses/LICENSE)"
)
SOURCES = ("bindings", "cmake", "cuda", "include")
OTHER_SOURCES = {"CHANGELOG.md", "CMakeLists.txt", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
PROGRAM = """
import sys, time
start = time.perf_counter()
import ropewalk as rw
seconds = time.perf_counter() - start
import numpy as np
q = np.ones((3, 2, 64), np.float32)
rw.rotate_(q, encoding=rw.encoding("linear:8", head_dim=64), offset=1)
assert 0 < abs(q).max() < 2 and (q != 1).any() and "torch" not in sys.modules
print(seconds, rw.__file__)
"""


def run(*command, cwd=None, **environment):
    merged = {**os.environ, **environment}
    merged.pop("PYTHONPATH", None)
    command = list(map(str, command))
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=merged)
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    return result.stdout


def check_out(folder):
    """Copies the files that git does not ignore. A new bare repository lists them, so the tree need not be a clone."""
    git = folder.with_name("listing.git")
    run("git", "init", "--quiet", "--bare", git)
    listing = ("-C", ROOT, "ls-files", "--others", "--exclude-standard", "-z")
    for name in run("git", f"--git-dir={git}", f"--work-tree={ROOT}", *listing).split("\0"):
        source, target = ROOT / name, folder / name
        if name and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def build(checkout, wheels, defines):
    # ccache then recognises a file in any folder.
    cache = {"CCACHE_BASEDIR": str(checkout), "CCACHE_NOHASHDIR": "1"}
    settings = [f"--config-settings=cmake.define.{define}" for define in defines]
    options = ("--quiet", "--disable-pip-version-check", "--no-build-isolation", "--no-deps", "--no-index")
    run(sys.executable, "-m", "pip", "wheel", *options, *settings, "--wheel-dir", wheels, checkout, **cache)
    (wheel,) = wheels.glob("ropewalk-*.whl")
    return wheel


def wheel_up_to_date(folder):
    """The wheel in a folder if no source is newer, or None."""
    wheels = list(folder.glob("ropewalk-*.whl")) if folder else []
    if len(wheels) != 1:
        return None
    sources = [ROOT / "CMakeLists.txt", ROOT / "pyproject.toml"]
    for name in ("include", "cuda", "bindings", "cmake"):
        sources += [path for path in (ROOT / name).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return wheels[0] if max(path.stat().st_mtime for path in sources) < wheels[0].stat().st_mtime else None


def check_contents(wheel, checkout):
    problems = []
    if wheel.stat().st_size >= LARGEST:
        problems.append(f"{wheel.name} has {wheel.stat().st_size} bytes, expected fewer than {LARGEST}")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    problems += [f"{wheel.name} holds {name}, unknown to the package" for name in names if not CONTENTS.fullmatch(name)]
    package = checkout / "bindings" / "python"
    sources = [path for path in (package / "ropewalk").glob("*") if path.is_file()]
    wanted = {path.relative_to(package).as_posix() for path in sources}
    problems += [f"{wheel.name} lacks {name}" for name in sorted(wanted - set(names))]
    if not any(name.startswith("ropewalk/_ropewalk.") and name.endswith(".so") for name in names):
        problems.append(f"{wheel.name} lacks the compiled module")
    needed = re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)
    required = [name for name in needed if "extra ==" not in name]
    if required != ["numpy"]:
        problems.append(f"{wheel.name} requires {required}, expected only numpy")
    return problems


def check_source_names(names, wanted):
    """Problems of the files of a source distribution, given those of the source folders."""
    folders = tuple(f"{folder}/" for folder in SOURCES)
    extra = [name for name in names if not name.startswith(folders) and name not in OTHER_SOURCES]
    missing = [*(OTHER_SOURCES - set(names)), *(wanted - set(names))]
    return [f"the source distribution holds {name}, which no build needs" for name in sorted(extra)] + [
        f"the source distribution lacks {name}" for name in sorted(missing)
    ]


def check_sources(folder):
    """Makes a source distribution of a copy of the tree and configures it as a build of the wheel does."""
    checkout = folder / "sources"
    check_out(checkout)
    program = f"from scikit_build_core.build import build_sdist; build_sdist({str(folder)!r})"
    run(sys.executable, "-c", program, cwd=checkout)
    (archive,) = folder.glob("ropewalk-*.tar.gz")
    with tarfile.open(archive) as tar:
        names = [name.partition("/")[2] for name in tar.getnames()]
        tar.extractall(folder / "unpacked")
    (unpacked,) = (folder / "unpacked").iterdir()
    # The Python of this environment, which has pybind11; that of PATH may lack it.
    options = ("-DSKBUILD=2", "-DROPEWALK_BUILD_CUDA=OFF", "-DROPEWALK_INSTRUCTION_SETS=native")
    options += (f"-DPython_EXECUTABLE={sys.executable}",)
    printed = run("cmake", "-S", unpacked, "-B", folder / "configured", *options)
    if not re.search(r"^-- ropewalk: kernels for \w+$", printed, re.MULTILINE):
        return [f"ROPEWALK_INSTRUCTION_SETS=native chose no single instruction set:\n{printed}"]
    files = (path for name in SOURCES for path in (checkout / name).rglob("*") if path.is_file())
    return check_source_names(names, {path.relative_to(checkout).as_posix() for path in files})


def environment_with(wheel, folder):
    """A new environment with the wheel and NumPy; returns its Python and the folder of its packages."""
    run(sys.executable, "-m", "venv", "--clear", "--without-pip", folder)
    python = folder / "bin" / "python"
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel)
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))").strip())
    numpy = packages_with("numpy")
    for name in ("numpy", "numpy.libs"):
        if (numpy / name).exists():
            (packages / name).symlink_to(numpy / name)
    return python, packages


def packages_with(name):
    return Path(importlib.util.find_spec(name).origin).parents[1]


def check_import(python, packages):
    """Imports the package and runs its command line."""
    seconds, path = run(python, "-c", PROGRAM).strip().split(maxsplit=1)
    print(f"import ropewalk: {float(seconds):.2f} s")
    problems = []
    if Path(path).parent != packages / "ropewalk":
        problems.append(f"ropewalk was imported from {path}, expected {packages}")
    card = run(python, "-m", "ropewalk", "inspect", "linear:8")
    if "linear:8" not in card:
        problems.append(f"python -m ropewalk inspect linear:8 printed:\n{card}")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, required=True, help="folder of the check, emptied first")
    parser.add_argument("--made", type=Path, help="folder of the wheel of make python")
    parser.add_argument("--define", action="append", default=[], help="NAME=VALUE for CMake")
    options = parser.parse_args()
    folder = options.into.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "wheels").mkdir(parents=True)
    checkout, wheel = ROOT, wheel_up_to_date(options.made)
    if wheel is None:
        checkout = folder / "checkout"
        check_out(checkout)
        wheel = build(checkout, folder / "wheels", options.define)
    problems = check_contents(wheel, checkout) + check_sources(folder)
    python, packages = environment_with(wheel, folder / "venv")
    problems += check_import(python, packages)
    others = dict.fromkeys(map(packages_with, ("numpy", "torch")))
    (packages / "others.pth").write_text("".join(f"{path}\n" for path in others), encoding="utf-8")
    if problems:
        shutil.rmtree(folder / "venv")
    finish(problems, f"1 wheel of {wheel.stat().st_size} bytes")


if __name__ == "__main__":
    main()
