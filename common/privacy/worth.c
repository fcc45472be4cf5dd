#include "common/privacy/worth.h"

#include <math.h>

static bool positive(double x)
{
    return isfinite(x) && x > 0;
}

int fl_worth(const struct fl_worth_question *q, struct fl_worth *ret, struct fl_err *e)
{
    double m = q->members, drawn = q->q * q->units, k = (double)q->releases;

    if (!positive(q->dimensions) || !positive(q->units) || !positive(q->q) || q->q > 1 ||
        !isfinite(q->sigma) || q->sigma < 0 || q->members == 0 || q->releases == 0 ||
        q->in_an_upload == 0) {
        return fl_fail(e, FL_R_ACCOUNTING,
                       "noise to signal of %g dimensions, %g units, rate %g, noise multiplier %g, "
                       "%llu releases, %u members",
                       q->dimensions, q->units, q->q, q->sigma, (unsigned long long)q->releases,
                       q->members);
    }
    /* One release: noise of norm sigma C sqrt(D) on a sum that is at most q n C long. */
    double one = q->sigma * sqrt(q->dimensions) / drawn;
    double shared = q->central ? m : sqrt(m); /* by what the mean divides it */

    ret->upload = q->central ? 0 : one / sqrt((double)q->in_an_upload);
    ret->mean = one / sqrt((double)q->in_an_upload) / shared;
    ret->job = one / sqrt(k) / shared;
    /* joined / alone = (1 + D noise) / m, noise being what a dimension adds. */
    double noise = q->sigma * q->sigma * q->units / (drawn * drawn * k) / (q->central ? m : 1);
    ret->ratio = (1 + q->dimensions * noise) / m;
    ret->break_even = noise > 0 ? (m - 1) / noise : INFINITY;
    return 0;
}
