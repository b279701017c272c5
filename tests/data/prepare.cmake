vqmoe_test(prepare data/prepare_test.c data)
foreach(test formats bad_data interrupted prepare_full samples)
  add_test(NAME data_${test} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/data/${test} $<TARGET_FILE:vqmoe>)
  set_tests_properties(data_${test} PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77 LABELS "ranks;program")
endforeach()

# Bounded; as a target of libFuzzer: docs/data.md.
add_executable(test_fuzz_manifest data/fuzz_manifest.c)
target_link_libraries(test_fuzz_manifest data)
foreach(seconds 2 30)
  add_test(NAME fuzz_manifest_${seconds} COMMAND test_fuzz_manifest ${seconds} ${CMAKE_CURRENT_SOURCE_DIR}/data/manifests)
endforeach()
set_tests_properties(fuzz_manifest_30 PROPERTIES LABELS long)
