# Ranks that die, stop or dawdle at a chosen point (cluster/fault.c).
add_executable(vqmoe_faults ${CMAKE_SOURCE_DIR}/src/main.c cluster/fault.c)
target_link_libraries(vqmoe_faults cli train kernels_cuda comm_nccl MPI::MPI_C)
set_target_properties(vqmoe_faults PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
set(faults ${CMAKE_CURRENT_SOURCE_DIR}/cluster/faults $<TARGET_FILE:vqmoe_faults> $<TARGET_FILE:vqmoe>)
add_test(NAME faults COMMAND ${faults})
add_test(NAME faults_all COMMAND ${faults} all)
set_tests_properties(faults PROPERTIES TIMEOUT 180 LABELS "ranks;program")
set_tests_properties(faults_all PROPERTIES TIMEOUT 600 LABELS "ranks;program;long")
