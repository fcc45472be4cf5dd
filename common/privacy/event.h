/*
 * Events as text, for people, command lines and tables:
 *
 *   Poisson(q=0.01;Gauss(sigma=1.1))x1000 + Gauss(sigma=20)x1 + Laplace(b=10)x3
 *
 * Terms joined by '+', each a mechanism and how often. Mechanisms: Gauss(sigma), Poisson(q;
 * Gauss(sigma)), DiscreteGauss(sens;sigma), Laplace(b), Skellam(mu;l2;l1), TreeAggregation(sigma;
 * steps), EpsDelta(epsilon;delta), zCDP(rho), RandomizedResponse(p;k),
 * WOR(N; m; Gauss(sigma)). Arguments are separated by
 * ';' or ',' and may be named.
 */
#ifndef FL_PRIVACY_EVENT_H
#define FL_PRIVACY_EVENT_H

#include "common/base/err.h"
#include "common/privacy/accountant.h"

#include <stddef.h>
#include <stdint.h>

enum fl_relation {
    FL_RELATION_ADD_REMOVE,
    FL_RELATION_REPLACE, /* a contribution becomes another one: sensitivity twice the clip */
    FL_RELATION_ZERO,    /* a contribution becomes zero: as add/remove, the number known */
};

/* -FL_R_ACCOUNTING with the place that is not understood, or more than `max` terms. Under REPLACE,
 * sigma of Gauss, DiscreteGauss and Laplace is halved; a Poisson sample is refused there. */
int fl_events_parse(const char *text, enum fl_relation relation, struct fl_event *ret, uint32_t max,
                    uint32_t *ret_count, struct fl_err *e);
/* Writes one event as above, cut to size. Returns ret. */
const char *fl_event_text(const struct fl_event *event, char *ret, size_t size);

#endif
