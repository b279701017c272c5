vqmoe_mpi_test(vocabulary mpi/vocabulary_test.c RANKS 1 2 4 LIBS train)
