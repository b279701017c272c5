vqmoe_test(prepare data/prepare_test.c data)
