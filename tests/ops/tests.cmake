# One program per family of operations (check.h lists which entry belongs to whom).
add_library(ops_check STATIC ops/check.c)
target_link_libraries(ops_check PUBLIC kernels base PkgConfig::CMOCKA)
foreach(family attention elementwise embedding linear norm quantize route softmax table)
  vqmoe_test(ops_${family} ops/${family}_test.c ops_check)
endforeach()
