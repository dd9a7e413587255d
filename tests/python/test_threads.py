"""Threads: ours are PyTorch's own, as many as PyTorch is told to use, whichever of the two is imported first."""

import json
import os
import subprocess
import sys

import pytest

if not os.path.isdir("/proc/self/task"):
    pytest.skip("the threads of a process are counted in Linux's /proc", allow_module_level=True)

# A process of its own prints, for one thread and then for two: which threads computed for torch, which computed for us,
# how many there were before and after us, and the OpenMP libraries in memory. A thread has computed when it spent
# processor time, counted in ticks of 10 ms; a worker waits awake for a while, so a few ticks are no work.
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
def test_one_pool_serves_both_and_is_as_large_as_torch_says(imports):
    command = [sys.executable, "-c", PROGRAM, ",".join(imports)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    one, two = found["rows"]
    assert (len(one["ours"]), len(two["ours"])) == (1, 2), found
    assert one["ours"] == one["theirs"] and two["ours"] == two["theirs"], found
    assert two["after"] == two["before"], found


# A child whose parent has had threads turns the same, instead of waiting for threads that it has not.
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


def turned():
    return rw.rotate(start, encoding=encoding, threads=None if sys.argv[1] == "torch" else 2)


expected = turned()
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(turned(), expected) else 3)  # torch, which waits itself, must not compare
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


@pytest.mark.parametrize("tensors_of", ["numpy", "torch"])
def test_a_forked_child_works_alone(tensors_of):
    done = subprocess.run([sys.executable, "-c", FORKED, tensors_of], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "exit 0"
