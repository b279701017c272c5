# What moves between the memory of emulated GPUs (mpi/plane_test.c).
include(${CMAKE_CURRENT_LIST_DIR}/emulation.cmake)
if(NOT VQMOE_EMULATION)
  return()
endif()
add_library(comm_emulated STATIC ${CMAKE_SOURCE_DIR}/comm/comm_nccl.c)
target_link_libraries(comm_emulated PUBLIC comm emulation)

foreach(plane nccl staged)
  set(name plane_emulated_${plane})
  vqmoe_mpi_test(${name} mpi/plane_test.c RANKS 1 2 3 4 LIBS comm_emulated kernels_emulated_plain comm base m ARGS ${plane})
  target_compile_definitions(test_${name} PRIVATE ON_CUDA)
  add_test(NAME ${name}_lost
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpi/plane_lost $<TARGET_FILE:test_${name}> ${plane})
  set_tests_properties(${name}_lost PROPERTIES PROCESSORS 3 TIMEOUT 120 LABELS ranks)
endforeach()
