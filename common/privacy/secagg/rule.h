/*
 * The numbers of secure aggregation, computed from how many agents take part and from what is
 * assumed about them. Everything here is public arithmetic: both ends compute it and must agree.
 *
 *   neighbours k   each agent shares masks and secrets with k others (a k-regular graph)
 *   threshold  t   so many shares of k + 1 bring a secret back, fewer say nothing about it
 *   sample     m   so many agents' signatures an agent checks before it reveals a share
 *
 * Bell, Bonawitz, Gascon, Lepoint, Raykova 2020 (SecAgg+), section 3: k and t are the least for
 * which, over a random graph, n P[corrupt neighbours >= t] <= 2^-40 and
 * n P[neighbours alive < t] <= 2^-30 (hypergeometric tails), and t > k / 2.
 */
#ifndef FL_PRIVACY_SECAGG_RULE_H
#define FL_PRIVACY_SECAGG_RULE_H

#include "common/base/err.h"
#include "common/base/hash.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    FL_SECAGG_MEMBERS_MAX = 16384,
    FL_SECAGG_NEIGHBOURS_MAX = 1024,
    FL_SECAGG_BITS_MIN = 8,
    FL_SECAGG_BITS_MAX = 62,
};

struct fl_secagg_rule {
    uint32_t members;    /* n: who advertised keys */
    uint32_t corrupt;    /* c: at most so many of them work together with the coordinator */
    uint32_t neighbours; /* k */
    uint32_t threshold;  /* t */
    uint32_t sample;     /* m: signatures asked for; members - 1 = everybody's */
    uint32_t sample_min; /* so many of them must be there and be right, and no other */
    uint32_t majority;   /* floor((n + c) / 2) + 1: two views cannot both have so many signers */
};

/* `corrupt` and `dropout` are permille of n, rounded down to agents. Up to 32
 * agents give the complete graph. -FL_R_CONF_RANGE: n below 2 or over the maximum; no graph of n
 * agents can stand so many dropouts beside so many colluders. */
int fl_secagg_rule(uint32_t members, uint32_t corrupt_permille, uint32_t dropout_permille,
                   struct fl_secagg_rule *ret, struct fl_err *e);

/* ln P[at least `at_least` of `draws` are marked], drawing without replacement from `population`
 * of which `marked` are. -INFINITY when it cannot be. */
double fl_secagg_log_tail(uint32_t population, uint32_t marked, uint32_t draws, uint32_t at_least);

/*
 * The graph: a ring in an order drawn from `seed`, each agent joined to the nearest k on both
 * sides; an odd k adds the one opposite (n is then even). Nobody chooses the seed: it is the digest
 * of all advertised keys. Fills order[n], place[n] (its inverse).
 */
void fl_secagg_graph(const struct fl_digest *seed, uint32_t members, uint32_t *order,
                     uint32_t *place);
/* The k neighbours of `index`, ascending. */
void fl_secagg_neighbours(const uint32_t *order, const uint32_t *place, uint32_t members,
                          uint32_t neighbours, uint32_t index, uint32_t *ret);

/* Bits that a sum of `members` values of magnitude at most `max` needs, with its sign. */
uint32_t fl_secagg_bits(uint32_t members, int64_t max);
/* -FL_R_PLAN_OVERFLOW when sums of `members` values do not fit in a ring of 2^bits. */
int fl_secagg_ring_check(uint32_t bits, uint32_t members, int64_t max, struct fl_err *e);

#endif
