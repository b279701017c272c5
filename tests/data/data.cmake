vqmoe_test(labelled_samples data/samples_test.c data)
target_compile_definitions(test_labelled_samples PRIVATE SAMPLES="${CMAKE_SOURCE_DIR}/../shared/data")
set_tests_properties(labelled_samples PROPERTIES SKIP_RETURN_CODE 77)
