# Cross compilation for AArch64 with Debian's g++-aarch64-linux-gnu; the tests run under qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
# The dependencies are headers, installed for the build machine. CMake looks for libraries of the target alone.
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
file(GLOB xsimd_DIR /usr/lib/*-linux-gnu/cmake/xsimd)
