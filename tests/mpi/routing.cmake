add_test(NAME routing COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpi/routing $<TARGET_FILE:vqmoe>)
set_tests_properties(routing PROPERTIES TIMEOUT 300 LABELS "ranks;program")
