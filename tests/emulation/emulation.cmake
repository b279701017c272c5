include_guard(GLOBAL) # lists of this folder that come first by name include it
# The CUDA sources on an emulated GPU (emulation/README.md): needs the toolkit's headers, and no other part of it.
set(VQMOE_EMULATION false)
if(CUDAToolkit_FOUND AND NCCL_INCLUDE AND CMAKE_CXX_COMPILER AND NOT CUDA STREQUAL "off" AND REAL STREQUAL "float"
   AND NOT SANITIZE MATCHES "thread")
  set(VQMOE_EMULATION true)
endif()
if(NOT VQMOE_EMULATION)
  # Where nvcc is, skipping is a mistake of the build; the double build has no CUDA.
  find_program(NVCC nvcc HINTS ${CUDAToolkit_BIN_DIR} /usr/local/cuda/bin)
  set(code 77)
  if(NVCC AND REAL STREQUAL "float" AND NOT CUDA STREQUAL "off" AND NOT SANITIZE)
    set(code 1)
  endif()
  add_test(NAME emulation COMMAND sh -c "echo no CUDA toolkit: emulated tests skipped; exit ${code}")
  set_tests_properties(emulation PROPERTIES SKIP_RETURN_CODE 77 LABELS cuda-emulation)
  return()
endif()

set(emulation_dir ${CMAKE_CURRENT_LIST_DIR})
list(TRANSFORM CUDAToolkit_INCLUDE_DIRS PREPEND -isystem OUTPUT_VARIABLE emulation_includes)
add_library(emulation STATIC)
foreach(part fiber scheduler shared memory streams runtime blas nccl nccl_work)
  target_sources(emulation PRIVATE ${emulation_dir}/${part}.cpp)
endforeach()
target_include_directories(emulation PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
# By hand, as CMake takes the toolkit's folder for one that every compiler searches.
target_compile_options(emulation PUBLIC ${emulation_includes} -isystem${NCCL_INCLUDE})
target_include_directories(emulation PRIVATE ${BLAS_INCLUDE})
target_link_libraries(emulation PUBLIC MPI::MPI_C stdc++ PRIVATE ${BLAS_LIBRARY})

# Linked with kernels that were compiled with -fsanitize=thread, but not with its library.
add_library(emulation_count STATIC ${emulation_dir}/count.cpp)
target_link_libraries(emulation_count PUBLIC emulation)
target_link_options(emulation_count INTERFACE LINKER:--wrap=memcpy,--wrap=memmove,--wrap=memset)

# What a flavour asks of a target that has kernels: plain, address, thread, count.
function(vqmoe_emulated target flavour)
  # Of warnings nvcc is the judge, where it compiles the same sources.
  target_compile_options(${target} PRIVATE -Wno-unknown-pragmas -Wno-extra -Wno-parentheses)
  if(flavour STREQUAL "plain")
    target_link_libraries(${target} PUBLIC emulation)
  elseif(flavour STREQUAL "count")
    target_compile_options(${target} PRIVATE -fsanitize=thread -Wno-tsan)
    target_link_libraries(${target} PUBLIC emulation_count)
  elseif(flavour MATCHES "^(address|thread)$")
    target_compile_options(${target} PRIVATE -O1 -fsanitize=${flavour} -fno-omit-frame-pointer -Wno-tsan)
    target_link_options(${target} PUBLIC -fsanitize=${flavour})
    target_link_libraries(${target} PUBLIC emulation)
  else()
    message(FATAL_ERROR "expected plain, address, thread or count, found ${flavour}")
  endif()
endfunction()

# vqmoe_emulated_kernels(NAME FLAVOUR): the kernels as a library for programs that run them on the emulated GPU.
file(GLOB emulated_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/*.cu)
set_source_files_properties(${emulated_sources} PROPERTIES LANGUAGE CXX)
function(vqmoe_emulated_kernels name flavour)
  add_library(${name} STATIC ${emulated_sources})
  target_link_libraries(${name} PUBLIC kernels base)
  vqmoe_emulated(${name} ${flavour})
endfunction()

set(emulated_flavours plain address)
if(SANITIZE)
  set(emulated_flavours plain) # and with those sanitizers
endif()
foreach(flavour ${emulated_flavours})
  vqmoe_emulated_kernels(kernels_emulated_${flavour} ${flavour})
endforeach()

# The emulation finds what is planted.
set(emulator_flavours plain address thread)
if(SANITIZE)
  set(emulator_flavours address) # with those sanitizers too
endif()
foreach(flavour ${emulator_flavours})
  add_executable(test_emulator_${flavour} ${emulation_dir}/emulator_test.cpp ${emulation_dir}/planted.cpp)
  vqmoe_emulated(test_emulator_${flavour} ${flavour})
  add_test(NAME emulator_${flavour} COMMAND test_emulator_${flavour} ${flavour})
  set_tests_properties(emulator_${flavour} PROPERTIES TIMEOUT 120 SKIP_RETURN_CODE 77)
endforeach()
vqmoe_mpi_test(emulator_ranks ${emulation_dir}/ranks_test.cpp RANKS 1 2 3 LIBS emulation)
add_test(NAME emulator_ranks_mismatch COMMAND ${MPIEXEC_EXECUTABLE} --oversubscribe ${MPIEXEC_NUMPROC_FLAG} 2
                                              $<TARGET_FILE:test_emulator_ranks> mismatch)
set_tests_properties(emulator_ranks_mismatch PROPERTIES
  PASS_REGULAR_EXPRESSION "rank 1 receives 8 bytes from rank 0, which sends 12" TIMEOUT 60
  ENVIRONMENT "${MPI_TEST_ENVIRONMENT}")
if(NOT SANITIZE)
  add_executable(test_emulator_count ${emulation_dir}/count_test.cpp)
  vqmoe_emulated(test_emulator_count count)
  add_test(NAME emulator_count COMMAND test_emulator_count)
endif()
