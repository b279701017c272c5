add_test(NAME finetune COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/finetune/finetune $<TARGET_FILE:vqmoe> ${RANKS_TOLERANCE})
set_tests_properties(finetune PROPERTIES TIMEOUT 300 LABELS "ranks;program")
