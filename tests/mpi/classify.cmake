vqmoe_mpi_test(classify mpi/classify_test.c RANKS 1 2 3 4 LIBS train)
target_include_directories(test_classify PRIVATE ${CMAKE_SOURCE_DIR})
