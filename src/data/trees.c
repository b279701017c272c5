/* Labelled trees of the Stanford Sentiment Treebank, one a line: (3 (2 (2 The) (2 Rock)) (4 ...)). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/records.h"

/* One line. After a class comes a word and the end of its node, or a node; so a depth is all that must be known. */
struct tree {
    const char *at, *end;
    char *words; /* [used], joined by spaces; as much room as the line has */
    int64_t used, depth;
    const char *wrong; /* what was expected */
};

/* Treebanks write brackets as words, and put a backslash before slash and star. */
static void put_word(struct tree *tree, const char *word, int64_t size) {
    if (tree->used) tree->words[tree->used++] = ' ';
    if (size == 5 && (!memcmp(word, "-LRB-", 5) || !memcmp(word, "-RRB-", 5))) {
        tree->words[tree->used++] = word[1] == 'L' ? '(' : ')';
        return;
    }
    for (int64_t i = 0; i < size; ++i) {
        bool escape = word[i] == '\\' && i + 1 < size && (word[i + 1] == '/' || word[i + 1] == '*');
        if (!escape) tree->words[tree->used++] = word[i];
    }
}

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

static void skip_blanks(struct tree *tree) {
    while (tree->at < tree->end && is_blank(*tree->at)) ++tree->at;
}

/* After a '(': the class, and a word with its ')' or nothing, where a node follows. */
static void read_node(struct tree *tree) {
    if (tree->end - tree->at < 2 || *tree->at < '0' || *tree->at > '4' || !is_blank(tree->at[1])) {
        tree->wrong = "a class from 0 to 4 and a space after '('";
        return;
    }
    tree->at += 2;
    skip_blanks(tree);
    if (tree->at < tree->end && *tree->at == '(') return;
    const char *word = tree->at;
    while (tree->at < tree->end && !is_blank(*tree->at) && *tree->at != '(' && *tree->at != ')') ++tree->at;
    if (tree->at == word) {
        tree->wrong = "a word or '('";
        return;
    }
    put_word(tree, word, tree->at - word);
    skip_blanks(tree);
    if (tree->at < tree->end && *tree->at == ')')
        ++tree->at, --tree->depth;
    else
        tree->wrong = "')' after a word";
}

static void read_tree(struct tree *tree) {
    do {
        skip_blanks(tree);
        char c = tree->at < tree->end ? *tree->at : '\0';
        if (c == '(') {
            ++tree->at, ++tree->depth;
            read_node(tree);
        } else if (c == ')' && tree->depth > 0) {
            ++tree->at, --tree->depth;
        } else {
            tree->wrong = tree->depth ? "'(' or ')'" : "'('";
        }
    } while (!tree->wrong && tree->depth > 0);
    skip_blanks(tree);
    if (!tree->wrong && tree->at < tree->end) tree->wrong = "the end of the line after a tree";
}

static enum status read_line(struct records *records, struct tree *tree, int64_t line) {
    char place[32];
    const char *begin = tree->at;
    snprintf(place, sizeof place, "%" PRId64, line);
    read_tree(tree);
    if (tree->wrong)
        return status_fail(STATUS_DATA, "%s:%s: column %" PRId64 ": expected %s, found %s%s", records->path, place,
                           (int64_t)(tree->at - begin) + 1, tree->wrong,
                           tree->at < tree->end ? "" : "the end of the line",
                           shown_bytes(tree->at, tree->end - tree->at).text);
    return records_add(records, tree->words, tree->used, begin + 1, 1, place);
}

enum status records_trees(struct records *records, const char *bytes, int64_t size) {
    enum status status = STATUS_OK;
    char *words = malloc((size_t)size + 1);
    if (!words) return status_fail(STATUS_INTERNAL, "%s: out of memory", records->path);
    int64_t line = 0;
    for (const char *at = bytes, *stop = bytes + size, *next; at < stop && !status; at = next) {
        const char *feed = memchr(at, '\n', (size_t)(stop - at)), *end = feed ? feed : stop;
        int64_t left = end - at;
        next = feed ? feed + 1 : stop;
        ++line;
        trim(&at, &left);
        struct tree tree = {.at = at, .end = at + left, .words = words};
        if (left > 0) status = read_line(records, &tree, line);
    }
    free(words);
    return status;
}
