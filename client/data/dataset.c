#include "client/data/dataset.h"

#include "client/data/partition.h"
#include "client/data/records.h"
#include "client/data/table.h"
#include "client/data/windows.h"
#include "common/base/mem.h"
#include "common/plan/schema.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the formats ---- */

static bool has_schema(const struct fl_data_source *s)
{
    return s->schema && s->schema->count > 0;
}

static int scan(const struct fl_data_source *s, bool test, struct fl_table *ret, struct fl_err *e)
{
    const char *x = test ? s->test_x : s->train_x, *y = test ? s->test_y : s->train_y;
    const char *clients = s->partition == FL_PARTITION_FILE && !test ? s->clients : "";

    switch (s->format) {
    case FL_DATA_CSV:
        return has_schema(s)
                   ? fl_frame_scan(s, x, ret, e)
                   : fl_csv_scan(x, s->target, s->partition == FL_PARTITION_COLUMN ? s->column : "",
                                 ret, e);
    case FL_DATA_IDX:
        return fl_idx_scan(x, y, clients, ret, e);
    case FL_DATA_CIFAR10:
    case FL_DATA_CIFAR100:
        return fl_cifar_scan(x, s->format == FL_DATA_CIFAR100, test, clients, ret, e);
    case FL_DATA_NPY:
        return fl_npy_scan(x, y, clients, ret, e);
    case FL_DATA_PROGRAM:
        break;
    }
    return fl_fail(e, FL_R_CONF_RANGE, "a format that is not known");
}

static int read_rows(const struct fl_data_source *s, bool test, const struct fl_table *t,
                     const struct fl_wanted *wanted, struct fl_err *e)
{
    const char *x = test ? s->test_x : s->train_x;

    if (t->records) {
        return fl_records_read(t->records, fl_table_features(t), wanted, e);
    }
    return has_schema(s)
               ? fl_frame_read(s, x, t, wanted, e)
               : fl_csv_read(x, s->target, s->partition == FL_PARTITION_COLUMN ? s->column : "", t,
                             wanted, e);
}

/* ---- checks ---- */

static int check_source(const struct fl_data_source *s, struct fl_err *e)
{
    if (s->partition == FL_PARTITION_FILE && (s->format == FL_DATA_CSV || !s->clients[0])) {
        return fl_fail(e, FL_R_CONF_CONFLICT,
                       "partition by file needs a file of client numbers, and no csv");
    }
    if (s->partition == FL_PARTITION_COLUMN && s->format != FL_DATA_CSV) {
        return fl_fail(e, FL_R_CONF_CONFLICT, "partition by column needs a csv file");
    }
    if (has_schema(s) && s->format != FL_DATA_CSV) {
        return fl_fail(e, FL_R_CONF_CONFLICT, "the job reads tables: csv files are wanted");
    }
    if (s->format == FL_DATA_CSV && !has_schema(s) && !s->target[0]) {
        return fl_fail(e, FL_R_CONF_MISSING,
                       "a csv file without a schema in the job: which column is the target?");
    }
    if (s->partition == FL_PARTITION_COLUMN && !s->column[0]) {
        return fl_fail(e, FL_R_CONF_MISSING, "partition by column: which column?");
    }
    if (s->classes == 1 || s->classes > FL_TABLE_CLASSES_MAX) {
        return fl_fail(e, FL_R_CONF_RANGE, "%u classes", s->classes);
    }
    return fl_dataset_deal(s, e);
}

static int check_targets(const struct fl_data_source *s, const struct fl_table t[2],
                         struct fl_err *e)
{
    if (s->partition == FL_PARTITION_DIRICHLET || s->partition == FL_PARTITION_PATHOLOGICAL) {
        return fl_fail(e, FL_R_CONF_CONFLICT,
                       "%s: a partition by classes, but the targets are numbers", s->train_x);
    }
    if (s->classes) {
        return fl_fail(e, FL_R_DATA_VALUE, "%s: targets are numbers where %u classes are stated",
                       s->train_x, s->classes);
    }
    if (t[1].count && t[0].target_width != t[1].target_width) {
        return fl_fail(e, FL_R_DATA_SHAPE, "%s and %s: targets of %u and %u numbers", s->train_x,
                       s->test_x, t[0].target_width, t[1].target_width);
    }
    return 0;
}

/* The number of classes, given or the largest label + 1; labels beyond are refused. */
static int check_labels(const struct fl_data_source *s, const struct fl_table t[2],
                        uint32_t *ret_classes, struct fl_err *e)
{
    uint32_t classes = s->classes;

    if (t[0].target || t[1].target) {
        if (t[0].y || t[1].y) {
            return fl_fail(e, FL_R_DATA_SHAPE, "%s and %s: classes here, numbers there", s->train_x,
                           s->test_x);
        }
        *ret_classes = 0;
        return check_targets(s, t, e);
    }
    if (has_schema(s)) {
        *ret_classes = s->schema->target.values;
        return 0;
    }
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

/* Rows of one file, counted from `first`, that stay there. */
static int store_part(const struct fl_records *in, size_t features, const uint32_t *rows,
                      uint32_t count, uint32_t first, struct fl_examples *part, struct fl_err *e)
{
    uint32_t *own = fl_try(count, sizeof *own);

    if (!own) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for %u examples", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        own[i] = rows[i] - first;
    }
    int r = fl_records_store(in, features, own, count, part, e);
    fl_free(own);
    return r;
}

/* Labels or targets; and room for the features, unless these stay in their files. */
static int make_part(const struct fl_data_source *s, const struct fl_table t[2],
                     const uint32_t *rows, uint32_t count, struct fl_examples *part,
                     struct fl_err *e)
{
    const struct fl_records *in = t[0].records;
    size_t values, features = fl_table_features(&t[0]);
    uint32_t width = t[0].target_width;
    bool one_file = true;

    if (!fl_mul(count, features, &values) ||
        (width ? !(part->target = fl_try((size_t)count * width, sizeof *part->target))
               : !(part->y = fl_try(count, sizeof *part->y)))) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for %u examples", count);
    }
    part->count = count;
    part->target_width = width;
    for (uint32_t i = 0; i < count; i++) {
        one_file = one_file && (rows[i] < t[0].count) == (rows[0] < t[0].count);
    }
    if (in && s->memory && values * sizeof(float) > s->memory && one_file) {
        bool test = rows[0] >= t[0].count;
        in = t[test].records;
        if (fl_records_direct(in)) {
            return store_part(in, features, rows, count, test ? t[0].count : 0, part, e);
        }
    }
    return fl_floats_new(s, values, &part->x, &part->x_mapped, e);
}

/* Adds the rows of one part that are in file k to the picks of that file, and their labels. */
static void collect(const struct fl_table t[2], int k, const uint32_t *rows, uint32_t count,
                    size_t features, struct fl_examples *part, struct fl_pick *picks,
                    size_t *pick_count)
{
    for (uint32_t i = 0; i < count; i++) {
        int file = rows[i] >= t[0].count;
        uint32_t row = rows[i] - (file ? t[0].count : 0);
        if (file != k) {
            continue;
        }
        if (part->y) {
            part->y[i] = t[k].y[row];
        } else {
            memcpy(part->target + (size_t)i * part->target_width,
                   t[k].target + (size_t)row * part->target_width,
                   part->target_width * sizeof *part->target);
        }
        picks[(*pick_count)++] =
            part->x ? (struct fl_pick){.row = row, .to = part->x + i * features}
                    : (struct fl_pick){.row = row, .sum = fl_stored_sums(part->stored) + i};
    }
}

static int load_examples(const struct fl_data_source *s, const struct fl_table t[2],
                         const struct fl_split *split, const uint8_t *marks,
                         struct fl_hash *identity, struct fl_dataset *d, struct fl_err *e)
{
    size_t features = fl_table_features(&t[0]);
    size_t all = (size_t)split->train_count + split->test_count + split->validation_count;
    struct fl_pick *picks = fl_try(all, sizeof *picks);

    int r = picks ? 0 : fl_fail(e, FL_R_NOMEM, "out of memory for %zu examples", all);
    if (r == 0) {
        r = make_part(s, t, split->train, split->train_count, &d->train, e);
    }
    if (r == 0) {
        r = make_part(s, t, split->test, split->test_count, &d->test, e);
    }
    if (r == 0 && split->validation_count) {
        r = make_part(s, t, split->validation, split->validation_count, &d->validation, e);
    }
    for (int k = 0; r == 0 && k < 2; k++) {
        size_t count = 0;
        if (t[k].count == 0) {
            continue;
        }
        collect(t, k, split->train, split->train_count, features, &d->train, picks, &count);
        collect(t, k, split->test, split->test_count, features, &d->test, picks, &count);
        collect(t, k, split->validation, split->validation_count, features, &d->validation, picks,
                &count);
        qsort(picks, count, sizeof *picks, compare_picks);
        const struct fl_wanted wanted = {picks, count, k ? marks + t[0].count : marks, identity,
                                         NULL};
        r = read_rows(s, k == 1, &t[k], &wanted, e);
    }
    fl_free(picks);
    return r;
}

/* The same whether examples are in memory or in files. */
static int digest_part(struct fl_hash *h, const struct fl_examples *part, size_t features,
                       struct fl_err *e)
{
    fl_hash_add(h, &part->count, sizeof part->count);
    if (part->stored) {
        float *x = fl_try(features, sizeof *x);
        int r = x ? 0 : fl_fail(e, FL_R_NOMEM, "out of memory for an example");
        for (uint32_t i = 0; r == 0 && i < part->count; i++) {
            r = fl_examples_get(part, features, i, x, e);
            if (r == 0) {
                fl_hash_add(h, x, features * sizeof *x);
            }
        }
        fl_free(x);
        if (r) {
            return r;
        }
    } else {
        fl_hash_add(h, part->x, part->count * features * sizeof *part->x);
    }
    if (part->y) {
        fl_hash_add(h, part->y, part->count * sizeof *part->y);
    } else {
        fl_hash_add(h, part->target,
                    (size_t)part->count * part->target_width * sizeof *part->target);
    }
    return 0;
}

static int digest(struct fl_dataset *d, struct fl_err *e)
{
    size_t features = (size_t)d->shape[0] * d->shape[1] * d->shape[2];
    struct fl_hash h;

    fl_hash_init(&h);
    fl_hash_add(&h, d->shape, sizeof d->shape);
    fl_hash_add(&h, &d->classes, sizeof d->classes);
    int r = digest_part(&h, &d->train, features, e);
    if (r == 0) {
        r = digest_part(&h, &d->test, features, e);
    }
    fl_hash_end(&h, &d->digest);
    return r;
}

/* ---- identity ---- */

/* Marks on the rows that are this site's to its ledger: those of its training files, whatever is
 * set apart of them for a test. Of a public data set that is dealt to a simulation's sites: those
 * dealt to it for training, the validation examples among them. */
static void mark_rows(const struct fl_data_source *s, const struct fl_table t[2],
                      const struct fl_split *split, uint8_t *marks)
{
    if (s->partition == FL_PARTITION_DIRICHLET || s->partition == FL_PARTITION_PATHOLOGICAL) {
        for (uint32_t i = 0; i < split->train_count; i++) {
            marks[split->train[i]] = 1;
        }
        for (uint32_t i = 0; i < split->validation_count; i++) {
            marks[split->validation[i]] = 1;
        }
        return;
    }
    for (uint32_t i = 0; i < t[0].count; i++) {
        marks[i] = !t[0].client || t[0].client[i] == s->client;
    }
}

/* A row of a csv has its target in it; others have it in another file, or in front. */
static void end_identity(const struct fl_data_source *s, const struct fl_table t[2],
                         const uint8_t *marks, struct fl_hash *h, struct fl_digest *ret)
{
    uint64_t rows = 0;

    for (int k = 0; k < 2; k++) {
        for (uint32_t i = 0; i < t[k].count; i++, marks++) {
            if (!*marks) {
                continue;
            }
            rows++;
            if (s->format != FL_DATA_CSV) {
                fl_table_hash_target(&t[k], i, h);
            }
        }
    }
    fl_hash_add_u64(h, rows);
    fl_hash_end(h, ret);
}

/* ---- roles ---- */

bool fl_dataset_by_place(const struct fl_data_source *s)
{
    bool dealt =
        s->partition == FL_PARTITION_DIRICHLET || s->partition == FL_PARTITION_PATHOLOGICAL;
    bool cut = s->train || s->validation > 0 || (s->test && !s->test_x[0]);
    bool windows = has_schema(s) && s->schema->window.steps; /* begin where those before them end */

    return dealt || windows || s->format == FL_DATA_PROGRAM || (s->deal != FL_DEAL_HASHED && cut);
}

bool fl_dataset_hashed(const struct fl_data_source *s)
{
    return s->deal == FL_DEAL_HASHED &&
           (s->train_part > 0 || s->test_part > 0 || s->validation > 0);
}

int fl_dataset_deal(const struct fl_data_source *s, struct fl_err *e)
{
    const double cut = s->test_x[0] ? 0 : s->test_part;

    assert(s->deal != FL_DEAL_UNSAID);
    if (s->deal == FL_DEAL_PLACED) {
        return s->train_part > 0 || s->test_part > 0
                   ? fl_fail(e, FL_R_CONF_CONFLICT,
                             "parts of the rows (train and test below 1) need deal: hashed")
                   : 0;
    }
    if (s->partition == FL_PARTITION_DIRICHLET || s->partition == FL_PARTITION_PATHOLOGICAL ||
        s->format == FL_DATA_PROGRAM) {
        return fl_fail(e, FL_R_CONF_CONFLICT,
                       "deal: hashed is for a site's own rows (partition all, column or file)");
    }
    if (s->train || s->test || s->validation >= 1) {
        return fl_fail(e, FL_R_CONF_CONFLICT,
                       "deal: hashed takes parts of the rows, not numbers of them: train, test and "
                       "validation are below 1");
    }
    return cut + s->train_part > 1
               ? fl_fail(e, FL_R_CONF_RANGE, "train (%g) and test (%g) are more than all rows",
                         s->train_part, cut)
               : 0;
}

/* One reading more, only where something is cut. `seen` takes the identity of what was read. */
static int find_roles(const struct fl_data_source *s, struct fl_table t[2], const uint8_t *marks,
                      struct fl_hash *seen, struct fl_err *e)
{
    int r = 0;

    for (int k = 0; r == 0 && k < 2; k++) {
        if (t[k].count == 0 || (k == 1 && s->test_part <= 0)) {
            continue;
        }
        t[k].role = fl_try(t[k].count, sizeof *t[k].role);
        const struct fl_roles roles = {s->role_key.bytes, &t[k], t[k].role};
        const struct fl_wanted wanted = {NULL, 0, k ? marks + t[0].count : marks, seen, &roles};
        r = t[k].role ? read_rows(s, k == 1, &t[k], &wanted, e)
                      : fl_fail(e, FL_R_NOMEM, "out of memory for %u rows", t[k].count);
    }
    return r;
}

static int load_rows(const struct fl_data_source *s, struct fl_table t[2], uint8_t *marks,
                     struct fl_hash *identity, struct fl_dataset *d, struct fl_err *e)
{
    bool hashed = fl_dataset_hashed(s);
    struct fl_split split = {0};
    struct fl_digest before, after;
    struct fl_hash h;
    int r = 0;

    if (hashed) {
        fl_hash_init(&h);
        mark_rows(s, t, &split, marks); /* the site's own, whatever their part */
        r = find_roles(s, t, marks, &h, e);
        fl_hash_end(&h, &before);
    }
    r = r ? r : fl_partition(s, d->classes, &t[0], &t[1], &split, e);
    if (r == 0) {
        mark_rows(s, t, &split, marks);
        r = load_examples(s, t, &split, marks, identity, d, e);
    }
    if (r == 0 && hashed) {
        h = *identity;
        fl_hash_end(&h, &after);
        r = fl_digest_equal(&before, &after)
                ? 0
                : fl_fail(e, FL_R_DATA_CHANGED, "%s: changed while it was read", s->train_x);
    }
    fl_split_fini(&split);
    return r;
}

/* Rows of tables are examples; or windows over them are. */
static int load_marked(const struct fl_data_source *source, struct fl_table t[2], uint8_t *marks,
                       struct fl_hash *identity, struct fl_dataset *d, struct fl_err *e)
{
    struct fl_split split = {0};

    memcpy(d->shape, t[0].shape, sizeof d->shape);
    if (has_schema(source) && source->schema->window.steps) {
        d->shape[1] = source->schema->window.steps;
        d->shape[0] = 1;
        d->shape[2] = source->schema->features;
        mark_rows(source, t, &split, marks);
        return fl_windows_load(source, &t[0], marks, identity, d, e);
    }
    return load_rows(source, t, marks, identity, d, e);
}

static int load_parts(const struct fl_data_source *source, struct fl_table t[2],
                      struct fl_dataset *d, struct fl_err *e)
{
    size_t rows = (size_t)t[0].count + t[1].count;
    uint8_t *marks = fl_try(rows, sizeof *marks);
    struct fl_hash identity;

    if (!marks) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for %zu rows", rows);
    }
    fl_hash_init(&identity);
    int r = load_marked(source, t, marks, &identity, d, e);
    if (r == 0) {
        end_identity(source, t, marks, &identity, &d->identity);
    }
    fl_free(marks);
    return r;
}

int fl_dataset_load(const struct fl_data_source *source, struct fl_dataset *ret, struct fl_err *e)
{
    struct fl_table t[2] = {{0}, {0}};
    struct fl_dataset d = {.by_place = fl_dataset_by_place(source)};

    if (source->format == FL_DATA_PROGRAM) {
        fl_digest_of(source->version, strlen(source->version), &d.digest);
        d.identity = d.digest;
        *ret = d;
        return 0;
    }
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
        r = load_parts(source, t, &d, e);
    }
    if (r == 0) {
        r = digest(&d, e);
    }
    fl_table_fini(&t[0]);
    fl_table_fini(&t[1]);
    if (r) {
        fl_dataset_fini(&d);
        return r;
    }
    *ret = d;
    return 0;
}

static void part_fini(struct fl_examples *part)
{
    fl_floats_free(part->x, part->x_mapped);
    fl_free(part->y);
    fl_free(part->target);
    fl_stored_free(part->stored);
}

void fl_dataset_fini(struct fl_dataset *d)
{
    if (d) {
        part_fini(&d->train);
        part_fini(&d->test);
        part_fini(&d->validation);
        fl_floats_free(d->rows, d->rows_mapped);
        memset(d, 0, sizeof *d);
    }
}

int fl_dataset_batch(const struct fl_dataset *d, uint32_t batch, struct fl_err *e)
{
    return batch <= d->train.count
               ? 0
               : fl_fail(e, FL_R_DATA_BATCH, "a batch of %u of %u training examples", batch,
                         d->train.count);
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

/* Of each number that is predicted: mean, least and greatest. */
static void say_targets(struct text *t, const struct fl_examples *part)
{
    for (uint32_t k = 0; part->count && k < part->target_width && t->at + 1 < t->size; k++) {
        double sum = 0, least = (double)INFINITY, most = -(double)INFINITY;
        for (uint32_t i = 0; i < part->count; i++) {
            double x = (double)part->target[(size_t)i * part->target_width + k];
            sum += x;
            least = x < least ? x : least;
            most = x > most ? x : most;
        }
        say(t, " mean %.4g in [%.4g, %.4g]", sum / part->count, least, most);
    }
}

static void say_part(struct text *t, const char *name, const struct fl_examples *part,
                     uint32_t classes)
{
    say(t, "; %s %u:", name, part->count);
    if (part->target) {
        say_targets(t, part);
    }
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
    fl_digest_hex(&d->identity, hex);
    say(&t, "%ux%ux%u, ", d->shape[0], d->shape[1], d->shape[2]);
    if (d->classes) {
        say(&t, "%u classes, ", d->classes);
    } else {
        say(&t, "%u number%s to predict, ", d->train.target_width,
            d->train.target_width == 1 ? "" : "s");
    }
    say(&t, "digest %.16s", hex);
    say_part(&t, "train", &d->train, d->classes);
    say_part(&t, "test", &d->test, d->classes);
    if (d->validation.count) {
        say_part(&t, "validation", &d->validation, d->classes);
    }
}
