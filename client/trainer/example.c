/*
 * DP-SGD (Abadi et al. 2016): training whose every released bit is covered by an epsilon for one
 * example added or removed.
 *
 * A step. Each training example is taken with probability q, independently, by the seed of this
 * round's intent; batches are never cut, and an empty one goes on like any other. Each example's
 * gradient at theta, over the whole network, body and head together, is clipped to C and rounded to
 * a grid (clipsum.h); their sum gets discrete Gaussian noise of scale sigma C in every coordinate
 * and is divided by the public constant q * examples. That is the step's only look at the data: one
 * event (q, sigma). What follows is post-processing of it: SGD on tensors stored as they are, and
 * for a generated body the pull back through the generator to its tensors and the embedding. So the
 * next step's theta, head and embedding included, depends on the data through accounted steps only.
 *
 * The gradient is clipped and noised at theta, not at the generator: it has H + 1 times fewer
 * coordinates there.
 *
 * Momentum and weight decay are post-processing too. The plan's plain clips are not applied: C is
 * the clip here.
 *
 * Where the members of a secure sum share the noise (common/plan/shared_step.h) the one step of a
 * round gets none here: its sum goes to the job's grid and the outbox adds this member's part. The
 * site's own theta is left as it was received, for nobody sees this step alone.
 *
 * A gradient that is not finite counts as zero rather than failing: whether training fails must not
 * depend on one example.
 */
#include "client/trainer/clipsum.h"
#include "client/trainer/session.h"

#include "common/base/mem.h"
#include "common/math/vec.h"
#include "common/plan/shared_step.h"
#include "common/privacy/noise.h"

#include <math.h>

static const double NOISE_MAX = 0x1p30; /* of common/privacy/noise.h */

/* The numbers of the examples of one Poisson batch. */
static size_t sample(struct fl_rng *rng, double q, uint32_t count, uint32_t *ret)
{
    size_t n = 0;

    for (uint32_t i = 0; i < count; i++) {
        ret[n] = i;
        n += fl_rng_unit(rng) < q;
    }
    return n;
}

/* The step on the job's grid, exact in floats. */
static void to_grid(const struct fl_shared_step *shared, double step, int grid, const int64_t *q,
                    float *to, size_t count)
{
    double factor = -shared->factor * step;

    for (size_t i = 0; i < count; i++) {
        double x = rint((double)q[i] * factor);
        x = fmax(-shared->most, fmin(x, shared->most));
        to[i] = ldexpf((float)x, grid);
    }
}

FL_VECTOR static void scale(double factor, const int64_t *q, float *to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = (float)((double)q[i] * factor);
    }
}

/* Where a step's sum goes, part by part. */
struct taken {
    const struct fl_noise *noise;
    struct fl_rng *rng;
    const struct fl_shared_step *shared;
    double step, divisor;
    int grid;
    float *grad;
};

/* Noise on it, and into the gradient. */
static void noise_part(void *arg, size_t at, int64_t *q, size_t count)
{
    const struct taken *t = arg;

    fl_noise_add(t->noise, t->rng, q, count);
    scale(t->step / t->divisor, q, t->grad + at, count);
}

/* Onto the job's grid; its share of the noise comes later. */
static void grid_part(void *arg, size_t at, int64_t *q, size_t count)
{
    const struct taken *t = arg;

    to_grid(t->shared, t->step, t->grid, q, t->grad + at, count);
}

/* The logical batch, however large, in shards: memory is that of a shard. */
static int add_batch(struct fl_session *s, struct fl_clipsum *sum, uint32_t step,
                     const uint32_t *order, size_t n, double *loss, struct fl_err *e)
{
    const struct fl_piece *pieces;
    int r = 0;

    fl_model_set(s->model, s->theta);
    for (size_t at = 0, count; r == 0 && at < n; at += count) {
        if ((r = fl_session_cancelled(s, e)) < 0) {
            return r;
        }
        count = n - at < s->shard ? n - at : s->shard;
        s->turn = step; /* an example's crop and flip do not depend on its shard */
        fl_session_load(s, &s->data->train, order, at, count);
        *loss += fl_model_examples(s->model, s->x, s->goal, count);
        for (size_t i = 0; r == 0 && i < count; i++) {
            uint32_t parts = fl_model_pieces(s->model, i, &pieces);
            r = fl_clipsum_add(sum, pieces, parts, e);
        }
    }
    return r < 0 ? r : fl_session_cancelled(s, e);
}

int fl_train_noised(struct fl_session *s, struct fl_moves *moves, const struct fl_seed *seed,
                    struct fl_progress *p, struct fl_err *e)
{
    const struct fl_privacy_conf *c = &s->plan->privacy;
    size_t elements = s->layout->theta.elements;
    uint32_t count = s->data->train.count;
    double divisor = c->sampling_rate * c->examples, loss = 0;
    struct fl_clipsum *sum = NULL;
    struct fl_noise *noise = NULL;
    struct fl_seed own;
    struct fl_rng sampling, noising;
    struct fl_shared_step shared = {0};
    uint32_t *order = fl_try((size_t)count + 1, sizeof *order);
    size_t seen = 0;
    bool shares = fl_plan_shares_step(s->plan);
    int r = 0;

    if (!order) {
        return fl_fail(e, FL_R_NOMEM, "a batch of up to %u examples", count);
    }
    fl_seed_derive(seed, "sampling", 0, &own);
    fl_rng_init(&sampling, &own, 0);
    fl_seed_derive(seed, "noise", 0, &own);
    fl_rng_init(&noising, &own, 0);
    r = fl_clipsum_new(elements, c->clip, NOISE_MAX / c->noise_multiplier,
                       c->clipping == FL_CLIPPING_PER_LAYER, &sum, e);
    if (r == 0 && shares) {
        r = fl_shared_step(s->plan, &shared, e);
    }
    if (r < 0) {
        goto out;
    }
    double step = fl_clipsum_step(sum);
    r = fl_noise_new(c->noise_multiplier * c->clip / step, &noise, e);
    struct taken taken = {.noise = noise,
                          .rng = &noising,
                          .shared = &shared,
                          .step = step,
                          .divisor = divisor,
                          .grid = s->plan->grid.step,
                          .grad = s->grad};
    for (uint32_t k = 0; r == 0 && k < s->plan->train.steps; k++) {
        size_t n = sample(&sampling, c->sampling_rate, count, order);
        if ((r = add_batch(s, sum, k, order, n, &loss, e)) < 0) {
            break;
        }
        fl_clipsum_drain(sum, shares ? grid_part : noise_part, &taken);
        if (!shares) {
            fl_moves_step(moves);
        }
        seen += n;
        p->steps++;
    }
    p->loss = seen ? loss / (double)seen : (double)NAN;
out:
    fl_rng_fini(&sampling);
    fl_rng_fini(&noising);
    fl_clipsum_free(sum);
    fl_noise_free(noise);
    fl_free(order);
    return r;
}
