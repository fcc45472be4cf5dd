/*
 * The descriptor as PA-CFL publishes it (arXiv 2503.12220): the importances of boosted trees that
 * were fitted to the site's training examples, with Laplace noise of scale s / `laplace`, where s
 * is how far the largest importance moves when one row is left out, tried for `rows` of them.
 *
 * That is no differential privacy: s is measured on the very data it is to hide, on some rows, and
 * as a largest move where the noise needs the sum of all. So there is no event, and the job is
 * refused under a unit. What leaves is rounded to the grid as everything.
 */
#include "client/produce_in.h"

#include "client/boost.h"
#include "common/base/mem.h"
#include "common/plan/descriptor.h"

#include <math.h>
#include <string.h>

enum { CELLS_MAX = 1 << 28 }; /* of a copy of the table */

struct table {
    uint32_t rows, columns, classes;
    float *x, *y;
    double *whole, *without; /* importances */
};

static void fini(struct table *t)
{
    if (t->x) {
        explicit_bzero(t->x, (size_t)t->rows * t->columns * sizeof *t->x);
    }
    if (t->y) {
        explicit_bzero(t->y, t->rows * sizeof *t->y);
    }
    fl_free(t->x);
    fl_free(t->y);
    fl_free(t->whole);
    fl_free(t->without);
}

static int copy_row(struct table *t, const struct fl_examples *from, uint32_t i, struct fl_err *e)
{
    float *x = t->x + (size_t)i * t->columns;
    int r = fl_examples_get(from, t->columns, i, x, e);

    if (r == 0 && t->classes &&
        (!from->y || from->y[i] < 0 || (uint32_t)from->y[i] >= t->classes)) {
        return fl_fail(e, FL_R_DATA_FORMAT, "example %u has no class of the job's %u", i,
                       t->classes);
    }
    t->y[i] = r ? 0 : from->y ? (float)from->y[i] : from->target[i];
    for (uint32_t k = 0; r == 0 && k < t->columns; k++) {
        if (!isfinite(x[k]) || !isfinite(t->y[i])) {
            return fl_fail(e, FL_R_NOT_FINITE, "example %u", i);
        }
    }
    return r;
}

static int init(struct table *t, const struct fl_produce *in, struct fl_err *e)
{
    const struct fl_examples *from = &in->data->train;
    int r = 0;

    *t = (struct table){.rows = from->count,
                        .columns = (uint32_t)in->terms->elements,
                        .classes = in->plan->layout.spec.classes};
    if ((uint64_t)t->rows * t->columns > CELLS_MAX) {
        return fl_fail(e, FL_R_LIMIT, "%u rows of %u columns: boosted trees take %d values at most",
                       t->rows, t->columns, CELLS_MAX);
    }
    t->x = fl_try((size_t)t->rows * t->columns + 1, sizeof *t->x);
    t->y = fl_try((size_t)t->rows + 1, sizeof *t->y);
    t->whole = fl_try(t->columns, sizeof *t->whole);
    t->without = fl_try(t->columns, sizeof *t->without);
    if (!t->x || !t->y || !t->whole || !t->without) {
        return fl_fail(e, FL_R_NOMEM, "a table of %u rows", t->rows);
    }
    for (uint32_t i = 0; r == 0 && i < t->rows; i++) {
        r = copy_row(t, from, i, e);
    }
    return r;
}

/* Row i and the last one change places: what is in front of the last is the table without it. */
static void swap_last(struct table *t, uint32_t i)
{
    uint32_t last = t->rows - 1;

    for (uint32_t k = 0; k < t->columns; k++) {
        float x = t->x[(size_t)i * t->columns + k];
        t->x[(size_t)i * t->columns + k] = t->x[(size_t)last * t->columns + k];
        t->x[(size_t)last * t->columns + k] = x;
    }
    float y = t->y[i];
    t->y[i] = t->y[last];
    t->y[last] = y;
}

/* The largest move of an importance over the rows that are tried. */
static int measure(struct table *t, const struct fl_produce *in, struct fl_rng *rng, double *ret,
                   struct fl_err *e)
{
    uint32_t wanted = in->plan->setting.bubble.rows;
    uint32_t tries = wanted == 0 || wanted > t->rows ? t->rows : wanted;
    int r = 0;

    *ret = 0;
    for (uint32_t i = 0; r == 0 && i < tries && t->rows > 2; i++) {
        uint32_t row = tries == t->rows ? i : (uint32_t)fl_rng_below(rng, t->rows);
        swap_last(t, row);
        r = fl_boost_importances(t->x, t->y, t->rows - 1, t->columns, t->classes, in->cancel,
                                 t->without, e);
        swap_last(t, row);
        for (uint32_t k = 0; r == 0 && k < t->columns; k++) {
            *ret = fmax(*ret, fabs(t->whole[k] - t->without[k]));
        }
    }
    return r;
}

/* A draw of density exp(-|x| / scale) / (2 scale). */
static double laplace(struct fl_rng *rng, double scale)
{
    double far = -log(1 - fl_rng_unit(rng));

    return fl_rng_below(rng, 2) ? scale * far : -scale * far;
}

static int describe(struct table *t, const struct fl_produce *in, const struct fl_grid *g,
                    int64_t *q, struct fl_produced *ret, struct fl_err *e)
{
    double epsilon = in->plan->setting.bubble.laplace, scale = 0;
    struct fl_seed own;
    struct fl_rng rng;
    int r = t->rows > 1 ? fl_boost_importances(t->x, t->y, t->rows, t->columns, t->classes,
                                               in->cancel, t->whole, e)
                        : 0; /* nothing to tell apart: all 0 */

    fl_seed_derive(in->seed, "importances", 0, &own);
    fl_rng_init(&rng, &own, 0);
    if (r == 0 && epsilon > 0) {
        r = measure(t, in, &rng, &scale, e);
        scale /= epsilon;
    }
    for (uint32_t k = 0; r == 0 && k < t->columns; k++) {
        double noised = t->whole[k] + laplace(&rng, scale);
        q[k] = (int64_t)rint(ldexp(noised, -g->step));
    }
    fl_rng_fini(&rng);
    explicit_bzero(&own, sizeof own);
    ret->noise_std = scale * sqrt(2);
    return r;
}

int fl_produce_importances(const struct fl_produce *in, struct fl_produced *ret, struct fl_err *e)
{
    const struct fl_grid g = fl_descriptor_grid(in->plan);
    int64_t *q = fl_try_aligned(in->terms->elements, sizeof *q);
    struct table t = {0};

    memset(ret, 0, sizeof *ret);
    int r = q ? init(&t, in, e) : fl_fail(e, FL_R_NOMEM, "importances");
    r = r ? r : describe(&t, in, &g, q, ret, e);
    fini(&t);
    if (r) {
        fl_free(q);
        return r;
    }
    ret->norm_before = ret->norm_after = fl_produce_norm(&g, q, in->terms->elements);
    ret->q = q;
    return 0;
}
