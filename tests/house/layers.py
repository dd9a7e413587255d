"""Layers of the headers: core <- policy <- encoding <- rotation <- {cpu | gpu} <- llama <- bindings.

A header includes headers of its own layer and of the layers to its left. No header includes both `cpu` and `gpu`,
directly or through other headers. `io` stands on the encoding.
"""

from pathlib import Path

from common import headers, includes, resolve, run

BELOW = {
    "version": set(),
    "core": set(),
    "policy": {"core"},
    "encoding": {"core", "policy"},
    "rotation": {"core", "policy", "encoding"},
    "cpu": {"core", "policy", "encoding", "rotation"},
    "gpu": {"core", "policy", "encoding", "rotation"},
    "io": {"core", "policy", "encoding"},
    "llama": {"core", "policy", "encoding", "rotation", "cpu", "gpu", "io"},
    "umbrella": {"version", "core", "policy", "encoding", "rotation", "cpu"},
}
SIMD = ("xsimd/", "immintrin.h", "x86intrin.h", "arm_neon.h", "arm_sve.h")
CUDA = ("cuda", "cooperative_groups", "cub/", "thrust/", "mma.h")
EIGEN = ("Eigen/", "unsupported/Eigen/")
JSON = ("nlohmann/",)
PLAIN = SIMD + CUDA + EIGEN + JSON + ("omp.h",)
FORBIDDEN = {
    "core": PLAIN,
    "policy": PLAIN,
    "encoding": PLAIN,
    "rotation": PLAIN,
    "cpu": CUDA + EIGEN + JSON,
    "gpu": SIMD + EIGEN + JSON,
    "io": SIMD + CUDA + EIGEN,
    "llama": (),
    "umbrella": CUDA + EIGEN + JSON,
}


def layer(root, path):
    """The layer of a file, from its path."""
    parts = path.relative_to(root).parts
    if parts[0] == "bindings":
        return "bindings"
    if parts[:2] in (("include", "ropewalk"), ("cuda", "ropewalk")):
        name = Path(parts[2]).stem
        return {"ropewalk": "umbrella"}.get(name, name)
    return None


def reachable(root, path, seen=None):
    """All files of the repository that `path` includes, directly or through other headers, and `path` itself."""
    seen = seen if seen is not None else set()
    if path not in seen:
        seen.add(path)
        for target in filter(None, (resolve(root, path, name) for name in includes(path))):
            reachable(root, target, seen)
    return seen


def check(root):
    problems = []
    files = headers(root)
    for path in files:
        short, own = path.relative_to(root), layer(root, path)
        if own not in BELOW:
            problems.append(f"{short}: no layer named '{own}'; the layers are {', '.join(BELOW)}")
            continue
        if path.suffix != ".inl" and "#pragma once" not in path.read_text(encoding="utf-8"):
            problems.append(f"{short}: no #pragma once")
        for name in includes(path):
            target = resolve(root, path, name)
            if target is not None and layer(root, target) not in BELOW[own] | {own}:
                problems.append(f"{short} ({own}) includes {name} ({layer(root, target)}), which is not below it")
            if target is None and name.startswith(FORBIDDEN[own]):
                problems.append(f"{short} ({own}) includes <{name}>, which this layer must not use")
        if {"cpu", "gpu"} <= {layer(root, target) for target in reachable(root, path)}:
            problems.append(f"{short} includes both cpu and gpu")
    return problems, f"{len(files)} headers in layers"


if __name__ == "__main__":
    run(__doc__, check)
