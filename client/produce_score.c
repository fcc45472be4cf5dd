/*
 * `score`: how good the model is that this site would be served, had the job ended before this
 * round: received and private parts, its head tuned where the job says so, on the validation
 * examples, which nothing was trained on. Accuracy; of a model of numbers R2, cut to [0, 1].
 *
 * Sensitivity: 1, the length of that interval, under either unit; discrete Gaussian noise of
 * noise_multiplier times that is added on the grid, and one Gaussian event of q = 1 is debited.
 * Without a unit there may be none: then only a site that allows `scores` sends any.
 */
#include "client/produce_in.h"

#include "client/trainer/trainer.h"
#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/privacy/clip.h"

#include <math.h>
#include <string.h>

static int score_event(const struct fl_plan *plan, const struct fl_exchange_terms *terms,
                       struct fl_event *ret, struct fl_err *e)
{
    (void)terms;
    return fl_produce_event(plan, plan->score.noise_multiplier, "a score", ret, e);
}

static int measure(const struct fl_produce *in, double *ret, struct fl_err *e)
{
    struct fl_dataset seen = *in->data;
    struct fl_train_report x;
    struct fl_train_task task = {.plan = in->plan,
                                 .data = &seen,
                                 .base = in->base,
                                 .private_in = in->private_,
                                 .seed = *in->seed,
                                 .round = in->key.round,
                                 .cancel = in->cancel};

    if (in->data->validation.count == 0) {
        return fl_fail(e, FL_R_DATA_EMPTY,
                       "the job asks for a score, and no validation examples were set apart "
                       "(data.validation)");
    }
    seen.test = in->data->validation;
    int r = fl_train_serve(&task, &x, e);
    if (r == 0 && x.received.known) {
        *ret = x.served.known ? x.served.r2 : x.received.r2;
    } else if (r == 0) {
        *ret = isfinite(x.accuracy_served) ? x.accuracy_served : x.accuracy_received;
    }
    return r;
}

static int score_make(const struct fl_produce *in, struct fl_produced *ret, struct fl_err *e)
{
    const struct fl_grid g = {.bits = in->terms->grid.bits, .step = in->terms->grid.step};
    int64_t bound = 0, *q = fl_try_aligned(1, sizeof *q);
    double score = 0;

    memset(ret, 0, sizeof *ret);
    int r = q ? measure(in, &score, e) : fl_fail(e, FL_R_NOMEM, "a score");
    r = r ? r : fl_clip_bound(&g, 1, &bound, e);
    if (r == 0) {
        float cut = isfinite(score) && score > 0 ? (float)fmin(score, 1) : 0;
        r = fl_clip_to_grid(&g, &cut, 1, bound, q, &ret->norm_before, e);
        ret->norm_after = ret->norm_before;
        ret->clip = 1;
    }
    if (r == 0 && in->plan->score.noise_multiplier > 0) {
        r = fl_produce_noise(in, in->plan->score.noise_multiplier, bound, q, 1, &ret->noise_std, e);
    }
    if (r) {
        fl_free(q);
        return r;
    }
    ret->q = q;
    return 0;
}

const struct fl_producer fl_produce_score = {
    .exchange = "score", .event = score_event, .make = score_make};
