vqmoe_mpi_test(kinds kinds/kinds_test.c RANKS 1 2 3 4 LIBS train)
add_test(NAME kinds_self COMMAND test_kinds self)
set_tests_properties(kinds_self PROPERTIES TIMEOUT 120)
