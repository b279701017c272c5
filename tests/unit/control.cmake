vqmoe_test(control unit/control_test.c train)
