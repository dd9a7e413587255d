# Tests of the device check on a machine without a device: it prints that there is none, its sources compile, and the
# host executes all of its tests and benchmarks.

function(ropewalk_gpu_check name)
    add_test(NAME cuda.${name} COMMAND bash "${PROJECT_SOURCE_DIR}/tools/gpu_check.sh" ${ARGN})
    set_tests_properties(cuda.${name} PROPERTIES LABELS cuda TIMEOUT 600 PROCESSORS 2 COST 80)
endfunction()

ropewalk_gpu_check(host --host)
ropewalk_gpu_check(compile --compile)
set_tests_properties(cuda.compile PROPERTIES SKIP_REGULAR_EXPRESSION "no nvcc here")
ropewalk_gpu_check(no_device)
set_tests_properties(cuda.no_device PROPERTIES ENVIRONMENT "CUDA_VISIBLE_DEVICES=none"
    PASS_REGULAR_EXPRESSION "no CUDA device here.*0 passed, 0 failed, 12 skipped")
