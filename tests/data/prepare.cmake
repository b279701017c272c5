vqmoe_test(prepare data/prepare_test.c data)

# Bounded; as a libFuzzer target: docs/data.md.
add_executable(test_fuzz_manifest data/fuzz_manifest.c)
target_link_libraries(test_fuzz_manifest data)
foreach(seconds 2 30)
  add_test(NAME fuzz_manifest_${seconds} COMMAND test_fuzz_manifest ${seconds} ${CMAKE_CURRENT_SOURCE_DIR}/data/manifests)
endforeach()
set_tests_properties(fuzz_manifest_30 PROPERTIES LABELS long)
