# What ropewalk's own tests, benchmarks, examples and bindings are compiled with.

add_library(ropewalk_development INTERFACE)
target_link_libraries(ropewalk_development INTERFACE ropewalk::ropewalk)
target_compile_options(ropewalk_development INTERFACE -Wall -Wextra -Wconversion)
if(ROPEWALK_WARNINGS_AS_ERRORS)
    target_compile_options(ropewalk_development INTERFACE -Werror)
endif()

# Interpreter for checks and Python tests: the project's own environment where there is one.
if(EXISTS "${PROJECT_SOURCE_DIR}/.venv/bin/python" AND NOT DEFINED Python_EXECUTABLE)
    set(Python_EXECUTABLE "${PROJECT_SOURCE_DIR}/.venv/bin/python")
endif()

# ropewalk_add_instruction_sets(<target> <name> [EIGEN]) adds <name>_<set>.cpp for each instruction set of this
# processor's family, compiled for it; whoever calls chooses at run time. EIGEN: a namespace of its own a set, since its
# inline functions would be one to the linker, whichever set they were compiled for, and without Eigen's assertions,
# which are for its users: we check before we call.
function(ropewalk_add_instruction_sets target name)
    set(sets neon)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|i.86")
        set(sets baseline avx2 avx512)
    endif()
    set(flags_avx2 -mavx2 -mfma -mf16c)
    set(flags_avx512 ${flags_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd)
    # GCC 12 warns about its own avx512fintrin.h, which makes an undefined vector by `__m512i __Y = __Y` (its bug 105593).
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

# One executable per source file, `<build>/<folder>/<name>`, which may use the compiled runtime.
function(ropewalk_programs folder)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LIBRARIES")
    foreach(source IN LISTS arg_SOURCES)
        get_filename_component(name "${source}" NAME_WE)
        add_executable(${name} "${source}")
        target_link_libraries(${name} PRIVATE ropewalk_development ${arg_LIBRARIES})
        set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF
            RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/${folder}")
        if(TARGET ropewalk_dispatch)
            target_link_libraries(${name} PRIVATE ropewalk_dispatch)
        endif()
    endforeach()
endfunction()
