# Writes a checkpoint again with NaN in it.
add_executable(spoil store/spoil.c)
target_link_libraries(spoil store)

vqmoe_test(store store/store_test.c store)
target_sources(test_store PRIVATE store/sample.c)
vqmoe_mpi_test(store_ranks store/ranks_test.c RANKS 8 LIBS store)
target_sources(test_store_ranks PRIVATE store/sample.c)
vqmoe_test(store_hostile store/hostile_test.c store)
target_sources(test_store_hostile PRIVATE store/sample.c)

add_executable(test_store_flip store/flip_test.c kinds/toy.c)
target_link_libraries(test_store_flip train)
add_test(NAME store_flip COMMAND test_store_flip)

# Each in a folder of its own: they write the same file.
add_executable(test_store_fuzz store/fuzz.c)
target_link_libraries(test_store_fuzz store)
foreach(seconds 3 20)
  file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/fuzz_${seconds})
  add_test(NAME store_fuzz_${seconds} COMMAND test_store_fuzz ${seconds}
           WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/fuzz_${seconds})
endforeach()
set_tests_properties(store_fuzz_20 PROPERTIES LABELS long)

add_executable(test_store_full store/full_test.c store/sample.c)
target_link_libraries(test_store_full store MPI::MPI_C)
add_test(NAME store_full COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/store/full $<TARGET_FILE:test_store_full>)
set_tests_properties(store_full PROPERTIES TIMEOUT 120 SKIP_RETURN_CODE 77 LABELS ranks)
