# vcpkg port of the compiled library and the headers, built from the checkout:
#   vcpkg install ropewalk --overlay-ports=packaging/vcpkg

get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

vcpkg_cmake_configure(
    SOURCE_PATH "${SOURCE_PATH}"
    OPTIONS
        -DROPEWALK_BUILD_DISPATCH=ON
        -DROPEWALK_BUILD_TESTS=OFF
        -DROPEWALK_BUILD_BENCHMARKS=OFF
        -DROPEWALK_BUILD_EXAMPLES=OFF
        -DROPEWALK_BUILD_PYTHON=OFF
        -DROPEWALK_BUILD_CUDA=OFF
)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH lib/cmake/ropewalk)
vcpkg_fixup_pkgconfig()

file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug/include")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
