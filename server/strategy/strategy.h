/*
 * Strategies: how updates become the next model. The table below is the plug-in interface; the
 * round core knows exchanges, the shell owns files and lanes, and a strategy only ever sees
 * numbers.
 *
 *   place    the slot whose model a member starts from and folds into (one slot for a mean)
 *   fold     adds one committed payload to its slot's sums and forgets it: memory O(model)
 *   between  after an exchange that is not the last: what was collected becomes part of `shared`
 *   input    what a member gets to begin an exchange with
 *   finish   after the last: next models and next state; changes nothing it was given
 *
 * Which exchanges a round has is the plan's word (common/plan/exchange.h). One that has a collector
 * (collect.h) is none of the strategy's business; all others are folded and finished here.
 *
 * Sums are 64-bit integers over the plan's grid, so that the next model has the same bytes whatever
 * the order of arrival, the number of threads or the machine, and after every crash.
 *
 * Threads: `shared` is written only by init, load and between, while nothing else touches it; all
 * others see it const, side by side. finish writes only `next` and may be repeated, and so may
 * between: whatever it writes depends on what it is given and on the state the round began with.
 * After a crash both are computed again, by the same calls, from the same closed records: so what
 * `input` gives an agent has the same bytes as before.
 *
 * Memory: models, like updates, are seen by tiles, never all at once, so that it does not grow with
 * members times model.
 *
 * To add one: a file with its table, a line in table.c, a golden test, a simulated round. Finite
 * scan, norm bound, noise and secure aggregation are around every strategy, not inside any.
 */
#ifndef SERVER_STRATEGY_STRATEGY_H
#define SERVER_STRATEGY_STRATEGY_H

#include "common/base/err.h"
#include "common/base/rng.h"
#include "common/plan/exchange.h"
#include "common/plan/plan.h"
#include "server/core/round.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FL_STRATEGY_TILE = 64 * 1024,  /* bytes of an update read at a time */
    FL_STRATEGY_SLOTS_MAX = 65536, /* models of one checkpoint */
};
#define FL_STRATEGY_NO_GROUP UINT32_MAX

/* What a strategy asks of its surroundings. */
enum fl_strategy_needs {
    FL_STRATEGY_SUM_ONLY = 1 << 0, /* sees nothing but sums: fits secure aggregation */
    FL_STRATEGY_SUM_NOISE =
        1 << 1, /* finish noises its sums where the plan wants it (sumnoise.h) */
    FL_STRATEGY_AGGREGATES =
        1 << 2, /* finish takes the plan's robust rule instead of the mean (robust.h) */
    FL_STRATEGY_APART = 1 << 3, /* models of a job that begins differ, each from its own seed */
};

/* A committed update. `read` fills exactly `size` bytes from `offset`, or fails. */
struct fl_update {
    uint64_t agent;
    uint32_t exchange;
    uint32_t weight; /* 1..plan->max_weight */
    uint32_t group;  /* of those made up of secure sums: which; FL_STRATEGY_NO_GROUP: of none, only
                        its values before the groups' part mean something */
    uint64_t size;
    int (*read)(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e);
    void *arg;
};

/* The committed payloads of a closed exchange, in ascending order of agents. They can be read until
 * the call that got them returns, from its thread, in any order; tile by tile over all of them is
 * the way to robust rules and mixes. */
struct fl_updates {
    uint32_t count;
    const struct fl_update *at;
};

/* Work on models that belongs into a process of its own, with limits (server/co_tune.c). */
struct fl_tune {
    const uint8_t *ask; /* what is to be done, as that process reads it */
    size_t ask_size;
    uint32_t models; /* each of plan->layout.shared.elements values, made one at a time */
    int (*model)(void *arg, uint32_t i, float *to, struct fl_err *e);
    void *arg;
    size_t answer_max; /* bytes */
};

/* Models have plan->layout.shared.elements values each. */
struct fl_next {
    /* A slot's model before: values [first, first + count). */
    int (*base)(void *arg, uint32_t slot, size_t first, size_t count, float *to, struct fl_err *e);
    /* Its model after. Every value of every slot is put once, in any order. */
    int (*put)(void *arg, uint32_t slot, size_t first, size_t count, const float *values,
               struct fl_err *e);
    void *arg;
    uint32_t base_count; /* models before: slots(shared) */
    uint32_t put_count;  /* models after: next_slots, else the same */
    struct fl_updates updates;
    uint64_t round; /* that finish makes the model of */
    /* The same work makes the same answer, as after a crash it must; *ret is freed by fl_free.
     * NULL: nobody does such work here. -FL_R_EXEC_*, -FL_R_CANCELLED. */
    int (*tune)(void *arg, const struct fl_tune *what, uint8_t **ret, size_t *ret_size,
                struct fl_err *e);
    void *tune_arg;
    const struct fl_seed *secret; /* of the job, for noise on sums; NULL = there is none */
    uint8_t *state;               /* state_size bytes: the strategy's next state */
    size_t state_size;
    /* For people and logs; filled by finish. */
    uint32_t members;
    uint64_t weight;    /* sum over members */
    double update_norm; /* L2 of the mean update over all slots, before the server optimizer */
};

/* How members are dealt to secure sums side by side. */
struct fl_groups_terms {
    uint32_t least; /* members of each */
    uint64_t round;
    const struct fl_seed *secret; /* of the job */
};

struct fl_strategy {
    const char *name;
    unsigned needs;
    size_t shared_size; /* of the zeroed struct given to init */

    /* From the plan of one round; state is what load brings. */
    int (*init)(void *shared, const struct fl_plan *plan, struct fl_err *e);
    void (*fini)(void *shared);

    /* Models of the state that was loaded; of a fresh `shared`: of the initial checkpoint, which
     * has the plan's initial values in each, or (APART) in the first. 1 to FL_STRATEGY_SLOTS_MAX.
     */
    uint32_t (*slots)(const void *shared);
    int (*slot_new)(const void *shared, void **ret, struct fl_err *e);
    void (*slot_reset)(const void *shared, void *slot); /* back to zero: FL_ROUND_DO_REFOLD, and for
                                                           the next round */
    void (*slot_free)(void *slot);

    /* ret_slot[i], below slots(shared), for agents[i] (ascending). Also for one never seen before.
     * A function of `shared` and of each agent alone. */
    int (*place)(const void *shared, const uint64_t *agents, uint32_t count, uint32_t *ret_slot,
                 struct fl_err *e);
    /* The update's length, or a value outside the grid: -FL_R_UPDATE_LENGTH, -FL_R_UPDATE_RANGE, or
     * what `read` said. The slot is spoilt then: reset it and fold again. */
    int (*fold)(void *slot, const void *shared, const struct fl_update *u, struct fl_err *e);
    /* After exchange `exchange` of the round, not the last. NULL: there is nothing to do. */
    int (*between)(void *shared, void *const *slots, uint32_t exchange,
                   const struct fl_updates *updates, struct fl_err *e);
    /* What `agent` begins `exchange` with, where the plan says that there is something (1 to
     * FL_EXCHANGE_BYTES_MAX bytes; *ret is freed by fl_free): a function of `shared`, on the loop
     * when the agent is invited, so it must be quick. NULL: no exchange of this strategy has any.
     */
    int (*input)(const void *shared, uint32_t exchange, uint64_t agent, uint8_t **ret,
                 size_t *ret_size, struct fl_err *e);
    /* Which secure sum each of `agents` (ascending) is in: a number below `count`, or
     * FL_STRATEGY_NO_GROUP for one that there are not enough others for. A function of what it is
     * given and of `shared`. NULL: this strategy needs no sums side by side
     * (fl_plan_secure_groups).
     */
    int (*groups)(const void *shared, const struct fl_groups_terms *terms, const uint64_t *agents,
                  uint32_t count, uint32_t *ret_group, struct fl_err *e);
    /* How many models finish will put. NULL: as many as there were. */
    int (*next_slots)(const void *shared, void *const *slots, const struct fl_updates *updates,
                      uint32_t *ret, struct fl_err *e);
    /* -FL_R_NOT_FINITE when the next model would not be finite. `exchange` is the last. */
    int (*finish)(const void *shared, void *const *slots, uint32_t exchange, struct fl_next *next,
                  struct fl_err *e);

    /* Who is in which slot and why, in a sentence, for people: calls `each` in ascending order of
     * agents, for those whom the state knows. NULL: there is nothing to say. */
    int (*explain)(const void *shared,
                   void (*each)(void *arg, uint64_t agent, uint32_t slot, const char *why),
                   void *arg, struct fl_err *e);

    /* State (server optimizer, the mapping of agents to slots, ...) as bytes of the checkpoint,
     * little-endian; state_size is asked right before finish and says what that will write. A fresh
     * `shared` has the state a job begins with. load checks what it gets: -FL_R_STORE_MISMATCH for
     * another size or values that are not finite. */
    size_t (*state_size)(const void *shared);
    void (*save)(const void *shared, uint8_t *to);
    int (*load)(void *shared, const uint8_t *from, size_t size, struct fl_err *e);
    /* What people should know of the round that made this state, in a line; "" = nothing. NULL: it
     * never has anything to say. */
    void (*note)(const void *shared, char *to, size_t size);
};

/* By the word of a job description ("fedavg", "hyperfl", ...); NULL when unknown. */
const struct fl_strategy *fl_strategy_find(const char *name);
/* The i-th of the table, NULL behind the end. */
const struct fl_strategy *fl_strategy_at(size_t i);

/* The rules of round `round`: the plan's exchanges, with the numbers of its section `round`. */
void fl_strategy_rules(const struct fl_plan *plan, uint64_t round, struct fl_round_rules *ret);

/* Scans one payload before it is committed, so that no committed one can fail to fold: its length,
 * and on a grid every value and the padding. Same errors as fold. */
int fl_update_scan(const struct fl_exchange_terms *terms, const struct fl_update *u,
                   struct fl_err *e);

#endif
