# Sets ROPEWALK_DLPACK_INCLUDE_DIR to the folder of <dlpack/dlpack.h>: the system's, else the copy in the PyTorch of
# Python_EXECUTABLE, else fetched.

find_package(dlpack QUIET)
if(NOT dlpack_FOUND)
    execute_process(
        COMMAND "${Python_EXECUTABLE}" -c
            "import importlib.util; print(importlib.util.find_spec('torch').submodule_search_locations[0])"
        OUTPUT_VARIABLE ropewalk_torch OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    set(ropewalk_torch_dlpack "${ropewalk_torch}/include/ATen/dlpack.h")
    if(ropewalk_torch AND EXISTS "${ropewalk_torch_dlpack}")
        # Older than version 1 of the protocol, the header lacks this structure.
        file(STRINGS "${ropewalk_torch_dlpack}" ropewalk_versioned REGEX "DLManagedTensorVersioned" LIMIT_COUNT 1)
    endif()
endif()

if(ropewalk_versioned)
    message(STATUS "ropewalk: using PyTorch's copy of DLPack, ${ropewalk_torch_dlpack}")
    set(ROPEWALK_DLPACK_INCLUDE_DIR "${PROJECT_BINARY_DIR}/torch_dlpack")
    file(CONFIGURE OUTPUT "${ROPEWALK_DLPACK_INCLUDE_DIR}/dlpack/dlpack.h" CONTENT "#include \"@ropewalk_torch_dlpack@\"\n" @ONLY)
else()
    ropewalk_need(dlpack)
    ropewalk_include_dir(ROPEWALK_DLPACK_INCLUDE_DIR dlpack dlpack/dlpack.h dlpack dlpack::dlpack)
endif()
