foreach(test bad_input disk_full lost_rank)
  add_test(NAME ${test} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/faults/${test} $<TARGET_FILE:vqmoe>)
endforeach()
add_test(NAME not_finite COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/faults/not_finite $<TARGET_FILE:vqmoe> $<TARGET_FILE:spoil>)
set_tests_properties(bad_input not_finite disk_full lost_rank PROPERTIES
  TIMEOUT 300 SKIP_RETURN_CODE 77 LABELS "ranks;program")
