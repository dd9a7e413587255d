# Programs with one planted bug each: the sanitizers of this build must report it.

if(ROPEWALK_SANITIZE MATCHES "thread")
    set(planted "race:data race")
else()
    set(planted "heap_overflow:heap-buffer-overflow" "integer_overflow:signed integer overflow")
endif()

foreach(entry IN LISTS planted)
    string(REGEX REPLACE ":.*" "" name "${entry}")
    string(REGEX REPLACE "^[^:]*:" "" report "${entry}")
    add_executable(planted_${name} sanitizer/${name}.cpp)
    target_compile_features(planted_${name} PRIVATE cxx_std_20)
    if(TARGET OpenMP::OpenMP_CXX)
        target_link_libraries(planted_${name} PRIVATE OpenMP::OpenMP_CXX)
    endif()
    add_test(NAME sanitizer.finds_${name} COMMAND planted_${name})
    set_tests_properties(sanitizer.finds_${name} PROPERTIES
        PASS_REGULAR_EXPRESSION "${report}" ENVIRONMENT "${test_environment}" LABELS unit)
endforeach()
