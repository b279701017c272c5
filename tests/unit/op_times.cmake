vqmoe_test(op_times unit/op_times_test.c train)
target_link_options(test_op_times PRIVATE LINKER:--wrap=cpu_gemm,--wrap=cpu_gemm_exact)
add_test(NAME bench COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/op_times_bench $<TARGET_FILE:vqmoe>)
set_tests_properties(bench PROPERTIES TIMEOUT 120 LABELS "ranks;program")
