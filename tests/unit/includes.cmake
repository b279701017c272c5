add_test(NAME includes COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/includes ${CMAKE_SOURCE_DIR})
