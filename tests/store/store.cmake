add_executable(spoil store/spoil.c)
target_link_libraries(spoil store)
