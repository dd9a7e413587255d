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

# ropewalk_add_instruction_sets(<target> <name> [EIGEN]) adds <name>_<set>.cpp for each instruction set of the target
# processor, compiled for that set. The choice between them is made at run time.
# EIGEN renames Eigen's namespace per set: otherwise the linker would merge inline functions compiled for different sets.
# It also disables Eigen's assertions, because callers validate their arguments.
function(ropewalk_add_instruction_sets target name)
    set(sets neon)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|i.86")
        set(sets baseline avx2 avx512)
    endif()
    set(flags_avx2 -mavx2 -mfma -mf16c)
    set(flags_avx512 ${flags_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd)
    # GCC 12 warns about its own avx512fintrin.h, which makes an undefined vector by `__m512i __Y = __Y` (GCC bug 105593).
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        list(APPEND flags_avx512 -Wno-uninitialized -Wno-maybe-uninitialized)
    endif()
    foreach(set IN LISTS sets)
        target_sources(${target} PRIVATE ${name}_${set}.cpp)
        set_source_files_properties(${name}_${set}.cpp PROPERTIES COMPILE_OPTIONS "${flags_${set}}")
        if("EIGEN" IN_LIST ARGN)
            set_source_files_properties(${name}_${set}.cpp PROPERTIES
                COMPILE_DEFINITIONS "Eigen=Eigen_${set};EIGEN_NO_DEBUG")
        endif()
    endforeach()
endfunction()
