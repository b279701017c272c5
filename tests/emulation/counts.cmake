# Bytes and rows of a whole training step (counts.c), on one rank and on several; the same with faults planted.
include(${CMAKE_CURRENT_LIST_DIR}/emulation.cmake)
find_program(PYTHON python3)
if(NOT VQMOE_EMULATION OR SANITIZE OR NOT PYTHON)
  return()
endif()
vqmoe_emulated_kernels(kernels_emulated_count count)

function(counts_program name)
  add_executable(${name} ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/counts.c ${ARGN})
  target_include_directories(${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE train kernels_emulated_count comm_emulated MPI::MPI_C)
endfunction()
counts_program(counts)

# planted(FILE FROM TO): a copy of a source with a fault in it.
function(planted file from to)
  get_filename_component(name ${file} NAME)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${file})
  file(READ ${CMAKE_SOURCE_DIR}/${file} text)
  string(REPLACE "${from}" "${to}" with_fault "${text}")
  if(with_fault STREQUAL text)
    message(FATAL_ERROR "${file}: nowhere to plant a fault: ${from}")
  endif()
  file(CONFIGURE OUTPUT planted/${name} CONTENT "${with_fault}" @ONLY)
endfunction()
# A kernel reads another row too, rows are scattered twice, and sent twice. Linked before the libraries' files.
planted(kernels/cuda/norm.cu "const float *x = in + n * D;\n        float sum = 0, squares = 0;"
        "const float *x = in + n * D;\n        float sum = 0, squares = 0;\n        for (int64_t i = lane_index(); i < D; i += WARP) sum += 1e-30F * in[(n + N / 2) % N * D + i];")
planted(kernels/cuda/route.cu "    if (!N) return;\n    if (is_wide(D, out, in))\n        LAUNCH((scatter_each"
        "    if (!N) return;\n    LAUNCH((scatter_each<1>), warp_blocks(N), ROW_THREADS, out, in, place, K, N, D);\n    if (is_wide(D, out, in))\n        LAUNCH((scatter_each")
planted(src/moe/plan.c "    return device->mark(QUEUE_DISPATCH)"
        "    comm_exchange_rows(plan->group, QUEUE_DISPATCH, out, in, row_bytes, back ? &plan->home : &plan->away, back ? &plan->away : &plan->home);\n    return device->mark(QUEUE_DISPATCH)")
set(planted_kernels ${CMAKE_CURRENT_BINARY_DIR}/planted/norm.cu ${CMAKE_CURRENT_BINARY_DIR}/planted/route.cu)
set_source_files_properties(${planted_kernels} PROPERTIES LANGUAGE CXX)
add_library(counts_planted_kernels OBJECT ${planted_kernels})
target_link_libraries(counts_planted_kernels PRIVATE kernels base)
vqmoe_emulated(counts_planted_kernels count)
counts_program(counts_planted planted/plan.c $<TARGET_OBJECTS:counts_planted_kernels>)

# The whole width of the base setting, where kernels take it; less of all else.
set(shape ${CMAKE_SOURCE_DIR}/configs/lm/enwik8-base.yaml precision=bf16 model.layers=1 model.d_inner=128 moe.experts=4
          model.heads=2 model.segment=128 model.memory=128 train.batch=6 parallel.small_message=0)
function(counts_test name program ranks)
  list(JOIN shape " " arguments)
  add_test(NAME ${name} COMMAND sh -c
    "${MPIEXEC_EXECUTABLE} --oversubscribe ${MPIEXEC_NUMPROC_FLAG} ${ranks} $<TARGET_FILE:${program}> ${name}.csv ${arguments} ${ARGN}
     code=$?
     ${PYTHON} ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/counts_report check ${name}.csv && exit $code")
  set_tests_properties(${name} PROPERTIES WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR} PROCESSORS ${ranks} TIMEOUT 120
    LABELS cuda-emulation ENVIRONMENT "${MPI_TEST_ENVIRONMENT};OPENBLAS_NUM_THREADS=1")
endfunction()
counts_test(counts_1 counts 1)
counts_test(counts_2 counts 2)
counts_test(counts_3 counts 3)
counts_test(counts_planted counts_planted 2)
set_tests_properties(counts_planted PROPERTIES PASS_REGULAR_EXPRESSION
  "bytes of rows on the wire, .*layer_norm_rows<.>: moves .* times its least.*passes over the rows to the experts, 4 expected")
