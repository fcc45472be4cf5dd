/*
 * The accountant: from mechanism events to (epsilon, delta). Valid upper bounds only. Neighbours:
 * one unit added or removed. RDP of the (Poisson-subsampled) Gaussian (Mironov, Talwar, Zhang
 * 2019), conversion of Canonne, Kamath, Steinke 2020; when every event has q = 1 the exact formula
 * of Balle and Wang 2018. Integer (discrete Gaussian) noise has the RDP of the continuous one
 * (Canonne, Kamath, Steinke 2020).
 */
#ifndef FL_PRIVACY_ACCOUNTANT_H
#define FL_PRIVACY_ACCOUNTANT_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* `count` releases of a sum of L2 sensitivity C with Gaussian noise of standard deviation sigma *
 * C, on a Poisson sample of rate q (1 = all). What a ledger stores: events, never epsilons. */
struct fl_event {
    double q, sigma;
    uint64_t count;
};

enum fl_bound { FL_BOUND_RDP, FL_BOUND_EXACT_GAUSSIAN };
const char *fl_bound_name(enum fl_bound b); /* "rdp", "exact-gaussian" */

/* The smallest valid epsilon at delta over all events. -FL_R_ACCOUNTING: q, sigma, delta out of
 * range. Edge rules: no events or q = 0: 0; sigma = 0 or delta = 0: infinity; delta >= 1: refused.
 */
int fl_epsilon(const struct fl_event *events, uint32_t count, double delta, double *ret_epsilon,
               enum fl_bound *ret_bound, struct fl_err *e);
/* RDP of one event (count included) at order alpha > 1. */
int fl_rdp(const struct fl_event *event, double alpha, double *ret, struct fl_err *e);
/* The smallest sigma for which `count` events of rate q stay within (epsilon, delta), rounded up to
 * 1e-4 relative. */
int fl_sigma_for(double epsilon, double delta, double q, uint64_t count, double *ret_sigma,
                 struct fl_err *e);

/* A fully adaptive filter (Feldman, Zrnic 2021): would these further events, after what was spent,
 * leave at least one tracked order within the budget that (epsilon, delta) gives it? */
int fl_filter_allows(const struct fl_event *spent, uint32_t spent_count,
                     const struct fl_event *more, uint32_t more_count, double epsilon, double delta,
                     bool *ret_allows, struct fl_err *e);

#endif
