add_test(NAME noise_eval COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpi/noise $<TARGET_FILE:vqmoe>)
set_tests_properties(noise_eval PROPERTIES TIMEOUT 120 LABELS "ranks;program")
