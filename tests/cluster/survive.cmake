# Runs that are asked to stop, killed, or lose their power; the long forms are those of docs/reliability.md.
foreach(test preempt run_folder)
  add_test(NAME ${test} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cluster/${test} $<TARGET_FILE:vqmoe>)
endforeach()
function(survive name what program)
  add_test(NAME ${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cluster/survive ${what} $<TARGET_FILE:${program}>
                                ${CMAKE_CURRENT_SOURCE_DIR}/mpi/ranks_text ${ARGN})
endfunction()
survive(survive_kills kills vqmoe_faults --times 8 --per-run 8)
survive(survive_power power vqmoe --times 2)
add_test(NAME reshard COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cluster/reshard $<TARGET_FILE:vqmoe> 1 3 8)
add_test(NAME reshard_long COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cluster/reshard $<TARGET_FILE:vqmoe>)
set_tests_properties(preempt run_folder reshard survive_kills survive_power PROPERTIES
  TIMEOUT 300 SKIP_RETURN_CODE 77 LABELS "ranks;program" ENVIRONMENT "${MPI_TEST_ENVIRONMENT}")
survive(survive_kills_long kills vqmoe_faults --times 200)
survive(survive_power_long power vqmoe --times 20)
set_tests_properties(reshard_long survive_kills_long survive_power_long PROPERTIES
  TIMEOUT 3600 SKIP_RETURN_CODE 77 LABELS "ranks;program;long" ENVIRONMENT "${MPI_TEST_ENVIRONMENT}")
