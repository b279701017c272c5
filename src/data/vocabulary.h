/* Symbols and what they stand for: single bytes, or words. */
#ifndef VQMOE_VOCABULARY_H
#define VQMOE_VOCABULARY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* Of bytes: symbols in order of byte value. Of words: specials first, then by falling count, of equal counts the word
 * that occurred first. Zeroed is empty. */
struct vocabulary {
    int64_t size; /* V */
    bool bytes;   /* symbols are bytes; else words */

    int16_t symbol_of[256]; /* bytes: byte -> symbol, -1 if absent */
    uint8_t byte_of[256];   /* bytes: symbol -> byte */

    char *words;     /* words: side by side, owned */
    int64_t *offset; /* [V + 1] of each word in them, owned */
    int32_t *slots;  /* [n_slots] hash table of symbols, -1 empty, owned */
    int64_t n_slots; /* a power of two */
    int32_t unknown; /* words: the symbol of `<unk>` or `<UNK>`; -1: there is none */
    int32_t end;     /* words: the symbol of `<eos>` or `<S>` that ends a line; -1: there is none */
};

/* The words of `text` [length], each ended by a line feed, in order; takes a copy. STATUS_DATA, naming `source` and the
 * line: twice the same word, an empty one, none at all, more than 2^31 - 2. */
enum status vocabulary_from_words(struct vocabulary *vocabulary, const char *text, int64_t length, const char *source);
void vocabulary_from_bytes(struct vocabulary *vocabulary, const bool seen[256]);
void vocabulary_free(struct vocabulary *vocabulary);

/* The symbol of a word (of bytes: of its one byte), -1 where there is none. */
int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *word, int64_t length);
/* Not ended by 0; *length bytes, the vocabulary's. */
const char *vocabulary_symbol(const struct vocabulary *vocabulary, int64_t symbol, int64_t *length);
bool vocabulary_same(const struct vocabulary *a, const struct vocabulary *b);

#endif
