vqmoe_mpi_test(classify mpi/classify_test.c RANKS 1 2 3 4 LIBS train)
target_include_directories(test_classify PRIVATE ${CMAKE_SOURCE_DIR})
# Step files that 3 ranks write, read and run again by one.
add_test(NAME classify_files COMMAND sh -ec "rm -rf classify_files; mkdir classify_files
  ${MPIEXEC_EXECUTABLE} --oversubscribe ${MPIEXEC_NUMPROC_FLAG} 3 $<TARGET_FILE:test_classify> classify_files
  $<TARGET_FILE:test_parity> classify_files" WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
set_tests_properties(classify_files PROPERTIES PROCESSORS 3 TIMEOUT 60 LABELS ranks ENVIRONMENT "${MPI_TEST_ENVIRONMENT}")
