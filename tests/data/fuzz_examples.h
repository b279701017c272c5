/* One run of a fuzzer over the readers of labelled texts: 0; ends the program where something is wrong. */
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
