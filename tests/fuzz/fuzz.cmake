# Fuzzers, compiled by Clang. Each test is a short run from the given seeds. A longer run:
# build/tests/fuzz_hf_config -max_total_time=600 -dict=tests/fuzz/hf_config.dict <output folder> examples/configs

# ropewalk_fuzz(<name> <seeds>): a fuzzer and its test; <seeds> is a folder.
function(ropewalk_fuzz name seeds)
    set(program "${CMAKE_CURRENT_BINARY_DIR}/fuzz_${name}")
    set(found "${program}_found")  # libFuzzer writes into the first folder, which must not be the seeds
    file(MAKE_DIRECTORY "${found}")
    set(source "${CMAKE_CURRENT_SOURCE_DIR}/fuzz/${name}.cpp")
    add_custom_command(OUTPUT "${program}"
        COMMAND ${ROPEWALK_CLANG} -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
            ${house_includes} -MD -MF "${program}.d" -MT "${program}" "${source}" -o "${program}"
        DEPENDS "${source}" DEPFILE "${program}.d" VERBATIM
        COMMENT "Building the fuzzer of ${name} (needs Clang's runtime, Debian's libclang-rt-16-dev)")
    add_custom_target(ropewalk_fuzz_${name} ALL DEPENDS "${program}")
    add_test(NAME fuzz.${name} COMMAND "${program}" -max_total_time=8 -timeout=60 -rss_limit_mb=1024 -max_len=8192
        "-dict=${CMAKE_CURRENT_SOURCE_DIR}/fuzz/${name}.dict" "-artifact_prefix=${program}." "${found}" "${seeds}"
        WORKING_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}")
    set_tests_properties(fuzz.${name} PROPERTIES LABELS fuzz TIMEOUT 600 COST 50)
endfunction()

ropewalk_fuzz(hf_config "${PROJECT_SOURCE_DIR}/examples/configs")
ropewalk_fuzz(safetensors "${CMAKE_CURRENT_SOURCE_DIR}/fuzz/safetensors")
