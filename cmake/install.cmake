# Installs the headers, the compiled library, the CMake package and the pkg-config files.

include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/ropewalk")

install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/ropewalk" "${PROJECT_SOURCE_DIR}/cuda/ropewalk"
    DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT development PATTERN "*.md" EXCLUDE)
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}" COMPONENT runtime)
install(TARGETS ropewalk_core ropewalk EXPORT ropewalkTargets)
install(EXPORT ropewalkTargets NAMESPACE ropewalk:: DESTINATION "${package_dir}" COMPONENT development)
set(any_architecture ARCH_INDEPENDENT)

file(RELATIVE_PATH ROPEWALK_PREFIX_FROM_PKGCONFIG "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
set(ROPEWALK_PC_XSIMD "Requires: xsimd\nCflags: -std=c++20 -I\${includedir}")
if(NOT ROPEWALK_XSIMD)
    set(ROPEWALK_PC_XSIMD "Cflags: -std=c++20 -I\${includedir} -DROPEWALK_NO_XSIMD")
endif()
set(pkgconfig_files ropewalk.pc)

set(ROPEWALK_WITH_OPENMP OFF)
if(ROPEWALK_BUILD_DISPATCH)
    install(DIRECTORY "${PROJECT_SOURCE_DIR}/bindings/dispatch/include/ropewalk"
        DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT development)
    install(TARGETS ropewalk_dispatch ropewalk_dispatch_shared EXPORT ropewalkDispatchTargets
        ARCHIVE COMPONENT development LIBRARY COMPONENT runtime NAMELINK_COMPONENT development)
    install(EXPORT ropewalkDispatchTargets NAMESPACE ropewalk:: DESTINATION "${package_dir}" COMPONENT development)
    set(any_architecture "")
    # Libraries that a program needs in order to link the static library.
    set(private_libraries stdc++ m)
    if("c++" IN_LIST CMAKE_CXX_IMPLICIT_LINK_LIBRARIES)
        set(private_libraries c++ m)
    endif()
    if(TARGET OpenMP::OpenMP_CXX)
        set(ROPEWALK_WITH_OPENMP ON)
        list(PREPEND private_libraries ${OpenMP_CXX_LIB_NAMES})
    endif()
    list(TRANSFORM private_libraries PREPEND "-l")
    list(JOIN private_libraries " " ROPEWALK_PC_PRIVATE)
    list(APPEND pkgconfig_files ropewalk-dispatch.pc)
endif()

foreach(file IN LISTS pkgconfig_files)
    configure_file(cmake/${file}.in "${PROJECT_BINARY_DIR}/${file}" @ONLY)
    install(FILES "${PROJECT_BINARY_DIR}/${file}" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig"
        COMPONENT development)
endforeach()
configure_package_config_file(cmake/ropewalkConfig.cmake.in "${PROJECT_BINARY_DIR}/ropewalkConfig.cmake"
    INSTALL_DESTINATION "${package_dir}" NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/ropewalkConfigVersion.cmake"
    COMPATIBILITY SameMinorVersion ${any_architecture})
install(FILES
    "${PROJECT_BINARY_DIR}/ropewalkConfig.cmake" "${PROJECT_BINARY_DIR}/ropewalkConfigVersion.cmake"
    DESTINATION "${package_dir}" COMPONENT development)
