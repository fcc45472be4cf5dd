/*
 * What the fixed layers of a job make of a data set of images, as .npy files that sites can read
 * (`format: npy`): OUT/{train,test}-{x,y}.npy, in the order of the files.
 *
 *     features --data DIR --out DIR JOB.yaml
 *
 * For tables that train many linear models on the same features.
 */
#include "client/data/dataset.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/nn/model.h"
#include "common/plan/plan.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARD = 64 };

_Noreturn static void die(const char *what, const struct fl_err *e)
{
    fprintf(stderr, "features: %s: %s\n", what, e ? e->msg : "cannot be written");
    exit(1);
}

static void read_plan(const char *path, struct fl_plan *ret)
{
    uint8_t *text;
    size_t size;
    struct fl_err e;

    if (fl_file_read(path, FL_PLAN_TEXT_MAX, &text, &size, &e) ||
        fl_plan_parse(ret, path, (const char *)text, size, &e)) {
        die(path, &e);
    }
    fl_free(text);
}

static void load(const char *folder, uint32_t classes, struct fl_dataset *ret)
{
    struct fl_data_source s = {.format = FL_DATA_IDX, .of = 1, .classes = classes};
    struct fl_err e;

    snprintf(s.train_x, sizeof s.train_x, "%s/train-images-idx3-ubyte.gz", folder);
    snprintf(s.train_y, sizeof s.train_y, "%s/train-labels-idx1-ubyte.gz", folder);
    snprintf(s.test_x, sizeof s.test_x, "%s/test-images-idx3-ubyte.gz", folder);
    snprintf(s.test_y, sizeof s.test_y, "%s/test-labels-idx1-ubyte.gz", folder);
    if (fl_dataset_load(&s, ret, &e)) {
        die(folder, &e);
    }
}

/* Version 1 of the format: the header ends with a newline at a multiple of 64 bytes. */
static FILE *begin(const char *folder, const char *name, const char *type, const char *shape)
{
    char path[1024], header[118];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s.npy", folder, name);
    file = fopen(path, "wb");
    if (!file) {
        die(path, NULL);
    }
    memset(header, ' ', sizeof header);
    int n = snprintf(header, sizeof header,
                     "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", type, shape);
    header[n] = ' ';
    header[sizeof header - 1] = '\n';
    fwrite("\x93NUMPY\1\0\x76\0", 1, 10, file);
    fwrite(header, 1, sizeof header, file);
    return file;
}

static void end(FILE *file, const char *name)
{
    int bad = ferror(file);

    if (fclose(file) || bad) {
        die(name, NULL);
    }
}

static void write_part(struct fl_model *front, size_t raw, size_t features,
                       const struct fl_examples *from, const char *folder, const char *part)
{
    float *x = fl_new(SHARD * features, sizeof *x);
    char name[32], shape[64];
    FILE *file;

    snprintf(name, sizeof name, "%s-x", part);
    snprintf(shape, sizeof shape, "(%u, %zu)", from->count, features);
    file = begin(folder, name, "<f4", shape);
    for (size_t at = 0, n; at < from->count; at += n) {
        n = from->count - at < SHARD ? from->count - at : SHARD;
        fl_model_forward(front, from->x + at * raw, n, x);
        fwrite(x, sizeof *x, n * features, file);
    }
    end(file, name);
    snprintf(name, sizeof name, "%s-y", part);
    snprintf(shape, sizeof shape, "(%u,)", from->count);
    file = begin(folder, name, "<i4", shape);
    fwrite(from->y, sizeof *from->y, from->count, file);
    end(file, name);
    fl_free(x);
}

int main(int argc, char **argv)
{
    static const struct option known[] = {{"data", required_argument, NULL, 'd'},
                                          {"out", required_argument, NULL, 'o'},
                                          {NULL, 0, NULL, 0}};
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    struct fl_spec *parts = fl_new(2, sizeof *parts);
    struct fl_dataset data = {0};
    struct fl_model *front;
    const char *folder = NULL, *out = NULL;
    struct fl_err e;
    int c;

    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        folder = c == 'd' ? optarg : folder;
        out = c == 'o' ? optarg : out;
    }
    if (!folder || !out || optind + 1 != argc) {
        fprintf(stderr, "usage: features --data DIR --out DIR JOB.yaml\n");
        return 2;
    }
    read_plan(argv[optind], plan);
    const struct fl_spec *spec = &plan->layout.spec;
    uint32_t fixed = fl_spec_fixed(spec);
    if (fixed == 0 || plan->data.channels) {
        fprintf(stderr, "features: %s: no fixed features, or a data.mean\n", argv[optind]);
        return 1;
    }
    fl_spec_cut(spec, fixed, parts);
    if (fl_model_new(&parts[0], SHARD, &front, &e)) {
        die(argv[optind], &e);
    }
    load(folder, spec->classes, &data);
    const uint32_t *in = spec->input, *made = parts[1].input;
    size_t raw = (size_t)in[0] * in[1] * in[2], features = (size_t)made[0] * made[1] * made[2];
    write_part(front, raw, features, &data.train, out, "train");
    write_part(front, raw, features, &data.test, out, "test");
    fl_model_free(front);
    fl_dataset_fini(&data);
    fl_free(parts);
    fl_free(plan);
    return 0;
}
