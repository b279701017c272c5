vqmoe_mpi_test(comm mpi/comm_test.c RANKS 1 2 3 4 LIBS comm base)
add_test(NAME comm_self COMMAND test_comm self)
# Where the device's memory is the host's; the CUDA code's are in emulation/comm.cmake.
vqmoe_mpi_test(plane mpi/plane_test.c RANKS 1 2 3 4 LIBS comm base m ARGS host)
vqmoe_mpi_test(plane_staged mpi/plane_test.c RANKS 1 2 3 4 LIBS comm base m ARGS staged)
add_test(NAME plane_self COMMAND test_plane self)
set_tests_properties(plane_self PROPERTIES ENVIRONMENT ASAN_OPTIONS=detect_leaks=0) # what MPI leaves
add_test(NAME plane_host_lost COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpi/plane_lost $<TARGET_FILE:test_plane> host)
add_test(NAME plane_staged_lost COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpi/plane_lost $<TARGET_FILE:test_plane> staged)
set_tests_properties(plane_host_lost plane_staged_lost PROPERTIES PROCESSORS 3 TIMEOUT 120 LABELS ranks)
vqmoe_mpi_test(overlap mpi/overlap_test.c RANKS 2 LIBS train)
target_sources(test_overlap PRIVATE kinds/toy.c)
target_include_directories(test_overlap PRIVATE ${CMAKE_SOURCE_DIR})
