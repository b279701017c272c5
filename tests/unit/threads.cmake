add_test(NAME threads COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/threads $<TARGET_FILE:vqmoe>)
set_tests_properties(threads PROPERTIES TIMEOUT 120 LABELS "ranks;program")
