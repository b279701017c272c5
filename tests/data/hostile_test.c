/* Every kind of bad labelled file: the status, and a message that names file, line and what was found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/examples.h"
#include "labelled.h"

#define TEXT(text) text, sizeof(text) - 1

static void refused(const struct config *config, const char *expected) {
    struct labelled set;
    if (labelled_open(&set, config) != STATUS_DATA) fail_msg("expected '%s', found '%s'", expected, status_message());
    assert_string_equal(status_message(), expected);
    status_clear();
}

struct bad {
    enum data_kind kind;
    const char *text;
    size_t size;
    const char *said; /* after "bad" */
};

static const struct bad bad_files[] = {
    {DATA_CSV, TEXT("a,0\nb\0,1\n"), ":2: expected UTF-8 text, found a NUL byte"},
    {DATA_CSV, TEXT("a,0\n\"b\n\xE9\",1\n"), ":3: expected UTF-8 text, found byte 0xE9 out of place"},
    {DATA_TSV, TEXT("a\t0\n\xC0\x80\t1\n"), ":2: expected UTF-8 text, found byte 0xC0 out of place"},
    {DATA_TSV, TEXT("a\t0\n\xED\xA0\x80\t1\n"), ":2: expected UTF-8 text, found byte 0xED out of place"},
    {DATA_TSV, TEXT("a\t0\n\xF4\x90\x80\x80\t1\n"), ":2: expected UTF-8 text, found byte 0xF4 out of place"},
    {DATA_TREES, TEXT("(0 a)\n(1 \xE2\x82"), ":2: expected UTF-8 text, found byte 0xE2 out of place"},
    {DATA_CSV, TEXT("a,0\n\"b\nc\",1\nd\n"), ":4: expected 2 columns as in the first line, found 1"},
    {DATA_CSV, TEXT("a,0\nb,1,2\n"), ":2: expected 2 columns as in the first line, found 3"},
    {DATA_CSV, TEXT("a\nb\n"), ":1: expected at least 2 columns, found 1"},
    {DATA_CSV, TEXT("a,0\nb,1\n\"c\n,0\n"), ":3: expected a closing quote, found the end of the file"},
    {DATA_CSV, TEXT("a,0\nb\"c,1\n"),
     ":2: expected a quote at the ends of a field only, or doubled, found one elsewhere"},
    {DATA_CSV, TEXT("a,0\n\"b\"c,1\n"),
     ":2: expected a quote at the ends of a field only, or doubled, found one elsewhere"},
    {DATA_CSV, TEXT("a,0\rb,1\r"), ":1: expected LF or CR LF at the end of a line, found CR alone"},
    {DATA_CSV, TEXT("a,0\nb,1\rc,1\n"), ":2: expected LF or CR LF at the end of a line, found CR alone"},
    {DATA_CSV, TEXT("a,0\n\" \",1\n"), ":2: expected a text, found an empty one"},
    {DATA_CSV, TEXT("a,0\nb,\n"), ":2: expected a label, found none"},
    {DATA_CSV, TEXT(""), ": expected text, found an empty file"},
    {DATA_CSV, TEXT("\n\n"), ": expected labelled texts, found none"},
    {DATA_TSV, TEXT("\n\r\n"), ": expected labelled texts, found none"},
    {DATA_TSV, TEXT("a\t0\nb\rc\t1\n"), ":2: expected LF or CR LF at the end of a line, found CR alone"},
    {DATA_TSV, TEXT("a\t0\nb\t\t1\n"), ":2: expected 2 columns as in the first line, found 3"},
    {DATA_TSV, TEXT("a\t0\n \t1\n"), ":2: expected a text, found an empty one"},
    {DATA_TSV, TEXT("a\t0\nb\t0\n"), ": expected at least two classes, found only '0'"},
    {DATA_TREES, TEXT("(0 a)\n(1 (2 b) (1 c)\n"), ":2: column 15: expected '(' or ')', found the end of the line"},
    {DATA_TREES, TEXT("(0 a)\n(1 b))\n"), ":2: column 6: expected the end of the line after a tree, found )"},
    {DATA_TREES, TEXT("(0 a)\n(5 b)\n"),
     ":2: column 2: expected a class from 0 to 4 and a space after '(', found 5 b)"},
    {DATA_TREES, TEXT("(0 a)\n(11 b)\n"),
     ":2: column 2: expected a class from 0 to 4 and a space after '(', found 11 b)"},
    {DATA_TREES, TEXT("(0 a)\n(1 b c)\n"), ":2: column 6: expected ')' after a word, found c)"},
    {DATA_TREES, TEXT("(0 a)\n(1 )\n"), ":2: column 4: expected a word or '(', found )"},
    {DATA_TREES, TEXT("(0 a)\nb\n"), ":2: column 1: expected '(', found b"},
    {DATA_TREES, TEXT("(0 a)\n)\n"), ":2: column 1: expected '(', found )"},
    {DATA_TREES, TEXT("(0 a)\n(1 (2 b) c)\n"), ":2: column 10: expected '(' or ')', found c)"},
    {DATA_TREES, TEXT("(0 (1 a))\n(0 b)\n"), ": expected at least two classes, found only '0'"},
    {DATA_IMDB, TEXT("no archive\n"), ":beginning: expected a whole tar.gz, found: Unrecognized archive format"},
};

static void test_files(void **state) {
    (void)state;
    struct config config = {0};
    for (size_t i = 0; i < sizeof bad_files / sizeof *bad_files; ++i) {
        const struct bad *bad = &bad_files[i];
        char expected[256];
        config = labelled_config(bad->kind, "bad", "bad", "");
        put_file("bad", bad->text, bad->size);
        snprintf(expected, sizeof expected, "bad%s", bad->said);
        refused(&config, expected);
    }
}

static void test_columns(void **state) {
    (void)state;
    static const struct {
        const char *text, *label, *said;
    } cases[] = {
        {"4", "", "bad:1: data.text: expected a column from 1 to 3, found 4"},
        {"0", "", "bad:1: data.text: expected a column from 1 to 3, found 0"},
        {"", "why", "bad:1: data.label: expected a column named 'why', found the line 'a b,a,0'"},
        {"2", "what", "bad:1: data.label: expected a column named 'what', found the line 'a b,a,0'"},
        {"3", "", "bad:1: expected two columns, found column 3 as data.text and as data.label"},
    };
    put_file("bad", "a b,a,0\nb,b,1\n", 14);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        struct config config = labelled_config(DATA_CSV, "bad", "bad", "");
        strcpy(config.data.text, cases[i].text);
        strcpy(config.data.label, cases[i].label);
        refused(&config, cases[i].said);
    }
}

static void test_splits(void **state) {
    (void)state;
    put_file("bad_train", "a\t0\nb\t1\n", 8);
    put_file("bad_valid", "a\t0\nb\t1\nc\t2\n", 12);
    struct config config = labelled_config(DATA_TSV, "bad_train", "bad_valid", "");
    refused(&config, "bad_valid:3: expected a label of the training file, found '2'");
    put_file("bad_valid", "t\tlabel\n", 8);
    refused(&config, "bad_valid:1: expected a label of the training file, found 'label'");
    put_file("bad_train", "t\tlabel\na\t0\nb\t1\n", 16);
    refused(&config, "bad_valid: expected texts after the header, found none");
    strcpy(config.data.valid, "");
    refused(&config, "bad_train: expected enough texts to take a tenth of them for validation, found 2");
    strcpy(config.data.valid, "nowhere");
    refused(&config, "nowhere: expected a readable file, found: No such file or directory");
    strcpy(config.data.valid, ".");
    refused(&config, ".: expected a file, found a folder");
    strcpy(config.data.train, "");
    refused(&config, "data.train: expected the path of labelled texts, found none");
}

/* ---- Archives ---- */

/* Members of the given names, each with as many bytes of text as asked for. */
static void write_archive(const char *const *names, int n, size_t size) {
    char text[512] = {0};
    memset(text, 'x', size);
    FILE *file = fopen("bad.tar", "wb");
    for (int i = 0; i < n; ++i) put_member(file, names[i], text);
    char end[1024] = {0};
    fwrite(end, 1, sizeof end, file);
    assert_int_equal(fclose(file), 0);
}

static void test_archives(void **state) {
    (void)state;
    struct config config = labelled_config(DATA_IMDB, "bad.tar", "bad.tar", "");
    const char *names[4] = {"train/pos/0_7.txt", "train/neg/0_2.txt", "test/pos/1_8.txt", "train/neg/0_3.txt"};
    write_archive(names, 1, 5);
    refused(&config, "bad.tar: expected reviews in train/neg, found none");
    write_archive(names, 3, 5);
    refused(&config, "bad.tar: expected reviews in test/neg, found none");
    write_archive(names, 4, 5);
    refused(&config, "bad.tar: expected one review of each number, found train/neg/0_2.txt and train/neg/0_3.txt");
    write_archive(names, 2, 0);
    refused(&config, "bad.tar:train/pos/0_7.txt: expected a text, found an empty one");
    strcpy(config.data.test, "bad.tar");
    write_archive(names, 2, 5);
    refused(&config, "data.test: bad.tar: expected reviews in test/neg and test/pos, found none");
    names[1] = "train/neg/2.txt";
    write_archive(names, 2, 5);
    refused(&config, "bad.tar:train/neg/2.txt: expected a name like 12_9.txt, number and rating");
    names[1] = "train/neg/0_2.txt";
    write_archive(names, 2, 300);
    assert_int_equal(truncate("bad.tar", 512 + 512 + 512 + 3), 0);
    refused(&config, "bad.tar:train/neg/0_2.txt: expected a whole tar.gz, found: Truncated tar archive");
}

static void test_truncated_gzip(void **state) {
    (void)state;
    static const char *const names[2] = {"train/pos/0_7.txt", "train/neg/0_2.txt"};
    struct stat info;
    struct config config = labelled_config(DATA_IMDB, "bad.tar.gz", "bad.tar.gz", "");
    write_archive(names, 2, 300);
    assert_int_equal(system("gzip -f bad.tar"), 0);
    assert_int_equal(stat("bad.tar.gz", &info), 0);
    assert_int_equal(truncate("bad.tar.gz", info.st_size - 20), 0);
    refused(&config, "bad.tar.gz:beginning: expected a whole tar.gz, found: truncated gzip input");
}

static void test_folder(void **state) {
    (void)state;
    mkdir("bad_folder", 0777);
    struct config config = labelled_config(DATA_IMDB, "bad_folder", "", "");
    unlink("bad_folder/train/neg/0_1.txt"); /* of an earlier run */
    unlink("bad_folder/train/pos/0_9.txt");
    refused(&config, "bad_folder: expected reviews in train/neg, found none");
    mkdir("bad_folder/train", 0777);
    mkdir("bad_folder/train/neg", 0777);
    mkdir("bad_folder/train/pos", 0777);
    put_file("bad_folder/train/neg/0_1.txt", "bad", 3);
    put_file("bad_folder/train/pos/0_9.txt", "g\n\xFF", 3);
    refused(&config, "bad_folder:train/pos/0_9.txt:2: expected UTF-8 text, found byte 0xFF out of place");
    put_file("bad_folder/train/pos/0_9.txt", "", 0);
    refused(&config, "bad_folder/train/pos/0_9.txt: expected text, found an empty file");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),    cmocka_unit_test(test_columns),        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_archives), cmocka_unit_test(test_truncated_gzip), cmocka_unit_test(test_folder),
    };
    return cmocka_run_group_tests_name("bad labelled files", tests, NULL, NULL);
}
