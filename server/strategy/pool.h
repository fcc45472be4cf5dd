/*
 * The arithmetic of robust rules on inner products alone.
 *
 * Krum, multi-Krum, the geometric median and centered clipping answer with a weighted sum of the
 * updates, and all they ask on the way is how far apart updates are. So do clipping, bucketing and
 * nearest-neighbour mixing, which replace updates by weighted sums of them. All of that is
 * decided on the n x n matrix of inner products, whatever the size of the model:
 *
 *     pool   n updates (and perhaps a center): their inner products
 *     mix    m points, each a weighted sum of the n: clipping, then mixing
 *     vote   one weighted sum of the m points
 *
 * Pure functions; every sum is in a fixed order, ties go to the lowest index. Sources: Krum:
 * Blanchard et al. 2017; geometric median: Pillutla et al. 2022 (RFA), algorithm 2; centered
 * clipping: Karimireddy et al. 2021, equation (CClip); bucketing: Karimireddy et al. 2022,
 * algorithm 1; nearest-neighbour mixing: Allouah et al. 2023, algorithm 2.
 */
#ifndef SERVER_STRATEGY_POOL_H
#define SERVER_STRATEGY_POOL_H

#include "common/base/err.h"
#include "common/base/rng.h"
#include "common/plan/plan.h"

#include <stdbool.h>
#include <stdint.h>

struct fl_pool {
    uint32_t updates; /* n */
    uint32_t points;  /* m, after fl_pool_mix; at most n */
    bool center;      /* row n of gram and of weight is that of the center, which nothing mixes */
    double *gram;     /* (n + center) squared, symmetric */
    double *mix;      /* m x n; NULL while every point is an update as it is */
    double *heads;    /* m: what a point counts in a mean; NULL: all the same */
    double *weight;   /* n + center: what fl_pool_vote says */
};

/* gram is zero and to be filled. -FL_R_NOMEM. */
int fl_pool_init(struct fl_pool *p, uint32_t updates, bool center, struct fl_err *e);
void fl_pool_fini(struct fl_pool *p); /* a zeroed one is fine */

/* Deals the `count` numbers of `who` to buckets: *ret_bucket[i] of who[i], which is brought into an
 * order drawn from the seed. `whole`: no bucket has fewer than `bucket`; otherwise the last one
 * may. Returns how many there are. */
uint32_t fl_pool_buckets(uint32_t *who, uint32_t count, uint32_t bucket, bool whole,
                         const struct fl_seed *seed, uint32_t *ret_bucket);
/* Clips and mixes as the job says; `seed` orders the buckets, or group[i] says in which update i is
 * (NULL: nobody did). trust[i]: what update i counts, 0 = it is left out (not all are); NULL: all
 * the same. -FL_R_NOMEM. */
int fl_pool_mix(struct fl_pool *p, const struct fl_aggregate_conf *conf, const double *trust,
                const uint32_t *group, const struct fl_seed *seed, struct fl_err *e);
/* True for the rules that answer with a weighted sum. Median, trimmed mean and PCB do not: they
 * look at the points coordinate by coordinate. */
bool fl_pool_votes(const struct fl_aggregate_conf *conf);
/* The weights of such a rule. -FL_R_LIMIT: too few points for the number that may be bad. */
int fl_pool_vote(struct fl_pool *p, const struct fl_aggregate_conf *conf, struct fl_err *e);

#endif
