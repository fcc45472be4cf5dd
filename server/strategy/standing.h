/*
 * What the coordinator holds against agents, judged from their updates alone (`aggregate.gates` in
 * a job), for any slot.
 *
 *   gates       an update whose norm, or distance from the slot's coordinate-wise median, is far
 *               beyond that of the middle member, or that points elsewhere than the median, is not
 *               in the aggregate of its round. (Distance catches what norms and losses do not: a
 *               network whose hidden units were permuted is as good as ever, until it is averaged.)
 *   score       theta, of each agent: what its updates' distance from the gates adds up to over the
 *               rounds, forgotten by `decay`. sigma = 1 / (1 + exp(-theta)) is how likely it is an
 *               outlier (the soft score of R-MTGB); an update counts 1 - sigma in a mean
 *   quarantine  from sigma >= `quarantine` on an agent's updates are judged but not used, until
 *               sigma is below 1/2 again: by better updates, or by decay while it is away
 *
 * Nobody is banned: whoever sits out is served the model like all others. At most the smaller half
 * of a round sits out. A function of the closed records and of the state before: it is part of the
 * strategy's state, so that it survives every crash with the model that it made.
 */
#ifndef SERVER_STRATEGY_STANDING_H
#define SERVER_STRATEGY_STANDING_H

#include "common/base/err.h"
#include "common/plan/plan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FL_STANDING_SIZE = 40, FL_STANDINGS_MAX = 1 << 17 };

enum fl_standing_flag {
    FL_STANDING_NORM = 1 << 0, /* gates that the last update failed */
    FL_STANDING_COSINE = 1 << 1,
    FL_STANDING_DISTANCE = 1 << 2,
    FL_STANDING_OUT = 1 << 3, /* the last update was not used */
    FL_STANDING_QUARANTINE = 1 << 4,
};

/* An update against the others of its slot: norm and distance from the median in units of the
 * middle member's, cosine to the median. */
struct fl_measure {
    float norm, cosine, distance;
};

struct fl_standing {
    uint64_t agent, round; /* of its last update */
    float theta;
    struct fl_measure last;
    uint32_t flags;
};

/* Sorted by agent. A zeroed one is empty. */
struct fl_standings {
    uint32_t count;
    struct fl_standing *at;
};
void fl_standings_fini(struct fl_standings *s);
int fl_standings_copy(const struct fl_standings *s, struct fl_standings *ret, struct fl_err *e);

/* NULL: nothing is held against it. */
const struct fl_standing *fl_standings_find(const struct fl_standings *s, uint64_t agent);
/* As bytes at the end of a strategy's state: fl_standings_size of as many records as there may be
 * after a round of `more` members; what is not used is zero. get: *ret is to be freed by fini;
 * *ret_size is how many bytes of the end they are. -FL_R_STORE_MISMATCH, -FL_R_NOMEM. */
size_t fl_standings_size(const struct fl_standings *s, uint32_t more);
void fl_standings_put(const struct fl_standings *s, uint8_t *to, size_t size);
int fl_standings_get(const uint8_t *state, size_t size, struct fl_standings *ret, size_t *ret_size,
                     struct fl_err *e);

/* theta after `rounds` in which nothing was heard. */
double fl_standing_faded(const struct fl_gates_conf *conf, double theta, uint64_t rounds);
double fl_standing_sigma(double theta);
/* Does this agent sit out when `round` begins? */
bool fl_standing_quarantined(const struct fl_gates_conf *conf, const struct fl_standings *s,
                             uint64_t agent, uint64_t round);

/* In a line: trusted, left out or in quarantine, and what was measured against which gate. */
void fl_standing_text(const struct fl_gates_conf *conf, const struct fl_standing *s, char *to,
                      size_t size);

/* Judges the members of one slot (agents ascending, none of them judged in this round before).
 * trust[i]: 1 - sigma, or 0 for whoever sits out. Records of those about whom there is nothing left
 * to remember are dropped. -FL_R_NOMEM; s is unchanged then. */
int fl_standings_judge(struct fl_standings *s, const struct fl_gates_conf *conf, uint64_t round,
                       const uint64_t *agents, const struct fl_measure *measures, uint32_t count,
                       double *trust, struct fl_err *e);

#endif
