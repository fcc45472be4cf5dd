/* PCB merging: against tests/golden/pcb.py, which sorts whole vectors, whatever the tile. */
#include "common/base/mem.h"
#include "common/math/pcb.h"
#include "common/nn/tensors.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct fl_err err;

struct vectors {
    uint32_t count, fail_at; /* the read that fails; 0: none */
    size_t elements, tile;
    const float *base, *models;
};

static int read_tile(void *arg, size_t first, size_t count, double *to, struct fl_err *e)
{
    struct vectors *v = arg;

    ck_assert(count <= v->tile && first + count <= v->elements);
    if (v->fail_at > 0 && --v->fail_at == 0) {
        return fl_fail(e, FL_R_STORE_IO, "on purpose");
    }
    for (size_t i = 0; i < v->count; i++) {
        for (size_t k = 0; k < count; k++) {
            to[i * v->tile + k] =
                (double)v->models[i * v->elements + first + k] - (double)v->base[first + k];
        }
    }
    return 0;
}

static struct fl_pcb_terms terms_of(struct vectors *v, double keep, double outliers)
{
    struct fl_pcb_terms t = {.vectors = v->count,
                             .elements = v->elements,
                             .tile = v->tile,
                             .keep = keep,
                             .outliers = outliers,
                             .read = read_tile,
                             .arg = v};

    for (size_t i = 0; i < v->count; i++) {
        t.scale[i] = 1;
    }
    return t;
}

static int merge(const struct fl_pcb_terms *t, double *ret)
{
    struct fl_pcb *p;
    int r = fl_pcb_new(t, &p, &err);

    if (r) {
        return r;
    }
    for (size_t first = 0, n; r == 0 && first < t->elements; first += n) {
        n = t->elements - first < t->tile ? t->elements - first : t->tile;
        r = fl_pcb_values(p, first, n, ret + first, &err);
    }
    fl_pcb_free(p);
    return r;
}

static float *take(const struct fl_tensor_file *f, uint32_t number, const char *what,
                   size_t *ret_count)
{
    char name[32];

    snprintf(name, sizeof name, "%u.%s", number, what);
    const struct fl_tensor *t = fl_tensors_find(&f->table, name);
    if (!t) {
        return NULL;
    }
    float *values = fl_new(t->count, sizeof *values);
    fl_tensor_file_get(f, t, values);
    *ret_count = t->count;
    return values;
}

START_TEST(test_as_by_full_sorts)
{
    struct fl_tensor_file *f = fl_new(1, sizeof *f);
    uint32_t cases = 0;
    size_t d, n, all;

    ck_assert_msg(fl_tensor_file_open(TEST_SOURCE_ROOT "/tests/golden/pcb.safetensors", 1 << 20, f,
                                      &err) == 0,
                  "%s", err.msg);
    for (float *base; (base = take(f, cases, "base", &d)) != NULL; cases++) {
        float *models = take(f, cases, "models", &all), *terms = take(f, cases, "terms", &n);
        float *want = take(f, cases, "merged", &n), *scale = take(f, cases, "scale", &n);
        double *got = fl_new(d, sizeof *got), *again = fl_new(d, sizeof *again);
        struct vectors v = {
            .count = (uint32_t)n, .elements = d, .tile = 64, .base = base, .models = models};
        ck_assert_uint_eq(n * d, all);
        /* as the script had them: doubles of few digits */
        struct fl_pcb_terms t =
            terms_of(&v, round(1e6 * (double)terms[0]) / 1e6, round(1e6 * (double)terms[1]) / 1e6);
        for (size_t i = 0; i < n; i++) {
            t.scale[i] = (double)scale[i];
        }
        ck_assert_int_eq(merge(&t, got), 0);
        size_t nothing = 0;
        for (size_t k = 0; k < d; k++) {
            ck_assert_msg(fabs((double)base[k] + got[k] - (double)want[k]) < 1e-6,
                          "case %u, value %zu: %.9g of %.9g", cases, k, (double)base[k] + got[k],
                          (double)want[k]);
            nothing += got[k] == 0;
        }
        ck_assert(nothing < d); /* and it did merge something */
        v.tile = t.tile = d;    /* the same bits however it is cut */
        ck_assert_int_eq(merge(&t, again), 0);
        ck_assert_mem_eq(got, again, d * sizeof *got);
        fl_free(base);
        fl_free(models);
        fl_free(terms);
        fl_free(want);
        fl_free(scale);
        fl_free(got);
        fl_free(again);
    }
    ck_assert_uint_eq(cases, 5);
    fl_tensor_file_close(f);
    fl_free(f);
}
END_TEST

/* Where two models went the same way they have it; where they went opposite ways, neither does, or
 * the one that went much further. Who did not move has no say. */
START_TEST(test_what_agrees_stays)
{
    enum { D = 8 };
    static const float base[D],
        models[3 * D] = {1, 1, 0.5f,  0.02f, 0.01f, 0, 0, 0, /* like the next on 0, unlike on 2 */
                         1, 0, -0.5f, 0.01f, 0.02f, 0, 0, 0};
    struct vectors v = {.count = 3, .elements = D, .tile = 3, .base = base, .models = models};
    struct fl_pcb_terms t = terms_of(&v, 0.375, 0);
    double got[D];

    ck_assert_int_eq(merge(&t, got), 0);
    ck_assert_double_eq_tol(got[0], 1, 1e-9);
    ck_assert_double_eq_tol(got[1], 1, 1e-9);
    ck_assert_double_eq(got[2], 0);
    ck_assert_double_eq(got[7], 0);
    t.vectors = v.count = 1; /* alone: its largest values */
    ck_assert_int_eq(merge(&t, got), 0);
    ck_assert_double_eq_tol(got[1], 1, 1e-9);
    ck_assert_double_eq(got[3], 0);
    v.models = models + 2 * D; /* and nothing of nothing */
    ck_assert_int_eq(merge(&t, got), 0);
    for (size_t k = 0; k < D; k++) {
        ck_assert_double_eq(got[k], 0);
    }
}
END_TEST

START_TEST(test_every_read_may_fail)
{
    static const float base[9], models[2 * 9] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 8, 7, 6, 5};
    struct vectors v = {.count = 2, .elements = 9, .tile = 4, .base = base, .models = models};
    struct fl_pcb_terms t = terms_of(&v, 0.5, 0);
    double got[9];
    uint32_t at = 1;

    for (;; at++) {
        v.fail_at = at;
        int r = merge(&t, got);
        if (r == 0) {
            break;
        }
        ck_assert_int_eq(r, -FL_R_STORE_IO);
    }
    ck_assert_uint_eq(at, 5 * 3 + 1); /* five passes of three tiles */
}
END_TEST

TESTS_MAIN("pcb", test_as_by_full_sorts, test_what_agrees_stays, test_every_read_may_fail)
