/*
 * Candidates: the agents that ask for work now, as a sorted list of ids with a ceiling, and the
 * draw of a cohort from them: uniform, without replacement, by a ChaCha20 stream that everybody who
 * knows the job's record can repeat.
 */
#ifndef SERVER_CORE_CANDIDATES_H
#define SERVER_CORE_CANDIDATES_H

#include "common/base/err.h"
#include "common/base/rng.h"
#include "common/wire/ids.h"

#include <stdbool.h>
#include <stdint.h>

struct fl_candidates {
    uint64_t *id;   /* ascending */
    uint64_t *pool; /* for a draw: the eligible ones */
    uint32_t count, capacity;
};

int fl_candidates_init(struct fl_candidates *c, uint32_t capacity, struct fl_err *e);
void fl_candidates_fini(struct fl_candidates *c);

bool fl_candidates_has(const struct fl_candidates *c, uint64_t agent);
/* False when full. An agent that is there already stays. */
bool fl_candidates_add(struct fl_candidates *c, uint64_t agent);
bool fl_candidates_remove(struct fl_candidates *c, uint64_t agent);

/* Key of a draw: the job's seed, incarnation, round and exchange, and how many members were drawn
 * in that exchange before (so that a later draw is independent of the first, also after a restart).
 */
void fl_candidates_stream(struct fl_rng *ret, uint64_t job_seed, const struct fl_key *key,
                          uint32_t drawn_before);
/* Moves `wanted` (or all, if fewer) uniformly chosen ids of pool[0..count) to its front, by the
 * first steps of a Fisher-Yates shuffle (Knuth, vol. 2, 3.4.2 P). Returns how many. The pool must
 * be in ascending order, so that the draw does not depend on who came first. */
uint32_t fl_candidates_draw(struct fl_rng *rng, uint64_t *pool, uint32_t count, uint32_t wanted);

#endif
