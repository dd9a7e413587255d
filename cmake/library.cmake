# ropewalk::core      the headers alone: core, policies, encoding. No dependency.
# ropewalk::ropewalk  everything on the CPU: adds OpenMP and xsimd's headers (ROPEWALK_XSIMD).
# ropewalk::cuda      the headers and the CUDA runtime, where a toolkit is found. Nothing of xsimd.

add_library(ropewalk_core INTERFACE)
add_library(ropewalk::core ALIAS ropewalk_core)
set_target_properties(ropewalk_core PROPERTIES EXPORT_NAME core)
target_compile_features(ropewalk_core INTERFACE cxx_std_20)
target_include_directories(ropewalk_core INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
if(EXISTS "${PROJECT_SOURCE_DIR}/cuda/ropewalk")
    target_include_directories(ropewalk_core INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/cuda>)
endif()

add_library(ropewalk INTERFACE)
add_library(ropewalk::ropewalk ALIAS ropewalk)
target_link_libraries(ropewalk INTERFACE ropewalk_core)
if(ROPEWALK_XSIMD)
    # The directory and not the target: xsimd 8 links a library that does not exist (xtl), later ones do not.
    target_include_directories(ropewalk SYSTEM INTERFACE $<BUILD_INTERFACE:${ROPEWALK_XSIMD_INCLUDE_DIR}>)
else()
    target_compile_definitions(ropewalk INTERFACE ROPEWALK_NO_XSIMD)
endif()
if(TARGET OpenMP::OpenMP_CXX)
    # Installed, it is looked for anew: the compiler may be another.
    target_link_libraries(ropewalk INTERFACE $<BUILD_INTERFACE:OpenMP::OpenMP_CXX>)
endif()

# Global, so that a project which adds ropewalk with add_subdirectory() sees the runtime too.
find_package(CUDAToolkit QUIET GLOBAL)
if(CUDAToolkit_FOUND)
    add_library(ropewalk_cuda INTERFACE)
    add_library(ropewalk::cuda ALIAS ropewalk_cuda)
    target_link_libraries(ropewalk_cuda INTERFACE ropewalk_core CUDA::cudart)
endif()
