#!/usr/bin/env bash
# Runs all checks that need a CUDA device, in steps: build, tests, benchmarks, Python, sanitizers, profiles.
#
#   tools/gpu_check.sh [--steps figures] [--minutes 9] [--quick] [--out build/gpu/results] [--commit id]
#   tools/gpu_check.sh --compile [--arch 90]     compiles the CUDA sources of one type and layout, without running them
#   tools/gpu_check.sh --host                    runs the tests and benchmarks on the host instead of a device
#
# Requires nvcc. Python with torch, compute-sanitizer, ncu and matplotlib are optional. Nothing is downloaded. A failed
# step does not stop the next ones; a step is skipped when the time is up. Each step leaves its results in the folder
# --out when it ends: at most eight files, the logs of all steps in one archive. A second run uses what an earlier one
# built from the same sources. Without a device the check prints a message and succeeds. The tests of the Llama stack
# need cuBLAS with its headers, from the toolkit, from the Python package, or from include/ and lib/ of CUBLAS_ROOT. If
# xsimd or nlohmann_json is missing, the Python package is built without it; add its folder to CMAKE_PREFIX_PATH to use
# it.
set -euo pipefail
cd "$(dirname "$0")/.."

# name, seconds that must be left to start it, the most that it may take, contents
steps="\
build         0 240  compiles and links the device tests and benchmarks
tests        20 120  device tests
python_build 30 240  builds the Python package with its CUDA module, while earlier steps run
bench        30 120  rotations, fused calls and copies: <device>.json
python_tests 30 120  tests of CUDA tensors in Python
peers        40 540  other implementations that are installed, until the time is up: <device>.json
memcheck     40 100  compute-sanitizer memcheck of the device tests
initcheck    40 100  compute-sanitizer initcheck of the device tests
stack        20 100  tests of the Llama stack, compiled while earlier steps run
ncu          30 120  hardware counters of rotation, append and norm: <device>_ncu.json
sweep        30 100  1 to 16 heads per thread, tables and angles on the fly: <device>_sweep.json
plot          5  60  plots of the results"
# Each group fits into one run of nine minutes.
figures="build tests python_build bench python_tests peers plot"
details="build memcheck initcheck stack ncu sweep plot"

show_help() {
    sed -n '2,15s/^# \{0,1\}//p' tools/gpu_check.sh
    echo
    echo "Steps, with the seconds that they take at most:"
    awk '{ printf "  %-13s%4d  ", $1, $3; $1 = $2 = $3 = ""; print substr($0, 4) }' <<<"$steps"
    echo "--steps takes names separated by commas, or figures (the numbers that the documentation quotes:"
    echo "${figures// /, }) or details (${details// /, })."
}

for tools in /usr/local/cuda/bin /usr/local/cuda/compute-sanitizer /opt/nvidia/nsight-compute/*; do
    if [[ -d $tools ]]; then PATH=$PATH:$tools; fi
done

minutes='' quick=() out=build/gpu/results mode=device arch='' chosen=all
refuse() { echo "gpu_check: $1; see --help" >&2; exit 2; }
while (($#)); do
    case $1 in
        --steps | --minutes | --out | --commit | --arch) [[ -n ${2-} ]] || refuse "$1 needs a value" ;;
    esac
    case $1 in
        --steps) chosen=$2 && shift 2 ;;
        --minutes) minutes=$2 && shift 2 ;;
        --out) out=$2 && shift 2 ;;
        --commit) export ROPEWALK_COMMIT=$2 && shift 2 ;;
        --arch) arch=$2 && shift 2 ;;
        --quick) quick=(--quick) && shift ;;
        --compile | --host) mode=${1#--} && shift ;;
        -h | --help) show_help && exit ;;
        *) refuse "unknown option '$1'" ;;
    esac
done
[[ -n $minutes ]] || minutes=$([[ $chosen == all ]] && echo 18 || echo 9)
[[ $minutes =~ ^[0-9]+$ ]] || refuse "--minutes takes a whole number, got '$minutes'"
[[ $arch =~ ^([0-9]+[a-z]?)?$ ]] || refuse "--arch takes a number as in 90, got '$arch'"

all_steps=$(awk '{ print $1 }' <<<"$steps")
case $chosen in
    all) label=all wanted=$all_steps ;;
    figures) label=figures wanted=${figures// /$'\n'} ;;
    details) label=details wanted=${details// /$'\n'} ;;
    *) label=steps wanted=${chosen//,/$'\n'} ;;
esac
for name in $wanted; do
    grep -qx -e "$name" <<<"$all_steps" || refuse "unknown step '$name', expected ${all_steps//$'\n'/,}"
done
[[ -n ${wanted//[[:space:]]/} ]] || refuse "--steps needs a name, expected ${all_steps//$'\n'/,}"
is_wanted() { grep -qx -e "$1" <<<"$wanted"; }
# These steps run what the step build makes.
if is_wanted tests || is_wanted bench || is_wanted memcheck || is_wanted initcheck || is_wanted stack ||
    is_wanted ncu || is_wanted sweep; then
    wanted+=$'\nbuild'
fi
# The order is that of the table.
wanted=$(grep -x -F -e "$wanted" <<<"$all_steps")

work=build/gpu
[[ $mode == device ]] || work=build/gpu_$mode
deadline=$((SECONDS + 60 * 10#$minutes))
left() { echo $((deadline - SECONDS)); }
readonly skip=77

# Runs a command for at most $1 seconds, and not longer than the time left for the whole check.
limited() {
    local seconds=$1 rest
    shift
    rest=$(left)
    ((rest > 1)) || rest=1
    timeout --kill-after=10 $((seconds < rest ? seconds : rest)) "$@"
}
column() { awk -v name="$1" -v column="$2" '$1 == name { print $column }' <<<"$steps"; }

passed=() failed=() skipped=() outcomes=()
# record <step> <passed|failed|skipped> <seconds>
record() {
    local -n list=$2
    list+=("$1")
    outcomes+=("{\"step\": \"$1\", \"result\": \"$2\", \"seconds\": $3}")
}

# step <name> <function>: runs the function and copies its output to a log. Status 77 means skipped.
step() {
    local name=$1 start=$SECONDS status needed outcome
    shift
    needed=$(column "$name" 2)
    if (($(left) < ${needed:-0})); then
        echo "== $name: skipped, $(left) s are left but it needs $needed s"
        record "$name" skipped 0
        return
    fi
    echo "== $name"
    rm -f "$work/$name.status"
    # In the background, because a shell handles signals only after a foreground job.
    {
        status=0
        (
            set -euo pipefail
            "$@"
        ) 2>&1 || status=$?
        echo "$status" >"$work/$name.status"
    } | tee "$work/$name.log" &
    wait $! || true
    status=$(cat "$work/$name.status" || echo 1)
    case $status in
        0) outcome=passed ;;
        "$skip") outcome=skipped ;;
        *) outcome=failed ;;
    esac
    record "$name" $outcome $((SECONDS - start))
    echo "== $name: ${outcome/failed/FAILED ($status)} after $((SECONDS - start)) s"
}

# Runs a function while steps run. The step that needs it calls `foreground` with the name.
background() { # <name> <function>
    local name=$1
    shift
    rm -f "$work/$name".{out,status}
    {
        status=0
        (
            set -euo pipefail
            "$@"
        ) >"$work/$name.out" 2>&1 || status=$?
        echo "$status" >"$work/$name.status"
    } &
    pids[$name]=$!
}
declare -A pids=()

# Waits for the function in the background, prints its output and returns its status.
foreground() {
    while [[ ! -f $work/$1.status ]] && kill -0 "${pids[$1]}" 2>/dev/null; do sleep 0.2; done
    cat "$work/$1.out"
    [[ -f $work/$1.status ]] || return 1
    return "$(cat "$work/$1.status")"
}

# Ends the processes that this one started.
end_children() { # <process>
    local child children=()
    read -ra children 2>/dev/null <"/proc/$1/task/$1/children" || true
    for child in "${children[@]}"; do
        end_children "$child"
        kill "$child" 2>/dev/null || true
    done
}
trap 'end_children $$' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

summary() {
    echo "gpu_check: ${#passed[@]} passed, ${#failed[@]} failed, ${#skipped[@]} skipped after $SECONDS s" \
        "${failed[*]:+(failed: ${failed[*]})} ${skipped[*]:+(skipped: ${skipped[*]})}"
    ((${#failed[@]} == 0))
}

# Leaves an archive of the outcomes so far and the logs, without folders and the name of the machine.
leave() {
    local logs=$work/logs file host
    host=$(uname -n)
    rm -rf "$logs" && mkdir -p "$logs"
    for file in "$work"/*.log; do
        [[ -f $file ]] || continue
        sed -E -e 's#(^|[^[:alnum:]_./])(/[[:alnum:]_.+@-]+)+/#\1#g' -e "s/\b${host//[^[:alnum:]_-]/.}\b/machine/g" \
            "$file" >"$logs/${file##*/}"
    done
    {
        echo "{\"device\": \"$device\", \"compute_capability\": \"$capability\", \"driver\": \"$driver\","
        echo "\"compiler\": \"$ROPEWALK_COMPILER\", \"commit\": \"$ROPEWALK_COMMIT\","
        echo "\"date\": \"$(date -u +%FT%TZ)\", \"steps\": ["
        (IFS=$'\n' && echo "${outcomes[*]}" | sed '$!s/$/,/')
        echo "]}"
    } >"$logs/steps.json"
    tar -C "$work" --owner=0 --group=0 --numeric-owner -czf "$work/logs.part" logs
    mv "$work/logs.part" "$out/${card}_${label}_logs.tar.gz"
}

# shellcheck source=tools/gpu_steps.sh
source tools/gpu_steps.sh

mkdir -p "$work"
if [[ $mode == compile ]]; then
    step compile compile_only
    summary
    exit
elif [[ $mode == host ]]; then
    prepare_build host
    step build host_build
    step tests host_tests
    step bench host_bench
    summary
    exit
fi

# CUDA_VISIBLE_DEVICES may hide some or all devices.
visible=${CUDA_VISIBLE_DEVICES-0}
query() { nvidia-smi --query-gpu="$1" --format=csv,noheader --id="${visible%%,*}" 2>/dev/null | head -1; }
device=
if [[ -n $visible && $visible != none && $visible != -1 ]] && command -v nvidia-smi >/dev/null; then
    device=$(query name || true)
fi
if [[ -z $device ]]; then
    echo "no CUDA device here: nothing was checked"
    for name in $wanted; do record "$name" skipped 0; done
    summary
    exit
fi
capability=$(query compute_cap)
driver=$(query driver_version)
arch=sm_${arch:-${capability/./}}
compiler=$(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p' || true)
export ROPEWALK_COMPILER="nvcc $compiler"
ROPEWALK_COMMIT=${ROPEWALK_COMMIT:-$(git describe --always --dirty 2>/dev/null || echo unknown)}
export ROPEWALK_COMMIT
card=$(tr '[:upper:] -' '[:lower:]__' <<<"$device" | tr -cd 'a-z0-9_')
mkdir -p "$out"
echo "$device, driver $driver, compute capability $capability; results go to $out"

rm -f "$work"/*.log
prepare_build "$arch"
python=
background python_search search_python
# Long compilations delay no step that does not need them.
if is_wanted stack; then background stack_build compile_stack; fi
if is_wanted python_build; then background python_package build_package; fi
for wanted_step in $wanted; do
    case $wanted_step in
        build) step build build ;;
        tests) step tests device_tests ;;
        bench) step bench cuda_bench ;;
        memcheck | initcheck) step "$wanted_step" sanitizer "$wanted_step" ;;
        ncu) step ncu profile ;;
        stack) step stack stack_tests ;;
        *)
            find_python
            step "$wanted_step" "$wanted_step"
            ;;
    esac
    leave || echo "cannot write the results of $wanted_step"
done
summary
