vqmoe_mpi_test(kinds kinds/kinds_test.c RANKS 1 2 3 4 LIBS train TIMEOUT 300)
target_sources(test_kinds PRIVATE kinds/toy.c)
add_test(NAME kinds_self COMMAND test_kinds self)
set_tests_properties(kinds_self PROPERTIES TIMEOUT 300)
if(NOT CMAKE_BUILD_TYPE STREQUAL "Release") # with assertions
  add_test(NAME kinds_astray COMMAND ${MPIEXEC_EXECUTABLE} --oversubscribe ${MPIEXEC_NUMPROC_FLAG} 2
                                     $<TARGET_FILE:test_kinds> astray)
  set_tests_properties(kinds_astray PROPERTIES
    PASS_REGULAR_EXPRESSION "step 2: the ranks' replicated parameters or state differ" FAIL_REGULAR_EXPRESSION "step 2 is over"
    TIMEOUT 60 ENVIRONMENT "${MPI_TEST_ENVIRONMENT};ASAN_OPTIONS=detect_leaks=0")
endif()
add_test(NAME init_from COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/kinds/init_from $<TARGET_FILE:vqmoe>)
set_tests_properties(init_from PROPERTIES TIMEOUT 120 LABELS "ranks;program")
# Training in float alone: a statistical claim, not a proof of numbers.
add_executable(test_collapse kinds/collapse_test.c)
target_link_libraries(test_collapse train)
add_test(NAME collapse COMMAND test_collapse)
set_tests_properties(collapse PROPERTIES TIMEOUT 300 LABELS program)
