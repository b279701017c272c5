add_test(NAME launch_compare COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/compare/compare $<TARGET_FILE:vqmoe>)
add_test(NAME overlays COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/compare/overlays $<TARGET_FILE:vqmoe>)
set_tests_properties(launch_compare overlays PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77 LABELS program)
