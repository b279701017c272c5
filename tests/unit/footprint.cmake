vqmoe_test(footprint unit/footprint_test.c train)
