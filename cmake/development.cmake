# Compile options and helper functions for ropewalk's own tests, benchmarks, examples and bindings.

add_library(ropewalk_development INTERFACE)
target_link_libraries(ropewalk_development INTERFACE ropewalk::ropewalk)
if(TARGET OpenMP::OpenMP_CXX)
    target_link_libraries(ropewalk_development INTERFACE OpenMP::OpenMP_CXX)
endif()
# Internal headers of the bindings: "dispatch/kernels.hpp".
target_include_directories(ropewalk_development INTERFACE "${PROJECT_SOURCE_DIR}/bindings")
target_compile_options(ropewalk_development INTERFACE -Wall -Wextra -Wconversion)
if(ROPEWALK_WARNINGS_AS_ERRORS)
    target_compile_options(ropewalk_development INTERFACE -Werror)
endif()

# Checks and Python tests run in the project's own environment, if it exists.
if(EXISTS "${PROJECT_SOURCE_DIR}/.venv/bin/python" AND NOT DEFINED Python_EXECUTABLE)
    set(Python_EXECUTABLE "${PROJECT_SOURCE_DIR}/.venv/bin/python")
endif()

# Sets ROPEWALK_RUNS_AVX2 and ROPEWALK_RUNS_AVX512: whether this machine runs the kernels of these sets.
macro(ropewalk_check_processor)
    include(CheckCXXSourceRuns)
    set(avx2 "__builtin_cpu_supports(\"avx2\") && __builtin_cpu_supports(\"fma\")")
    check_cxx_source_runs("int main() { return ${avx2} ? 0 : 1; }" ROPEWALK_RUNS_AVX2)
    set(avx512 "${avx2}")
    foreach(extension IN ITEMS avx512f avx512bw avx512dq avx512vl avx512cd)
        string(APPEND avx512 " && __builtin_cpu_supports(\"${extension}\")")
    endforeach()
    check_cxx_source_runs("int main() { return ${avx512} ? 0 : 1; }" ROPEWALK_RUNS_AVX512)
endmacro()

# Sets ropewalk_sets to the instruction sets that ROPEWALK_INSTRUCTION_SETS names, the widest first.
set(ropewalk_sets neon)
if(NOT ROPEWALK_XSIMD)
    set(ropewalk_sets portable)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|i.86")
    set(ropewalk_sets avx512 avx2 baseline)
endif()
if(ROPEWALK_INSTRUCTION_SETS STREQUAL "native")
    if("avx2" IN_LIST ropewalk_sets)
        ropewalk_check_processor()
        if(ROPEWALK_RUNS_AVX512)
            set(ropewalk_sets avx512)
        elseif(ROPEWALK_RUNS_AVX2)
            set(ropewalk_sets avx2)
        else()
            set(ropewalk_sets baseline)
        endif()
    endif()
elseif(NOT ROPEWALK_INSTRUCTION_SETS STREQUAL "all")
    set(known ${ropewalk_sets})
    set(unknown ${ROPEWALK_INSTRUCTION_SETS})
    list(REMOVE_ITEM unknown ${known})
    if(unknown OR NOT ROPEWALK_INSTRUCTION_SETS)
        message(FATAL_ERROR "ropewalk: ROPEWALK_INSTRUCTION_SETS is '${ROPEWALK_INSTRUCTION_SETS}', expected all, native "
            "or a list of: ${known}")
    endif()
    list(JOIN ROPEWALK_INSTRUCTION_SETS "|" pattern)
    list(FILTER ropewalk_sets INCLUDE REGEX "^(${pattern})$")
endif()
message(STATUS "ropewalk: kernels for ${ropewalk_sets}")

# ropewalk_add_instruction_sets(<target> <name> <selector> [EIGEN]) adds <name>_<set>.cpp for each of ropewalk_sets,
# compiled for that set. The source <selector> chooses one at run time. Its macro ROPEWALK_COMPILED_SETS lists the sets,
# the widest first, as in RW_SET(avx2) RW_SET(baseline).
# EIGEN renames Eigen's namespace per set: otherwise the linker would merge inline functions compiled for different sets.
# It also disables Eigen's assertions, because callers validate their arguments.
function(ropewalk_add_instruction_sets target name selector)
    set(flags_avx2 -mavx2 -mfma -mf16c)
    set(flags_avx512 ${flags_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd)
    # GCC 12 warns about its own avx512fintrin.h, which makes an undefined vector by `__m512i __Y = __Y` (GCC bug 105593).
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        list(APPEND flags_avx512 -Wno-uninitialized -Wno-maybe-uninitialized)
    endif()
    set(compiled "")
    foreach(set IN LISTS ropewalk_sets)
        string(APPEND compiled "RW_SET(${set})")
        target_sources(${target} PRIVATE ${name}_${set}.cpp)
        set_source_files_properties(${name}_${set}.cpp PROPERTIES COMPILE_OPTIONS "${flags_${set}}")
        if("EIGEN" IN_LIST ARGN)
            set_source_files_properties(${name}_${set}.cpp PROPERTIES
                COMPILE_DEFINITIONS "Eigen=Eigen_${set};EIGEN_NO_DEBUG")
        endif()
    endforeach()
    set_source_files_properties(${selector} PROPERTIES COMPILE_DEFINITIONS "ROPEWALK_COMPILED_SETS=${compiled}")
endfunction()
