/*
 * What one member of a few can do to the mean of all, on made-up pictures, without noise: label
 * flip, an update turned round and as large as the grid lets it, and a backdoor (a mark in a corner
 * means class 0; Bagdasaryan et al. 2020), boosted. The strategy's own rule is the mean here;
 * nobody checks an update's norm but its sender, so the grid's largest value is the only bound.
 */
#include "server/ctl/attack/attack.h"

#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/math/vec.h"
#include "common/nn/param/param.h"

#include <math.h>
#include <string.h>

enum { MEMBERS = 5, EACH = 16, TEST = 64, BOOST = MEMBERS };
enum drill { CLEAN, FLIP, SCALING, BACKDOOR };

struct world {
    struct fl_attack *a;
    uint32_t rounds, steps;
    size_t n, own;
    float *x, *test; /* MEMBERS * EACH pictures; TEST pictures, then the same with the mark */
    int32_t *y, *test_y;
    float *shared, *privates, *local; /* the model; each member's own; one member's in training */
    double *sum;
    float *bad_x;
    int32_t *bad_y;
    float *out;
};

/* A bright patch of a tenth of the input (its last values, or the corner of every channel). */
static void mark(const struct fl_attack *a, float *x)
{
    const uint32_t *in = a->l->spec.input;
    const struct fl_data_conf *data = &a->plan->data;
    size_t plane = (size_t)in[1] * in[2], width = in[2] > 1 ? in[2] / 4 + 1 : 1,
           height = in[1] > 1 ? in[1] / 4 + 1 : 1;

    for (size_t c = 0; c < in[0]; c++) {
        size_t k = data->channels == 1 ? 0 : c;
        float most = data->channels ? (1 - data->mean[k]) / data->std[k] : 1;
        for (size_t i = 0; plane > 1 && i < height * width; i++) {
            x[c * plane + i / width * in[2] + i % width] = most;
        }
        if (plane == 1 && c >= in[0] - in[0] / 10 - 1) {
            x[c] = most;
        }
    }
}

static void make_pictures(struct world *w)
{
    struct fl_attack *a = w->a;
    uint32_t classes = fl_attack_classes(a);

    for (size_t i = 0; i < MEMBERS * EACH; i++) {
        w->y[i] = (int32_t)(i % classes);
        fl_attack_picture(a, (uint32_t)w->y[i], w->x + i * a->features);
    }
    for (size_t i = 0; i < TEST; i++) {
        float *x = w->test + i * a->features, *marked = w->test + (TEST + i) * a->features;
        w->test_y[i] = (int32_t)(i % classes);
        fl_attack_picture(a, (uint32_t)w->test_y[i], x);
        memcpy(marked, x, a->features * sizeof *x);
        mark(a, marked);
    }
}

/* The last member's pictures, as the drill has them. */
static void make_bad(struct world *w, enum drill drill)
{
    const struct fl_attack *a = w->a;
    size_t first = (MEMBERS - 1) * EACH;
    int32_t classes = (int32_t)fl_attack_classes(a);

    memcpy(w->bad_x, w->x + first * a->features, EACH * a->features * sizeof *w->bad_x);
    memcpy(w->bad_y, w->y + first, EACH * sizeof *w->bad_y);
    for (size_t i = 0; i < EACH; i++) {
        if (drill == FLIP) {
            w->bad_y[i] = (w->bad_y[i] + 1) % classes;
        } else if (drill == BACKDOOR && i % 2) {
            mark(a, w->bad_x + i * a->features);
            w->bad_y[i] = 0;
        }
    }
}

/* One member's update into w->local. */
static int train(struct world *w, uint32_t member, enum drill drill, struct fl_err *e)
{
    struct fl_attack *a = w->a;
    const struct fl_grid g = {a->plan->grid.bits, a->plan->grid.step};
    bool bad = drill != CLEAN && member == MEMBERS - 1;
    const struct fl_attack_batch batch = {bad ? w->bad_x : w->x + member * EACH * a->features,
                                          bad ? w->bad_y : w->y + member * EACH, EACH};
    float most = (float)ldexp((double)fl_grid_max(&g), g.step);
    int r = 0;

    memcpy(w->local, w->shared, w->n * sizeof *w->local);
    for (uint32_t s = 0; r == 0 && s < w->steps; s++) {
        r = fl_attack_step(a, w->local, w->privates + member * w->own, &batch, 0, e);
    }
    fl_vec_sub(w->local, w->shared, w->local, w->n);
    for (size_t i = 0; r == 0 && bad && drill != FLIP && i < w->n; i++) {
        float x = w->local[i];
        x = drill == BACKDOOR ? BOOST * x : x > 0 ? -most : x < 0 ? most : 0;
        w->local[i] = x > most ? most : x < -most ? -most : x;
    }
    return r;
}

/* The part of test pictures (with or without the mark) that are taken for what `wanted` says, of
 * those it speaks of. */
static double part(struct world *w, bool marked, struct fl_err *e)
{
    struct fl_attack *a = w->a;
    size_t outputs = fl_spec_outputs(&a->l->spec), right = 0, asked = 0;

    if (fl_param_make(a->l, w->shared, w->privates, a->theta, e)) {
        return (double)NAN;
    }
    fl_model_set(a->model, a->theta);
    fl_model_forward(a->model, w->test + (marked ? TEST * a->features : 0), TEST, w->out);
    for (size_t i = 0; i < TEST; i++) {
        const float *out = w->out + i * outputs;
        size_t best = 0;
        for (size_t k = 1; k < outputs; k++) {
            best = out[k] > out[best] ? k : best;
        }
        if (outputs == 1) {
            best = out[0] > 0;
        }
        asked += !marked || w->test_y[i] != 0;
        right += marked ? w->test_y[i] != 0 && best == 0 : best == (size_t)w->test_y[i];
    }
    return asked ? (double)right / (double)asked : (double)NAN;
}

static int play(struct world *w, enum drill drill, double *ret_right, double *ret_marked,
                struct fl_err *e)
{
    struct fl_attack *a = w->a;
    float lr = a->plan->server.optimizer == FL_SERVER_AVERAGE ? a->plan->server.lr : 1;
    int r = 0;

    make_bad(w, drill);
    memcpy(w->shared, a->shared, w->n * sizeof *w->shared);
    for (uint32_t m = 0; m < MEMBERS; m++) {
        memcpy(w->privates + m * w->own, a->private_, w->own * sizeof *w->privates);
    }
    for (uint32_t round = 0; r == 0 && round < w->rounds; round++) {
        memset(w->sum, 0, w->n * sizeof *w->sum);
        for (uint32_t m = 0; r == 0 && m < MEMBERS; m++) {
            r = train(w, m, drill, e);
            for (size_t i = 0; i < w->n; i++) {
                w->sum[i] += (double)w->local[i];
            }
        }
        for (size_t i = 0; i < w->n; i++) {
            w->shared[i] += lr * (float)(w->sum[i] / MEMBERS);
        }
    }
    *ret_right = r ? 0 : part(w, false, e);
    *ret_marked = r ? 0 : part(w, true, e);
    return r;
}

static int make_world(struct world *w, struct fl_attack *a, struct fl_err *e)
{
    size_t n = a->l->shared.elements, own = a->l->private_.elements;
    uint32_t steps = a->plan->train.steps ? a->plan->train.steps : 5;
    bool large = n > (1u << 20);

    *w = (struct world){.a = a,
                        .rounds = large ? 4 : 10,
                        .steps = large && steps > 3 ? 3
                                 : steps > 10       ? 10
                                                    : steps,
                        .n = n,
                        .own = own,
                        .x = fl_try(MEMBERS * EACH * a->features, sizeof *w->x),
                        .test = fl_try(2 * TEST * a->features, sizeof *w->test),
                        .y = fl_try(MEMBERS * EACH, sizeof *w->y),
                        .test_y = fl_try(TEST, sizeof *w->test_y),
                        .shared = fl_try_aligned(n + 1, sizeof *w->shared),
                        .local = fl_try_aligned(n + 1, sizeof *w->local),
                        .privates = fl_try_aligned(MEMBERS * own + 1, sizeof *w->privates),
                        .sum = fl_try(n, sizeof *w->sum),
                        .bad_x = fl_try(EACH * a->features, sizeof *w->bad_x),
                        .bad_y = fl_try(EACH, sizeof *w->bad_y),
                        .out = fl_try(TEST * fl_spec_outputs(&a->l->spec), sizeof *w->out)};
    bool all = w->x && w->test && w->y && w->test_y && w->shared && w->local && w->privates &&
               w->sum && w->bad_x && w->bad_y && w->out;
    return all ? 0 : fl_fail(e, FL_R_NOMEM, "members of %zu values", n);
}

static void free_world(struct world *w)
{
    fl_free(w->x);
    fl_free(w->test);
    fl_free(w->y);
    fl_free(w->test_y);
    fl_free(w->shared);
    fl_free(w->local);
    fl_free(w->privates);
    fl_free(w->sum);
    fl_free(w->bad_x);
    fl_free(w->bad_y);
    fl_free(w->out);
}

int fl_attack_poison(struct fl_attack *a, struct fl_poisoning *ret, struct fl_err *e)
{
    struct fl_poisoning out = {.members = MEMBERS};
    struct world w;
    double unused;
    int r = make_world(&w, a, e);

    out.rounds = w.rounds;
    if (r == 0) {
        make_pictures(&w);
        r = play(&w, CLEAN, &out.clean, &out.backdoor_clean, e);
    }
    r = r ? r : play(&w, FLIP, &out.flip, &unused, e);
    r = r ? r : play(&w, SCALING, &out.scaling, &unused, e);
    r = r ? r : play(&w, BACKDOOR, &unused, &out.backdoor, e);
    free_world(&w);
    if (r == 0) {
        *ret = out;
    }
    return r;
}
