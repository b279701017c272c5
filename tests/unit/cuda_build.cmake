add_test(NAME cuda_build COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/cuda_build ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
set_tests_properties(cuda_build PROPERTIES TIMEOUT 600 SKIP_RETURN_CODE 77 LABELS source)
