"""Threads: ropewalk runs on those of PyTorch, and on as many, in either order of import."""

import json
import os
import sys
import threading
import time

import numpy as np
import pytest
import ropewalk as rw
from checks import assert_refused, run, run_python
from ropewalk import _ropewalk

if not os.path.isdir("/proc/self/task"):
    pytest.skip("the threads of a process are counted in Linux's /proc", allow_module_level=True)

# A new process prints, for one thread and for two: the threads that computed for torch, those that computed for
# ropewalk, their number before and after, and the OpenMP libraries in memory. A thread has computed if it spent
# processor time, which the system counts in ticks of 10 ms. An idle worker spins briefly, so a few ticks do not count.
PROGRAM = """
import json, os, sys, time
for name in sys.argv[1].split(","):
    __import__(name)
import ropewalk as rw
import torch

encoding = rw.encoding("default", head_dim=128)
q = torch.randn(2048, 32, 128)


def ticks():
    spent = {}
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        spent[int(thread)] = int(fields[11]) + int(fields[12])
    return spent


def workers(call):
    before, start = ticks(), time.process_time()
    while time.process_time() - start < 0.4:
        call()
    return sorted(thread for thread, spent in ticks().items() if spent - before.get(thread, 0) > 3)


def runtimes():
    with open("/proc/self/maps") as file:
        paths = {line.split()[-1] for line in file}
    return sorted(path for path in paths if any(name in os.path.basename(path) for name in ("gomp", "iomp", "libomp")))


rows = []
for threads in (1, 2):
    torch.set_num_threads(threads)
    theirs = workers(lambda: q.mul_(-1))
    count = len(ticks())
    ours = workers(lambda: rw.rotate_(q, encoding=encoding))
    workers(lambda: (q.mul_(-1), rw.rotate_(q, encoding=encoding)))
    rows.append({"theirs": theirs, "ours": ours, "before": count, "after": len(ticks())})
print(json.dumps({"rows": rows, "runtimes": runtimes()}))
"""


@pytest.mark.parametrize("imports", [("torch", "ropewalk"), ("ropewalk", "torch")], ids="-".join)
def test_both_use_one_pool_of_the_size_that_torch_sets(imports):
    found = json.loads(run_python(PROGRAM, ",".join(imports)))
    one, two = found["rows"]
    assert (len(one["ours"]), len(two["ours"])) == (1, 2), found
    assert one["ours"] == one["theirs"] and two["ours"] == two["theirs"], found
    assert two["after"] == two["before"], found


# A forked child has none of its parent's threads. It computes the same result and does not wait for them.
FORKED = """
import os, signal, sys, time
import numpy as np
import ropewalk as rw

start = np.random.default_rng(1).standard_normal((512, 16, 128), dtype=np.float32)
encoding = rw.encoding("default", head_dim=128)
if sys.argv[1] == "torch":
    import torch
    torch.set_num_threads(2)
    start = torch.from_numpy(start)


def rotated():
    return rw.rotate(start, encoding=encoding, threads=None if sys.argv[1] == "torch" else 2)


expected = rotated()
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(rotated(), expected) else 3)  # torch.equal would wait for threads
for _ in range(300):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        print("exit", os.waitstatus_to_exitcode(status))
        break
    time.sleep(0.1)
else:
    os.kill(child, signal.SIGKILL)
    print("hangs")
"""


# OpenMP threads of PyTorch. The parent makes no threaded call of ropewalk.
FORKED_BY_OTHERS = FORKED.replace(
    "expected = rotated()",
    """
expected = rw.rotate(start, encoding=encoding, threads=1)
assert torch.empty(4_000_000).mul_(2).numel() and len(os.listdir("/proc/self/task")) > 1
""",
)


def test_a_forked_child_of_another_library_with_threads():
    assert run_python(FORKED_BY_OTHERS, "torch") == "exit 0"


# A child of a parent with one thread starts threads of its own.
FORKED_ALONE = """
import os, sys
import numpy as np
import ropewalk as rw

start = np.zeros((4096, 16, 128), np.float32)
encoding = rw.encoding("default", head_dim=128)
assert len(os.listdir("/proc/self/task")) == 1
child = os.fork()
if child == 0:
    rw.rotate(start, encoding=encoding, threads=2)
    os._exit(len(os.listdir("/proc/self/task")))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_of_one_thread_has_threads():
    processors = min(2, len(os.sched_getaffinity(0)))
    assert int(run_python(FORKED_ALONE, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="2")) == processors


SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
if sys.argv[1] == "imported":
    import ropewalk
program = "try: import ropewalk\\nexcept ImportError as problem: print(problem)"
interpreters.run_string(interpreters.create(), program)
"""


@pytest.mark.parametrize("main", ["imported", "fresh"])
def test_subinterpreters_are_refused(main):
    """The import would wait forever for a lock that its own thread holds."""
    command = [sys.executable, "-c", SUBINTERPRETER, main]
    done = run(*command, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ropewalk: subinterpreters are not supported")


@pytest.mark.parametrize("tensors_of", ["numpy", "torch"])
def test_a_forked_child_computes_on_one_thread(tensors_of):
    assert run_python(FORKED, tensors_of) == "exit 0"


def test_other_threads_run_while_a_configuration_is_parsed():
    text = '{"head_dim": 8, "list": [' + ",".join(["{}"] * 1_000_000) + "]}"
    turns, done = 0, []

    def parse():
        before = turns
        _ropewalk.encoding_from_config(text, "the test", None, None, None, None)
        done.append(turns - before)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # the lock changes hands only where its holder gives it up
    try:
        thread = threading.Thread(target=parse)
        thread.start()
        while thread.is_alive():
            turns += 1
            time.sleep(0)
    finally:
        sys.setswitchinterval(interval)
    assert done[0] > 0


# The parts of a call would keep more threads busy than there are processors. OpenMP ends a process in which it cannot
# start a thread.
LIMITED = """
import os, sys
import numpy as np
import ropewalk as rw

processors = int(sys.argv[1])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:processors])
q = np.zeros((4096, 16, 128), np.float32)
encoding = rw.encoding("default", head_dim=128)
for threads in (None, 4096):
    rw.rotate_(q, encoding=encoding, threads=threads)
    encoding.cos_sin(np.arange(200_000), threads=threads)
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize("processors", [1, 2])
def test_no_more_threads_than_processors(processors):
    usable = min(processors, len(os.sched_getaffinity(0)))
    absurd = {"OMP_NUM_THREADS": "100000"}
    before = int(run_python("import os, numpy, ropewalk\nprint(len(os.listdir('/proc/self/task')))", **absurd))
    assert int(run_python(LIMITED, processors, **absurd)) <= before + usable - 1


@pytest.mark.parametrize("threads", [-1, 0, 4097, 2**40])
def test_limits_of_threads(threads):
    q, encoding = np.zeros((4, 2, 64), np.float32), rw.encoding("default", head_dim=64)
    message = f"threads must be from 1 to 4096, got {threads}"
    assert_refused(message, lambda: rw.rotate_(q, encoding=encoding, threads=threads), q)
    assert_refused(message, lambda: encoding.cos_sin(np.arange(4), threads=threads))


def test_a_default_of_torch_above_the_limit_is_reduced():
    program = """
import ropewalk as rw, torch
torch.set_num_threads(5000)
rw.rotate_(torch.ones(2048, 4, 64), encoding=rw.encoding("default", head_dim=64))
print("rotates")
"""
    assert run_python(program) == "rotates"
