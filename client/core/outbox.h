/*
 * The outbox: from a trained delta to the very bytes that leave, and nothing else can leave. It
 * sees the shared vector only.
 */
#ifndef CLIENT_CORE_OUTBOX_H
#define CLIENT_CORE_OUTBOX_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/rng.h"
#include "common/plan/plan.h"
#include "common/privacy/accountant.h"

#include <stddef.h>
#include <stdint.h>

struct fl_sealed {
    uint8_t *bytes; /* fl_plan_update_size(plan), or narrower; freed by fl_sealed_fini */
    size_t size;
    struct fl_digest digest;
    struct fl_event event; /* what the ledger must be debited (client unit: q = 1, one release) */
    /* Norm before the clip and on the grid behind it, in units of delta. Under `client` what was
     * then added, and the clip; under `example` the clip of each example's gradient and what was
     * added to their sum in each of event.count steps. 0: none. */
    double norm_before, norm_after, clip, noise_std;
    uint64_t saturated; /* values cut to the grid's range while packing */
};

/* delta: plan->layout.shared.elements floats. example_event: what training already cost (unit
 * `example`), NULL otherwise. Unit `none`: rounds and packs, saturating. `client`: clips to C with
 * an exact integer bound, adds discrete Gaussian noise from `seed`, packs. `example`: rounds and
 * packs what accounted steps made. -FL_R_NOT_FINITE: nothing is sealed. -FL_R_PLAN_PRIVACY: clip or
 * noise too small for the grid. bits: what this site's link is given, 0 = the grid's; no fewer
 * than grid.narrow lets it. The second rounding is behind the noise: it costs nothing. -FL_R_NOMEM.
 * The same arguments give the same bytes on every machine. */
int fl_outbox_seal(const struct fl_plan *plan, const float *delta,
                   const struct fl_event *example_event, const struct fl_seed *seed, uint32_t bits,
                   struct fl_sealed *ret, struct fl_err *e);
void fl_sealed_fini(struct fl_sealed *s);

/* Which of these updates does a person mean by `hex`, a digest or how it begins (FL_OUTBOX_PREFIX
 * digits at least; NULL: all of them)? *ret_meant of each. -FL_R_ARG: none, or more than one. */
enum { FL_OUTBOX_PREFIX = 8 };
int fl_outbox_pick(const struct fl_digest *of, uint32_t count, const char *hex, bool *ret_meant,
                   struct fl_err *e);

/* The event this plan will cost a site in one round, for asking the ledger before training. Under
 * `none` its count is 0. -FL_R_PLAN_PRIVACY: a unit whose parameters cannot be honoured. */
int fl_outbox_event(const struct fl_plan *plan, struct fl_event *ret, struct fl_err *e);

#endif
