add_test(NAME compare COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpi/compare $<TARGET_FILE:vqmoe>)
set_tests_properties(compare PROPERTIES TIMEOUT 120 LABELS "ranks;program")
