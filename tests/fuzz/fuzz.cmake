# Fuzz targets: LLVMFuzzerTestOneInput() of tests/fuzz/<name>.cpp. A build with ROPEWALK_FUZZ links libFuzzer, and
# `make fuzz` runs it. Every other build links replay.cpp, and its tests run the inputs that are kept in the repository.

ropewalk_need(nlohmann_json)

# ropewalk_fuzz(<name> <folder>...): a target, and the folders of its inputs below the project's.
function(ropewalk_fuzz name)
    set(target fuzz_${name})
    add_executable(${target} fuzz/${name}.cpp)
    target_link_libraries(${target} PRIVATE ropewalk::dispatch ropewalk_development nlohmann_json::nlohmann_json)
    set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
    if(NOT ROPEWALK_FUZZ)
        ropewalk_quick_to_compile(${target} fuzz)
    endif()
    set(folders "${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name}")
    foreach(folder IN LISTS ARGN)
        list(APPEND folders "${PROJECT_SOURCE_DIR}/${folder}")
    endforeach()
    if(ROPEWALK_FUZZ)
        target_link_options(${target} PRIVATE -fsanitize=fuzzer)
        add_test(NAME fuzz.${name} COMMAND ${target} -runs=0 ${folders})
    else()
        target_sources(${target} PRIVATE fuzz/replay.cpp)
        add_test(NAME fuzz.${name} COMMAND ${target} ${folders})
    endif()
    set_tests_properties(fuzz.${name} PROPERTIES ENVIRONMENT "${test_environment}" LABELS fuzz TIMEOUT 300)
endfunction()

ropewalk_fuzz(config examples/configs)
ropewalk_fuzz(safetensors)
ropewalk_fuzz(expression)
ropewalk_fuzz(key)
ropewalk_fuzz(c_interface)

# The script alone runs about 3,500 checkpoints per minute, so this test takes a few seconds.
if(TARGET giraffe_13b)
    find_package(Python 3.9 REQUIRED COMPONENTS Interpreter)
    add_test(NAME fuzz.checkpoints
        COMMAND ${Python_EXECUTABLE} "${CMAKE_CURRENT_SOURCE_DIR}/fuzz/checkpoints.py" $<TARGET_FILE:giraffe_13b> --runs 150)
    set_tests_properties(fuzz.checkpoints PROPERTIES LABELS fuzz TIMEOUT 300)
endif()
