/*
 * Who is not put together again in secure sums.
 *
 * A cheat that deals shares which nobody can open, or that says so of good ones, makes rounds fail,
 * and could do so for ever. Who of the two lies cannot be told from a complaint: what would prove
 * it are the very secrets that the sum hides behind. But of each pair of which one complains about
 * the other, at least one cheats. So complaints are remembered as pairs, and no pair is in a round
 * again: of every pair one sits out, whoever stands in most pairs first. Honest agents stand in
 * pairs with cheats alone, so that a single cheat of several is out before any of them; where it is
 * one against one they take turns, and the cheat's next pair decides. An agent whose own published
 * shares contradict each other is a pair with itself (`one` is 0), and is always out.
 *
 * What this does not withstand: k cheats that agree on the same k - 1 honest agents stand in fewer
 * pairs than those, and keep them out as long as they go on (each time one of their rounds for it).
 * That costs the honest their place, not their secrets: what a sum hides, and the least noise in
 * it, rest on `survivors` and `corrupt` alone.
 *
 * Nothing is for ever: a pair is remembered for FL_DISTRUST_ROUNDS, and for twice as long each time
 * that it comes again. A function of the closed records, kept as a section of the checkpoint, also
 * of rounds that were given up, so that it survives every crash and is replayed by an audit.
 */
#ifndef SERVER_STRATEGY_DISTRUST_H
#define SERVER_STRATEGY_DISTRUST_H

#include "common/base/err.h"
#include "common/privacy/secagg/secagg.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FL_DISTRUST_SECTION "distrust"

enum {
    FL_DISTRUST_ROUNDS = 8,
    FL_DISTRUST_DOUBLINGS = 6, /* at most */
    FL_DISTRUST_MAX = 4096,    /* pairs; the oldest are forgotten */
};

struct fl_distrust_pair {
    uint64_t one, other; /* one < other */
    uint64_t round;      /* of the last complaint */
    uint32_t times;
};

/* Sorted. A zeroed one is empty. */
struct fl_distrust {
    uint32_t count;
    struct fl_distrust_pair *at;
};
void fl_distrust_fini(struct fl_distrust *d);

/* As bytes: pairs (4), then for each: one (8), other (8), round (8), times (4). *ret is freed by
 * fl_free. -FL_R_STORE_MISMATCH, -FL_R_NOMEM. */
int fl_distrust_put(const struct fl_distrust *d, uint8_t **ret, size_t *ret_size, struct fl_err *e);
int fl_distrust_get(const uint8_t *from, size_t size, struct fl_distrust *ret, struct fl_err *e);

/* The complaints of a round. Pairs that are forgotten by then are dropped. d is unchanged on
 * failure: -FL_R_NOMEM. */
int fl_distrust_add(struct fl_distrust *d, uint64_t round,
                    const struct fl_secagg_complaint *complaints, uint32_t count, struct fl_err *e);

struct fl_distrust_out {
    uint64_t agent;
    uint32_t pairs; /* that it stands in */
    bool proven;    /* by its own objects */
};
/* Who sits out of `round`, ascending: *ret is freed by fl_free; NULL when nobody does. */
int fl_distrust_out(const struct fl_distrust *d, uint64_t round, struct fl_distrust_out **ret,
                    uint32_t *ret_count, struct fl_err *e);

#endif
