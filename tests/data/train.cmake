add_test(NAME train_words COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/data/train_words $<TARGET_FILE:vqmoe> ${RANKS_TOLERANCE})
set_tests_properties(train_words PROPERTIES TIMEOUT 300 LABELS "ranks;program")
