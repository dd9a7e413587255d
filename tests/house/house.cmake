# Checks of the repository itself: each is a small script that reports what is wrong, with file and line.

find_package(Python 3.9 REQUIRED COMPONENTS Interpreter)
find_program(ROPEWALK_CLANG NAMES clang++-16 clang++-17 clang++-18 clang++-19 clang++-20 clang++)
# A toolkit is often installed outside PATH.
find_program(ROPEWALK_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH ENV CUDAToolkit_ROOT PATHS /usr/local/cuda
    PATH_SUFFIXES bin)
mark_as_advanced(ROPEWALK_NVCC)

# Include flags for compilers called directly. A system directory must not be named, because that changes its order.
ropewalk_need(nlohmann_json)
ropewalk_include_dir(json_include nlohmann_json nlohmann/json.hpp nlohmann_json::nlohmann_json)
ropewalk_need(Eigen3)
ropewalk_include_dir(eigen_include Eigen3 Eigen/Core Eigen3::Eigen)
set(system_includes "${ROPEWALK_XSIMD_INCLUDE_DIR}" "${json_include}" "${eigen_include}")
list(REMOVE_ITEM system_includes ${CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES})
set(house_includes include cuda bindings bindings/dispatch/include)
list(TRANSFORM house_includes PREPEND "-I${PROJECT_SOURCE_DIR}/")
list(TRANSFORM system_includes PREPEND "-isystem" OUTPUT_VARIABLE system_flags)
list(APPEND house_includes ${system_flags})

function(ropewalk_house name)
    add_test(NAME house.${name} COMMAND ${Python_EXECUTABLE} ${ARGN}
        WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}/house" COMMAND_EXPAND_LISTS)
    set_tests_properties(house.${name} PROPERTIES LABELS house)
endfunction()

ropewalk_house(layers layers.py)
ropewalk_house(macros macros.py)
ropewalk_house(words words.py)

# Every .hpp compiles by itself, without a warning. A .cuh needs nvcc: house.nvcc and tools/gpu_check.sh compile those.
# Clang's warnings come from `tools/lint tidy`, which reads all headers, and from the builds under sanitizers.
add_library(ropewalk_headers INTERFACE)
file(GLOB_RECURSE headers CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/include/*.hpp" "${PROJECT_SOURCE_DIR}/cuda/*.hpp")
target_sources(ropewalk_headers INTERFACE
    FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/cuda" FILES ${headers})
target_link_libraries(ropewalk_headers INTERFACE ropewalk_development)
target_include_directories(ropewalk_headers SYSTEM INTERFACE ${system_includes})
target_compile_options(ropewalk_headers INTERFACE -O0)
set_target_properties(ropewalk_headers PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
add_test(NAME house.headers COMMAND "${CMAKE_COMMAND}" --build "${PROJECT_BINARY_DIR}"
    --target ropewalk_headers_verify_interface_header_sets)

file(GLOB_RECURSE documents CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/docs/*.md")
list(PREPEND documents "${PROJECT_SOURCE_DIR}/README.md")
if(ROPEWALK_BUILD_DISPATCH)
    set(link_flags "-L${PROJECT_BINARY_DIR}/lib" "-Wl,-rpath,${PROJECT_BINARY_DIR}/lib" -lropewalk -lm)
    ropewalk_house(snippets_cpp snippets.py cpp ${documents} --compiler ${CMAKE_CXX_COMPILER} ${OpenMP_CXX_FLAGS}
        ${house_includes} ${link_flags})
    ropewalk_house(snippets_c snippets.py c ${documents} --compiler ${CMAKE_C_COMPILER} ${house_includes} ${link_flags})
    set_tests_properties(house.snippets_cpp PROPERTIES COST 60)
endif()
ropewalk_house(snippets_cuda snippets.py cuda ${documents} --nvcc "${ROPEWALK_NVCC}")
# Python snippets run in the environment into which house.wheel installs the package.
ropewalk_house(wheel wheel.py --into "${PROJECT_BINARY_DIR}/wheel" --made "${PROJECT_BINARY_DIR}/wheels"
    --define ROPEWALK_WARNINGS_AS_ERRORS=ON)
ropewalk_house(snippets_python snippets.py python ${documents} --python "${PROJECT_BINARY_DIR}/wheel/venv/bin/python")
set_tests_properties(house.wheel PROPERTIES FIXTURES_SETUP clean_environment)
set_tests_properties(house.snippets_python PROPERTIES FIXTURES_REQUIRED clean_environment)

if(ROPEWALK_BUILD_DISPATCH)
    ropewalk_house(consumers consumers.py --build "${PROJECT_BINARY_DIR}" --compiler ${CMAKE_CXX_COMPILER}
        --c-compiler ${CMAKE_C_COMPILER} --cmake "${CMAKE_COMMAND}")
    set_tests_properties(house.consumers PROPERTIES COST 60)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
        ropewalk_house(symbols symbols.py --nm "${CMAKE_NM}" --only "(kernels|llama)_avx"
            $<TARGET_OBJECTS:ropewalk_kernels> $<TARGET_OBJECTS:ropewalk_llama>
            --library $<TARGET_FILE:ropewalk_dispatch_shared>)
    endif()
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    # Functions of the headers that a program compiles for several instruction sets must not be merged. The exceptions are
    # data, the class of errors, and functions of the standard library.
    add_library(ropewalk_avx2_user OBJECT consumer/avx2_user.cpp)
    target_link_libraries(ropewalk_avx2_user PRIVATE ropewalk_development)
    target_compile_options(ropewalk_avx2_user PRIVATE -O2 -mavx2 -mfma -mf16c)
    ropewalk_house(symbols_of_users symbols.py --nm "${CMAKE_NM}" --only "avx2_user"
        --allow "avx|DW\\.ref\\.|^_Z+N?K?S|^_ZT[ISV]N8ropewalk5errorE|^_ZN8ropewalk5errorD|4nameE$"
        $<TARGET_OBJECTS:ropewalk_avx2_user>)
endif()
ropewalk_house(include_size include_size.py --compiler ${CMAKE_CXX_COMPILER} ${house_includes})
ropewalk_house(nvcc nvcc.py --nvcc "${ROPEWALK_NVCC}")
ropewalk_house(instructions instructions.py --nvcc "${ROPEWALK_NVCC}")
set_tests_properties(house.nvcc house.instructions house.snippets_cuda PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600)

# The longest tests start first, so that the last one does not run alone. ctest learns this, but not in a clean clone.
set_tests_properties(house.headers PROPERTIES LABELS house COST 90 PROCESSORS 2 TIMEOUT 900)
set_tests_properties(house.wheel house.nvcc PROPERTIES COST 60)
