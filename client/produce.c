/*
 * The table of producers, and `counts`: how many training examples of each class are here.
 *
 * Sensitivity. Unit `example`: one example more or less changes one count by 1, and a count that is
 * cut at its bound by at most 1: L2 sensitivity 1. Unit `client`: the vector of counts is clipped
 * to L2 norm `bound` on the grid, exactly, so a site more or less changes a sum by at most that.
 * Either way discrete Gaussian noise of noise_multiplier times the sensitivity is added on the
 * grid, and one Gaussian event of q = 1 is debited.
 */
#include "client/produce_in.h"

#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/privacy/clip.h"
#include "common/privacy/noise.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int fl_produce_event(const struct fl_plan *plan, double sigma, const char *what,
                     struct fl_event *ret, struct fl_err *e)
{
    *ret = (struct fl_event){.q = 1};
    if (plan->privacy.unit == FL_UNIT_NONE) {
        return 0;
    }
    if (!(sigma > 0)) {
        return fl_fail(e, FL_R_PLAN_PRIVACY, "%s without noise, under a unit", what);
    }
    ret->sigma = sigma;
    ret->count = 1;
    return fl_event_check(ret, e);
}

static int counts_event(const struct fl_plan *plan, const struct fl_exchange_terms *terms,
                        struct fl_event *ret, struct fl_err *e)
{
    (void)terms;
    if (plan->privacy.unit == FL_UNIT_NONE) {
        return fl_fail(e, FL_R_PLAN_PRIVACY, "counts of examples without a unit");
    }
    return fl_produce_event(plan, plan->counts.noise_multiplier, "counts of examples", ret, e);
}

/* Counts in units of examples, each at most `most`. */
static int count_classes(const struct fl_examples *from, uint32_t classes, float most, float *to,
                         struct fl_err *e)
{
    memset(to, 0, classes * sizeof *to);
    for (uint32_t i = 0; i < from->count; i++) {
        if (!from->y || from->y[i] < 0 || (uint32_t)from->y[i] >= classes) {
            return fl_fail(e, FL_R_DATA_FORMAT, "example %u has no class of the job's %u", i,
                           classes);
        }
        to[from->y[i]] += to[from->y[i]] < most ? 1 : 0;
    }
    return 0;
}

double fl_produce_norm(const struct fl_grid *g, const int64_t *q, size_t count)
{
    double squares = 0;

    for (size_t i = 0; i < count; i++) {
        squares += (double)q[i] * (double)q[i];
    }
    return ldexp(sqrt(squares), g->step);
}

int fl_produce_noise(const struct fl_produce *in, double sigma, int64_t bound, int64_t *q,
                     size_t count, double *ret_std, struct fl_err *e)
{
    char label[FL_EXCHANGE_NAME_MAX + 8];
    struct fl_noise *noise;
    struct fl_seed own;
    struct fl_rng rng;
    int r = fl_noise_new(sigma * (double)bound, &noise, e);

    if (r) {
        return r;
    }
    snprintf(label, sizeof label, "%s noise", in->terms->name);
    fl_seed_derive(in->seed, label, 0, &own);
    fl_rng_init(&rng, &own, 0);
    fl_noise_add(noise, &rng, q, count);
    fl_rng_fini(&rng);
    explicit_bzero(&own, sizeof own);
    *ret_std = ldexp(fl_noise_scale(noise), in->terms->grid.step);
    fl_noise_free(noise);
    return 0;
}

static int counts_make(const struct fl_produce *in, struct fl_produced *ret, struct fl_err *e)
{
    const struct fl_counts_conf *conf = &in->plan->counts;
    const struct fl_grid g = {.bits = in->terms->grid.bits, .step = in->terms->grid.step};
    size_t count = in->terms->elements;
    bool client = in->plan->privacy.unit == FL_UNIT_CLIENT;
    int64_t bound = 0;
    float *x = fl_try_aligned(count, sizeof *x);
    int64_t *q = fl_try_aligned(count, sizeof *q);

    memset(ret, 0, sizeof *ret);
    int r = x && q ? 0 : fl_fail(e, FL_R_NOMEM, "counts of %zu classes", count);
    r = r ? r
          : count_classes(&in->data->train, (uint32_t)count,
                          client ? (float)(1 << 24) : (float)conf->bound, x, e);
    r = r ? r : fl_clip_bound(&g, client ? conf->bound : 1, &bound, e);
    if (r == 0 && client) {
        r = fl_clip_to_grid(&g, x, count, bound, q, &ret->norm_before, e);
    } else if (r == 0) {
        r = fl_grid_round(&g, x, count, q, e);
    }
    ret->norm_after = r ? 0 : fl_produce_norm(&g, q, count);
    ret->clip = client ? conf->bound : 1;
    ret->norm_before = client ? ret->norm_before : ret->norm_after;
    r = r ? r : fl_produce_noise(in, conf->noise_multiplier, bound, q, count, &ret->noise_std, e);
    if (x) {
        explicit_bzero(x, count * sizeof *x);
    }
    fl_free(x);
    if (r) {
        fl_free(q);
        return r;
    }
    ret->q = q;
    return 0;
}

static const struct fl_producer counts = {
    .exchange = "counts", .event = counts_event, .make = counts_make};
static const struct fl_producer *const table[] = {
    &counts,
    &fl_produce_choice,
    &fl_produce_descriptor,
    &fl_produce_embedding,
    &fl_produce_score,
    &fl_produce_advertise,
    &fl_produce_share,
    &fl_produce_sign,
    &fl_produce_unmask,
};

const struct fl_producer *fl_producer_find(const char *exchange)
{
    for (size_t i = 0; i < FL_COUNT(table); i++) {
        if (strcmp(table[i]->exchange, exchange) == 0) {
            return table[i];
        }
    }
    return NULL;
}
