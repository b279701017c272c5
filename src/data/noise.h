/* Character noise, for `eval --noise`: how much a model loses on text with misprints. */
#ifndef VQMOE_NOISE_H
#define VQMOE_NOISE_H

#include "data/text.h"

/* Puts a noised copy, which the text owns, in the place of one split. From first to last each of the n places is hit
 * with probability `rate` (0 <= rate < 1); one that is hit, with equal odds, swaps its symbol with the next place's
 * (which may be hit in turn; the last place has none and stays), loses it, or gets a random one of the alphabet before
 * it. A draw depends on seed and place alone (docs/step-file.md), so that all ranks have the same text. Nothing is hit
 * at rate 0. Dropped line feeds are no symbols, and are not in the copy. STATUS_INTERNAL: memory cannot be had;
 * STATUS_CONFIG: a text of words. */
enum status noise_split(struct text *text, enum split split, double rate, int64_t seed);

#endif
