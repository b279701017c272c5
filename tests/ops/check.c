#include "tests/ops/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

bool op_called[OP_COUNT];
struct arena scratch;

static uint64_t random_counter;
static struct { uint64_t rows, sums; } digest;
static bool checking; /* off in a run that is there for its bits alone */

enum { MAX_PIECES = 512, GUARD = 64 };
static struct {
    char *data;
    int64_t bytes;
} pieces[MAX_PIECES];
static int n_pieces;

void *take(int64_t bytes) {
    assert_true(n_pieces < MAX_PIECES);
    char *data = test_device.take((size_t)(bytes + GUARD));
    assert_non_null(data);
    memset(data, 0xFF, (size_t)(bytes + GUARD)); /* reals: a NaN where nothing is written */
    pieces[n_pieces].data = data;
    pieces[n_pieces++].bytes = bytes;
    return data;
}

static void free_pieces(bool look) {
    bool whole = true;
    while (n_pieces > 0) {
        char *data = pieces[--n_pieces].data, *guard = data + pieces[n_pieces].bytes;
        for (int i = 0; i < GUARD; ++i) whole = whole && (unsigned char)guard[i] == 0xFF;
        test_device.give(data);
    }
    if (look && !whole) fail_msg("wrote beyond the end of an array");
}

enum precision test_precision(void) {
    static int bf16 = -1; /* factor asks often */
    const char *name = bf16 < 0 ? getenv("VQMOE_TEST_PRECISION") : NULL;
    if (bf16 < 0) bf16 = name && !strcmp(name, "bf16");
    return bf16 ? PRECISION_BF16 : PRECISION_FP32;
}

/* bf16 has 8 digits. */
double factor(double x) {
    int exponent;
    if (test_precision() == PRECISION_FP32) return x;
    double part = frexp(x, &exponent);
    return ldexp(nearbyint(ldexp(part, 8)), exponent - 8);
}

uint64_t random_word(void) { return hash_splitmix64(++random_counter); }

double random_value(void) { return (float)(((double)(random_word() >> 11) * 0x1p-53 - 0.5) * sqrt(12)); }

int64_t random_below(int64_t n) { return (int64_t)(random_word() % (uint64_t)n); }

double *random_doubles(int64_t n) {
    double *x = TAKE(double, n);
    for (int64_t i = 0; i < n; ++i) x[i] = random_value();
    return x;
}

real *reals(const double *values, int64_t n) {
    real *x = TAKE(real, n);
    for (int64_t i = 0; i < n; ++i) x[i] = (real)values[i];
    return x;
}

real *random_reals(int64_t n) { return reals(random_doubles(n), n); }

int32_t *random_ids(int64_t n, int64_t below) {
    int32_t *ids = TAKE(int32_t, n);
    for (int64_t i = 0; i < n; ++i) ids[i] = (int32_t)random_below(below);
    return ids;
}

int64_t *random_permutation(int64_t n) {
    int64_t *places = TAKE(int64_t, n);
    for (int64_t i = 0; i < n; ++i) {
        int64_t j = random_below(i + 1);
        places[i] = places[j];
        places[j] = i;
    }
    return places;
}

void random_groups(int64_t *begin, int64_t N, int64_t count) {
    begin[0] = 0;
    for (int64_t i = 1; i < count; ++i) /* 1 and the last but one are empty */
        begin[i] =
            count > 2 && (i == 2 || i == count - 1) ? begin[i - 1] : begin[i - 1] + random_below(N - begin[i - 1] + 1);
    begin[count] = N;
}

uint32_t philox_word(struct rng_place place, uint32_t row, uint32_t column) {
    uint32_t x[4] = {column / 4, row, place.step, place.site};
    uint32_t key[2] = {(uint32_t)(place.seed % 0x100000000u), (uint32_t)(place.seed / 0x100000000u)};
    for (int round = 0; round < 10; ++round) {
        uint64_t a = UINT64_C(0xD2511F53) * x[0], b = UINT64_C(0xCD9E8D57) * x[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ x[1] ^ key[0], (uint32_t)b, (uint32_t)(a >> 32) ^ x[3] ^ key[1],
                            (uint32_t)a};
        memcpy(x, next, sizeof x);
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return x[column % 4];
}

double dropout_factor(const struct dropout *dropout, int64_t row, int64_t column) {
    if (dropout->p == 0) return 1;
    uint32_t word = philox_word(dropout->place, (uint32_t)row, (uint32_t)column);
    return word >= floor(dropout->p * 4294967296.0) ? 1 / (1 - dropout->p) : 0;
}

struct dropout some_dropout(double p) {
    return (struct dropout){.p = p, .place = {.seed = 0x123456789ABCDEF0u, .step = 77, .site = 3 + 256 * 5}};
}

static uint64_t mix_in(uint64_t hash, const void *data, int64_t bytes) {
    const unsigned char *byte = data;
    for (int64_t i = 0; i < bytes; ++i) hash = (hash ^ byte[i]) * 0x100000001B3u;
    return hash;
}

void keep_rows(const void *data, int64_t bytes) { digest.rows = mix_in(digest.rows, data, bytes); }
void keep_sums(const void *data, int64_t bytes) { digest.sums = mix_in(digest.sums, data, bytes); }

static double floored(double norm, int64_t n) { return fmax(norm, 0.01 * sqrt((double)n)); }

void expect_close(const char *what, const real *got, const double *expected, int64_t n, double tolerance) {
    double error = 0, norm = 0;
    for (int64_t i = 0; i < n; ++i) {
        error += (got[i] - expected[i]) * (got[i] - expected[i]);
        norm += expected[i] * expected[i];
    }
    double relative = n ? sqrt(error) / floored(sqrt(norm), n) : 0;
    if (!(relative <= tolerance)) fail_msg("%s: relative error %.3g, at most %.3g expected", what, relative, tolerance);
}

void problem_input(struct problem *p, const char *name, int64_t n, int flags) {
    struct tensor *t = &p->in[p->inputs++];
    *t = (struct tensor){.name = name, .n = n, .flags = flags, .x = random_doubles(n), .g = TAKE(real, n)};
    t->r = reals(t->x, n);
}

/* dout . out of the reference, or of the operation itself. */
static double loss(const struct problem *p, bool of_operation) {
    static double *out; /* these two outlive the case, or each of many calls would take its own */
    static real *result;
    double sum = 0;
    if (of_operation) {
        result = realloc(result, (size_t)(p->outputs + 1) * sizeof *result);
        p->forward(result, p);
        for (int64_t i = 0; i < p->outputs; ++i) sum += (double)p->dout[i] * result[i];
    } else {
        out = realloc(out, (size_t)(p->outputs + 1) * sizeof *out);
        p->reference(out, p);
        for (int64_t i = 0; i < p->outputs; ++i) sum += p->dout[i] * out[i];
    }
    return sum;
}

/* Elements one by one where they are few, else random directions of signs: their mean squared error estimates the
 * squared L2. */
static void check_gradient(const struct problem *p, struct tensor *t, bool of_operation) {
    enum { FEW = 30, DIRECTIONS = 4 };
    const double h = 2e-5;
    bool each = t->n <= FEW;
    int64_t directions = each ? t->n : DIRECTIONS;
    double error = 0, norm = 0;
    double *x = TAKE(double, t->n), *direction = TAKE(double, t->n);
    memcpy(x, t->x, (size_t)t->n * sizeof *x);
    for (int64_t d = 0; d < directions; ++d) {
        double losses[2], slope = 0;
        for (int64_t i = 0; i < t->n; ++i) {
            direction[i] = each ? i == d : random_word() >> 63 ? 1 : -1;
            slope += direction[i] * t->g[i];
        }
        for (int side = 0; side < 2; ++side) {
            for (int64_t i = 0; i < t->n; ++i) t->x[i] = x[i] + (side ? h : -h) * direction[i];
            for (int64_t i = 0; i < t->n; ++i) t->r[i] = (real)t->x[i];
            losses[side] = loss(p, of_operation);
        }
        double wrong = (losses[1] - losses[0]) / (2 * h) - slope;
        error += wrong * wrong / (each ? 1 : DIRECTIONS);
    }
    for (int64_t i = 0; i < t->n; ++i) {
        norm += (double)t->g[i] * t->g[i];
        t->x[i] = x[i];
        t->r[i] = (real)x[i];
    }
    double relative = t->n ? sqrt(error) / floored(sqrt(norm), t->n) : 0;
    if (!(relative <= test_device.tolerance_gradient))
        fail_msg("gradient of %s against differences of the %s: relative error %.3g, at most %.3g expected", t->name,
                 of_operation ? "operation" : "reference", relative, test_device.tolerance_gradient);
}

/* Twice: what overwrites starts from NaN and gives the same bits again, what adds starts from 0 and doubles. */
static void run_backward(const struct problem *p) {
    for (int i = 0; i < p->inputs; ++i)
        for (int64_t j = 0; j < p->in[i].n; ++j) p->in[i].g[j] = p->in[i].flags & ADDS ? 0 : (real)NAN;
    p->backward(p);
    real *first[COUNT(p->in)];
    for (int i = 0; i < p->inputs; ++i) {
        size_t bytes = (size_t)p->in[i].n * sizeof *first[i];
        first[i] = memcpy(take((int64_t)bytes), p->in[i].g, bytes);
        (p->in[i].flags & ROWS ? keep_rows : keep_sums)(first[i], (int64_t)bytes);
    }
    p->backward(p);
    for (int i = 0; i < p->inputs; ++i) {
        const struct tensor *t = &p->in[i];
        if (t->flags & ADDS) {
            double *twice = TAKE(double, t->n);
            for (int64_t j = 0; j < t->n; ++j) twice[j] = 2 * (double)first[i][j];
            expect_close("gradient added twice", t->g, twice, t->n, TOLERANCE);
        } else {
            assert_memory_equal(t->g, first[i], (size_t)t->n * sizeof *t->g);
        }
        memcpy(t->g, first[i], (size_t)t->n * sizeof *t->g);
    }
}

void check_problem(struct problem *p) {
    if (!p->dout) p->dout = random_reals(p->outputs);
    p->out = TAKE(real, p->outputs);
    p->forward(p->out, p);
    (p->flags & ROWS ? keep_rows : keep_sums)(p->out, p->outputs * (int64_t)sizeof *p->out);
    if (p->backward) run_backward(p);
    if (!checking) return;
    double *expected = TAKE(double, p->outputs);
    p->reference(expected, p);
    double tolerance = p->tolerance > 0 ? p->tolerance : TOLERANCE;
    expect_close("forward", p->out, expected, p->outputs, tolerance);
    for (int i = 0; p->backward && i < p->inputs; ++i) {
        if (p->gradient && test_precision() == PRECISION_BF16) {
            double *g = TAKE(double, p->in[i].n);
            p->gradient(g, p, i);
            expect_close(p->in[i].name, p->in[i].g, g, p->in[i].n, tolerance);
            continue;
        }
        check_gradient(p, &p->in[i], false);
        if (sizeof(real) == sizeof(double)) check_gradient(p, &p->in[i], true);
    }
}

static void run_one(void **state) {
    const struct op_case *c = *state;
    uint64_t rows[3] = {0}, sums[3] = {0};
    for (int run = test_device.threads ? 0 : 1; run < 3; ++run) {
        free_pieces(false); /* those of a case that failed */
        test_device.start(run ? 2 : 1, test_precision());
        random_counter = 1;
        digest.rows = digest.sums = 0xCBF29CE484222325u;
        checking = run < 2;
        c->run(c);
        rows[run] = digest.rows;
        sums[run] = digest.sums;
        assert_int_equal(scratch.used, 0); /* an operation gives back what it takes */
        free_pieces(true);
    }
    if (test_device.threads) assert_int_equal(rows[0], rows[1]); /* 1 thread, 2 threads */
    assert_int_equal(rows[1], rows[2]);
    assert_int_equal(sums[1], sums[2]);
}

static struct {
    const struct op_entry *entries;
    int n;
} family_entries;

static void every_entry_called(void **state) {
    (void)state;
    for (int i = 0; i < family_entries.n; ++i)
        if (!op_called[family_entries.entries[i].index])
            fail_msg("%s was never called", family_entries.entries[i].name);
}

int run_cases(const char *family, const struct op_case *cases, int n_cases, const struct op_entry *entries,
              int n_entries) {
    struct CMUnitTest *tests = calloc((size_t)n_cases + 1, sizeof *tests);
    char(*names)[96] = calloc((size_t)n_cases, sizeof *names);
    if (!tests || !names) abort();
    int n = 0;
    for (int i = 0; i < n_cases; ++i) {
        if (cases[i].large && getenv("VQMOE_EMULATION_ORDER")) continue;
        const int64_t *s = cases[i].size;
        int length = snprintf(names[i], sizeof *names, "%s", cases[i].name), last = COUNT(cases->size) - 1;
        while (last > 0 && !s[last]) --last;
        for (int j = 0; j <= last; ++j)
            length += snprintf(names[i] + length, sizeof *names - (size_t)length, "%s%ld", j ? "x" : " ", (long)s[j]);
        snprintf(names[i] + length, sizeof *names - (size_t)length, "%s%s", cases[i].p > 0 ? " dropout" : "",
                 cases[i].flag ? " *" : "");
        tests[n++] =
            (struct CMUnitTest){.name = names[i], .test_func = run_one, .initial_state = (void *)(uintptr_t)&cases[i]};
    }
    family_entries.entries = entries;
    family_entries.n = n_entries;
    tests[n] = (struct CMUnitTest){.name = "every entry called", .test_func = every_entry_called};
    int failed = _cmocka_run_group_tests(family, tests, (size_t)n + 1, NULL, NULL);
    free_pieces(false);
    arena_free(&scratch);
    free(tests);
    free(names);
    return failed ? 1 : 0;
}
