/*
 * Federations side by side: each bubble of sites has a model of its own, made by an ordinary
 * strategy (the one "inside") from the updates of its members alone. What all strategies with
 * bubbles share is here; what differs is who decides where a site belongs, and when.
 *
 *     models before          bubbles of this round        models after
 *       0 ---------------------- 0 {1, 4, 7} -------------- 0
 *       1 ----------+----------- 1 {2, 3} ----------------- 1
 *                   +----------- 2 {5, 6, 8} -------------- 2
 *
 * Bubbles may change within a round, before its updates are asked for: each then begins with the
 * model of the one that most of its members come from (`origin`), and so do members. Updates are
 * folded when the round finishes, one bubble after the other, so that the sums of one model are in
 * memory however many bubbles there are. With a common body (`split`) the values before the head
 * are made of all updates and the head of each bubble of its members'.
 *
 * A bubble that got fewer updates than its quorum learns with its parent: it takes the mean update
 * of the smallest cluster of bubbles around it that has enough, by average linkage over distances
 * that the strategy gives.
 *
 * State of the checkpoint, little-endian:
 *     round (8), models (4), bubbles (4), room (4), more (4), origin (4 each of
 * FL_PLAN_BUBBLES_MAX), room times: agent (8; 0 = none), bubble (4); for each model, and for the
 * common body: size (4), state of the strategy inside; more bytes
 */
#ifndef SERVER_STRATEGY_CLUSTERS_H
#define SERVER_STRATEGY_CLUSTERS_H

#include "server/strategy/strategy.h"

struct fl_who {
    uint64_t agent;
    uint32_t bubble;
};

struct fl_clusters {
    const struct fl_plan *plan; /* outlives this */
    const struct fl_strategy *inside;
    size_t split;   /* values of the common body; 0: nothing is common */
    uint64_t round; /* that is being made */
    uint32_t first; /* models of a job that begins */
    uint32_t before, count, origin[FL_PLAN_BUBBLES_MAX];
    uint32_t usual;     /* the bubble of a site that nothing is known of: the largest */
    struct fl_who *who; /* ascending */
    uint32_t who_count;
    struct fl_who *began; /* as the round began; of models, not bubbles */
    uint32_t began_count;
    void *model[FL_PLAN_BUBBLES_MAX + 1]; /* shared state inside, of each model before; the common
                                             body's is the last of all */
};

/* What the next round begins with; NULL: the bubbles of this one. */
struct fl_clusters_after {
    uint32_t bubbles, origin[FL_PLAN_BUBBLES_MAX]; /* below the models that finish puts */
    const struct fl_who *who;                      /* ascending, at most `room` */
    uint32_t who_count;
};

struct fl_clusters_more {
    uint32_t room; /* places for agents in the state, at least who_count */
    const uint8_t *bytes;
    uint32_t size;
    const double *distance; /* between bubbles, count x count: whom a small one learns with; NULL */
    uint64_t idle;          /* bubbles, as a set, whose members' updates count nowhere */
    const struct fl_clusters_after *after;
};

/* `models`: of a job that begins. */
int fl_clusters_init(struct fl_clusters *c, const struct fl_plan *plan, uint32_t models,
                     struct fl_err *e);
void fl_clusters_fini(struct fl_clusters *c);

/* The number of the bubble; *ret_known (may be NULL) is false for one that is there for want of
 * better knowledge. */
uint32_t fl_clusters_of(const struct fl_clusters *c, uint64_t agent, bool *ret_known);

/* Other bubbles from now on: `who` ascending, bubbles 0 to count - 1, none empty. Takes who (by
 * fl_free). May be repeated within a round: it starts from what the round began with. */
void fl_clusters_regroup(struct fl_clusters *c, struct fl_who *who, uint32_t who_count,
                         uint32_t count);

/* The same bubbles, but other sites in them. Takes who. */
void fl_clusters_move(struct fl_clusters *c, struct fl_who *who, uint32_t who_count);
/* *ret_who (fl_free): all of a, and of b those who are not in a; both ascending. */
int fl_clusters_merge(const struct fl_who *a, uint32_t a_count, const struct fl_who *b,
                      uint32_t b_count, struct fl_who **ret, uint32_t *ret_count, struct fl_err *e);

/* The secure sums of a round (fl_strategy.groups): a bubble's members have one, and where there are
 * fewer than enough of them the smallest cluster of bubbles around it that has enough, by
 * `distance` (as in fl_clusters_more; NULL: its members have none). Bubbles with one sum learn
 * together. */
int fl_clusters_groups(const struct fl_clusters *c, const double *distance,
                       const struct fl_groups_terms *terms, const uint64_t *agents, uint32_t count,
                       uint32_t *ret_group, struct fl_err *e);

size_t fl_clusters_size(const struct fl_clusters *c, uint32_t room, uint32_t more);
void fl_clusters_save(const struct fl_clusters *c, const struct fl_clusters_more *more,
                      uint8_t *to);
/* *ret_more points into `from`. size 0: a job begins. -FL_R_STORE_MISMATCH. */
int fl_clusters_load(struct fl_clusters *c, const uint8_t *from, size_t size,
                     const uint8_t **ret_more, size_t *ret_size, struct fl_err *e);

/* The strategy's finish: next->put_count is c->count. */
int fl_clusters_finish(const struct fl_clusters *c, uint32_t exchange,
                       const struct fl_clusters_more *more, struct fl_next *next, struct fl_err *e);

/* For the table of a strategy: slots that hold nothing, since updates are folded at the end, and a
 * place by fl_clusters_of. `shared` begins with a struct fl_clusters. */
uint32_t fl_clusters_slots(const void *shared);
int fl_clusters_next_slots(const void *shared, void *const *slots, const struct fl_updates *updates,
                           uint32_t *ret, struct fl_err *e);
int fl_clusters_slot_new(const void *shared, void **ret, struct fl_err *e);
void fl_clusters_slot_reset(const void *shared, void *slot);
void fl_clusters_slot_free(void *slot);
int fl_clusters_place(const void *shared, const uint64_t *agents, uint32_t count,
                      uint32_t *ret_slot, struct fl_err *e);
/* Everybody with the same words. */
void fl_clusters_explain(const struct fl_clusters *c, const char *why,
                         void (*each)(void *arg, uint64_t agent, uint32_t slot, const char *why),
                         void *arg);
int fl_clusters_fold(void *slot, const void *shared, const struct fl_update *u, struct fl_err *e);

#endif
