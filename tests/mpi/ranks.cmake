add_test(NAME ranks COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpi/ranks $<TARGET_FILE:vqmoe> ${RANKS_TOLERANCE})
set_tests_properties(ranks PROPERTIES TIMEOUT 300 LABELS ranks)
