vqmoe_test(rng unit/rng_test.c base)
vqmoe_test(arena unit/arena_test.c base)
