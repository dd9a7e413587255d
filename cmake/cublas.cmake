# Finds cuBLAS, which computes the matrix products of the CUDA Llama stack (cuda/ropewalk/llama/gpu/cublas.cuh): in the
# CUDA toolkit, or in the Python package nvidia-cublas of the same version, which PyTorch installs. Sets
# ROPEWALK_HAS_CUBLAS and defines the target ropewalk::cublas. ROPEWALK_CUBLAS_ROOT may name a folder with include/ and
# lib/.

set(ROPEWALK_HAS_CUBLAS OFF)
find_package(CUDAToolkit QUIET GLOBAL)
if(NOT CUDAToolkit_FOUND)
    message(STATUS "ropewalk: no CUDA toolkit and no cuBLAS; the CUDA Llama stack is not built")
    return()
endif()

set(ropewalk_cublas_roots "")
if(NOT ROPEWALK_CUBLAS_ROOT)
    find_package(Python QUIET COMPONENTS Interpreter)
    if(Python_Interpreter_FOUND)
        execute_process(COMMAND "${Python_EXECUTABLE}" -c
            "import sys, pathlib; print(';'.join(str(p / 'nvidia') for p in map(pathlib.Path, sys.path) if (p / 'nvidia').is_dir()))"
            OUTPUT_VARIABLE ropewalk_nvidia OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
        foreach(folder IN LISTS ropewalk_nvidia)
            list(APPEND ropewalk_cublas_roots "${folder}/cu${CUDAToolkit_VERSION_MAJOR}" "${folder}/cublas")
        endforeach()
    endif()
endif()

# The toolkit may lack the header of cuBLAS, or both header and library. The library of a package has a versioned name.
if(TARGET CUDA::cublas AND NOT ROPEWALK_CUBLAS_ROOT)
    find_path(ROPEWALK_CUBLAS_INCLUDE_DIR cublas_v2.h PATHS ${CUDAToolkit_INCLUDE_DIRS} NO_DEFAULT_PATH)
    if(ROPEWALK_CUBLAS_INCLUDE_DIR)
        set(ropewalk_cublas_targets CUDA::cublas)
    endif()
endif()
if(NOT ropewalk_cublas_targets)
    find_path(ROPEWALK_CUBLAS_INCLUDE_DIR cublas_v2.h PATHS "${ROPEWALK_CUBLAS_ROOT}" ${ropewalk_cublas_roots}
        PATH_SUFFIXES include NO_DEFAULT_PATH)
    foreach(name IN ITEMS cublas cublasLt)
        find_library(ROPEWALK_${name}_LIBRARY NAMES "lib${name}.so.${CUDAToolkit_VERSION_MAJOR}" ${name}
            PATHS "${ROPEWALK_CUBLAS_ROOT}" ${ropewalk_cublas_roots} PATH_SUFFIXES lib lib64 NO_DEFAULT_PATH)
        mark_as_advanced(ROPEWALK_${name}_LIBRARY)
    endforeach()
    if(ROPEWALK_CUBLAS_INCLUDE_DIR AND ROPEWALK_cublas_LIBRARY AND ROPEWALK_cublasLt_LIBRARY)
        set(ropewalk_cublas_targets "${ROPEWALK_cublas_LIBRARY}" "${ROPEWALK_cublasLt_LIBRARY}")
    endif()
endif()
mark_as_advanced(ROPEWALK_CUBLAS_INCLUDE_DIR)

if(NOT ropewalk_cublas_targets)
    message(STATUS "ropewalk: no cuBLAS ${CUDAToolkit_VERSION_MAJOR} with its headers; the CUDA Llama stack is not built "
        "(install it with the toolkit or with pip install nvidia-cublas, or set ROPEWALK_CUBLAS_ROOT)")
    return()
endif()
set(ROPEWALK_HAS_CUBLAS ON)
if(NOT TARGET ropewalk_cublas)
    add_library(ropewalk_cublas INTERFACE)
    add_library(ropewalk::cublas ALIAS ropewalk_cublas)
    target_include_directories(ropewalk_cublas SYSTEM INTERFACE "${ROPEWALK_CUBLAS_INCLUDE_DIR}")
    target_link_libraries(ropewalk_cublas INTERFACE ropewalk_cuda ${ropewalk_cublas_targets})
endif()
message(STATUS "ropewalk: cuBLAS in ${ROPEWALK_CUBLAS_INCLUDE_DIR}")
