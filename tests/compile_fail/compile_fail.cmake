# Each *.cpp here holds a good and a bad twin; see check.py. Every case is one test.

file(GLOB cases CONFIGURE_DEPENDS compile_fail/*.cpp)
foreach(case IN LISTS cases)
    get_filename_component(name "${case}" NAME_WE)
    add_test(NAME compile_fail.${name}
        COMMAND ${Python_EXECUTABLE} "${CMAKE_CURRENT_SOURCE_DIR}/compile_fail/check.py"
            --compiler "${CMAKE_CXX_COMPILER}" --source "${case}" ${house_includes})
    set_tests_properties(compile_fail.${name} PROPERTIES LABELS compile_fail)
endforeach()
