vqmoe_test(diagnostics unit/diagnostics_test.c train)
