# Finds nvcc according to ROPEWALK_BUILD_CUDA, chooses the architectures and sets ROPEWALK_HAS_CUDA. An nvcc that does
# not work, for example because it refuses the host compiler, counts as missing.
#
# The architectures are CMAKE_CUDA_ARCHITECTURES, else those of the environment variable CUDAARCHS, else that of the
# visible device. Without any of these, AUTO builds no CUDA, and ON builds for every supported device.

set(ROPEWALK_HAS_CUDA OFF)
if(NOT ROPEWALK_BUILD_CUDA)
    return()
endif()

# Sets `variable` to the compute capability of the first visible device without its dot, or to an empty string if there is
# no supported device.
function(ropewalk_visible_device variable)
    set(${variable} "" PARENT_SCOPE)
    set(device 0)
    if(DEFINED ENV{CUDA_VISIBLE_DEVICES})
        string(REGEX REPLACE ",.*" "" device "$ENV{CUDA_VISIBLE_DEVICES}")
    endif()
    find_program(ROPEWALK_NVIDIA_SMI nvidia-smi)
    mark_as_advanced(ROPEWALK_NVIDIA_SMI)
    if(ROPEWALK_NVIDIA_SMI AND NOT device STREQUAL "" AND NOT device STREQUAL "-1")
        execute_process(COMMAND "${ROPEWALK_NVIDIA_SMI}" --query-gpu=compute_cap --format=csv,noheader "--id=${device}"
            OUTPUT_VARIABLE capability ERROR_QUIET)
        if(capability MATCHES "^([0-9]+)\\.([0-9])" AND CMAKE_MATCH_1 GREATER_EQUAL 8)
            set(${variable} "${CMAKE_MATCH_1}${CMAKE_MATCH_2}" PARENT_SCOPE)
        endif()
    endif()
endfunction()

set(ropewalk_architectures "${CMAKE_CUDA_ARCHITECTURES}")
if(NOT ropewalk_architectures)
    set(ropewalk_architectures "$ENV{CUDAARCHS}")
endif()
if(NOT ropewalk_architectures)
    ropewalk_visible_device(ropewalk_architectures)
endif()
if(NOT ropewalk_architectures AND ROPEWALK_BUILD_CUDA STREQUAL "AUTO")
    message(STATUS "ropewalk: no visible CUDA device of compute capability 8.0 or newer, so CUDA is not built; "
        "to build it, set the environment variable CUDAARCHS, for example to 90")
    return()
endif()

# A toolkit is often installed outside PATH.
if(NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(ROPEWALK_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH ENV CUDAToolkit_ROOT PATHS /usr/local/cuda
        PATH_SUFFIXES bin)
    mark_as_advanced(ROPEWALK_NVCC)
    if(ROPEWALK_NVCC)
        set(ENV{CUDACXX} "${ROPEWALK_NVCC}")
    endif()
endif()

include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
    if(CCACHE_PROGRAM AND NOT DEFINED CMAKE_CUDA_COMPILER_LAUNCHER)
        set(CMAKE_CUDA_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
    endif()
    # CMake reads CUDAARCHS only in an empty build folder and caches its value, or the oldest architecture of the toolkit.
    # Each run chooses again, except with a value that the user passed.
    set(ropewalk_passed FALSE)
    if(DEFINED CACHE{CMAKE_CUDA_ARCHITECTURES})
        set(ropewalk_passed TRUE)
    endif()
    enable_language(CUDA)
    if(NOT ropewalk_passed)
        unset(CMAKE_CUDA_ARCHITECTURES CACHE)
    endif()
    set(CMAKE_CUDA_ARCHITECTURES "${ropewalk_architectures}")
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.1)  # the first version with kernel parameters above 4 KB
        set(ROPEWALK_HAS_CUDA ON)
    endif()
    # Machine code for A100 (also runs on 8.6 and 8.9), Hopper and consumer Blackwell. On other devices from 9.0 up the
    # driver compiles the PTX of 9.0.
    if(NOT ropewalk_architectures)
        set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
        if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
            list(APPEND CMAKE_CUDA_ARCHITECTURES 120-real)
        endif()
    endif()
endif()

if(ROPEWALK_HAS_CUDA)
    message(STATUS "ropewalk: CUDA ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
elseif(ROPEWALK_BUILD_CUDA STREQUAL "AUTO")
    message(STATUS "ropewalk: no working nvcc 12.1 or newer; CUDA is not built")
else()
    message(FATAL_ERROR "ropewalk: ROPEWALK_BUILD_CUDA is ${ROPEWALK_BUILD_CUDA}, but there is no working nvcc 12.1 or newer "
        "on PATH, in CUDACXX, CUDA_HOME or /usr/local/cuda.")
endif()
