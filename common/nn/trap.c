#include "common/nn/trap.h"

#include "common/base/mem.h"

#include <stddef.h>

enum { ROWS_MIN = 8, COLUMNS_MIN = 4, PATCH_MIN = 9, TURNS = 4 };
#define RANK_ONE 0.98 /* part of a matrix' squares that its largest singular value holds */
#define DELTA    0.98 /* part of a filter's squares in one weight */

static bool is_dense(const struct fl_layer *l)
{
    return l->kind == FL_LAYER_LINEAR && l->in_shape[1] * l->in_shape[2] == 1;
}

int fl_trap_spec(const struct fl_spec *spec, struct fl_err *e)
{
    const struct fl_layer *seen[3] = {NULL, NULL, NULL};
    size_t input = (size_t)spec->input[0] * spec->input[1] * spec->input[2], count = 0;

    for (uint32_t i = 0; i < spec->layer_count && count < 3; i++) {
        if (spec->layers[i].weight >= 0) {
            seen[count++] = &spec->layers[i];
        }
    }
    bool picture = spec->input[1] > 1 && spec->input[2] > 1;
    if (picture && count == 3 && is_dense(seen[0]) && is_dense(seen[1]) && seen[1]->out == input) {
        return fl_fail(e, FL_R_TRAP,
                       "layers %s and %s are a dense block in front of a network on pictures: that "
                       "is how a coordinator reads single ones",
                       seen[0]->name, seen[1]->name);
    }
    return 0;
}

/* The part of |w|^2 that the largest singular value holds, from below: a few turns of power
 * iteration from the longest row, w [rows, columns]. v and next: columns values of room. */
static double rank_one_part(const float *w, size_t rows, size_t columns, double *v, double *next)
{
    double all = 0, longest = 0, top = 0;

    for (size_t i = 0; i < rows; i++) {
        double square = 0;
        for (size_t j = 0; j < columns; j++) {
            square += (double)w[i * columns + j] * (double)w[i * columns + j];
        }
        all += square;
        if (square > longest) {
            longest = square;
            for (size_t j = 0; j < columns; j++) {
                v[j] = (double)w[i * columns + j];
            }
        }
    }
    for (uint32_t turn = 0; all > 0 && turn < TURNS; turn++) {
        double square = 0, dots = 0;
        for (size_t j = 0; j < columns; j++) {
            square += v[j] * v[j];
            next[j] = 0;
        }
        for (size_t i = 0; i < rows; i++) {
            double dot = 0;
            for (size_t j = 0; j < columns; j++) {
                dot += (double)w[i * columns + j] * v[j];
            }
            dots += dot * dot;
            for (size_t j = 0; j < columns; j++) {
                next[j] += dot * (double)w[i * columns + j];
            }
        }
        top = dots / square;
        for (size_t j = 0; j < columns; j++) {
            v[j] = next[j] / all;
        }
    }
    return all > 0 ? top / all : 0;
}

static int check_rows(const struct fl_layer *l, const float *w, size_t rows, size_t columns,
                      struct fl_err *e)
{
    double *room = fl_try(2 * columns, sizeof *room);

    if (!room) {
        return fl_fail(e, FL_R_NOMEM, "a look at layer %s", l->name);
    }
    double part = rank_one_part(w, rows, columns, room, room + columns);
    fl_free(room);
    return part <= RANK_ONE
               ? 0
               : fl_fail(
                     e, FL_R_TRAP,
                     "the %zu rows of layer %s are one direction with other thresholds: that is "
                     "how a coordinator reads single examples",
                     rows, l->name);
}

/* Filters [out, in * kernel * kernel] of which one weight is nearly all. */
static bool passes_on(const float *w, size_t filters, size_t patch)
{
    size_t deltas = 0, living = 0;

    for (size_t i = 0; i < filters; i++, w += patch) {
        double all = 0, most = 0;
        for (size_t k = 0; k < patch; k++) {
            double square = (double)w[k] * (double)w[k];
            all += square;
            most = square > most ? square : most;
        }
        living += all > 0;
        deltas += all > 0 && most > DELTA * all;
    }
    return living > 0 && 2 * deltas >= living;
}

int fl_trap_check(const struct fl_layout *layout, const float *theta, struct fl_err *e)
{
    int r = fl_trap_spec(&layout->spec, e);

    for (uint32_t i = 0; r == 0 && i < layout->spec.layer_count; i++) {
        const struct fl_layer *l = &layout->spec.layers[i];
        const struct fl_tensor *t = l->weight >= 0 ? &layout->theta.at[l->weight] : NULL;
        if (!t || t->group == FL_GROUP_PRIVATE) {
            continue;
        }
        size_t rows = t->shape[0], columns = t->count / rows;
        const float *w = theta + t->offset;
        if (is_dense(l) && rows >= ROWS_MIN && columns >= COLUMNS_MIN) {
            r = check_rows(l, w, rows, columns, e);
        } else if (l->kind == FL_LAYER_CONV2D && columns >= PATCH_MIN &&
                   passes_on(w, rows, columns)) {
            r = fl_fail(e, FL_R_TRAP,
                        "the filters of layer %s only pass their input on: that is how a "
                        "coordinator reads single examples",
                        l->name);
        }
    }
    return r;
}
