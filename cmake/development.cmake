# What ropewalk's own tests, benchmarks, examples and bindings are compiled with.

add_library(ropewalk_development INTERFACE)
target_link_libraries(ropewalk_development INTERFACE ropewalk::ropewalk)
target_compile_options(ropewalk_development INTERFACE -Wall -Wextra -Wconversion)
if(ROPEWALK_WARNINGS_AS_ERRORS)
    target_compile_options(ropewalk_development INTERFACE -Werror)
endif()

# Interpreter for checks and Python tests: the project's own environment where there is one.
if(EXISTS "${PROJECT_SOURCE_DIR}/.venv/bin/python" AND NOT DEFINED Python_EXECUTABLE)
    set(Python_EXECUTABLE "${PROJECT_SOURCE_DIR}/.venv/bin/python")
endif()

# One executable per source file, `<build>/<folder>/<name>`, which may use the compiled runtime.
function(ropewalk_programs folder)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LIBRARIES")
    foreach(source IN LISTS arg_SOURCES)
        get_filename_component(name "${source}" NAME_WE)
        add_executable(${name} "${source}")
        target_link_libraries(${name} PRIVATE ropewalk_development ${arg_LIBRARIES})
        set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF
            RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/${folder}")
        if(TARGET ropewalk_runtime)
            target_link_libraries(${name} PRIVATE ropewalk_runtime)
        endif()
    endforeach()
endfunction()
