"""The device check with stand-ins for the compiler, the device and its tools: steps, order, deadlines, results."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from checks import run

ROOT = Path(__file__).parents[2]
LINKED = ("include", "cuda", "bindings", "benchmarks", "tests", "cmake", "CMakeLists.txt", "pyproject.toml")
ROW = {"candidate": "ropewalk, in place", "type": "bf16", "layout": "half_split", "heads": "40/40", "tokens": 4096}
ROW |= {"in_place": True, "microseconds": 1.0, "terabytes_per_second": 1.0, "ratio_to_copy": 0.9, "error": 0}
ROWS = json.dumps({"context": {"device": "Example GPU"}, "rows": [ROW]})

# Each stand-in appends its name and arguments to the file `calls`.
STAND_INS = {
    "nvidia-smi": """case "$*" in
*=name*) echo "Example GPU" ;; *driver*) echo 1.2 ;; *) echo 9.0 ;; esac""",
    # An object is an empty file; a program prints what it got, and fails if the file `fails` names its argument.
    "nvcc": """out= ; for word; do [ "$last" = -o ] && out=$word; last=$word; done
case " $* " in
*--version*) echo "release 13.0, V13" ;;
*" -E "*) cat >/dev/null ;;
*" -M "*) ;;
*" -c "*) [ -z "$slow" ] || case "$*" in *"$slow"*) echo $$ >>compiling; exec sleep 30 ;; esac; touch "$out" ;;
*) printf '#!/bin/sh\\nprogram=%s\\n. "$STAND_IN"\\n' "$(basename "$out")" >"$out"; chmod +x "$out" ;;
esac""",
    "compute-sanitizer": 'while [ "${1#build/}" = "$1" ]; do shift; done; "$@"',
    "ncu": 'echo "==ERROR== ERR_NVGPUCTRPERM"',
    "python": """case "$*" in
*"import sys, torch"* | *"import matplotlib"*) ;;
*"pip install"*) mkdir -p build/gpu/site/ropewalk ;;
*"-m pytest"*) echo "in /opt/secret/test.py on $(uname -n)"
    [ -z "$hangs" ] || { touch hanging; exec sleep 30; } ;;
*bench_gpu.py*) while [ "$1" != --out ]; do shift; done; printf %s "$ROWS" >"$2" ;;
*plot_gpu.py*) touch "$(echo "$2" | sed s/json/png/)" ;;
*) exec "$REAL" "$@" ;;
esac""",
}
PROGRAM = """echo "$program $*" >>calls
[ "$program $1" != "$fails" ] || exit 1
while [ $# -gt 0 ]; do if [ "$1" = --out ]; then printf %s "$ROWS" >"$2"; fi; shift; done
"""


class Check:
    """A copy of the script among stand-ins."""

    def __init__(self, folder):
        self.folder, self.out = folder, folder / "out"
        (folder / "tools").mkdir()
        for name in ("gpu_check.sh", "gpu_steps.sh"):
            shutil.copy(ROOT / "tools" / name, folder / "tools")
        for name in LINKED:
            (folder / name).symlink_to(ROOT / name)
        (folder / "bin").mkdir()
        for name, script in STAND_INS.items():
            file = folder / "bin" / name
            file.write_text(f'#!/bin/sh\necho "{name} $*" >>calls\n{script}\n')
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
        (folder / "program").write_text(PROGRAM)
        (folder / "cublas" / "lib").mkdir(parents=True)
        self.environment = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHON": str(folder / "bin" / "python"),
            "REAL": sys.executable,
            "STAND_IN": str(folder / "program"),
            "CUBLAS_ROOT": str(folder / "cublas"),
            "CUDA_VISIBLE_DEVICES": "0",
            "ROWS": ROWS,
            "CCACHE_DISABLE": "1",
        }

    def command(self, *arguments):
        return [self.folder / "tools" / "gpu_check.sh", "--commit", "abc", "--out", self.out, *arguments]

    def run(self, *arguments, **environment):
        return run(*self.command(*arguments), **self.environment, **environment)

    def calls(self):
        """The calls so far; the next ones start a new list."""
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return lines

    def outcomes(self, label):
        return {step["step"]: step["result"] for step in json.loads(self.logs(label)["steps.json"])["steps"]}

    def logs(self, label):
        with tarfile.open(self.out / f"example_gpu_{label}_logs.tar.gz") as archive:
            files = [member for member in archive.getmembers() if member.isfile()]
            return {Path(file.name).name: archive.extractfile(file).read().decode() for file in files}


@pytest.fixture
def check(tmp_path):
    return Check(tmp_path)


def compiled(calls):
    """The sources of the calls of the compiler."""
    return [call.split(" -c ")[0].split()[-1] for call in calls if call.startswith("nvcc") and " -c " in call]


def place(calls, beginning):
    return next(i for i, call in enumerate(calls) if call.startswith(beginning))


def test_the_figures_come_first_and_leave_files(check):
    done = check.run("--steps", "figures")
    assert done.returncode == 0, done.stdout + done.stderr
    assert check.outcomes("figures") == dict.fromkeys(
        ("build", "tests", "python_build", "bench", "python_tests", "peers", "plot"), "passed"
    )
    calls = check.calls()
    beginnings = ("nvcc", "device_tests ", "bench_rotate ", "python -m pytest", "python benchmarks/python/plot_gpu")
    order = [place(calls, beginning) for beginning in beginnings]
    assert order == sorted(order) and place(calls, "python -m pip install") < place(calls, "bench_rotate ")
    assert not any(part in call for call in calls for part in ("stack.cu", "policies.cu", "compute-sanitizer", "ncu"))
    assert sorted(file.name for file in check.out.iterdir()) == [
        "example_gpu.json",
        "example_gpu.png",
        "example_gpu_figures_logs.tar.gz",
    ]


def test_the_details_use_what_was_built(check):
    assert check.run("--steps", "figures").returncode == 0
    check.calls()
    done = check.run("--steps", "details")
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = check.outcomes("details")
    assert outcomes.pop("ncu") == "skipped" and "ncu may not read counters here" in done.stdout
    assert list(outcomes) == ["build", "memcheck", "initcheck", "stack", "sweep", "plot"]
    assert set(outcomes.values()) == {"passed"}
    calls = check.calls()
    assert set(compiled(calls)) == {"tests/cuda/stack.cu", "tests/cuda/policies.cu"}
    assert "device_tests --small" in calls and "stack_tests " in calls
    assert len(list(check.out.iterdir())) <= 8
    assert (check.out / "example_gpu_sweep.png").exists()


def test_changed_sources_are_built_again(check):
    assert check.run("--steps", "tests").returncode == 0
    first = compiled(check.calls())
    assert check.run("--steps", "tests").returncode == 0
    assert compiled(check.calls()) == []
    with (check.folder / "tools" / "gpu_check.sh").open("a") as script:
        script.write("# changed\n")
    assert check.run("--steps", "tests").returncode == 0
    assert sorted(compiled(check.calls())) == sorted(first)


def test_logs_name_neither_folders_nor_the_machine(check):
    assert check.run("--steps", "python_build,python_tests").returncode == 0
    log = check.logs("steps")["python_tests.log"]
    assert "in test.py on machine" in log and os.uname().nodename not in log
    assert '"commit": "abc"' in check.logs("steps")["steps.json"]


def test_a_failed_step_stops_no_other(check):
    done = check.run("--steps", "tests,bench", fails="device_tests ")
    assert done.returncode == 1 and "1 failed" in done.stdout and "(failed: tests)" in done.stdout
    assert check.outcomes("steps") == {"build": "passed", "tests": "failed", "bench": "passed"}


def test_steps_are_skipped_when_the_time_is_up(check):
    done = check.run("--steps", "tests,sweep", "--minutes", "0")
    assert "== sweep: skipped, " in done.stdout and "but it needs 30 s" in done.stdout
    assert check.outcomes("steps")["tests"] == "skipped"
    assert not any(call.startswith("device_tests") for call in check.calls())


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_keeps_its_results_and_ends_its_processes(check, ending):
    environment = {**os.environ, **check.environment, "hangs": "1", "slow": "stack.cu"}
    command = check.command("--steps", "bench,python_build,python_tests,stack")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (check.folder / "hanging").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    if ending == signal.SIGKILL:
        os.killpg(process.pid, ending)
    else:
        process.send_signal(ending)
    assert process.wait(10) == (-9 if ending == signal.SIGKILL else 143)
    assert json.loads((check.out / "example_gpu.json").read_text())["rows"]
    assert check.outcomes("steps") == {"build": "passed", "python_build": "passed", "bench": "passed"}
    assert "bench.log" in check.logs("steps")
    compiler = int((check.folder / "compiling").read_text())
    if ending == signal.SIGKILL:  # timeout gives each command a group of its own
        os.kill(compiler, signal.SIGKILL)
        return
    while running(compiler) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(compiler)


def running(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def test_unknown_steps_are_refused_with_the_list(check):
    done = check.run("--steps", "tests,benhc")
    assert done.returncode == 2 and not check.out.exists()
    assert "unknown step 'benhc', expected build,tests,python_build,bench," in done.stderr
    assert check.run("--steps", ",").returncode == 2


def test_help_lists_the_steps_with_their_seconds():
    text = run(ROOT / "tools" / "gpu_check.sh", "--help").stdout
    for name in ("build", "tests", "python_build", "bench", "peers", "memcheck", "initcheck", "stack", "ncu", "sweep"):
        assert any(line.split()[:1] == [name] and line.split()[1].isdecimal() for line in text.splitlines()), name


REPORT = """==PROF== Connected
"ID","Process ID","Process Name","Host Name","Kernel Name","Block Size","Grid Size","{time}","{dram}","{issue}"
"","","","","","","","ns","%","%"
"0","7","/root/bench","box","bench::<unnamed>::copy_kernel(uint4 *)","(256, 1, 1)","(9, 1, 1)","1,000","90.5","10"
"1","7","/root/bench","box","void ropewalk::gpu::kernel<int>(int)","(128, 1, 1)","(8, 1, 1)","3,000","50","70"
"2","7","/root/bench","box","void ropewalk::gpu::kernel<int>(int)","(128, 1, 1)","(8, 1, 1)","2,000","80","60"
"""


def test_profiles_join_launches_and_counters(tmp_path):
    sys.path.append(str(ROOT / "benchmarks" / "python"))
    from profile_gpu import METRICS

    launches = [{**{k: ROW[k] for k in ("type", "layout", "heads", "tokens", "in_place", "error")}, "candidate": name}
                for name in ("copy kernel", "append", "append")]  # fmt: skip
    rows, out = tmp_path / "rows.json", tmp_path / "ncu.json"
    report = REPORT.format(time=METRICS["microseconds"], dram=METRICS["dram_percent"], issue=METRICS["issue_percent"])
    (tmp_path / "report").write_text(report)
    (tmp_path / "launches").write_text(json.dumps({"context": {"device": "Example GPU"}, "rows": launches}))
    # The first call knows one metric less.
    (tmp_path / "ncu").write_text(
        f"""#!/bin/sh
cd {tmp_path}; cp launches rows.json
while [ "$1" != --log-file ]; do case "$1" in *lg_throttle*) unknown=1 ;; esac; shift; done
if [ "$unknown" ]; then echo "==ERROR== Failed to find metric {METRICS["queue_stalls"]}" >"$2"; exit 1; fi
cp report "$2"
"""
    )
    (tmp_path / "ncu").chmod(0o755)
    done = run(
        sys.executable, ROOT / "benchmarks/python/profile_gpu.py", "--program", tmp_path / "program",
        "--rows", rows, "--out", out, PATH=f"{tmp_path}:{os.environ['PATH']}"
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ncu does not know {METRICS['queue_stalls']} here" in done.stdout
    result = json.loads(out.read_text())
    assert [row["candidate"] for row in result["rows"]] == ["copy kernel", "append"]
    assert result["rows"][1]["microseconds"] == 2.0 and result["rows"][1]["dram_percent"] == 80
    assert "box" not in out.read_text() and "/root" not in out.read_text()
