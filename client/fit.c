#include "client/fit.h"

#include "client/report.h"
#include "common/base/mem.h"

#include <math.h>
#include <stdio.h>

int fl_fit(const struct fl_plan *plan, struct fl_dataset *d, struct fl_err *e)
{
    const struct fl_spec *spec = &plan->layout.spec;

    if (d->shape[0] == 0 && plan->trainer == FL_TRAINER_EXEC) {
        return 0; /* data that only the site's program reads */
    }
    if (d->shape[0] == 0) {
        return fl_fail(e, FL_R_DATA_SHAPE,
                       "only this site's program reads its data, and the job wants the builtin "
                       "trainer");
    }
    /* The number of values was compared when the plan was read: the model may fold them. */
    if (plan->data.schema.count) {
        memcpy(d->shape, spec->input, sizeof d->shape);
    }
    if (memcmp(d->shape, spec->input, sizeof d->shape) != 0 || d->classes > spec->classes) {
        return fl_fail(e, FL_R_DATA_SHAPE,
                       "the data are %ux%ux%u with %u classes, the model takes %ux%ux%u with %u",
                       d->shape[0], d->shape[1], d->shape[2], d->classes, spec->input[0],
                       spec->input[1], spec->input[2], spec->classes);
    }
    bool numbers = fl_loss_is_regression(&spec->loss);
    if (numbers != (d->train.target != NULL) ||
        (numbers && d->train.target_width != spec->targets)) {
        return fl_fail(e, FL_R_DATA_SHAPE,
                       "the model predicts %s, the data have %s (%u of each example)",
                       numbers ? "numbers" : "classes", d->train.target ? "numbers" : "classes",
                       d->train.target ? d->train.target_width : 1);
    }
    /* Under the unit example batches are drawn with a rate, and any size may come. */
    return plan->privacy.unit == FL_UNIT_EXAMPLE ? 0 : fl_dataset_batch(d, plan->train.batch, e);
}

/* ---- for people ---- */

static const char *const parts[] = {"year", "month", "day", "weekday", "yearday", "hour", "minute"};

static void add(json_t *to, const char *name, json_t *value)
{
    json_object_set_new(to, name, value);
}

/* One column of a row, back to what it was (as far as clipping and hashing allow). */
static const float *decode(const struct fl_schema *s, const struct fl_column *k, const float *x,
                           json_t *to)
{
    char name[FL_SCHEMA_NAME_MAX + 16];
    uint32_t code = 0;

    switch (k->kind) {
    case FL_COLUMN_NUMERIC:
        add(to, k->name, json_real((double)*x * k->std + k->mean));
        break;
    case FL_COLUMN_CATEGORY:
        if (!k->onehot) {
            code = (uint32_t)*x;
        }
        while (k->onehot && x[code] == 0) {
            code++;
        }
        snprintf(name, sizeof name, "(new, bucket %u)", code - k->values);
        add(to, k->name,
            json_string(code < k->values ? s->text + s->value[k->first + code] : name));
        break;
    case FL_COLUMN_DATETIME:
        for (uint32_t p = 0, i = 0; p < k->part_count; p++) {
            snprintf(name, sizeof name, "%s.%s", k->name, parts[k->part[p]]);
            if (k->as == FL_DATE_CYCLIC) {
                add(to, name, json_pack("[ff]", (double)x[i], (double)x[i + 1]));
                i += 2;
            } else {
                add(to, name, json_real((double)x[i++]));
            }
        }
        break;
    }
    return x + k->width;
}

static void describe_values(const float *x, size_t features, json_t *to)
{
    double least = (double)INFINITY, most = -(double)INFINITY, sum = 0;
    json_t *few = json_array();

    for (size_t i = 0; i < features; i++) {
        least = fmin(least, (double)x[i]);
        most = fmax(most, (double)x[i]);
        sum += (double)x[i];
        if (i < 8) {
            json_array_append_new(few, json_real((double)x[i]));
        }
    }
    add(to, "least", json_real(least));
    add(to, "most", json_real(most));
    add(to, "mean", json_real(sum / (double)features));
    add(to, "begins", few);
}

/* The first training example; of a window its last row. */
static int first_example(const struct fl_data_source *source, const struct fl_dataset *d,
                         json_t *to, struct fl_err *e)
{
    const struct fl_schema *s = source->schema;
    size_t features = (size_t)d->shape[0] * d->shape[1] * d->shape[2];
    float *x = fl_try(features, sizeof *x);
    int r =
        x ? fl_examples_get(&d->train, features, 0, x, e) : fl_fail(e, FL_R_NOMEM, "out of memory");

    if (r == 0 && s && s->count) {
        json_t *row = json_object();
        const float *at = x + features - s->features;
        for (uint32_t i = 0; i < s->count; i++) {
            at = decode(s, &s->column[i], at, row);
        }
        add(to, "row", row);
    } else if (r == 0) {
        describe_values(x, features, to);
    }
    if (r == 0 && d->train.y) {
        int32_t y = d->train.y[0];
        add(to, "class", json_integer(y));
        if (s && s->count) {
            add(to, "target", json_string(s->text + s->value[s->target.first + (uint32_t)y]));
        }
    } else if (r == 0) {
        double scale = s && s->count ? s->target.std : 1, mean = s && s->count ? s->target.mean : 0;
        json_t *all = json_array();
        for (uint32_t k = 0; k < d->train.target_width; k++) {
            json_array_append_new(all, json_real((double)d->train.target[k] * scale + mean));
        }
        add(to, "target", all);
    }
    fl_free(x);
    return r;
}

static json_t *partition_of(const struct fl_data_source *s)
{
    char text[256];

    switch (s->partition) {
    case FL_PARTITION_ALL:
        return json_string("all");
    case FL_PARTITION_COLUMN:
        if (s->client_text[0]) {
            snprintf(text, sizeof text, "rows whose %s says %s", s->column, s->client_text);
        } else {
            snprintf(text, sizeof text, "rows whose %s says %u", s->column, s->client);
        }
        break;
    case FL_PARTITION_FILE:
        snprintf(text, sizeof text, "rows to which the file gives %u", s->client);
        break;
    case FL_PARTITION_DIRICHLET:
        snprintf(text, sizeof text, "dirichlet, client %u of %u, alpha %g, seed %llu",
                 s->client + 1, s->of, s->alpha, (unsigned long long)s->seed);
        break;
    case FL_PARTITION_PATHOLOGICAL:
        snprintf(text, sizeof text, "pathological, client %u of %u, %s, seed %llu", s->client + 1,
                 s->of, s->disjoint ? "disjoint" : "as published", (unsigned long long)s->seed);
        break;
    }
    return json_string(text);
}

static const char *kept(const struct fl_dataset *d)
{
    if (d->rows) {
        return d->rows_mapped ? "rows in a file without a name; examples overlap in it"
                              : "rows in memory; examples overlap in them";
    }
    return d->train.stored     ? "in the data files, read as needed"
           : d->train.x_mapped ? "in a file without a name"
                               : "in memory";
}

int fl_fit_describe(const struct fl_data_source *source, const struct fl_dataset *d, json_t *to,
                    struct fl_err *e)
{
    char line[1024], digest[FL_DIGEST_HEX];
    json_t *first = json_object();

    fl_dataset_describe(d, line, sizeof line);
    fl_digest_hex(&d->identity, digest);
    fl_report_text(to, "data", digest);
    fl_report_count(to, "train", d->train.count);
    fl_report_count(to, "test", d->test.count);
    fl_report_count(to, "validation", d->validation.count);
    add(to, "shape", json_pack("[iii]", (int)d->shape[0], (int)d->shape[1], (int)d->shape[2]));
    if (d->classes) {
        fl_report_count(to, "classes", d->classes);
    } else {
        fl_report_count(to, "targets", d->train.target_width);
    }
    add(to, "partition", partition_of(source));
    fl_report_text(to, "deal",
                   fl_dataset_hashed(source) ? "hashed"
                   : d->by_place             ? "placed"
                                             : "none");
    fl_report_text(to, "neighbours",
                   fl_report_neighbours(FL_UNIT_EXAMPLE, FL_NOISE_LOCAL, !d->by_place));
    fl_report_text(to, "kept", kept(d));
    fl_report_text(to, "description", line);
    int r = d->train.count ? first_example(source, d, first, e) : 0;
    add(to, "first", first);
    return r;
}
