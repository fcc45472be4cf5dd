/*
 * Strategies that give each agent a model of its own (FedCAC, FedAMP): all that they share. What
 * differs is only how a model is mixed from those of the others, which is `weigh`.
 *
 *     slot 0       the global model: the mean of what this round's members trained. It is what an
 *                  agent starts from that was never heard of, and what a newcomer is given
 *     slot 1 + i   the model of home i, homes in ascending order of agents
 *
 * An agent fetches the model of its slot, trains it and sends the difference, so what it trained is
 * W = slot + update, exactly as it left it. From these rows the next models are mixed (mix.h). One
 * that did not take part keeps its model, byte for byte; how old it is says the round of its home.
 *
 * Homes have a ceiling. When more agents than that were seen, those that did not take part for
 * longest are forgotten, and are newcomers when they come back.
 *
 * Who has which home is the strategy's state in the checkpoint; everything else is computed from
 * the round's models and updates, so a finish repeated after a crash makes the same bytes.
 */
#ifndef SERVER_STRATEGY_PERSONAL_H
#define SERVER_STRATEGY_PERSONAL_H

#include "server/strategy/mix.h"
#include "server/strategy/strategy.h"

#include "common/math/grid.h"

enum { FL_ROWS_TILE = 4096 }; /* values that fl_rows_read gives at most */

struct fl_home {
    uint64_t agent, round; /* it took part in last, from 1 */
    uint32_t weight;       /* of its update then */
};

struct fl_part { /* a tensor of the model */
    size_t first, count;
    bool buffer; /* running statistics */
};

struct fl_personal_method;

/* What `shared` begins with. */
struct fl_personal {
    const struct fl_personal_method *method;
    struct fl_strategy_conf setting;
    struct fl_grid grid;
    size_t elements, update_size;
    uint32_t max_weight, most; /* homes at most */
    uint64_t rounds;           /* of the job */
    uint32_t part_count, home_count;
    struct fl_part *part;
    struct fl_home *home; /* ascending; room for `most` */
};

/* ---- W ---- */

/* What an agent trained; or the model of one that did not take part. */
struct fl_row {
    struct fl_home home;            /* as it will be after this round */
    uint32_t slot;                  /* of its model before */
    const struct fl_update *update; /* NULL: it did not take part */
};

/* One for each home after this round, ascending: row i becomes home i. */
struct fl_rows {
    const struct fl_personal *s;
    const struct fl_next *next;
    uint32_t count, fresh; /* rows; those with an update */
    struct fl_row *at;
    uint8_t *bytes;
    int64_t *q;
};

/* Values [first, first + count) of a row, count up to FL_ROWS_TILE: what its agent started from and
 * what it made of it, the same where there is no update. Either may be NULL. */
int fl_rows_read(const struct fl_rows *rows, uint32_t row, size_t first, size_t count,
                 float *before, float *after, struct fl_err *e);

/* For strategies that make their models otherwise than by a mix, in their own finish: the rows of
 * this round; homes, members and weight into the state and the rest of `next`; and every model as
 * it is, for a round that nobody took part in. */
int fl_rows_init(struct fl_rows *rows, const struct fl_personal *s, const struct fl_next *next,
                 struct fl_err *e);
void fl_rows_fini(struct fl_rows *rows);
void fl_rows_save(const struct fl_rows *rows, struct fl_next *next);
int fl_personal_keep(const struct fl_next *next, size_t elements, struct fl_err *e);

/* ---- a method ---- */

/* Which weights are critical to a row's agent, and what a mask leaves in the model that it blended.
 */
struct fl_personal_masks {
    void (*of)(void *arg, uint32_t row, size_t first, size_t count, const float *before,
               const float *after, uint8_t *critical);
    void (*keep)(float *values, size_t count, const uint8_t *critical); /* NULL: nothing */
    void (*free)(void *arg);
    void *arg;
};

struct fl_personal_method {
    /* How the model of each row that has an update is mixed: a is rows x rows, zeroed in these rows
     * (the others keep their model; theirs are filled). Where a mask says 0, the global model's
     * weights stand for a's. A method without masks leaves them alone; they are freed in any case.
     */
    int (*weigh)(const struct fl_rows *rows, double *a, struct fl_personal_masks *masks,
                 struct fl_err *e);
};

int fl_personal_init(struct fl_personal *s, const struct fl_personal_method *method,
                     const struct fl_plan *plan, struct fl_err *e);

/* The entries of a strategy's table; `shared` begins with a struct fl_personal. */
void fl_personal_fini(void *shared);
uint32_t fl_personal_slots(const void *shared);
int fl_personal_slot_new(const void *shared, void **ret, struct fl_err *e);
void fl_personal_slot_reset(const void *shared, void *slot);
void fl_personal_slot_free(void *slot);
int fl_personal_place(const void *shared, const uint64_t *agents, uint32_t count,
                      uint32_t *ret_slot, struct fl_err *e);
int fl_personal_fold(void *slot, const void *shared, const struct fl_update *u, struct fl_err *e);
int fl_personal_next_slots(const void *shared, void *const *slots, const struct fl_updates *updates,
                           uint32_t *ret, struct fl_err *e);
int fl_personal_finish(const void *shared, void *const *slots, uint32_t exchange,
                       struct fl_next *next, struct fl_err *e);
size_t fl_personal_state_size(const void *shared);
void fl_personal_save(const void *shared, uint8_t *to);
int fl_personal_load(void *shared, const uint8_t *from, size_t size, struct fl_err *e);

#define FL_PERSONAL_STRATEGY(word, begin)                                                          \
    const struct fl_strategy fl_strategy_##word = {                                                \
        .name = #word,                                                                             \
        .shared_size = sizeof(struct fl_personal),                                                 \
        .init = begin,                                                                             \
        .fini = fl_personal_fini,                                                                  \
        .slots = fl_personal_slots,                                                                \
        .slot_new = fl_personal_slot_new,                                                          \
        .slot_reset = fl_personal_slot_reset,                                                      \
        .slot_free = fl_personal_slot_free,                                                        \
        .place = fl_personal_place,                                                                \
        .fold = fl_personal_fold,                                                                  \
        .next_slots = fl_personal_next_slots,                                                      \
        .finish = fl_personal_finish,                                                              \
        .state_size = fl_personal_state_size,                                                      \
        .save = fl_personal_save,                                                                  \
        .load = fl_personal_load,                                                                  \
    }

#endif
