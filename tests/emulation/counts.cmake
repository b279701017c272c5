# Bytes and rows of a whole training step (counts.c).
include(${CMAKE_CURRENT_LIST_DIR}/emulation.cmake)
if(NOT VQMOE_EMULATION OR SANITIZE)
  return()
endif()
vqmoe_emulated_kernels(kernels_emulated_count count)
add_executable(counts ${CMAKE_CURRENT_LIST_DIR}/counts.c)
target_include_directories(counts PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(counts PRIVATE train kernels_emulated_count comm_emulated MPI::MPI_C)
