# One program per family of operations (check.h lists which entry belongs to whom); emulation/ops.cmake runs them on a
# GPU too.
add_library(ops_check STATIC ops/check.c ops/memory_cpu.c)
target_link_libraries(ops_check PUBLIC kernels base PkgConfig::CMOCKA)
foreach(family attention elementwise embedding linear norm quantize route softmax table)
  vqmoe_test(ops_${family} ops/${family}_test.c ops_check)
endforeach()

# Products of rounded factors, by both ways of multiplying, and what must stay exact beside them. The second is that of
# a processor without such instructions.
if(REAL STREQUAL "float")
  foreach(family attention linear quantize)
    add_test(NAME ops_${family}_bf16 COMMAND test_ops_${family})
    add_test(NAME ops_${family}_bf16_floats COMMAND test_ops_${family})
    set_tests_properties(ops_${family}_bf16 PROPERTIES ENVIRONMENT VQMOE_TEST_PRECISION=bf16)
    set_tests_properties(ops_${family}_bf16_floats PROPERTIES
      ENVIRONMENT "VQMOE_TEST_PRECISION=bf16;ONEDNN_MAX_CPU_ISA=AVX512_CORE")
  endforeach()
endif()
