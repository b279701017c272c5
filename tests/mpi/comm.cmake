vqmoe_mpi_test(comm mpi/comm_test.c RANKS 1 2 3 4 LIBS comm base)
add_test(NAME comm_self COMMAND test_comm self)
