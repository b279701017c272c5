# `vqmoe bench` on an emulated GPU: which operations there are is right, no time means anything.
include(${CMAKE_CURRENT_LIST_DIR}/emulation.cmake)
if(NOT VQMOE_EMULATION)
  return()
endif()
add_test(NAME bench_emulated
         COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/op_times_bench $<TARGET_FILE:vqmoe> $<TARGET_FILE:vqmoe_emulated>)
set_tests_properties(bench_emulated PROPERTIES LABELS "ranks;program;cuda-emulation" TIMEOUT 300)
