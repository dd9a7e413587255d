# Installs the headers, the CMake package and the pkg-config file.

include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/ropewalk")

install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/ropewalk" "${PROJECT_SOURCE_DIR}/cuda/ropewalk"
    DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" PATTERN "*.md" EXCLUDE)

install(TARGETS ropewalk_core ropewalk EXPORT ropewalkTargets)
install(EXPORT ropewalkTargets NAMESPACE ropewalk:: DESTINATION "${package_dir}")

set(ROPEWALK_WITH_OPENMP OFF)
if(TARGET OpenMP::OpenMP_CXX)
    set(ROPEWALK_WITH_OPENMP ON)
endif()
configure_package_config_file(cmake/ropewalkConfig.cmake.in "${PROJECT_BINARY_DIR}/ropewalkConfig.cmake"
    INSTALL_DESTINATION "${package_dir}" NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/ropewalkConfigVersion.cmake"
    COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
file(RELATIVE_PATH ROPEWALK_PREFIX_FROM_PKGCONFIG "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
set(ROPEWALK_PC_XSIMD "Requires: xsimd\nCflags: -std=c++20 -I\${includedir}")
if(NOT ROPEWALK_XSIMD)
    set(ROPEWALK_PC_XSIMD "Cflags: -std=c++20 -I\${includedir} -DROPEWALK_NO_XSIMD")
endif()
configure_file(cmake/ropewalk.pc.in "${PROJECT_BINARY_DIR}/ropewalk.pc" @ONLY)
install(FILES
    "${PROJECT_BINARY_DIR}/ropewalkConfig.cmake" "${PROJECT_BINARY_DIR}/ropewalkConfigVersion.cmake"
    DESTINATION "${package_dir}")
install(FILES "${PROJECT_BINARY_DIR}/ropewalk.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
