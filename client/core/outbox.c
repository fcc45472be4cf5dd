#include "client/core/outbox.h"

#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/math/narrow.h"
#include "common/plan/adaptive.h"
#include "common/plan/releases.h"
#include "common/plan/secure.h"
#include "common/plan/shared_step.h"
#include "common/privacy/clip.h"
#include "common/privacy/noise.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Below this many grid steps the discrete Gaussian's privacy loss may differ visibly from the
 * continuous one's, and the event would not be the plain Gaussian that is debited. */
static const double scale_min = 4;

static struct fl_grid grid_of(const struct fl_plan *plan)
{
    return (struct fl_grid){plan->grid.bits, plan->grid.step};
}

/* Bounds and noise in grid steps, of the outbox: of unit `client`, or of a step whose noise members
 * share. */
static int own_scale(const struct fl_plan *plan, struct fl_adaptive_bound *ret_bound,
                     double *ret_scale, struct fl_err *e)
{
    struct fl_adaptive_bound bound = {0};
    struct fl_shared_step shared;
    bool step = fl_plan_shares_step(plan);
    int r = step ? fl_shared_step(plan, &shared, e)
                 : fl_adaptive_bound(&plan->privacy, plan->grid.step, &bound, e);

    if (r < 0) {
        return r;
    }
    if (step) {
        bound.update = (int64_t)shared.bound;
        bound.both = (double)bound.update;
    }
    *ret_bound = bound;
    *ret_scale = fl_plan_own_multiplier(plan) * bound.both;
    if (!(*ret_scale >= scale_min) || !isfinite(*ret_scale)) {
        return fl_fail(e, FL_R_PLAN_PRIVACY,
                       "noise of %g grid steps (noise multiplier %g, clip of %lld steps of 2^%d); "
                       "at least %g are needed",
                       *ret_scale, fl_plan_own_multiplier(plan), (long long)bound.update,
                       (int)plan->grid.step, scale_min);
    }
    return 0;
}

int fl_outbox_event(const struct fl_plan *plan, struct fl_event *ret, struct fl_err *e)
{
    const struct fl_privacy_conf *p = &plan->privacy;
    struct fl_event event = {0};
    struct fl_adaptive_bound bound;
    double scale;
    int r = fl_release_event(plan, &event, e);

    if (r == 0 && (p->unit == FL_UNIT_CLIENT || fl_plan_shares_step(plan))) {
        r = own_scale(plan, &bound, &scale, e);
    }
    if (r == 0 && p->unit != FL_UNIT_NONE && event.count == 0) {
        /* Nothing travels, so the ledger will count nothing, but the plan must still be whole. */
        bool example = p->unit == FL_UNIT_EXAMPLE;
        event = (struct fl_event){.q = example ? p->sampling_rate : 1,
                                  .sigma = p->noise_multiplier,
                                  .count = example ? plan->train.steps : 1};
    }
    if (r == 0 && p->unit == FL_UNIT_EXAMPLE &&
        (!(event.sigma > 0) || !(event.q > 0) || event.count == 0)) {
        r = fl_fail(e, FL_R_PLAN_PRIVACY,
                    "unit `example` with noise multiplier %g, sampling rate %g, %u steps",
                    event.sigma, event.q, plan->train.steps);
    }
    if (r < 0) {
        return r;
    }
    r = fl_event_check(&event, e);
    if (r < 0) {
        return r;
    }
    *ret = event;
    return 0;
}

static double norm_of(const struct fl_grid *g, const int64_t *q, size_t count)
{
    double squares = 0;

    for (size_t i = 0; i < count; i++) {
        squares += (double)q[i] * (double)q[i];
    }
    return ldexp(sqrt(squares), g->step);
}

/* delta on the grid, clipped and noised as the unit asks; what it cost and how it looked. */
static int to_grid(const struct fl_plan *plan, const float *delta, size_t count,
                   const struct fl_seed *seed, int64_t *q, struct fl_sealed *s, struct fl_err *e)
{
    const struct fl_grid g = grid_of(plan);
    struct fl_noise *noise = NULL;
    struct fl_seed own;
    struct fl_adaptive_bound bound = {0};
    struct fl_rng rng;
    double scale = 0, squares = 0;
    int r;

    bool step = fl_plan_shares_step(plan);
    if (plan->privacy.unit != FL_UNIT_CLIENT && !step) {
        r = fl_grid_round(&g, delta, count, q, e);
        for (size_t i = 0; r == 0 && i < count; i++) {
            squares += (double)delta[i] * (double)delta[i];
        }
        s->norm_before = sqrt(squares);
        s->norm_after = r < 0 ? 0 : norm_of(&g, q, count);
        return r;
    }
    r = own_scale(plan, &bound, &scale, e);
    bool local =
        plan->privacy.noise != FL_NOISE_CENTRAL; /* else the coordinator adds it to the sum */
    r = r < 0 || !local ? r : fl_noise_new(scale, &noise, e);
    if (r == 0 && step) { /* on the grid already: no rounding, and no clip but each example's */
        r = fl_grid_round(&g, delta, count, q, e);
        s->norm_before = r < 0 ? 0 : norm_of(&g, q, count);
    } else if (r == 0) {
        size_t clipped = count - (bound.bit > 0); /* the value behind the model's is the bit's */
        r = fl_clip_to_grid(&g, delta, clipped, bound.update, q, &s->norm_before, e);
    }
    if (r == 0) {
        s->norm_after = norm_of(&g, q, count - (bound.bit > 0));
    }
    if (r == 0 && bound.bit > 0) {
        q[count - 1] = s->norm_before <= plan->privacy.clip ? bound.bit : -bound.bit;
    }
    if (r == 0 && local) {
        fl_seed_derive(seed, "outbox noise", 0, &own);
        fl_rng_init(&rng, &own, 0);
        fl_noise_add(noise, &rng, q, count);
        fl_rng_fini(&rng);
        explicit_bzero(&own, sizeof own);
        s->noise_std = ldexp(fl_noise_scale(noise), plan->grid.step);
    }
    fl_noise_free(noise);
    return r;
}

/* What the job lets a site send that wants to send `bits`; 0: the grid's. */
static uint32_t narrow_of(const struct fl_plan *plan, uint32_t bits)
{
    uint32_t least = plan->grid.narrow, even = bits + bits % 2;

    if (least == 0 || bits == 0 || even >= FL_NARROW_FROM) {
        return 0;
    }
    return even > least ? even : least;
}

int fl_outbox_seal(const struct fl_plan *plan, const float *delta,
                   const struct fl_event *example_event, const struct fl_seed *seed, uint32_t bits,
                   struct fl_sealed *ret, struct fl_err *e)
{
    uint32_t narrow = narrow_of(plan, bits);
    const struct fl_grid g = grid_of(plan);
    const size_t count = plan->layout.shared.elements;
    struct fl_sealed s = {0};
    int64_t *q = NULL;
    int r;

    assert((plan->privacy.unit == FL_UNIT_EXAMPLE) == (example_event != NULL));
    r = fl_outbox_event(plan, &s.event, e);
    if (r < 0) {
        return r;
    }
    s.clip = plan->privacy.unit == FL_UNIT_NONE ? 0 : plan->privacy.clip;
    if (example_event) {
        s.event = *example_event;
        s.noise_std = s.event.count ? s.event.sigma * s.clip : 0;
    }
    if (!fl_grid_bytes(&g, count, &s.size)) {
        return fl_fail(e, FL_R_LIMIT, "update of %zu values", count);
    }
    q = fl_try_aligned(count, sizeof *q);
    s.bytes = fl_try(s.size, 1);
    if (!q || !s.bytes) {
        r = fl_fail(e, FL_R_NOMEM, "update of %zu values", count);
        goto out;
    }
    r = to_grid(plan, delta, count, seed, q, &s, e);
    if (r < 0) {
        goto out;
    }
    if (narrow) {
        s.size = fl_narrow_bytes(narrow, count);
        s.saturated = fl_narrow_pack(narrow, q, count, s.bytes);
    } else {
        s.saturated = fl_grid_pack(&g, q, count, s.bytes);
    }
    fl_digest_of(s.bytes, s.size, &s.digest);
    *ret = s;
    s.bytes = NULL;
out:
    if (q) {
        explicit_bzero(q, count * sizeof *q); /* the clipped update without packing's saturation */
    }
    fl_free(q);
    fl_free(s.bytes);
    return r < 0 ? fl_wrap(e, r, "seal the update of job %s", plan->name) : 0;
}

void fl_sealed_fini(struct fl_sealed *s)
{
    if (s) {
        fl_free(s->bytes);
        s->bytes = NULL;
    }
}

int fl_outbox_pick(const struct fl_digest *of, uint32_t count, const char *hex, bool *ret_meant,
                   struct fl_err *e)
{
    char whole[FL_DIGEST_HEX], all[150] = "";
    size_t n = hex ? strlen(hex) : 0, used = 0;
    const struct fl_digest *first = NULL;
    bool several = false;

    if (hex && (n < FL_OUTBOX_PREFIX || n >= FL_DIGEST_HEX ||
                n != strspn(hex, "0123456789abcdefABCDEF"))) {
        return fl_fail(e, FL_R_ARG,
                       "an update is named by its digest, 64 hex digits, or by the first of them, "
                       "%d at least",
                       FL_OUTBOX_PREFIX);
    }
    for (uint32_t i = 0; i < count; i++) {
        fl_digest_hex(&of[i], whole);
        ret_meant[i] = strncasecmp(whole, hex ? hex : "", n) == 0;
        if (ret_meant[i] && used < sizeof all) {
            used += (size_t)snprintf(all + used, sizeof all - used, "%s%.24s", first ? ", " : "",
                                     whole);
        }
        several = several || (ret_meant[i] && first && !fl_digest_equal(first, &of[i]));
        first = ret_meant[i] && !first ? &of[i] : first;
    }
    if (hex && several) {
        return fl_fail(e, FL_R_ARG, "%s could be %s", hex, all);
    }
    return first ? 0
                 : fl_fail(e, FL_R_ARG,
                           "no such update waits for approval (`outbox show` lists "
                           "those that do)");
}
