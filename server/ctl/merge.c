/* `model merge`: several models of one shape become one, without data and without any daemon. */
#include "common/base/mem.h"
#include "common/math/pcb.h"
#include "common/nn/tensors.h"
#include "server/ctl/cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TILE = 4096 };
static const size_t file_max = (size_t)4 << 30;

struct merge {
    bool pcb;
    double keep, scale;
    uint32_t count;
    float *base, *model[FL_PCB_VECTORS_MAX];
    struct fl_tensor_file *file; /* the base's */
};

static int read_options(struct fl_cli *c, struct merge *m)
{
    const char *method = fl_cli_option(c, "method", 0);
    int r = 0;

    m->pcb = !method || strcmp(method, "pcb") == 0;
    m->keep = 0.1;
    m->scale = 1;
    if (!m->pcb && strcmp(method, "mean") != 0) {
        return fl_fail(&c->err, FL_R_ARG, "--method: %s is neither mean nor pcb", method);
    }
    if (!fl_cli_option(c, "base", 0) || !fl_cli_option(c, "output", 0)) {
        return fl_fail(&c->err, FL_R_ARG, "--base and --output are needed");
    }
    if (fl_cli_option(c, "keep", 0)) {
        r = m->pcb ? fl_cli_number(c, "keep", 0, 1, &m->keep)
                   : fl_fail(&c->err, FL_R_ARG, "--keep: a mean keeps all values");
    }
    return r == 0 && fl_cli_option(c, "scale", 0) ? fl_cli_number(c, "scale", 0, 10, &m->scale) : r;
}

/* The values of a file that has the base's tensors. */
static int load(struct fl_cli *c, const struct merge *m, const char *path, float **ret)
{
    struct fl_tensor_file *f = fl_try(1, sizeof *f);
    size_t count = m->file->table.elements;
    float *values = fl_try(count, sizeof *values);
    int r = f && values ? fl_tensor_file_open(path, file_max, f, &c->err)
                        : fl_fail(&c->err, FL_R_NOMEM, "a model of %zu values", count);

    if (r == 0) {
        r = fl_tensor_file_take(f, &m->file->table, values, &c->err);
        r = r ? fl_wrap(&c->err, r, "%s", path) : 0;
        for (size_t i = 0; r == 0 && i < count; i++) {
            if (!isfinite(values[i])) {
                r = fl_fail(&c->err, FL_R_NOT_FINITE, "%s: value %zu is not finite", path, i);
            }
        }
        fl_tensor_file_close(f);
    }
    fl_free(f);
    if (r) {
        fl_free(values);
        return r;
    }
    *ret = values;
    return 0;
}

static int load_all(struct fl_cli *c, struct merge *m)
{
    const char *base = fl_cli_option(c, "base", 0);
    int r = fl_tensor_file_open(base, file_max, m->file, &c->err);

    if (r == 0 && (m->file->table.elements == 0 || m->file->table.elements > UINT32_MAX)) {
        r = fl_fail(&c->err, FL_R_TENSORS, "%s: %zu values", base, m->file->table.elements);
    }
    r = r ? r : load(c, m, base, &m->base);
    for (uint32_t i = 0; r == 0 && i < c->word_count; i++) {
        r = load(c, m, c->words[i], &m->model[i]);
        m->count += r == 0;
    }
    return r;
}

static int read_tile(void *arg, size_t first, size_t count, double *to, struct fl_err *e)
{
    const struct merge *m = arg;

    (void)e;
    for (size_t i = 0; i < m->count; i++) {
        for (size_t k = 0; k < count; k++) {
            to[i * TILE + k] = (double)m->model[i][first + k] - (double)m->base[first + k];
        }
    }
    return 0;
}

/* Their mean, from the base on. */
static void mean(const struct merge *m, size_t first, size_t count, double *ret)
{
    for (size_t k = 0; k < count; k++) {
        double sum = 0;
        for (size_t i = 0; i < m->count; i++) {
            sum += (double)m->model[i][first + k] - (double)m->base[first + k];
        }
        ret[k] = m->scale * sum / m->count;
    }
}

/* The base becomes the merged model; *ret_moved: how many of its values are not as they were. */
static int merge_models(struct fl_cli *c, struct merge *m, size_t *ret_moved)
{
    size_t elements = m->file->table.elements;
    struct fl_pcb_terms t = {.vectors = m->count,
                             .elements = elements,
                             .tile = TILE,
                             .keep = m->keep,
                             .outliers = FL_PCB_OUTLIERS,
                             .read = read_tile,
                             .arg = m};
    struct fl_pcb *p = NULL;
    double way[TILE];
    int r = 0;

    for (uint32_t i = 0; i < m->count; i++) {
        t.scale[i] = m->scale;
    }
    if (m->pcb) {
        r = fl_pcb_new(&t, &p, &c->err);
    }
    *ret_moved = 0;
    for (size_t first = 0, n; r == 0 && first < elements; first += n) {
        n = elements - first < TILE ? elements - first : TILE;
        if (m->pcb) {
            r = fl_pcb_values(p, first, n, way, &c->err);
        } else {
            mean(m, first, n, way);
        }
        for (size_t k = 0; r == 0 && k < n; k++) { /* read by now, and not again */
            float was = m->base[first + k];
            m->base[first + k] = (float)((double)was + way[k]);
            *ret_moved += m->base[first + k] != was;
        }
    }
    fl_pcb_free(p);
    return r;
}

static int save(struct fl_cli *c, const struct merge *m)
{
    char keep[32], scale[32], count[16];
    const struct fl_meta meta[] = {
        {"merged", m->pcb ? "pcb" : "mean"}, {"models", count}, {"scale", scale}, {"keep", keep}};

    snprintf(count, sizeof count, "%u", m->count);
    snprintf(scale, sizeof scale, "%.9g", m->scale);
    snprintf(keep, sizeof keep, "%.9g", m->keep);
    return fl_tensors_save(fl_cli_option(c, "output", 0), &m->file->table, m->base, meta,
                           m->pcb ? 4 : 3, &c->err);
}

int fl_cli_model_merge(struct fl_cli *c)
{
    struct merge m = {.file = fl_try(1, sizeof *m.file)};
    size_t moved = 0, elements = 0;
    int r = m.file ? read_options(c, &m) : fl_fail(&c->err, FL_R_NOMEM, "no memory");

    r = r ? r : load_all(c, &m);
    r = r ? r : merge_models(c, &m, &moved);
    r = r ? r : save(c, &m);
    elements = m.file ? m.file->table.elements : 0;
    if (r == 0 && c->json) {
        json_t *o = json_pack("{ss si sI sI ss}", "method", m.pcb ? "pcb" : "mean", "models",
                              (int)m.count, "values", (json_int_t)elements, "moved",
                              (json_int_t)moved, "output", fl_cli_option(c, "output", 0));
        fl_cli_print_json(o);
        json_decref(o);
    } else if (r == 0) {
        printf("%u models by %s: %zu of %zu values are not the base's\n", m.count,
               m.pcb ? "pcb" : "mean", moved, elements);
    }
    for (uint32_t i = 0; i < m.count; i++) {
        fl_free(m.model[i]);
    }
    fl_free(m.base);
    if (m.file) {
        fl_tensor_file_close(m.file);
    }
    fl_free(m.file);
    return r;
}
