vqmoe_test(labelled_samples data/samples_test.c data)
target_compile_definitions(test_labelled_samples PRIVATE SAMPLES="${CMAKE_SOURCE_DIR}/../shared/data")
set_tests_properties(labelled_samples PROPERTIES SKIP_RETURN_CODE 77)

# Readers against files changed at random: tests/data/fuzz searches on, with libFuzzer.
file(GLOB corpus CONFIGURE_DEPENDS data/corpus/*)
add_executable(test_fuzz_examples data/fuzz_main.c data/fuzz_examples.c)
target_link_libraries(test_fuzz_examples data)
add_test(NAME fuzz_examples COMMAND test_fuzz_examples 2000 ${corpus})
vqmoe_test(examples data/examples_test.c data)
vqmoe_test(examples_hostile data/hostile_test.c data)
vqmoe_test(batches data/batches_test.c data)
vqmoe_test(scores data/scores_test.c train)
