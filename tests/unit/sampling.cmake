vqmoe_test(sampling unit/sampling_test.c train)
