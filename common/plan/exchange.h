/*
 * The exchanges of one round, as the plan gives them: both ends read the same list, so that an
 * agent knows what is asked of it by the plan and not by the word of a peer. An exchange collects
 * one payload from each of its members and may give each of them something to begin with.
 *
 * To add one: an entry in fl_plan_exchanges, a producer on the agent's side, and on the
 * coordinator's either a collector or a strategy that knows its name. Order is the order of the
 * round; the last one publishes.
 */
#ifndef FL_PLAN_EXCHANGE_H
#define FL_PLAN_EXCHANGE_H

#include "common/plan/plan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FL_EXCHANGE_NAME_MAX = 32,
    FL_EXCHANGE_BYTES_MAX = 16 << 20, /* of what an exchange begins with, and of a section */
};

enum fl_payload {
    FL_PAYLOAD_GRID,  /* `elements` integers packed on `grid`: exactly `size` bytes */
    FL_PAYLOAD_BYTES, /* opaque: 1 to `size` bytes */
};

struct fl_exchange_terms {
    char name[FL_EXCHANGE_NAME_MAX]; /* "update", "counts", ... */
    enum fl_payload payload;
    struct fl_grid_conf grid; /* GRID */
    size_t elements;          /* GRID */
    uint64_t size;            /* of the payload: GRID exactly, BYTES at most */
    uint32_t max_weight;      /* 1, or what the plan lets an update count for */
    bool model;               /* members fetch the model of their slot; otherwise none is named */
    bool input;  /* members fetch what the coordinator made for this exchange, each its own or
                    all the same; in the first of a round it is of the state that the
                    round begins with */
    bool models; /* what they begin with is every model of the checkpoint, one behind the other */
    bool same_cohort; /* of the members that closed the exchange before; never in the first */
};

/* The list for round `round` (1, 2, ...); at least one. Two entries never have the same name. */
uint32_t fl_plan_exchanges(const struct fl_plan *plan, uint64_t round,
                           struct fl_exchange_terms ret[FL_PLAN_EXCHANGES_MAX]);

#endif
