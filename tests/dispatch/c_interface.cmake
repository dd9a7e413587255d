# The C interface: a program in C99, linked with the static library so that sanitizers see all of it.

enable_language(C)
find_package(Threads REQUIRED)
add_executable(ropewalk_tests_c dispatch/c_interface.c)
target_link_libraries(ropewalk_tests_c PRIVATE ropewalk::dispatch Threads::Threads m)
set_target_properties(ropewalk_tests_c PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
target_compile_options(ropewalk_tests_c PRIVATE -O1 -Wall -Wextra -Wpedantic -Wconversion -Werror)
if(ROPEWALK_JSON AND NOT ROPEWALK_SANITIZE)
    target_compile_definitions(ropewalk_tests_c PRIVATE TEST_JSON)
endif()
add_test(NAME c_interface COMMAND ropewalk_tests_c)
set_tests_properties(c_interface PROPERTIES ENVIRONMENT "${test_environment}" LABELS unit TIMEOUT 60)
