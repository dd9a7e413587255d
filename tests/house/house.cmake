# Checks of the house itself, each a small script which says what is wrong and where.

find_package(Python 3.9 REQUIRED COMPONENTS Interpreter)
find_program(ROPEWALK_CLANG NAMES clang++-16 clang++-17 clang++-18 clang++-19 clang++-20 clang++)
cmake_host_system_information(RESULT cores QUERY NUMBER_OF_LOGICAL_CORES)

# Flags for compilers which are called directly. A system directory must not be named: it would change its order.
set(house_includes "-I${PROJECT_SOURCE_DIR}/include" "-I${PROJECT_SOURCE_DIR}/cuda" "-I${PROJECT_SOURCE_DIR}/bindings")
set(system_includes "${ROPEWALK_XSIMD_INCLUDE_DIR}")
if(EXISTS "${PROJECT_SOURCE_DIR}/include/ropewalk/io")
    ropewalk_need(nlohmann_json)
    ropewalk_include_dir(json_include nlohmann_json nlohmann/json.hpp nlohmann_json::nlohmann_json)
    list(APPEND system_includes "${json_include}")
endif()
if(EXISTS "${PROJECT_SOURCE_DIR}/include/ropewalk/llama")
    ropewalk_need(Eigen3)
    ropewalk_include_dir(eigen_include Eigen3 Eigen/Core Eigen3::Eigen)
    list(APPEND system_includes "${eigen_include}")
endif()
list(REMOVE_ITEM system_includes ${CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES})
list(TRANSFORM system_includes PREPEND "-isystem")
list(APPEND house_includes ${system_includes})

function(ropewalk_house name)
    add_test(NAME house.${name} COMMAND ${Python_EXECUTABLE} ${ARGN}
        WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}/house" COMMAND_EXPAND_LISTS)
    set_tests_properties(house.${name} PROPERTIES LABELS house)
endfunction()

set(compilers --compiler ${CMAKE_CXX_COMPILER})
if(ROPEWALK_CLANG)
    list(APPEND compilers --compiler ${ROPEWALK_CLANG})
endif()

file(GLOB documents CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/README.md" "${PROJECT_SOURCE_DIR}/docs/*.md")

# A toolkit often stands beside the PATH.
find_program(ROPEWALK_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH ENV CUDAToolkit_ROOT PATHS /usr/local/cuda
    PATH_SUFFIXES bin)
mark_as_advanced(ROPEWALK_NVCC)

ropewalk_house(layers layers.py)
ropewalk_house(macros macros.py)
ropewalk_house(words words.py)
ropewalk_house(headers_alone headers.py ${compilers} --jobs ${cores} ${house_includes})
ropewalk_house(snippets_cpp snippets.py cpp ${documents} --compiler ${CMAKE_CXX_COMPILER} ${OpenMP_CXX_FLAGS} ${house_includes})
# The Python snippets run where `pip install .` from a clean checkout put the package.
ropewalk_house(wheel wheel.py --into "${PROJECT_BINARY_DIR}/wheel" --made "${PROJECT_BINARY_DIR}/wheels"
    --define ROPEWALK_WARNINGS_AS_ERRORS=ON)
ropewalk_house(snippets_python snippets.py python ${documents} --python "${PROJECT_BINARY_DIR}/wheel/venv/bin/python")
set_tests_properties(house.wheel PROPERTIES FIXTURES_SETUP clean_environment)
set_tests_properties(house.snippets_python PROPERTIES FIXTURES_REQUIRED clean_environment)
ropewalk_house(consumers consumers.py --build "${PROJECT_BINARY_DIR}" --compiler ${CMAKE_CXX_COMPILER}
    --cmake "${CMAKE_COMMAND}")
if(TARGET ropewalk_dispatch AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    ropewalk_house(symbols symbols.py --nm "${CMAKE_NM}" --only "(kernels|llama)_avx"
        $<TARGET_OBJECTS:ropewalk_dispatch> $<TARGET_OBJECTS:ropewalk_llama>)
endif()
ropewalk_house(include_time include_time.py --compiler ${CMAKE_CXX_COMPILER} ${house_includes})
set_tests_properties(house.include_time PROPERTIES RUN_SERIAL ON)
ropewalk_house(nvcc nvcc.py --nvcc "${ROPEWALK_NVCC}")
ropewalk_house(snippets_cuda snippets.py cuda ${documents} --nvcc "${ROPEWALK_NVCC}")
set_tests_properties(house.nvcc house.snippets_cuda PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600)
# The longest first, so that no core waits for one of them in the end. ctest learns this by itself, but not in a clean clone.
set_tests_properties(house.headers_alone PROPERTIES COST 90 PROCESSORS 2)
set_tests_properties(house.wheel house.consumers house.snippets_cpp house.nvcc PROPERTIES COST 60)
