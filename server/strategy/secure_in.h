/* What secure.c (the stages) and secure_sum.c (the sums as updates) share. */
#ifndef SERVER_STRATEGY_SECURE_IN_H
#define SERVER_STRATEGY_SECURE_IN_H

#include "server/strategy/secure.h"

/* One sum: of a part of the update, over all members or over a group. */
struct fl_secure_sum {
    struct fl_secagg_server *server;
    bool lost;  /* given up; the others go on without */
    int64_t *q; /* opened, ready to be dealt out */
    uint32_t members;
};

struct fl_secure_sums {
    uint32_t count;
    struct fl_secure_sum *at;
};

struct fl_secure {
    const struct fl_plan *plan;
    const struct fl_strategy *strategy;
    uint64_t round;
    enum fl_secagg_stage stage;
    uint32_t part_count;
    struct fl_secure_part part[FL_SECURE_PARTS_MAX];
    struct fl_secagg_server *gate[FL_SECURE_PARTS_MAX]; /* takes everybody's keys */
    struct fl_secure_sums sums[FL_SECURE_PARTS_MAX];    /* once groups are made; of all but the last
                                                           part there is one */
    /* who advertised, ascending, and in which sum of the last part */
    uint32_t agent_count;
    uint64_t *agent;
    uint32_t *group;
    /* made-up updates */
    struct fl_secure_dealt *dealt;
    struct fl_update *update;
    uint32_t update_count;
    int64_t *tile;
    uint8_t *packed;
};

/* The group of one who advertised; FL_STRATEGY_NO_GROUP. */
uint32_t fl_secure_group_of(const struct fl_secure *s, uint64_t agent);
/* Forgets the made-up updates. */
void fl_secure_undeal(struct fl_secure *s);

#endif
