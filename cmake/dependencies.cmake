# Dependencies: searched on the system first, and fetched only if they are missing.
# ropewalk_need(<name>) makes one available, so only needed dependencies are searched. Their headers are system headers,
# found or fetched, so that their warnings are not errors.

include(FetchContent)

set(JSON_Install OFF)
set(BENCHMARK_ENABLE_TESTING OFF)
set(BENCHMARK_ENABLE_INSTALL OFF)
# CMake 4 refuses projects that ask for version 3.4 or less, like DLPack.
if(NOT DEFINED CMAKE_POLICY_VERSION_MINIMUM)
    set(CMAKE_POLICY_VERSION_MINIMUM 3.5)
endif()

# xsimd has no version here: its package accepts one major version only, and ropewalk works with 8.1 to 14.
FetchContent_Declare(xsimd GIT_REPOSITORY https://github.com/xtensor-stack/xsimd.git GIT_TAG 13.0.0
    GIT_SHALLOW ON SYSTEM FIND_PACKAGE_ARGS)
FetchContent_Declare(Eigen3 GIT_REPOSITORY https://gitlab.com/libeigen/eigen.git GIT_TAG 3.4.0
    GIT_SHALLOW ON SYSTEM FIND_PACKAGE_ARGS 3.3)
FetchContent_Declare(Catch2 GIT_REPOSITORY https://github.com/catchorg/Catch2.git GIT_TAG v3.5.4
    GIT_SHALLOW ON SYSTEM FIND_PACKAGE_ARGS)
FetchContent_Declare(benchmark GIT_REPOSITORY https://github.com/google/benchmark.git GIT_TAG v1.8.3
    GIT_SHALLOW ON SYSTEM FIND_PACKAGE_ARGS)
FetchContent_Declare(pybind11 GIT_REPOSITORY https://github.com/pybind/pybind11.git GIT_TAG v2.13.6
    GIT_SHALLOW ON SYSTEM FIND_PACKAGE_ARGS 2.10)
FetchContent_Declare(nlohmann_json GIT_REPOSITORY https://github.com/nlohmann/json.git GIT_TAG v3.11.3
    GIT_SHALLOW ON SYSTEM FIND_PACKAGE_ARGS 3.10)
FetchContent_Declare(dlpack GIT_REPOSITORY https://github.com/dmlc/dlpack.git GIT_TAG v1.0
    GIT_SHALLOW ON SYSTEM FIND_PACKAGE_ARGS)

macro(ropewalk_need name)
    FetchContent_MakeAvailable(${name})
    ropewalk_check_source(${name})
endmacro()

# CMake continues without a dependency that it may not fetch, and fails later with an unrelated message.
function(ropewalk_check_source name)
    string(TOLOWER "${name}" lower)
    if(NOT ${name}_FOUND AND ${lower}_SOURCE_DIR AND NOT EXISTS "${${lower}_SOURCE_DIR}")
        message(FATAL_ERROR "ropewalk: ${name} is not installed, and FETCHCONTENT_FULLY_DISCONNECTED is ON. "
            "Add its folder to CMAKE_PREFIX_PATH. xsimd and nlohmann_json are optional: "
            "-DROPEWALK_XSIMD=OFF -DROPEWALK_JSON=OFF. PyTorch contains DLPack's header.")
    endif()
endfunction()

# ropewalk_include_dir(<variable> <name> <header> <target>...): the include directory of a header-only dependency,
# found or fetched. For dependencies whose target name or link libraries differ between versions.
function(ropewalk_include_dir variable name header)
    string(TOLOWER "${name}" lower)
    if(${lower}_SOURCE_DIR)
        set(hints "${${lower}_SOURCE_DIR}/include" "${${lower}_SOURCE_DIR}")
    else()
        foreach(target IN LISTS ARGN)
            if(TARGET ${target})
                get_target_property(hints ${target} INTERFACE_INCLUDE_DIRECTORIES)
            endif()
        endforeach()
    endif()
    foreach(directory IN LISTS hints)
        if(EXISTS "${directory}/${header}")
            set(${variable} "${directory}" PARENT_SCOPE)
            return()
        endif()
    endforeach()
    message(FATAL_ERROR "ropewalk: ${name} was found, but its header ${header} is not in '${hints}'")
endfunction()

if(ROPEWALK_XSIMD)
    ropewalk_need(xsimd)
    ropewalk_include_dir(ROPEWALK_XSIMD_INCLUDE_DIR xsimd xsimd/xsimd.hpp xsimd xsimd::xsimd)
elseif(ROPEWALK_BUILD_TESTS OR ROPEWALK_BUILD_BENCHMARKS OR ROPEWALK_BUILD_EXAMPLES)
    message(FATAL_ERROR "ropewalk: tests, benchmarks and examples need xsimd, but ROPEWALK_XSIMD is ${ROPEWALK_XSIMD}. "
        "Disable them: -DROPEWALK_BUILD_TESTS=OFF -DROPEWALK_BUILD_BENCHMARKS=OFF -DROPEWALK_BUILD_EXAMPLES=OFF")
endif()

if(ROPEWALK_OPENMP)
    # Global, for projects that add ropewalk with add_subdirectory().
    find_package(OpenMP QUIET GLOBAL COMPONENTS CXX)
    if(NOT OpenMP_CXX_FOUND)
        message(STATUS "ropewalk: no OpenMP for ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}; "
            "the kernels use one thread")
    endif()
endif()
