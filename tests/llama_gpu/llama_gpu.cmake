# Kernels and stack of the CUDA Llama, executed by the host.

file(GLOB sources CONFIGURE_DEPENDS llama_gpu/*.cpp)
add_executable(ropewalk_tests_llama_gpu ${sources} $<TARGET_OBJECTS:ropewalk_gpu_on_host>)
target_link_libraries(ropewalk_tests_llama_gpu PRIVATE ropewalk_test_support ropewalk_development)
set_target_properties(ropewalk_tests_llama_gpu PROPERTIES CXX_EXTENSIONS OFF)
ropewalk_quick_to_compile(ropewalk_tests_llama_gpu gpu)
add_test(NAME llama_gpu COMMAND ropewalk_tests_llama_gpu WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
set_tests_properties(llama_gpu PROPERTIES ENVIRONMENT "${test_environment}" LABELS unit TIMEOUT 600)
