/* One run of a fuzzer over the readers of labelled texts. */
#ifndef VQMOE_FUZZ_EXAMPLES_H
#define VQMOE_FUZZ_EXAMPLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether the file was good; ends the program where the readers are not. */
bool fuzz_examples(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size); /* libFuzzer's name for it; 0 */

#endif
