/*
 * Central noise: integer noise on the sum of all members' clipped updates, before anything is done
 * with it. For jobs whose sites trust the coordinator with the updates (privacy.noise: central).
 *
 *   sum    each round's sum gets a discrete Gaussian of scale sigma * bound of its own
 *   tree   (privacy.tree: T; DP-FTRL, Kairouz et al. 2021, arXiv 2103.00039) what is noised is the
 *          sum over all rounds of a tree so far: every node of a binary tree over T rounds has such
 *          a Gaussian, and the prefix of t rounds has the nodes that the ones of t in binary name.
 * A round t then adds the noise of its new node and takes back that of the nodes which the new one
 * replaces, so that sums over many rounds hold log T of them, not T.
 *
 * Seeds. The seed of a round's noise is a keyed digest of the round, the slot, the sums themselves
 * and how many they are of, so that the same sums give the same noise after a crash and other sums,
 * or the same ones in another slot, never do
 * (a coordinator that went back to an old copy of its folder, too). What a tree still needs of it,
 * the seeds of the nodes in the present prefix, is part of the strategy's state, in the checkpoint:
 * durable with the model it made, and never sent.
 */
#ifndef SERVER_STRATEGY_SUMNOISE_H
#define SERVER_STRATEGY_SUMNOISE_H

#include "common/base/err.h"
#include "common/base/rng.h"
#include "common/plan/plan.h"
#include "common/privacy/noise.h"

#include <stddef.h>
#include <stdint.h>

enum { FL_SUM_NOISE_LEVELS = 21, FL_SUM_NOISE_STATE = 8 + FL_SUM_NOISE_LEVELS * FL_SEED_SIZE };

/* Where in its tree a job stands: rounds done in it, and a seed for each node of their prefix. */
struct fl_sum_noise_state {
    uint64_t done;
    struct fl_seed node[FL_SUM_NOISE_LEVELS];
};

/* True when this plan wants it. */
bool fl_sum_noise_wanted(const struct fl_plan *plan);

struct fl_sum_noise {
    struct fl_noise *noise;
    uint64_t tree; /* 0 = none */
    struct fl_sum_noise_state state, next;
    struct fl_seed add;
    uint32_t cancel_count;
    struct fl_seed cancel[FL_SUM_NOISE_LEVELS];
};

/* Prepares the scale. -FL_R_PLAN_PRIVACY: clip or noise that the grid cannot hold. */
int fl_sum_noise_init(struct fl_sum_noise *n, const struct fl_plan *plan, struct fl_err *e);
void fl_sum_noise_fini(struct fl_sum_noise *n); /* wipes the seeds; a zeroed one is fine */

/* The sums of one slot in one round, of updates of this weight altogether. */
struct fl_sum_noise_of {
    uint64_t round;
    uint32_t slot;
    uint64_t weight;
    const int64_t *sum;
    size_t count;
};
/* Their seed, and nodes, from the coordinator's secret and the sums. n->next is the state behind
 * it. -FL_R_STORE_MISMATCH: the state is not that of the round before. */
int fl_sum_noise_begin(struct fl_sum_noise *n, const struct fl_seed *secret,
                       const struct fl_sum_noise_of *of, struct fl_err *e);
/* q[i] += noise of element first + i. `first` a multiple of the same tile size in every call. */
int fl_sum_noise_add(const struct fl_sum_noise *n, size_t first, int64_t *q, size_t count,
                     struct fl_err *e);

/* FL_SUM_NOISE_STATE bytes. get: false when they are no state. */
void fl_sum_noise_put(const struct fl_sum_noise_state *s, uint8_t *to);
bool fl_sum_noise_get(struct fl_sum_noise_state *ret, const uint8_t *from, uint64_t tree);

#endif
