/*
 * Sequences from a table (common/plan/schema.h). The rows of this site are sorted by series and
 * time and encoded once; an example is `steps` rows that follow each other, so examples overlap in
 * memory and cost nothing each.
 *
 *     time        1  2  3  4  5  6  7  8  9          steps 3, ahead 1, cut 6, gap 2
 *     training    [--x--] t                          target at 4: before the cut
 *                    [--x--] t                       target at 5
 *     neither           [--x--] t                    target at 6, 7: inside the gap
 *     test                    [--x--] t              target at 8: cut + gap or later
 *
 * What a test example sees may reach back before the cut: at the time of a forecast the past is
 * known. What it predicts was never predicted in training.
 */
#include "client/data/windows.h"
#include "client/data/records.h"
#include "client/data/table.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/plan/schema.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct place {
    uint64_t series;
    double time;
    uint32_t row; /* in the file */
};

static int compare_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;

    if (x->series != y->series) {
        return x->series < y->series ? -1 : 1;
    }
    if (x->time != y->time) {
        return x->time < y->time ? -1 : 1;
    }
    return x->row < y->row ? -1 : x->row > y->row;
}

/* This site's rows in their order. */
static int sort_rows(const struct fl_data_source *s, const struct fl_table *t, const uint8_t *marks,
                     struct place **ret, uint32_t *ret_count, struct fl_err *e)
{
    struct place *p = fl_try(t->count, sizeof *p);
    uint32_t n = 0;

    if (!p) {
        return fl_fail(e, FL_R_NOMEM, "%s: out of memory", s->train_x);
    }
    for (uint32_t i = 0; i < t->count; i++) {
        if (marks[i]) {
            p[n++] = (struct place){t->series[i], t->time[i], i};
        }
    }
    qsort(p, n, sizeof *p, compare_places);
    for (uint32_t i = 1; i < n; i++) {
        if (p[i].series == p[i - 1].series && p[i].time == p[i - 1].time) {
            int r = fl_fail(e, FL_R_DATA_VALUE,
                            "%s:%llu: column %s: the same time of the same series as line %llu; "
                            "are the series' columns complete?",
                            s->train_x, (unsigned long long)t->line[p[i].row],
                            s->schema->window.time, (unsigned long long)t->line[p[i - 1].row]);
            fl_free(p);
            return r;
        }
    }
    *ret = p;
    *ret_count = n;
    return 0;
}

/* Do `rows` places from i on follow each other in one series? */
static bool follows(const struct fl_schema_window *w, const struct place *p, uint32_t n, uint32_t i,
                    uint32_t rows)
{
    if (n - i < rows || p[i].series != p[i + rows - 1].series) {
        return false;
    }
    for (uint32_t k = 1; w->every > 0 && k < rows; k++) {
        double step = p[i + k].time - p[i + k - 1].time;
        if (fabs(step - w->every) > 1e-6 * w->every) {
            return false;
        }
    }
    return true;
}

enum side { TRAINING, TEST, NEITHER };

/* Where the window at place i belongs, by the times of its targets. */
static enum side side_of(const struct fl_schema_window *w, const struct place *p, uint32_t i)
{
    uint32_t first = w->ahead ? w->steps : w->steps - 1;
    uint32_t last = w->ahead ? w->steps + w->ahead - 1 : w->steps - 1;

    if (p[i + last].time < w->cut) {
        return TRAINING;
    }
    return p[i + first].time >= w->cut + w->gap ? TEST : NEITHER;
}

/* Starts (places) of the windows of one side, at most `most` of them (0 = all), drawn with the
 * site's seed. */
static int find_windows(const struct fl_data_source *s, const struct place *p, uint32_t n,
                        enum side side, uint32_t most, uint32_t **ret, uint32_t *ret_count,
                        struct fl_err *e)
{
    const struct fl_schema_window *w = &s->schema->window;
    uint32_t rows = w->steps + w->ahead, count = 0;
    uint32_t *at = fl_try(n, sizeof *at);

    if (!at) {
        return fl_fail(e, FL_R_NOMEM, "%s: out of memory", s->train_x);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (follows(w, p, n, i, rows) && side_of(w, p, i) == side) {
            at[count++] = i;
        }
    }
    if (most && most < count) {
        struct fl_seed root, seed;
        struct fl_rng r;
        fl_seed_from_u64(s->seed, &root);
        fl_seed_derive(&root, "data.windows", side, &seed);
        fl_rng_init(&r, &seed, 0);
        fl_rng_shuffle(&r, at, count);
        count = most;
    }
    *ret = at;
    *ret_count = count;
    return 0;
}

static int make_part(const struct fl_data_source *s, const struct fl_table *t,
                     const struct place *p, const float *base, const uint32_t *at, uint32_t count,
                     struct fl_examples *part, struct fl_err *e)
{
    const struct fl_schema *schema = s->schema;
    const struct fl_schema_window *w = &schema->window;
    uint32_t width = fl_schema_targets(schema), first = w->ahead ? w->steps : w->steps - 1;
    size_t *starts = fl_try(count, sizeof *starts);

    if (!starts || (width ? !(part->target = fl_try((size_t)count * width, sizeof *part->target))
                          : !(part->y = fl_try(count, sizeof *part->y)))) {
        fl_free(starts);
        return fl_fail(e, FL_R_NOMEM, "out of memory for %u windows", count);
    }
    part->count = count;
    part->target_width = width;
    for (uint32_t i = 0; i < count; i++) {
        starts[i] = (size_t)at[i] * schema->features;
        for (uint32_t k = 0; k < width; k++) {
            part->target[(size_t)i * width + k] = t->target[p[at[i] + first + k].row];
        }
        if (!width) {
            part->y[i] = t->y[p[at[i] + first].row];
        }
    }
    int r = fl_windows_store(base, fl_schema_example(schema), starts, part, e);
    if (r) {
        fl_free(starts);
    }
    return r;
}

static int compare_picks(const void *a, const void *b)
{
    const struct fl_pick *x = a, *y = b;
    return x->row < y->row ? -1 : x->row > y->row;
}

/* The encoded rows, in the order of their places. */
static int encode_rows(const struct fl_data_source *s, const struct fl_table *t,
                       const struct place *p, uint32_t n, struct fl_wanted *wanted, float *to,
                       struct fl_err *e)
{
    struct fl_pick *picks = fl_try(n, sizeof *picks);

    if (!picks) {
        return fl_fail(e, FL_R_NOMEM, "%s: out of memory", s->train_x);
    }
    for (uint32_t i = 0; i < n; i++) {
        picks[i] = (struct fl_pick){.row = p[i].row, .to = to + (size_t)i * s->schema->features};
    }
    qsort(picks, n, sizeof *picks, compare_picks);
    wanted->picks = picks;
    wanted->count = n;
    int r = fl_frame_read(s, s->train_x, t, wanted, e);
    fl_free(picks);
    return r;
}

static int make_parts(const struct fl_data_source *s, const struct fl_table *t,
                      const struct place *p, uint32_t n, struct fl_dataset *d, struct fl_err *e)
{
    uint32_t *at[2] = {NULL, NULL}, count[2];
    int r = find_windows(s, p, n, TRAINING, s->train, &at[0], &count[0], e);

    if (r == 0) {
        r = find_windows(s, p, n, TEST, s->test, &at[1], &count[1], e);
    }
    if (r == 0 && count[0] == 0) {
        const struct fl_schema_window *w = &s->schema->window;
        r = fl_fail(e, FL_R_DATA_EMPTY,
                    "%s: no window of %u steps with its target before the cut among %u rows of "
                    "this client",
                    s->train_x, w->steps, n);
    }
    if (r == 0) {
        r = make_part(s, t, p, d->rows, at[0], count[0], &d->train, e);
    }
    if (r == 0) {
        r = make_part(s, t, p, d->rows, at[1], count[1], &d->test, e);
    }
    fl_free(at[0]);
    fl_free(at[1]);
    return r;
}

int fl_windows_load(const struct fl_data_source *s, const struct fl_table *t, const uint8_t *marks,
                    struct fl_hash *identity, struct fl_dataset *d, struct fl_err *e)
{
    struct fl_wanted wanted = {.marks = marks, .identity = identity};
    struct place *p = NULL;
    uint32_t n = 0;
    size_t values;
    int r = 0;

    if (s->test_x[0] || (s->partition != FL_PARTITION_ALL && s->partition != FL_PARTITION_COLUMN)) {
        return fl_fail(e, FL_R_CONF_CONFLICT,
                       "windows over time are split by the job's cut: no test files, and partition "
                       "all or column");
    }
    if (s->validation > 0 || s->train_part > 0 || s->test_part > 0) {
        return fl_fail(e, FL_R_CONF_CONFLICT,
                       "windows over time overlap: none can be held out for validation, or a part "
                       "of the rows taken (train, test)");
    }
    r = sort_rows(s, t, marks, &p, &n, e);
    if (r == 0 && !fl_mul(n, s->schema->features, &values)) {
        r = fl_fail(e, FL_R_NOMEM, "%s: too large", s->train_x);
    }
    if (r == 0) {
        r = fl_floats_new(s, values, &d->rows, &d->rows_mapped, e);
        d->rows_held = r == 0 && !d->rows_mapped ? values * sizeof *d->rows : 0;
    }
    if (r == 0) {
        r = encode_rows(s, t, p, n, &wanted, d->rows, e);
    }
    if (r == 0) {
        r = make_parts(s, t, p, n, d, e);
    }
    fl_free(p);
    return r;
}
