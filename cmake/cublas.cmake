# Finds cuBLAS, which the products of the CUDA attention stack (cuda/ropewalk/llama/gpu/cublas.cuh) are computed by:
# in the toolkit, or in a Python package nvidia-cublas of the toolkit's version, which machines that have PyTorch have.
# Says in ROPEWALK_HAS_CUBLAS whether, and makes the target ropewalk::cublas then. ROPEWALK_CUBLAS_ROOT may name a folder
# with include/ and lib/.

set(ROPEWALK_HAS_CUBLAS OFF)
find_package(CUDAToolkit QUIET GLOBAL)
if(NOT CUDAToolkit_FOUND)
    message(STATUS "ropewalk: no CUDA toolkit, so no cuBLAS; the CUDA attention stack's products are left out")
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

# The toolkit may have the library without its header, or neither; a package's library has no name without a version.
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
    message(STATUS "ropewalk: no cuBLAS ${CUDAToolkit_VERSION_MAJOR} with its headers; the CUDA attention stack's products "
        "are left out (the toolkit may have it, pip install nvidia-cublas has it, ROPEWALK_CUBLAS_ROOT names another)")
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
