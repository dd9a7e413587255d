# The kernels of the CUDA attention stack, executed on the host.

file(GLOB sources CONFIGURE_DEPENDS gpu_attention/*.cpp)
add_executable(ropewalk_tests_gpu_attention ${sources} gpu/host.cpp)
target_link_libraries(ropewalk_tests_gpu_attention PRIVATE ropewalk_test_support ropewalk_development)
set_target_properties(ropewalk_tests_gpu_attention PROPERTIES CXX_EXTENSIONS OFF)
ropewalk_quick_to_compile(ropewalk_tests_gpu_attention gpu)
add_test(NAME gpu_attention COMMAND ropewalk_tests_gpu_attention WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
set_tests_properties(gpu_attention PROPERTIES ENVIRONMENT "${test_environment}" LABELS unit TIMEOUT 600)
