#!/usr/bin/env bash
# Runs all checks that need a CUDA device: build, device tests, compute-sanitizer, benchmarks, Python.
#
#   tools/gpu_check.sh [--minutes 9] [--quick] [--results benchmarks/results] [--commit id]
#   tools/gpu_check.sh --compile [--arch 90]     compiles the CUDA sources of one type and layout, without running them
#   tools/gpu_check.sh --host                    runs the tests and benchmarks on the host instead of a device
#
# Requires nvcc. Python with torch, compute-sanitizer and matplotlib are optional. Nothing is downloaded. A failed step
# does not stop the next ones; a step is skipped when the time is up. Writes <results>/<device>.json, its plot, and logs
# in build/gpu. Without a device the check prints a message and succeeds. The tests of the Llama stack need cuBLAS with
# its headers, from the toolkit, from the Python package, or from include/ and lib/ of CUBLAS_ROOT. If xsimd or
# nlohmann_json is missing, the Python package is built without it; add its folder to CMAKE_PREFIX_PATH to use it.
set -euo pipefail
cd "$(dirname "$0")/.."

for tools in /usr/local/cuda/bin /usr/local/cuda/compute-sanitizer; do
    if [[ -d $tools ]]; then PATH=$PATH:$tools; fi
done

minutes=9 quick=() results=benchmarks/results mode=device arch=
refuse() { echo "gpu_check: $1; see --help" >&2; exit 2; }
while (($#)); do
    case $1 in
        --minutes | --results | --commit | --arch) [[ -n ${2-} ]] || refuse "$1 needs a value" ;;
    esac
    case $1 in
        --minutes) minutes=$2 && shift 2 ;;
        --results) results=$2 && shift 2 ;;
        --commit) export ROPEWALK_COMMIT=$2 && shift 2 ;;
        --arch) arch=$2 && shift 2 ;;
        --quick) quick=(--quick) && shift ;;
        --compile | --host) mode=${1#--} && shift ;;
        -h | --help) sed -n '2,12s/^# \{0,1\}//p' tools/gpu_check.sh && exit ;;
        *) refuse "unknown option '$1'" ;;
    esac
done
[[ $minutes =~ ^[0-9]+$ ]] || refuse "--minutes takes a whole number, got '$minutes'"
[[ $arch =~ ^([0-9]+[a-z]?)?$ ]] || refuse "--arch takes a number as in 90, got '$arch'"

work=build/gpu
[[ $mode == device ]] || work=build/gpu_$mode
passed=() failed=() skipped=()
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

# step <name> <seconds it needs> <function>: runs the function and copies its output to a log. Status 77 means skipped.
step() {
    local name=$1 needed=$2 start=$SECONDS status
    shift 2
    if (($(left) < needed)); then
        echo "== $name: skipped, $(left) s are left but it needs $needed s"
        skipped+=("$name")
        return
    fi
    echo "== $name"
    set +e
    (
        set -euo pipefail
        "$@"
    ) 2>&1 | tee "$work/$name.log"
    status=${PIPESTATUS[0]}
    set -e
    case $status in
        0) passed+=("$name") ;;
        "$skip") skipped+=("$name") ;;
        *) failed+=("$name") ;;
    esac
    echo "== $name: $( ((status == 0)) && echo passed || { ((status == skip)) && echo skipped || echo "FAILED ($status)"; }) after $((SECONDS - start)) s"
}

summary() {
    echo "gpu_check: ${#passed[@]} passed, ${#failed[@]} failed, ${#skipped[@]} skipped after $SECONDS s" \
        "${failed[*]:+(failed: ${failed[*]})} ${skipped[*]:+(skipped: ${skipped[*]})}"
    ((${#failed[@]} == 0))
}

# --- Build: plain compiler calls, in parallel on all cores ------------------------------------------------------------

tests=(main backend fused_backend shapes positions directions unchecked fused fused_case large streams llama cache_contents)
benches=(bench_rotate record)
types=(float ropewalk::f16 ropewalk::bf16)
layouts=(ropewalk::half_split ropewalk::interleaved)
includes=(-Itests/cuda -Itests -Ibenchmarks/cuda -Iinclude -Icuda)
# GCC 12 reports registers of absent heads as uninitialised.
warnings=(-Wall -Wextra -Wconversion -Wno-maybe-uninitialized)

# compile <object> <compiler> <arguments>...: compiles one object and prints the log of a failure.
compile() {
    local object=$1 log=$1.log
    shift
    if ! limited 240 "${launcher[@]}" "$@" -c -o "$object" >"$log" 2>&1; then
        echo "cannot compile $object:"
        head -60 "$log"
        return 1
    fi
}

# Waits until fewer than $1 jobs run, and records failures.
broken=0
wait_for_room() {
    while (($(jobs -rp | wc -l) >= $1)); do wait -n || broken=1; done
}

nvcc_flags() {
    echo "-std=c++20 -O2 -arch=$1 --compiler-options=$(IFS=, && echo "${warnings[*]}")"
}

start_kernels() { # <architecture> <type> <layout>
    local stem
    for stem in calls fused_calls; do
        wait_for_room "$cores"
        # shellcheck disable=SC2046
        compile "$work/$stem.${2##*:}.${3##*:}.o" nvcc $(nvcc_flags "$1") "${includes[@]}" "-DCHECK_TYPE=$2" "-DCHECK_LAYOUT=$3" \
            "tests/cuda/$stem.cu" &
    done
}

source_of() { # <name>
    local file
    for file in {tests/cuda,tests/cases,tests/llama_gpu,benchmarks/cuda}/"$1".{cpp,cu}; do
        if [[ -f $file ]]; then echo "$file" && return; fi
    done
}

start_sources() { # <architecture> <name>...
    local stem flags
    flags=$(nvcc_flags "$1")
    shift
    for stem in "$@"; do
        wait_for_room "$cores"
        # shellcheck disable=SC2086
        compile "$work/$stem.o" nvcc $flags "${includes[@]}" "$(source_of "$stem")" &
    done
}

finish_jobs() {
    local job
    for job in $(jobs -p); do wait "$job" || broken=1; done
    return $broken
}

includes_cublas() { echo '#include <cublas_v2.h>' | nvcc -E -x cu "$@" - >/dev/null 2>&1; }

# Prints the folder of the Python package nvidia-cublas for the version of the toolkit. PyTorch installs it.
packaged_cublas() {
    local major path
    major=$(nvcc --version | sed -n 's/.*release \([0-9]*\).*/\1/p')
    "${python:-python3}" -c 'import sys; print(*sys.path, sep="\n")' | while read -r path; do
        ls -d "$path"/nvidia/{"cu$major",cublas}/lib/libcublas.so."$major" 2>/dev/null || true
    done | sed -n '1s|/lib/[^/]*$||p'
}

# Adds the include folder of cuBLAS to `includes` and sets `cublas` to its linker arguments.
find_cublas() {
    local root=${CUBLAS_ROOT:-}
    cublas=(-lcublas -Xlinker -rpath "-Xlinker=$(dirname "$(command -v nvcc)")/../lib64")
    if [[ -z $root ]] && includes_cublas; then return; fi
    root=${root:-$(packaged_cublas)}
    [[ -n $root ]] || return 1
    includes+=(-isystem "$root/include")
    # Passed to the linker directly, because nvcc refuses library names that end in a version, like those of pip. The
    # old kind of rpath also applies to the libraries that libcublas loads.
    cublas=("$root"/lib*/libcublas{,Lt}.so*)
    cublas=("${cublas[@]/#/-Xlinker=}" -Xlinker --disable-new-dtags -Xlinker -rpath "-Xlinker=$root/lib")
    includes_cublas "${includes[@]}"
}

prepare_build() {
    cores=$(nproc)
    launcher=()
    if command -v ccache >/dev/null; then launcher=(ccache); fi
    rm -f "$work"/*.o "$work"/{device_tests,stack_tests,bench_rotate}
}

# GPU headers must not include the CPU kernels or their dependencies.
check_includes() {
    local stem
    for stem in calls fused_calls; do
        nvcc -std=c++20 "${includes[@]}" -DCHECK_TYPE=float -DCHECK_LAYOUT=ropewalk::half_split -M \
            "tests/cuda/$stem.cu" >"$work/$stem.d"
    done
    if grep -hE 'ropewalk/(cpu|llama|io)/|xsimd|Eigen' "$work"/*.d; then
        echo "GPU headers include the headers above, which they must not use"
        return 1
    fi
}

link() { # <program> <object>...
    local program=$1 objects
    shift
    objects=("${@/#/$work/}")
    objects=("${objects[@]/%/.o}")
    nvcc -arch="$arch" -o "$work/$program" "${objects[@]}" "$work"/{device_cuda,llama_calls}.o "$work"/*calls.*.o
}

build() {
    local type layout status=0
    prepare_build
    # The longest jobs start first.
    if find_cublas; then start_sources "$arch" stack policies; fi
    for type in "${types[@]}"; do
        for layout in "${layouts[@]}"; do start_kernels "$arch" "$type" "$layout"; done
    done
    start_sources "$arch" device_cuda llama_calls "${tests[@]}" "${benches[@]}"
    # A failure must not stop the programs that do not need the failed object.
    finish_jobs || status=1
    link device_tests "${tests[@]}" || status=1
    link bench_rotate "${benches[@]}" || status=1
    [[ ! -f $work/stack.o ]] ||
        nvcc -arch="$arch" -o "$work/stack_tests" "$work"/{main,device_cuda,stack,policies}.o "${cublas[@]}" || status=1
    check_includes || status=1
    return $status
}

# Compiles one kernel file of each kind and the other CUDA sources. The remaining kernel files differ in two macros.
compile_only() {
    command -v nvcc >/dev/null || { echo "no nvcc here"; return $skip; }
    prepare_build
    start_kernels "sm_${arch:-90}" ropewalk::bf16 ropewalk::half_split
    start_sources "sm_${arch:-90}" device_cuda llama_calls
    if find_cublas; then start_sources "sm_${arch:-90}" stack; fi
    finish_jobs
    check_includes
}

# Builds the tests and benchmarks with the kernels executed by the host: everything except launches.
host_build() {
    local stem source optimise host=(device_host calls_host llama_calls_host) cxx=${CXX:-c++}
    prepare_build
    for stem in "${host[@]}" "${tests[@]}" "${benches[@]}"; do
        wait_for_room "$cores"
        source=$(source_of "$stem")
        # Optimising kernels takes half a minute, and these run once.
        optimise=-O1
        if [[ $stem == *calls_host ]]; then optimise=-O0; fi
        compile "$work/$stem.o" "$cxx" -std=c++20 $optimise "${warnings[@]}" "${includes[@]}" "$source" &
    done
    finish_jobs
    cd "$work"
    "$cxx" -o device_tests "${host[@]/%/.o}" "${tests[@]/%/.o}"
    "$cxx" -o bench_rotate "${host[@]/%/.o}" "${benches[@]/%/.o}"
}
host_tests() { ROPEWALK_TEST_EFFORT=0.1 limited 300 "$work/device_tests"; }
host_bench() { limited 120 "$work/bench_rotate" --quick --out "$work/cuda.json"; }

# --- Steps on a device ------------------------------------------------------------------------------------------------

device_tests() { limited 150 "$work/device_tests"; }
stack_tests() {
    [[ -x $work/stack_tests ]] || { echo "no cuBLAS with its headers here"; return $skip; }
    limited 100 "$work/stack_tests"
}

sanitizer() { # <tool>
    command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer here"; return $skip; }
    # The tests provoke API errors on purpose; only errors of kernels count.
    local status=0 errors=()
    if [[ $1 == memcheck ]]; then errors=(--report-api-errors no); fi
    limited 100 compute-sanitizer --tool "$1" "${errors[@]}" --error-exitcode 9 "$work/device_tests" --small ||
        status=$?
    sleep 1 # until tee has written the log
    if ((status != 0)) && grep -q 'Device not supported' "$work/sanitizer_$1.log"; then
        echo "compute-sanitizer does not support this device or its driver"
        return $skip
    fi
    return $status
}

cuda_bench() {
    local status=0
    limited 150 "$work/bench_rotate" "${quick[@]}" --out "$work/cuda.json" || status=$?
    # Writes the result now, because there may be no time to measure the peers.
    if [[ -f $work/cuda.json ]]; then compare 0 >/dev/null || status=$?; fi
    return $status
}

# compare <seconds>: joins the rows of the C++ benchmark with those of peers, measured for at most that time.
compare() {
    local status=0
    # One problem with its compilations may take half a minute.
    PYTHONPATH=$PWD/$work/site PYTHONUNBUFFERED=1 limited "$(($1 + 40))" "${python:-python3}" \
        benchmarks/python/bench_gpu.py "${quick[@]}" --seconds "$1" --cuda-rows "$work/cuda.json" \
        --out "$work/result.json" || status=$?
    if [[ -f $work/result.json ]]; then cp "$work/result.json" "$result"; fi
    return $status
}

# Sets `python` to an interpreter whose torch finds the device, or to an empty string.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" .venv/bin/python python3; do
        if [[ -n $candidate ]] && command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
            python=$candidate
            return
        fi
    done
    python=
}
need_python() {
    [[ -n $python ]] || { echo "no Python with a torch that finds a device"; return $skip; }
}

install_package() { # <CMake definition>...
    CUDAARCHS=${arch#sm_} limited 240 "$python" -m pip install --quiet --no-build-isolation --no-deps --no-index \
        --disable-pip-version-check --no-compile --config-settings=build-dir="$work/python" \
        "${@/#/--config-settings=cmake.define.}" --target "$work/site" .
}
python_build() {
    need_python
    rm -rf "$work"/{site,python}
    local options=(ROPEWALK_BUILD_CUDA=ON FETCHCONTENT_FULLY_DISCONNECTED=ON)
    if install_package "${options[@]}"; then return; fi
    sleep 1 # until tee has written the log
    grep -q 'ROPEWALK_XSIMD=OFF' "$work/python_build.log" || return 1
    echo "the package is built with scalar CPU kernels and without the reader of config.json"
    rm -rf "$work/python"
    install_package "${options[@]}" ROPEWALK_XSIMD=OFF ROPEWALK_JSON=OFF
}

python_tests() {
    need_python
    [[ -d $work/site/ropewalk ]] || { echo "the package was not built"; return $skip; }
    PYTHONPATH=$PWD/$work/site limited 120 "$python" -m pytest -q -p no:cacheprovider \
        tests/python/test_cuda.py tests/python/test_cuda_device.py
}

peers() {
    local seconds=$(($(left) - 50))
    compare "$((seconds > 10 ? seconds : 10))"
}

plot() {
    local with=${python:-python3}
    [[ -f $work/result.json ]] || { echo "no results to plot"; return $skip; }
    "$with" -c 'import matplotlib' 2>/dev/null || { echo "no matplotlib here"; return $skip; }
    limited 60 "$with" benchmarks/python/plot_gpu.py "$result"
}

mkdir -p "$work"
if [[ $mode == compile ]]; then
    step compile 0 compile_only
    summary
    exit
elif [[ $mode == host ]]; then
    step build 0 host_build
    step tests 0 host_tests
    step bench 0 host_bench
    summary
    exit
fi

steps=(build tests stack bench python_build python_tests sanitizer_memcheck sanitizer_racecheck sanitizer_initcheck peers plot)
export ROPEWALK_COMPILER
ROPEWALK_COMPILER="nvcc $(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p' || true)"
# CUDA_VISIBLE_DEVICES may hide some or all devices.
visible=${CUDA_VISIBLE_DEVICES-0}
query() { nvidia-smi --query-gpu="$1" --format=csv,noheader --id="${visible%%,*}" 2>/dev/null | head -1; }
device=
if [[ -n $visible && $visible != none && $visible != -1 ]] && command -v nvidia-smi >/dev/null; then
    device=$(query name || true)
fi
if [[ -z $device ]]; then
    echo "no CUDA device here: nothing was checked"
    skipped=("${steps[@]}")
    summary
    exit
fi
capability=$(query compute_cap)
arch=sm_${arch:-${capability/./}}
result=$results/$(tr '[:upper:] -' '[:lower:]__' <<<"$device" | tr -cd 'a-z0-9_').json
mkdir -p "$results"
echo "$device, driver $(query driver_version), compute capability $capability; results go to $result"

rm -f "$work"/{cuda,result}.json
find_python
step build 0 build
step tests 20 device_tests
step stack 20 stack_tests
step bench 60 cuda_bench
step python_build 60 python_build
step python_tests 30 python_tests
step sanitizer_memcheck 60 sanitizer memcheck
step sanitizer_racecheck 60 sanitizer racecheck
step sanitizer_initcheck 60 sanitizer initcheck
step peers 60 peers
step plot 5 plot
summary
