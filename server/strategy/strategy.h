/*
 * Strategies: how updates become the next model. The table below is the plug-in interface; the
 * round core knows exchanges, the shell owns files and lanes, and a strategy only ever sees
 * numbers.
 *
 *   place    before a round's members are invited: deals them to slots (one slot for a mean)
 *   fold     adds one committed update to its slot's integer sums and forgets it: memory O(model)
 *   finish   next model and next state from the sums; changes nothing it was given
 *
 * Sums are 64-bit integers over the plan's grid, so that the next model has the same bytes whatever
 * the order of arrival, the number of threads or the machine, and after every crash.
 *
 * Threads: folds of one slot run one at a time (its lane), of different slots side by side;
 * `shared` is written only by init, place and load. finish reads `shared` and all slots, writes
 * only `next`, and may therefore be repeated; the shell loads next->state once the checkpoint is
 * published. After an exchange that is not the last it loads it at once: then it is what the next
 * exchange starts from, and after a crash it is computed again from the same records.
 *
 * To add one: a file with its table, a line in table.c, a golden test, a simulated round. Finite
 * scan, norm bound, noise and secure aggregation are around every strategy, not inside any.
 */
#ifndef SERVER_STRATEGY_STRATEGY_H
#define SERVER_STRATEGY_STRATEGY_H

#include "common/base/err.h"
#include "common/plan/plan.h"
#include "server/core/round.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FL_STRATEGY_TILE = 64 * 1024 }; /* bytes of an update read at a time */

/* What a strategy asks of its surroundings. */
enum fl_strategy_needs {
    FL_STRATEGY_SUM_ONLY = 1 << 0, /* sees nothing but sums: fits secure aggregation */
};

/* A committed update. `read` fills exactly `size` bytes from `offset`, or fails. */
struct fl_update {
    uint64_t agent;
    uint32_t exchange;
    uint32_t weight; /* 1..plan->max_weight */
    uint64_t size;   /* fl_plan_update_size */
    int (*read)(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e);
    void *arg;
};

/* A slot's models. base and next: plan->layout.shared.elements floats (NULL when there are none).
 */
struct fl_slot_model {
    const float *base;
    float *next;
};

struct fl_next {
    struct fl_slot_model *model; /* one for each slot */
    uint32_t model_count;
    uint8_t *state; /* state_size bytes: the strategy's next state */
    size_t state_size;
    /* For people and logs; filled by finish. */
    uint32_t members;
    uint64_t weight;    /* sum over members */
    double update_norm; /* L2 of the mean update over all slots, before the server optimizer */
};

struct fl_strategy {
    const char *name;
    unsigned needs;
    size_t shared_size; /* of the zeroed struct given to init */

    /* From the plan of one round; state is what load brings. */
    int (*init)(void *shared, const struct fl_plan *plan, struct fl_err *e);
    void (*fini)(void *shared);

    /* The exchanges of a round under this plan. */
    void (*rules)(const struct fl_plan *plan, struct fl_round_rules *ret);

    uint32_t (*slots)(const void *shared);
    int (*slot_new)(const void *shared, void **ret, struct fl_err *e);
    void (*slot_reset)(const void *shared, void *slot); /* back to zero: FL_ROUND_DO_REFOLD, and for
                                                           the next round */
    void (*slot_free)(void *slot);

    /* ret_slot[i] for agents[i] (ascending). */
    int (*place)(void *shared, const uint64_t *agents, uint32_t count, uint32_t *ret_slot,
                 struct fl_err *e);
    /* The update's length, or a value outside the grid: -FL_R_UPDATE_LENGTH, -FL_R_UPDATE_RANGE, or
     * what `read` said. The slot is spoilt then: reset it and fold again. */
    int (*fold)(void *slot, const void *shared, const struct fl_update *u, struct fl_err *e);
    /* -FL_R_NOT_FINITE when the next model would not be finite. */
    int (*finish)(const void *shared, void *const *slots, uint32_t exchange, struct fl_next *next,
                  struct fl_err *e);

    /* State (server optimizer, ...) as bytes of the checkpoint, little-endian; the size is fixed by
     * the plan. A fresh `shared` has the state a job begins with. load checks what it gets:
     * -FL_R_STORE_MISMATCH for another size or values that are not finite. */
    size_t (*state_size)(const void *shared);
    void (*save)(const void *shared, uint8_t *to);
    int (*load)(void *shared, const uint8_t *from, size_t size, struct fl_err *e);
};

/* By the word of a job description ("fedavg", "fedrep", "hyperfl", "local"); NULL when unknown. */
const struct fl_strategy *fl_strategy_find(const char *name);
/* The i-th of the table, NULL behind the end. */
const struct fl_strategy *fl_strategy_at(size_t i);

/* Scans one packed update before it is committed, so that no committed update can fail to fold: its
 * length, every value, the padding. Same errors as fold. */
int fl_update_scan(const struct fl_plan *plan, const struct fl_update *u, struct fl_err *e);

#endif
