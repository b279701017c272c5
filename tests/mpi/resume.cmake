add_test(NAME resume COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpi/resume $<TARGET_FILE:vqmoe> ${RANKS_TOLERANCE})
set_tests_properties(resume PROPERTIES TIMEOUT 300 LABELS "ranks;program")
