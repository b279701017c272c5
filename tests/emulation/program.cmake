# The whole program, and whole models, on emulated GPUs.
if(NOT VQMOE_EMULATION)
  return()
endif()

# What programs that train link in place of the real kernels and NCCL.
set(emulated train kernels_emulated_plain comm_emulated)
add_executable(vqmoe_emulated ${CMAKE_SOURCE_DIR}/src/main.c)
target_link_libraries(vqmoe_emulated cli ${emulated} MPI::MPI_C)

vqmoe_mpi_test(model_emulated emulation/model_test.c RANKS 1 2 4 LIBS ${emulated} TIMEOUT 300)
target_sources(test_model_emulated PRIVATE kinds/toy.c)
target_include_directories(test_model_emulated PRIVATE ${CMAKE_SOURCE_DIR})
add_test(NAME model_emulated_bf16 COMMAND test_model_emulated bf16)
# The reference that knows nothing of this code (reference/README.md).
add_executable(test_parity_emulated reference/parity_test.c)
target_compile_definitions(test_parity_emulated PRIVATE ON_CUDA)
target_link_libraries(test_parity_emulated ${emulated})
add_test(NAME parity_emulated COMMAND test_parity_emulated ${CMAKE_CURRENT_SOURCE_DIR}/reference/fixtures)
add_test(NAME train_emulated
         COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/emulation/train $<TARGET_FILE:vqmoe> $<TARGET_FILE:vqmoe_emulated>)
set_tests_properties(model_emulated_1 model_emulated_2 model_emulated_4 PROPERTIES LABELS "ranks;cuda-emulation")
set_tests_properties(model_emulated_bf16 parity_emulated PROPERTIES
  LABELS cuda-emulation TIMEOUT 120 ENVIRONMENT ASAN_OPTIONS=detect_leaks=0) # what MPI leaves
set_tests_properties(train_emulated PROPERTIES LABELS "ranks;program;cuda-emulation" TIMEOUT 300)

if(NOT VQMOE_CUDA)
  return()
endif()
vqmoe_mpi_test(gpu_model emulation/model_test.c RANKS 1 2 LIBS train kernels_cuda comm_nccl TIMEOUT 600)
target_sources(test_gpu_model PRIVATE kinds/toy.c)
target_include_directories(test_gpu_model PRIVATE ${CMAKE_SOURCE_DIR})
add_test(NAME gpu_model_bf16 COMMAND test_gpu_model bf16)
add_executable(test_gpu_parity reference/parity_test.c)
target_compile_definitions(test_gpu_parity PRIVATE ON_CUDA)
target_link_libraries(test_gpu_parity train kernels_cuda comm_nccl)
add_test(NAME gpu_parity COMMAND test_gpu_parity ${CMAKE_CURRENT_SOURCE_DIR}/reference/fixtures)
add_test(NAME gpu_bench COMMAND vqmoe bench ${CMAKE_SOURCE_DIR}/configs/lm/enwik8-base.yaml --set device=cuda
                                --set precision=bf16 --steps 5)
set_tests_properties(gpu_bench PROPERTIES SKIP_REGULAR_EXPRESSION "has no GPU")
set_tests_properties(gpu_model_1 gpu_model_2 gpu_model_bf16 gpu_parity gpu_bench PROPERTIES
  LABELS gpu TIMEOUT 600 SKIP_RETURN_CODE 77 RUN_SERIAL true)
