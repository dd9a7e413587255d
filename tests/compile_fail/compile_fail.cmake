# Compile-fail tests: each *.cpp must compile without RW_FAIL and fail with it; see check.py.

# The headers of most cases are precompiled in every run, because compilers do not notice that a precompiled header is out
# of date. A compiler that rejects the precompiled header reads the text instead.
set(prepared "${CMAKE_CURRENT_BINARY_DIR}/compile_fail_headers.hpp")
file(WRITE "${prepared}" "#include <ropewalk/cpu/cos_sin.hpp>\n#include <ropewalk/cpu/rotate.hpp>\n#include <ropewalk/encoding.hpp>\n")
add_test(NAME compile_fail.headers
    COMMAND "${CMAKE_CXX_COMPILER}" -std=c++20 ${house_includes} -x c++-header "${prepared}" -o "${prepared}.gch")
set_tests_properties(compile_fail.headers PROPERTIES LABELS compile_fail FIXTURES_SETUP precompiled_headers)

file(GLOB cases CONFIGURE_DEPENDS compile_fail/*.cpp)
foreach(case IN LISTS cases)
    get_filename_component(name "${case}" NAME_WE)
    add_test(NAME compile_fail.${name}
        COMMAND ${Python_EXECUTABLE} "${CMAKE_CURRENT_SOURCE_DIR}/compile_fail/check.py"
            --compiler "${CMAKE_CXX_COMPILER}" --source "${case}" ${house_includes}
            -include "${prepared}")
    set_tests_properties(compile_fail.${name} PROPERTIES LABELS compile_fail FIXTURES_REQUIRED precompiled_headers)
endforeach()

add_test(NAME compile_fail.standard COMMAND ${Python_EXECUTABLE} "${CMAKE_CURRENT_SOURCE_DIR}/compile_fail/standard.py"
    --compiler "${CMAKE_CXX_COMPILER}" ${house_includes})
set_tests_properties(compile_fail.standard PROPERTIES LABELS compile_fail)
