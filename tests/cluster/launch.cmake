# Launching on a private Slurm, on hosts made of namespaces, and alone. Without root and the packages the first two are skipped.
foreach(test doctor mpirun slurm hosts)
  add_test(NAME ${test} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cluster/${test}_test $<TARGET_FILE:vqmoe>)
endforeach()
add_test(NAME slurm_long COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cluster/slurm_test $<TARGET_FILE:vqmoe> long)
set_tests_properties(doctor mpirun slurm hosts PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77 LABELS "ranks;program")
set_tests_properties(slurm_long PROPERTIES TIMEOUT 1800 SKIP_RETURN_CODE 77 LABELS "ranks;program;long")
