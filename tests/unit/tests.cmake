vqmoe_test(config unit/config_test.c config)
vqmoe_test(text unit/text_test.c data)
vqmoe_test(noise unit/noise_test.c data)
