vqmoe_mpi_test(vocabulary mpi/vocabulary_test.c RANKS 1 2 4 LIBS train)
add_test(NAME vocabulary COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpi/vocabulary $<TARGET_FILE:vqmoe> ${RANKS_TOLERANCE})
set_tests_properties(vocabulary PROPERTIES TIMEOUT 300 LABELS "ranks;program")
