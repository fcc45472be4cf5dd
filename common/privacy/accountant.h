/*
 * The accountant: from mechanism events to (epsilon, delta). Valid upper bounds only. Neighbours:
 * one unit added or removed (a sum of clipped contributions then moves by at most the clip; where a
 * unit is replaced instead, the sensitivity is twice that and sigma halves).
 *
 * Renyi DP of every mechanism at a grid of orders (rdp.h), composed by addition, converted by the
 * rule of Canonne, Kamath, Steinke 2020. When every event is a Gaussian with q = 1, the exact
 * formula of Balle and Wang 2018 (gauss.h). Whichever is smaller is reported, with its name.
 */
#ifndef FL_PRIVACY_ACCOUNTANT_H
#define FL_PRIVACY_ACCOUNTANT_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum fl_mechanism {
    /* A sum of L2 sensitivity C with Gaussian noise of standard deviation sigma * C, on a Poisson
     * sample of rate q (1 = everybody). Integer noise on a grid (discrete Gaussian, scale of 4
     * steps and more) counts as this. */
    FL_MECHANISM_GAUSSIAN,
    /* The discrete Gaussian whatever its scale: the RDP of the continuous one, q = 1. */
    FL_MECHANISM_DISCRETE_GAUSSIAN,
    FL_MECHANISM_LAPLACE,   /* sigma: scale / L1 sensitivity; q = 1 */
    FL_MECHANISM_SKELLAM,   /* sigma: variance mu in grid steps; a: L2, b: L1 sensitivity; q = 1 */
    FL_MECHANISM_TREE,      /* sigma per node; a: steps of one tree; one participation per tree, so
                               one Gaussian of sensitivity sqrt(ceil(log2(a + 1))) */
    FL_MECHANISM_EPS_DELTA, /* a: epsilon, b: delta; nothing else is known of it */
    FL_MECHANISM_ZCDP,      /* a: rho */
    /* b answers, with probability a a uniform one, else the true one; one value replaced. */
    FL_MECHANISM_RANDOMIZED_RESPONSE,
    /* b of a units drawn without replacement; one unit replaced; sigma: noise over the change that
     * a replacement can make (twice the clip). RDP of Wang, Balle, Kasiviswanathan 2019. */
    FL_MECHANISM_WITHOUT_REPLACEMENT,
};

/* `count` releases. What a ledger stores: events, never epsilons. */
struct fl_event {
    double q, sigma;
    uint64_t count;
    enum fl_mechanism mechanism; /* 0 = Gaussian */
    double a, b;                 /* as said above; 0 where not used */
};

enum fl_bound { FL_BOUND_RDP, FL_BOUND_EXACT_GAUSSIAN, FL_BOUND_PLD };
const char *fl_bound_name(enum fl_bound b); /* "rdp", "exact-gaussian", "pld" */

/* 0, or -FL_R_ACCOUNTING: q outside [0, 1], sigma or another parameter negative or not finite. */
int fl_event_check(const struct fl_event *event, struct fl_err *e);
/* True when the event releases nothing: count 0 or q 0. */
bool fl_event_is_void(const struct fl_event *event);

/* The smallest epsilon at delta over all events that also holds when each was chosen after the ones
 * before: never FL_BOUND_PLD. -FL_R_ACCOUNTING: an event or delta out of range. Edge rules: no
 * events or q = 0: 0; sigma = 0 or delta = 0: infinity; delta >= 1: refused. */
int fl_epsilon(const struct fl_event *events, uint32_t count, double delta, double *ret_epsilon,
               enum fl_bound *ret_bound, struct fl_err *e);
/* The smallest valid epsilon for a list that was fixed before its first event: also by
 * privacy-loss distributions (pld.h), where every event has one. Some 0.1 s. *ret_lower (may be
 * NULL; takes as long again): the true epsilon is not below this. -FL_R_NOMEM. */
int fl_epsilon_frozen(const struct fl_event *events, uint32_t count, double delta,
                      double *ret_epsilon, double *ret_lower, enum fl_bound *ret_bound,
                      struct fl_err *e);
/* The smallest sigma for which `count` Gaussian events of rate q stay within (epsilon, delta);
 * never below it, above by at most 1e-4 relative. */
int fl_sigma_for(double epsilon, double delta, double q, uint64_t count, double *ret_sigma,
                 struct fl_err *e);
/* The same for a list fixed before: by fl_epsilon_frozen. A second or so. */
int fl_sigma_for_frozen(double epsilon, double delta, double q, uint64_t count, double *ret_sigma,
                        enum fl_bound *ret_bound, struct fl_err *e);
/* How many releases like `event` (its count is not read) stay within (epsilon, delta); at most
 * 2^40.
 */
int fl_rounds_for(double epsilon, double delta, const struct fl_event *event, uint64_t *ret_count,
                  struct fl_err *e);
/* The same for a list fixed before: by fl_epsilon_frozen; never fewer. Some seconds. */
int fl_rounds_for_frozen(double epsilon, double delta, const struct fl_event *event,
                         uint64_t *ret_count, enum fl_bound *ret_bound, struct fl_err *e);
/* Is this delta fit to protect `units` of them? -FL_R_ACCOUNTING unless 0 < delta < 1 / units: at
 * 1 / units, publishing one unit at random would pass. */
int fl_delta_check(double delta, double units, struct fl_err *e);

/* A fully adaptive filter (Feldman, Zrnic 2021): would these further events, after what was spent,
 * leave at least one tracked order within the budget that (epsilon, delta) gives it? While all
 * events are Gaussians with q = 1, the Gaussian filter decides (Smith, Thakurta 2022: sums of
 * 1/sigma^2 within that of the one Gaussian that is exactly (epsilon, delta)). Operators may choose
 * the next event as they go; the budget holds nevertheless. */
int fl_filter_allows(const struct fl_event *spent, uint32_t spent_count,
                     const struct fl_event *more, uint32_t more_count, double epsilon, double delta,
                     bool *ret_allows, struct fl_err *e);

#endif
