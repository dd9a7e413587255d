"""Random use of the package in subprocesses: `python tests/python/abuse.py --seconds 900 [--json FILE]`.

Each round starts a process with a seed. Its operations end in a result or in one of the errors that the documentation
names. A round fails if its process ends by a signal or by another exception, hangs, or has another result than a serial
run. Parts of a round: threads, forks, signals, low memory, few processes, mutated pickles, mutated configurations.
"""

import argparse
import collections
import contextlib
import datetime
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import ropewalk as rw
from ropewalk import _ropewalk

TOLERATED = (rw.Error, TypeError, MemoryError)
EXPRESSIONS = ("default", "linear:8", "ntk:4", "yarn:4,original_length=64", "xpos:64", "truncated:64", "power:0.5")
TYPES = (np.float32, np.float16, np.float64)


def operation(rng):
    """A function without side effects outside of its own arrays. The same rng makes the same one."""
    width = rng.choice((2, 8, 64, 128))
    encoding = rw.encoding(rng.choice(EXPRESSIONS), head_dim=width, layout=rng.choice(("half_split", "interleaved")))
    tokens, heads = rng.choice((0, 1, 7, 64, 600)), rng.choice((1, 2, 8))
    values = np.random.default_rng(rng.randrange(2**32)).standard_normal((tokens, heads, width))
    q = values.astype(rng.choice(TYPES))
    step = rng.choice((1, 1, 2))
    q = q[::step]
    given = rng.choice(
        (
            {"offset": rng.randrange(-99, 2**31)},
            {"positions": [rng.randrange(-99, 999) for _ in range(len(q))]},
            {"positions": np.arange(len(q), dtype=rng.choice(("int32", "uint8", "int64")))},
            {"cu_seqlens": [0, len(q) // 2, len(q)]},
            {"cu_seqlens": [0, len(q)], "offset": [rng.randrange(9)]},
            {"positions": rng.choice(("x", None, [None], [[1], [2, 3]], {}, -1, [2**70], [True] * len(q)))},
            {"offset": rng.choice((2**63, -(2**63), 1.5, True, "x", [1], np.zeros(3)))},
            {"table": encoding.cos_sin(np.arange(rng.randrange(700)))},
        )
    )
    given = {**given, "encoding": encoding, "threads": rng.choice((None, 1, 2, 7, 4096, 0, -1))}
    kind = rng.randrange(5)
    if kind == 0:
        return lambda: rw.rotate(q, **given)
    if kind == 1:
        return lambda: rw.rotate_(q.copy(), **given)
    if kind == 2:
        return lambda: rw.rotate(q, q[:, :1], **given)
    if kind == 3:
        return lambda: rw.rerotate_(q.copy(), encoding, rw.encoding("linear:2", head_dim=width), offset=3)
    return lambda: encoding.cos_sin(np.arange(len(q)), elementwise=rng.random() < 0.5)


def outcome(make):
    """Bytes of the results, or the message of the error."""
    try:
        found = make()()
    except TOLERATED as problem:
        return f"{type(problem).__name__}: {problem}"
    found = found if isinstance(found, tuple) else (found,)
    return [(x.dtype.str, x.shape, x.tobytes()) for x in found]


def outcomes(seeds):
    return [outcome(lambda seed=seed: operation(random.Random(seed))) for seed in seeds]


def threads(seed, count):
    """Ten threads have the results of a serial run, to the bit."""
    seeds = [f"{seed} {i}" for i in range(count)]
    expected, found = outcomes(seeds), [None] * 10

    def work(i):
        found[i] = outcomes(seeds[i::10])

    workers = [threading.Thread(target=work, args=(i,)) for i in range(10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i in range(10):
        assert found[i] == expected[i::10]
    return 2 * count


def forks(seed, count):
    """Children of a process whose threads rotate have the results of the parent."""
    seeds = [f"{seed} {i}" for i in range(count)]
    expected, stop = outcomes(seeds), threading.Event()
    q, encoding = np.zeros((2048, 8, 128), np.float32), rw.encoding("default", head_dim=128)

    def work():
        while not stop.is_set():
            rw.rotate(q, encoding=encoding, threads=2)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for part in range(4):
            child = os.fork()
            if child == 0:
                code = 1
                with contextlib.suppress(BaseException):
                    code = 0 if outcomes(seeds[part::4]) == expected[part::4] else 3
                os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        worker.join()
    return 2 * count


def signals(seed, count):
    """Handlers run between operations, and a KeyboardInterrupt leaves the library usable."""
    seeds = [f"{seed} {i}" for i in range(count)]
    expected = outcomes(seeds)

    armed, interrupted, done = False, 0, 0

    def interrupt(number, frame):
        if armed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    rng = random.Random(seed)
    while done < count:
        try:
            try:
                armed = interrupted < 5 * count
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 3e-3))
                found = outcome(lambda: operation(random.Random(seeds[done])))  # noqa: B023
            finally:
                armed = False  # a signal after this is ignored
        except KeyboardInterrupt:
            interrupted += 1
            continue
        assert found == expected[done]
        done += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    return count + interrupted


def used_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def low_memory(seed, count):
    """With little address space left there is a result, or one of the errors."""
    rng, seeds = random.Random(seed), [f"{seed} {i}" for i in range(count)]
    expected = outcomes(seeds)
    big = np.zeros((4096, 16, 128), np.float32)
    encoding = rw.encoding("default", head_dim=128)
    for name, want in zip(seeds, expected):
        limit = used_bytes() + rng.choice((0, 2**12, 2**16, 2**20, 2**22, 2**24, 2**25))
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        try:
            found = outcome(lambda: operation(random.Random(name)))  # noqa: B023
            with contextlib.suppress(*TOLERATED):
                rw.rotate(big, encoding=encoding, threads=4)
        except MemoryError:
            found = "MemoryError"
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert found == want or str(found).startswith(("MemoryError", "Error"))
    return 3 * count


def few_processes(seed, count):
    """The limit on processes stops no call whose threads exist already, and none on one thread."""
    seeds = [f"{seed} {i}" for i in range(count)]
    expected = outcomes(seeds)
    rw.rotate(np.zeros((4096, 16, 128), np.float32), encoding=rw.encoding("default", head_dim=128), threads=4096)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
    assert outcomes(seeds) == expected
    return 2 * count


def mutated(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, kind = rng.randrange(len(data)), rng.randrange(4)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[at : at + rng.choice((1, 2, 9))]
        else:
            data[at:at] = rng.choice((b"\x00", b"\xff" * 8, b"9" * 20, data[at : at + 9]))
        if not data:
            data += b"."
    return bytes(data)


class OwnUnpickler(pickle.Unpickler):
    """Finds the names of ropewalk only: other names may run any code, as in every pickle."""

    def find_class(self, module, name):
        found = getattr(rw, name, None) or getattr(_ropewalk, name, None)
        if not module.startswith("ropewalk") or not isinstance(found, type):
            raise pickle.UnpicklingError(name)
        return found


def pickles(seed, count):
    """A mutated pickle loads an object that works, one that refuses each use, or fails."""
    # An index of 31 bits in a pickle makes Python's reader allocate a list of that length.
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes() + 2**28, resource.RLIM_INFINITY))
    import io

    rng = random.Random(seed)
    objects = [kind.example() for kind in _ropewalk.policy_classes if hasattr(kind, "example")]
    objects += [rw.policy("linear:8|xpos"), rw.encoding("yarn:4,original_length=64", head_dim=64)]
    for _ in range(count):
        data = mutated(rng, pickle.dumps(rng.choice(objects), rng.randrange(6)))
        try:
            found = OwnUnpickler(io.BytesIO(data)).load()
        except (MemoryError, Exception):  # pickle raises errors of every kind
            continue
        if isinstance(found, (rw.Policy, rw.Encoding)):
            for use in (repr, str, hash, pickle.dumps, lambda x: x == x):
                with contextlib.suppress(*TOLERATED):
                    use(found)
            with contextlib.suppress(*TOLERATED):
                encoding = found if isinstance(found, rw.Encoding) else rw.encoding(found, head_dim=64)
                if encoding.head_dim <= 65536:
                    rw.rotate_(np.zeros((2, 1, encoding.head_dim), np.float32), encoding=encoding, offset=1)
    return count


def configurations(seed, count):
    """A mutated configuration is read or refused."""
    rng = random.Random(seed)
    texts = []
    for policy in (
        "default",
        "linear:8",
        "yarn:4,original_length=64",
        "llama3:8",
        "dynamic:2,original_length=64",
        "mrope:[8,12,12]",
    ):
        keys = rw.to_hf_config(rw.encoding(policy, head_dim=64))
        texts.append(json.dumps({"model_type": "llama", "num_attention_heads": 4, "hidden_size": 256, **keys}))
    for _ in range(count):
        text = mutated(rng, rng.choice(texts).encode()).decode("latin-1")
        with contextlib.suppress(*TOLERATED):
            encoding = _ropewalk.encoding_from_config(text, "abuse", None, rng.choice((None, 100, -1)), None, None)
            encoding.cos_sin([1, 2**40])
            rw.to_hf_config(encoding)
        with contextlib.suppress(ValueError, *TOLERATED):
            rw.from_config(json.loads(text))
        with contextlib.suppress(*TOLERATED):
            rw.policy(mutated(rng, rng.choice(EXPRESSIONS).encode()).decode("latin-1"))
        with contextlib.suppress(*TOLERATED):
            key = rw.encoding(rng.choice(EXPRESSIONS), head_dim=64).key
            rw.Encoding.from_key(mutated(rng, key.encode()).decode("latin-1"))
    return 4 * count


PARTS = {
    part.__name__: (part, count)
    for part, count in (
        *((threads, 300), (forks, 60), (signals, 150), (low_memory, 60), (few_processes, 60)),
        *((pickles, 1500), (configurations, 500)),
    )
}


COMMAND = [__file__]


def round_of(name, seed, scale):
    """Run one part in a new process. Returns attempts and, if it failed, the reason."""
    command = [sys.executable, *COMMAND, "--part", name, "--seed", str(seed), "--scale", str(scale)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return 0, "hang"
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()
        return 0, f"exit {done.returncode}: {last[-1] if last else ''}"
    return int(done.stdout), None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--json", help="file of the counts, to which those of this run are added")
    parser.add_argument("--machine", default="", help="the machine in words, for the file")
    parser.add_argument("--part", choices=PARTS, help="run this part once, in this process")
    parser.add_argument("--scale", type=float, default=1, help="operations per round, as a multiple of the default")
    options = parser.parse_args()
    if options.part:
        function, count = PARTS[options.part]
        print(function(options.seed, max(10, int(count * options.scale))))
        return 0
    counts = {name: {"rounds": 0, "attempts": 0, "findings": collections.Counter()} for name in PARTS}
    begin, seed = time.monotonic(), options.seed
    while time.monotonic() - begin < options.seconds:
        for name in PARTS:
            attempts, problem = round_of(name, seed, options.scale)
            counts[name]["rounds"] += 1
            counts[name]["attempts"] += attempts
            if problem is not None:
                counts[name]["findings"][problem] += 1
                print(f"{name} --seed {seed}: {problem}", flush=True)
        seed += 1
    row = {
        **{"date": datetime.date.today().isoformat(), "machine": options.machine, "version": rw.__version__},
        **{"seconds": round(time.monotonic() - begin), "first_seed": options.seed, "parts": counts},
    }
    if options.json:
        rows = []
        if os.path.exists(options.json):
            with open(options.json) as file:
                rows = json.load(file)
        with open(options.json, "w") as file:
            json.dump([*rows, row], file, indent=1)
            file.write("\n")
    print(json.dumps(row))
    return int(any(part["findings"] for part in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
