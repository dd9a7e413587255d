# Finds nvcc according to ROPEWALK_BUILD_CUDA and sets ROPEWALK_HAS_CUDA. An nvcc that does not work, for example because
# it refuses the host compiler, counts as missing.

set(ROPEWALK_HAS_CUDA OFF)
if(NOT ROPEWALK_BUILD_CUDA)
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
    set(ropewalk_default_architectures OFF)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND DEFINED ENV{CUDAARCHS})
        # CMake itself reads CUDAARCHS only in an empty build folder and caches the value: see below.
        set(ropewalk_architectures_from_environment ON)
        set(CMAKE_CUDA_ARCHITECTURES "$ENV{CUDAARCHS}")
    elseif(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
        set(ropewalk_default_architectures ON)
        # Otherwise CMake caches the oldest architecture that the toolkit supports.
        set(CMAKE_CUDA_ARCHITECTURES 80)
    endif()
    if(CCACHE_PROGRAM AND NOT DEFINED CMAKE_CUDA_COMPILER_LAUNCHER)
        set(CMAKE_CUDA_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
    endif()
    enable_language(CUDA)
    if(ropewalk_architectures_from_environment)
        unset(CMAKE_CUDA_ARCHITECTURES CACHE)
    endif()
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.1)  # the first version with kernel parameters above 4 KB
        set(ROPEWALK_HAS_CUDA ON)
    endif()
    # Machine code for A100 (also runs on 8.6 and 8.9), Hopper and consumer Blackwell. On other devices from 9.0 up the
    # driver compiles the PTX of 9.0.
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
    message(STATUS "ropewalk: no working nvcc 12.1 or newer; the Python module is built without CUDA")
else()
    message(FATAL_ERROR "ropewalk: ROPEWALK_BUILD_CUDA is ${ROPEWALK_BUILD_CUDA}, but there is no working nvcc 12.1 or newer "
        "on PATH, in CUDACXX, CUDA_HOME or /usr/local/cuda.")
endif()
