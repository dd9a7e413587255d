# The attention stack: its kernels and layers, and a program whose hidden states Python compares with Transformers'.

if(TARGET ropewalk_llama)
    ropewalk_need(nlohmann_json)
    file(GLOB sources CONFIGURE_DEPENDS llama/*.cpp)
    add_executable(ropewalk_tests_llama ${sources})
    target_link_libraries(ropewalk_tests_llama PRIVATE ropewalk_test_support ropewalk_llama
        nlohmann_json::nlohmann_json)
    add_executable(llama_states llama/program/states.cpp)
    target_link_libraries(llama_states PRIVATE ropewalk_llama nlohmann_json::nlohmann_json)
    foreach(name IN ITEMS ropewalk_tests_llama llama_states)
        target_link_libraries(${name} PRIVATE ropewalk_development)
        set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF)
    endforeach()
    set_target_properties(ropewalk_tests_llama PROPERTIES UNITY_BUILD ${ROPEWALK_TESTS_TOGETHER} UNITY_BUILD_BATCH_SIZE 4)
    ropewalk_quick_to_compile(ropewalk_tests_llama llama)
    target_compile_options(llama_states PRIVATE -O1 $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
    foreach(instruction_set IN ITEMS "" baseline avx2)
        set(suffix "")
        if(instruction_set)
            set(suffix ".${instruction_set}")
        endif()
        add_test(NAME llama${suffix} COMMAND ropewalk_tests_llama WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
        set_tests_properties(llama${suffix} PROPERTIES LABELS unit TIMEOUT 600
            ENVIRONMENT "${test_environment};ROPEWALK_ISA=${instruction_set}"
            SKIP_REGULAR_EXPRESSION "ROPEWALK_ISA is '${instruction_set}', this machine has")
    endforeach()
endif()
