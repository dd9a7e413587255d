# Finds nvcc as ROPEWALK_BUILD_CUDA wants it, and says in ROPEWALK_HAS_CUDA whether. An nvcc which does not work (a host
# compiler that it refuses, say) counts as none.

set(ROPEWALK_HAS_CUDA OFF)
if(NOT ROPEWALK_BUILD_CUDA)
    return()
endif()

# A toolkit often stands beside the PATH.
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
    set(ropewalk_default_architectures OFF)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND DEFINED ENV{CUDAARCHS})
        # CMake itself looks there in an empty build folder only, and remembers what it found: see below.
        set(ropewalk_architectures_from_environment ON)
        set(CMAKE_CUDA_ARCHITECTURES "$ENV{CUDAARCHS}")
    elseif(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
        set(ropewalk_default_architectures ON)
        # Else CMake takes the oldest that the toolkit knows, and remembers that.
        set(CMAKE_CUDA_ARCHITECTURES 80)
    endif()
    if(CCACHE_PROGRAM AND NOT DEFINED CMAKE_CUDA_COMPILER_LAUNCHER)
        set(CMAKE_CUDA_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
    endif()
    enable_language(CUDA)
    if(ropewalk_architectures_from_environment)
        unset(CMAKE_CUDA_ARCHITECTURES CACHE)
    endif()
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.1)  # the first whose kernels take more than 4 KB
        set(ROPEWALK_HAS_CUDA ON)
    endif()
    # Machine code for A100 (and what follows it up to 8.9), Hopper and consumer Blackwell. Every other device from 9.0 up
    # has the driver compile what is written for 9.0.
    if(ropewalk_default_architectures)
        set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
        if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
            list(APPEND CMAKE_CUDA_ARCHITECTURES 120-real)
        endif()
    endif()
endif()

if(ROPEWALK_HAS_CUDA)
    message(STATUS "ropewalk: CUDA ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
elseif(ROPEWALK_BUILD_CUDA STREQUAL "AUTO")
    message(STATUS "ropewalk: no nvcc from 12.1 up that works; Python will have no CUDA")
else()
    message(FATAL_ERROR "ropewalk: ROPEWALK_BUILD_CUDA is ${ROPEWALK_BUILD_CUDA}, but no nvcc from 12.1 up works here. "
        "It is looked for on PATH, in CUDACXX, CUDA_HOME and /usr/local/cuda.")
endif()
