# Writes a checkpoint again with NaN in it.
add_executable(spoil store/spoil.c)
target_link_libraries(spoil store)

vqmoe_test(store store/store_test.c store)
target_sources(test_store PRIVATE store/sample.c)
vqmoe_mpi_test(store_ranks store/ranks_test.c RANKS 8 LIBS store)
target_sources(test_store_ranks PRIVATE store/sample.c)
vqmoe_test(store_hostile store/hostile_test.c store)
