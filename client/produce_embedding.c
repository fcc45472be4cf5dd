/*
 * `embedding`: the mean embedding of a site's training examples by the model that a round begins
 * with (fedka, common/plan/fedka.h). Where the job names a target site, only that one sends its
 * own, and 1 behind it; all others send zeros, which their data do not shape.
 *
 * Sensitivity. Every example's embedding has norm 1, so the mean of any number of them is at most
 * 1; it is clipped to that on the grid, exactly. A site more or less (unit `client`) changes a sum
 * by at most 1: discrete Gaussian noise of noise_multiplier steps of that is added to each number,
 * and one Gaussian event of q = 1 is debited. The number behind it is the job's word, not the
 * data's, and has no noise.
 */
#include "client/produce_in.h"

#include "client/trainer/trainer.h"
#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/plan/fedka.h"
#include "common/privacy/clip.h"

#include <math.h>
#include <string.h>

static int embedding_event(const struct fl_plan *plan, const struct fl_exchange_terms *terms,
                           struct fl_event *ret, struct fl_err *e)
{
    (void)terms;
    if (plan->privacy.unit == FL_UNIT_EXAMPLE) {
        return fl_fail(e, FL_R_PLAN_PRIVACY, "an embedding under the unit example");
    }
    return fl_produce_event(plan, plan->setting.fedka.noise_multiplier, "an embedding", ret, e);
}

static int embed(const struct fl_produce *in, float *to, struct fl_err *e)
{
    const struct fl_train_task task = {.plan = in->plan,
                                       .data = in->data,
                                       .base = in->base,
                                       .round = in->key.round,
                                       .input = in->input,
                                       .input_size = in->input_size,
                                       .cancel = in->cancel};

    return fl_train_embed(&task, to, e);
}

static int embedding_make(const struct fl_produce *in, struct fl_produced *ret, struct fl_err *e)
{
    const struct fl_fedka_conf *conf = &in->plan->setting.fedka;
    const struct fl_grid g = {.bits = in->terms->grid.bits, .step = in->terms->grid.step};
    size_t count = fl_fedka_embedding(in->plan);
    bool one_site = conf->target == FL_FEDKA_SITE;
    bool mine = !one_site || strcmp(conf->site, in->agent) == 0;
    int64_t bound = 0, *q = fl_try_aligned(count + 1, sizeof *q);
    float *x = fl_try_aligned(count, sizeof *x);

    memset(ret, 0, sizeof *ret);
    int r = x && q ? 0 : fl_fail(e, FL_R_NOMEM, "an embedding of %zu numbers", count);
    if (r == 0 && mine) {
        r = embed(in, x, e);
    }
    r = r ? r : fl_clip_bound(&g, 1, &bound, e);
    r = r ? r : fl_clip_to_grid(&g, x, count, bound, q, &ret->norm_before, e);
    ret->norm_after = r ? 0 : fl_produce_norm(&g, q, count);
    ret->clip = 1;
    if (r == 0 && in->plan->privacy.unit != FL_UNIT_NONE) {
        r = fl_produce_noise(in, conf->noise_multiplier, bound, q, count, &ret->noise_std, e);
    }
    if (x) {
        explicit_bzero(x, count * sizeof *x);
    }
    fl_free(x);
    if (r) {
        fl_free(q);
        return r;
    }
    q[count] = one_site && mine ? (int64_t)ldexp(1, -g.step) : 0;
    ret->q = q;
    return 0;
}

const struct fl_producer fl_produce_embedding = {
    .exchange = "embedding", .event = embedding_event, .make = embedding_make};
