# Interface targets of the header-only library:
#   ropewalk::core      geometry, policies and encoding, without a dependency
#   ropewalk::ropewalk  the CPU library: core and xsimd's headers (ROPEWALK_XSIMD)
#   ropewalk::cuda      the CUDA library: core and the CUDA runtime, if a toolkit is found

add_library(ropewalk_core INTERFACE)
add_library(ropewalk::core ALIAS ropewalk_core)
set_target_properties(ropewalk_core PROPERTIES EXPORT_NAME core)
target_compile_features(ropewalk_core INTERFACE cxx_std_20)
target_include_directories(ropewalk_core INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/cuda>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

add_library(ropewalk INTERFACE)
add_library(ropewalk::ropewalk ALIAS ropewalk)
target_link_libraries(ropewalk INTERFACE ropewalk_core)
if(ROPEWALK_XSIMD)
    # The directory, not the target: the target of xsimd 8 links a missing library (xtl).
    target_include_directories(ropewalk SYSTEM INTERFACE $<BUILD_INTERFACE:${ROPEWALK_XSIMD_INCLUDE_DIR}>)
else()
    target_compile_definitions(ropewalk INTERFACE ROPEWALK_NO_XSIMD)
endif()

# Global, for projects that add ropewalk with add_subdirectory().
find_package(CUDAToolkit QUIET GLOBAL)
if(CUDAToolkit_FOUND)
    add_library(ropewalk_cuda INTERFACE)
    add_library(ropewalk::cuda ALIAS ropewalk_cuda)
    target_link_libraries(ropewalk_cuda INTERFACE ropewalk_core CUDA::cudart)
endif()
