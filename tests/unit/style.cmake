# The sources as .clang-format and .clang-tidy want them.
file(GLOB_RECURSE format_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/*.[ch] ${CMAKE_SOURCE_DIR}/comm/*.[ch]
     ${CMAKE_SOURCE_DIR}/kernels/*.[ch] ${CMAKE_SOURCE_DIR}/kernels/*.cu ${CMAKE_SOURCE_DIR}/tests/*.[ch]
     ${CMAKE_SOURCE_DIR}/tests/*.cpp)
set(tidy_sources ${format_sources})
list(FILTER tidy_sources EXCLUDE REGEX "/tests/|\\.(h|cu)$")
list(JOIN tidy_sources " " tidy_list)
add_test(NAME format COMMAND clang-format --dry-run -Werror ${format_sources})
add_test(NAME tidy COMMAND sh -c "echo ${tidy_list} | xargs -P 2 -n 8 clang-tidy --quiet -p ${CMAKE_BINARY_DIR}")
set_tests_properties(format tidy includes PROPERTIES LABELS source)
