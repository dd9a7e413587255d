# Functions of the steps of tools/gpu_check.sh, which sources this file. shellcheck shell=bash

# --- Build: plain compiler calls, in parallel on all cores ------------------------------------------------------------

tests=(main backend fused_backend shapes positions directions unchecked fused fused_case values fused_values large streams llama cache_contents)
benches=(bench_rotate record)
types=(float ropewalk::f16 ropewalk::bf16)
layouts=(ropewalk::half_split ropewalk::interleaved)
includes=(-Itests/cuda -Itests -Ibenchmarks/cuda -Iinclude -Icuda)
# GCC 12 reports registers of absent heads as uninitialised.
warnings=(-Wall -Wextra -Wconversion -Wno-maybe-uninitialized)

# compile <object> <compiler> <arguments>...: compiles an object that is missing and prints the log of a failure.
compile() {
    local object=$1 log=$1.txt
    shift
    [[ ! -f $object ]] || return 0
    if ! limited 400 "${launcher[@]}" "$@" -c -o "${object%.o}.part.o" >"$log" 2>&1; then
        echo "cannot compile $object:"
        head -60 "$log"
        return 1
    fi
    mv "${object%.o}.part.o" "$object"
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

# prepare_build <target>: deletes what was built from other sources, by another compiler or for another target.
prepare_build() {
    local stamp=
    cores=$(nproc)
    launcher=()
    if command -v ccache >/dev/null; then launcher=(ccache); fi
    stamp=$(
        echo "$1 ${CXX:-c++}"
        { nvcc --version || true; } 2>/dev/null
        find -L include cuda bindings benchmarks tests cmake tools CMakeLists.txt pyproject.toml -type f \
            ! -path '*/__pycache__/*' ! -path '*/results/*' -print0 | sort -z | xargs -0 sha256sum || true
    )
    stamp=$(sha256sum <<<"$stamp")
    if [[ -f $work/stamp && $(cat "$work/stamp") == "$stamp" ]]; then return; fi
    rm -rf "$work"/*.o "$work"/{device_tests,stack_tests,bench_rotate,site,python,stamp} "$work"/*.json
    echo "$stamp" >"$work/stamp"
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
    objects+=("$work"/{device_cuda,llama_calls}.o "$work"/*calls.*.o)
    if [[ ! -x $work/$program || -n $(find "${objects[@]}" -newer "$work/$program") ]]; then
        nvcc -arch="$arch" -o "$work/$program" "${objects[@]}"
    fi
}

build() {
    local type layout status=0
    # The longest jobs start first.
    for type in "${types[@]}"; do
        for layout in "${layouts[@]}"; do start_kernels "$arch" "$type" "$layout"; done
    done
    start_sources "$arch" device_cuda llama_calls copy "${tests[@]}" "${benches[@]}"
    check_includes &
    # A failure must not stop the programs that do not need the failed object.
    finish_jobs || status=1
    link device_tests "${tests[@]}" || status=1
    link bench_rotate copy "${benches[@]}" || status=1
    if grep -h 'warning' "$work"/*.o.txt; then echo "the compiler warned as above"; fi
    return $status
}

# The tests of the Llama stack take two minutes to compile.
compile_stack() {
    find_cublas || return $skip
    start_sources "$arch" stack policies
    finish_jobs
}

# Compiles one kernel file of each kind and the other CUDA sources. The remaining kernel files differ in two macros.
compile_only() {
    command -v nvcc >/dev/null || { echo "no nvcc here"; return $skip; }
    prepare_build "${arch:-90}"
    start_kernels "sm_${arch:-90}" ropewalk::bf16 ropewalk::half_split
    start_sources "sm_${arch:-90}" device_cuda llama_calls copy
    if find_cublas; then start_sources "sm_${arch:-90}" stack; fi
    finish_jobs
    check_includes
}

# Builds the tests and benchmarks with the kernels executed by the host: everything except launches.
host_build() {
    local stem source optimise host=(device_host calls_host llama_calls_host) cxx=${CXX:-c++}
    for stem in "${host[@]}" copy_host "${tests[@]}" "${benches[@]}"; do
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
    "$cxx" -o bench_rotate "${host[@]/%/.o}" copy_host.o "${benches[@]/%/.o}"
}
host_tests() { ROPEWALK_TEST_EFFORT=0.1 limited 300 "$work/device_tests"; }
host_bench() {
    limited 120 "$work/bench_rotate" --quick --out "$work/cuda.json"
    limited 120 "$work/bench_rotate" --profile --out "$work/profile.json"
    limited 120 "$work/bench_rotate" --sweep --out "$work/sweep.json"
}

# --- Steps on a device ------------------------------------------------------------------------------------------------

device_tests() { limited "$(column tests 3)" "$work/device_tests"; }
stack_tests() {
    local status=0
    foreground stack_build || status=$?
    ((status != skip)) || { echo "no cuBLAS with its headers here"; return $skip; }
    ((status == 0)) || return "$status"
    find_cublas
    nvcc -arch="$arch" -o "$work/stack_tests" "$work"/{main,device_cuda,stack,policies}.o "${cublas[@]}"
    limited "$(column stack 3)" "$work/stack_tests"
}

# There is no shared memory, so racecheck would find nothing.
sanitizer() { # <tool>
    command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer here"; return $skip; }
    # The tests provoke API errors on purpose; only errors of kernels count.
    local status=0 errors=()
    if [[ $1 == memcheck ]]; then errors=(--report-api-errors no); fi
    limited "$(column "$1" 3)" compute-sanitizer --tool "$1" "${errors[@]}" --error-exitcode 9 "$work/device_tests" \
        --small >"$work/$1.out" 2>&1 || status=$?
    cat "$work/$1.out"
    if ((status != 0)) && grep -q 'Device not supported' "$work/$1.out"; then
        echo "compute-sanitizer does not support this device or its driver"
        return $skip
    fi
    return $status
}

cuda_bench() {
    local status=0
    rm -f "$work/cuda.json"
    limited "$(column bench 3)" "$work/bench_rotate" "${quick[@]}" --out "$work/cuda.json" || status=$?
    # Writes the result now, because there may be no time to measure the peers.
    if [[ -f $work/cuda.json ]]; then compare 0 >/dev/null || status=$?; fi
    return $status
}

sweep() {
    # Written after each workload.
    limited "$(column sweep 3)" "$work/bench_rotate" --sweep --out "$out/${card}_sweep.json"
}

profile() {
    command -v ncu >/dev/null || { echo "no ncu here"; return $skip; }
    limited "$(column ncu 3)" "${python:-python3}" benchmarks/python/profile_gpu.py --program "$work/bench_rotate" \
        --rows "$work/profile.json" --out "$out/${card}_ncu.json"
}

# compare <seconds>: joins the rows of the C++ benchmark with those of peers, measured for at most that time.
compare() {
    # One problem with its compilations may take half a minute. The result is written after each.
    PYTHONPATH=$PWD/$work/site PYTHONUNBUFFERED=1 limited "$(($1 + 40))" "${python:-python3}" \
        benchmarks/python/bench_gpu.py "${quick[@]}" --seconds "$1" --cuda-rows "$work/cuda.json" \
        --out "$out/$card.json"
}

# Prints an interpreter whose torch finds the device, if any. Importing torch takes several seconds.
search_python() {
    local candidate
    for candidate in "${PYTHON:-}" .venv/bin/python python3; do
        if [[ -n $candidate ]] && command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}
# Sets `python` to that interpreter, or to an empty string.
find_python() {
    [[ -z ${pids[python_search]-} ]] || python=$(foreground python_search)
    unset "pids[python_search]"
}
need_python() {
    [[ -n $python ]] || { echo "no Python with a torch that finds a device"; return $skip; }
}

install_package() { # <CMake definition>...
    CUDAARCHS=${arch#sm_} limited "$(column python_build 3)" "$python" -m pip install --quiet --no-build-isolation \
        --no-deps --no-index --disable-pip-version-check --no-compile --config-settings=build-dir="$work/python" \
        "${@/#/--config-settings=cmake.define.}" --target "$work/site" . 2>&1 | tee "$work/install.out"
}
build_package() {
    python=$(search_python)
    need_python
    [[ ! -f $work/site/done ]] || return 0
    rm -rf "$work"/{site,python}
    local options=(ROPEWALK_BUILD_CUDA=ON FETCHCONTENT_FULLY_DISCONNECTED=ON)
    if ! install_package "${options[@]}"; then
        grep -q 'ROPEWALK_XSIMD=OFF' "$work/install.out" || return 1
        echo "the package is built with scalar CPU kernels and without the reader of config.json"
        rm -rf "$work/python"
        install_package "${options[@]}" ROPEWALK_XSIMD=OFF ROPEWALK_JSON=OFF
    fi
    touch "$work/site/done"
}
python_build() { foreground python_package; }

python_tests() {
    need_python
    [[ -f $work/site/done ]] || { echo "the package was not built"; return $skip; }
    PYTHONPATH=$PWD/$work/site limited "$(column python_tests 3)" "$python" -m pytest -q -p no:cacheprovider \
        tests/python/test_cuda.py tests/python/test_cuda_device.py
}

peers() {
    local seconds=$(($(left) - 50))
    compare "$((seconds > 10 ? seconds : 10))"
}

plot() {
    local file with=${python:-python3} files=()
    for file in "$out/$card.json" "$out/${card}_sweep.json"; do
        if [[ -f $file ]]; then files+=("$file"); fi
    done
    ((${#files[@]})) || { echo "no results to plot"; return $skip; }
    "$with" -c 'import matplotlib' 2>/dev/null || { echo "no matplotlib here"; return $skip; }
    for file in "${files[@]}"; do limited 60 "$with" benchmarks/python/plot_gpu.py "$file"; done
}
