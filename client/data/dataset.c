#include "client/data/dataset.h"

#include "client/data/partition.h"
#include "client/data/table.h"
#include "common/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the two formats ---- */

static int scan(const struct fl_data_source *s, bool test, struct fl_table *ret, struct fl_err *e)
{
    const char *x = test ? s->test_x : s->train_x, *y = test ? s->test_y : s->train_y;

    if (s->format == FL_DATA_CSV) {
        return fl_csv_scan(x, s->target, s->partition == FL_PARTITION_COLUMN ? s->column : "", ret,
                           e);
    }
    if (s->partition == FL_PARTITION_COLUMN) {
        return fl_fail(e, FL_R_CONF_CONFLICT, "partition by column needs a csv file");
    }
    return fl_idx_scan(x, y, s->partition == FL_PARTITION_FILE && !test ? s->clients : "", ret, e);
}

static int read_rows(const struct fl_data_source *s, bool test, const struct fl_table *t,
                     const struct fl_pick *picks, size_t count, struct fl_err *e)
{
    const char *x = test ? s->test_x : s->train_x;

    if (s->format == FL_DATA_CSV) {
        return fl_csv_read(x, s->target, s->partition == FL_PARTITION_COLUMN ? s->column : "", t,
                           picks, count, e);
    }
    return fl_idx_read(x, t, picks, count, e);
}

/* ---- checks ---- */

static int check_source(const struct fl_data_source *s, struct fl_err *e)
{
    if (s->partition == FL_PARTITION_FILE && (s->format != FL_DATA_IDX || !s->clients[0])) {
        return fl_fail(e, FL_R_CONF_CONFLICT,
                       "partition by file needs idx files and a file of client numbers");
    }
    if (s->partition == FL_PARTITION_COLUMN && !s->column[0]) {
        return fl_fail(e, FL_R_CONF_MISSING, "partition by column: which column?");
    }
    if (s->classes == 1 || s->classes > FL_TABLE_CLASSES_MAX) {
        return fl_fail(e, FL_R_CONF_RANGE, "%u classes", s->classes);
    }
    return 0;
}

/* The number of classes, given or the largest label + 1; labels beyond are refused. */
static int check_labels(const struct fl_data_source *s, const struct fl_table t[2],
                        uint32_t *ret_classes, struct fl_err *e)
{
    uint32_t classes = s->classes;

    for (int k = 0; k < 2; k++) {
        const char *x = k ? s->test_x : s->train_x, *y = k ? s->test_y : s->train_y;
        for (uint32_t i = 0; i < t[k].count; i++) {
            uint32_t label = (uint32_t)t[k].y[i];
            if (s->classes && label >= s->classes) {
                return fl_fail(e, FL_R_DATA_VALUE, "%s: row %u: class %u of %u",
                               s->format == FL_DATA_CSV ? x : y, i + 1, label, s->classes);
            }
            classes = label >= classes ? label + 1 : classes;
        }
    }
    *ret_classes = classes < 2 ? 2 : classes;
    return 0;
}

/* ---- loading ---- */

static int compare_picks(const void *a, const void *b)
{
    const struct fl_pick *x = a, *y = b;
    return x->row < y->row ? -1 : x->row > y->row;
}

static int make_part(struct fl_examples *part, uint32_t count, size_t features, struct fl_err *e)
{
    size_t values;

    if (!fl_mul(count, features, &values) || !(part->x = fl_try_aligned(values, sizeof *part->x)) ||
        !(part->y = fl_try(count, sizeof *part->y))) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for %u examples", count);
    }
    part->count = count;
    return 0;
}

/* Adds the rows of one part that are in file k to the picks of that file, and their labels. */
static void collect(const struct fl_table t[2], int k, const uint32_t *rows, uint32_t count,
                    size_t features, struct fl_examples *part, struct fl_pick *picks,
                    size_t *pick_count)
{
    for (uint32_t i = 0; i < count; i++) {
        int file = rows[i] >= t[0].count;
        uint32_t row = rows[i] - (file ? t[0].count : 0);
        if (file == k) {
            part->y[i] = t[k].y[row];
            picks[(*pick_count)++] = (struct fl_pick){row, part->x + i * features};
        }
    }
}

static int load_examples(const struct fl_data_source *s, const struct fl_table t[2],
                         const struct fl_split *split, struct fl_dataset *d, struct fl_err *e)
{
    size_t features = fl_table_features(&t[0]);
    size_t all = (size_t)split->train_count + split->test_count;
    struct fl_pick *picks = fl_try(all, sizeof *picks);

    int r = picks ? 0 : fl_fail(e, FL_R_NOMEM, "out of memory for %zu examples", all);
    if (r == 0) {
        r = make_part(&d->train, split->train_count, features, e);
    }
    if (r == 0) {
        r = make_part(&d->test, split->test_count, features, e);
    }
    for (int k = 0; r == 0 && k < 2; k++) {
        size_t count = 0;
        if (t[k].count == 0) {
            continue;
        }
        collect(t, k, split->train, split->train_count, features, &d->train, picks, &count);
        collect(t, k, split->test, split->test_count, features, &d->test, picks, &count);
        qsort(picks, count, sizeof *picks, compare_picks);
        r = read_rows(s, k == 1, &t[k], picks, count, e);
    }
    fl_free(picks);
    return r;
}

static void digest_part(struct fl_hash *h, const struct fl_examples *part, size_t features)
{
    fl_hash_add(h, &part->count, sizeof part->count);
    fl_hash_add(h, part->x, part->count * features * sizeof *part->x);
    fl_hash_add(h, part->y, part->count * sizeof *part->y);
}

static void digest(struct fl_dataset *d)
{
    size_t features = (size_t)d->shape[0] * d->shape[1] * d->shape[2];
    struct fl_hash h;

    fl_hash_init(&h);
    fl_hash_add(&h, d->shape, sizeof d->shape);
    fl_hash_add(&h, &d->classes, sizeof d->classes);
    digest_part(&h, &d->train, features);
    digest_part(&h, &d->test, features);
    fl_hash_end(&h, &d->digest);
}

int fl_dataset_load(const struct fl_data_source *source, struct fl_dataset *ret, struct fl_err *e)
{
    struct fl_table t[2] = {{0}, {0}};
    struct fl_split split = {0};
    struct fl_dataset d = {0};

    int r = check_source(source, e);
    if (r == 0) {
        r = scan(source, false, &t[0], e);
    }
    if (r == 0 && source->test_x[0]) {
        r = scan(source, true, &t[1], e);
    }
    if (r == 0 && t[1].count && memcmp(t[0].shape, t[1].shape, sizeof t[0].shape) != 0) {
        r = fl_fail(e, FL_R_DATA_SHAPE, "%s and %s: examples of different shapes", source->train_x,
                    source->test_x);
    }
    if (r == 0 && (uint64_t)t[0].count + t[1].count > INT32_MAX) {
        r = fl_fail(e, FL_R_DATA_FORMAT, "%s: more than 2^31 examples", source->train_x);
    }
    if (r == 0) {
        r = check_labels(source, t, &d.classes, e);
    }
    if (r == 0) {
        r = fl_partition(source, d.classes, &t[0], &t[1], &split, e);
    }
    if (r == 0) {
        memcpy(d.shape, t[0].shape, sizeof d.shape);
        r = load_examples(source, t, &split, &d, e);
    }
    fl_table_fini(&t[0]);
    fl_table_fini(&t[1]);
    fl_split_fini(&split);
    if (r) {
        fl_dataset_fini(&d);
        return r;
    }
    digest(&d);
    *ret = d;
    return 0;
}

void fl_dataset_fini(struct fl_dataset *d)
{
    if (d) {
        fl_free(d->train.x);
        fl_free(d->train.y);
        fl_free(d->test.x);
        fl_free(d->test.y);
        memset(d, 0, sizeof *d);
    }
}

/* ---- for people ---- */

struct text {
    char *to;
    size_t at, size;
};

__attribute__((format(printf, 2, 3))) static void say(struct text *t, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(t->to + t->at, t->size - t->at, fmt, ap);
    va_end(ap);
    t->at += n > 0 ? (size_t)n : 0;
    t->at = t->at < t->size ? t->at : t->size - 1;
}

static void say_part(struct text *t, const char *name, const struct fl_examples *part,
                     uint32_t classes)
{
    say(t, "; %s %u:", name, part->count);
    for (uint32_t c = 0; c < classes && t->at + 1 < t->size; c++) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < part->count; i++) {
            n += part->y[i] == (int32_t)c;
        }
        say(t, " %u", n);
    }
}

void fl_dataset_describe(const struct fl_dataset *d, char *ret, size_t size)
{
    char hex[FL_DIGEST_HEX];
    struct text t = {ret, 0, size};

    if (size == 0) {
        return;
    }
    fl_digest_hex(&d->digest, hex);
    say(&t, "%ux%ux%u, %u classes, digest %.16s", d->shape[0], d->shape[1], d->shape[2], d->classes,
        hex);
    say_part(&t, "train", &d->train, d->classes);
    say_part(&t, "test", &d->test, d->classes);
}
