/* What each kind in a model releases: for `model show`. */
#include "common/nn/param/make.h"
#include "common/nn/param/param.h"
#include "common/nn/ridge.h"

#include <string.h>

/* A row for each rule kind, one for the hypernetwork, one for private network tensors. */
enum { ROW_HYPER = FL_MAKE_KINDS, ROW_PRIVATE, ROWS };

static const char *word_of(const struct fl_layout *l, int row)
{
    static const char *const generators[] = {[FL_GENERATOR_NONE] = "none",
                                             [FL_GENERATOR_AFFINE] = "affine",
                                             [FL_GENERATOR_CHUNKED] = "chunked",
                                             [FL_GENERATOR_KRONECKER] = "kronecker"};

    if (row == ROW_HYPER && fl_ridge_shared(l)) {
        return "moments";
    }
    if (row == ROW_HYPER) {
        return generators[l->generator.kind];
    }
    if (row == ROW_PRIVATE) {
        return "private";
    }
    if (row == FL_MAKE_PLAIN) {
        return "plain";
    }
    return row == FL_MAKE_FROZEN ? "frozen" : fl_make_ops_of((enum fl_make_kind)row)->word;
}

static int row_of(const struct fl_layout *l, uint32_t tensor)
{
    const struct fl_tensor *t = &l->theta.at[tensor];
    const struct fl_made *m = fl_made_of(l, tensor);

    if (m) {
        return (int)m->kind;
    }
    if (t->fixed) {
        return FL_MAKE_FROZEN;
    }
    return t->group == FL_GROUP_SHARED      ? FL_MAKE_PLAIN
           : t->group == FL_GROUP_GENERATED ? ROW_HYPER
                                            : ROW_PRIVATE;
}

/* Each part counts once, for the first tensor that has it. */
static void count_parts(const struct fl_layout *l, uint32_t k, struct fl_param_row *row)
{
    const struct fl_made *m = &l->made[k];

    for (int place = 0; place < FL_PLACES; place++) {
        bool seen = !m->at[place].used;
        for (uint32_t before = 0; before < k && !seen; before++) {
            const struct fl_place *other = &l->made[before].at[place];
            seen = other->used && other->private_ == m->at[place].private_ &&
                   other->tensor == m->at[place].tensor;
        }
        if (seen) {
            continue;
        }
        const struct fl_tensor *t = fl_part_tensor(l, &m->at[place]);
        *(t->fixed                ? &row->fixed
          : m->at[place].private_ ? &row->private_
                                  : &row->released) += t->count;
    }
}

uint32_t fl_param_rows(const struct fl_layout *l, struct fl_param_row ret[FL_PARAM_ROWS_MAX])
{
    struct fl_param_row row[ROWS] = {{0}};
    uint32_t n = 0;

    for (uint32_t i = 0; i < l->theta.count; i++) {
        const struct fl_tensor *t = &l->theta.at[i];
        int k = row_of(l, i);
        row[k].tensors++;
        row[k].theta += k == FL_MAKE_FROZEN ? 0 : t->count;
        row[k].fixed += k == FL_MAKE_FROZEN ? t->count : 0;
        row[k].released += k == FL_MAKE_PLAIN ? t->count : 0;
        row[k].private_ += k == ROW_PRIVATE ? t->count : 0;
    }
    for (uint32_t k = 0; k < l->made_count; k++) {
        count_parts(l, k, &row[l->made[k].kind]);
    }
    if (row[ROW_HYPER].tensors) {
        row[ROW_HYPER].released = l->shared.elements - l->shared.at[l->own].offset;
        row[ROW_HYPER].private_ = l->generator.embedding;
    }
    for (int k = 0; k < ROWS; k++) {
        if (row[k].tensors) {
            ret[n] = row[k];
            ret[n++].kind = word_of(l, k);
        }
    }
    return n;
}
