# The sources as .clang-format and .clang-tidy want them. tidy takes a minute for each core.
add_test(NAME format COMMAND sh -c "git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror"
         WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
add_test(NAME tidy COMMAND sh -c "git ls-files 'src/*.c' 'comm/*.c' 'kernels/*.c' | xargs -P 2 -n 8 clang-tidy --quiet -p ${CMAKE_BINARY_DIR}"
         WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(format tidy includes PROPERTIES LABELS source)
