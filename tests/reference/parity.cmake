add_executable(test_parity reference/parity_test.c)
target_link_libraries(test_parity train)
add_test(NAME parity COMMAND test_parity ${CMAKE_CURRENT_SOURCE_DIR}/reference/fixtures)
