/*
 * Collectors: what the coordinator does with an exchange that is around the strategies, whatever
 * these are. What comes of it is a named section of the checkpoint: published with the round,
 * carried on from checkpoint to checkpoint until it is collected again.
 *
 * To add one: a file with its table, a line in collect.c, a producer on the agent's side.
 */
#ifndef SERVER_STRATEGY_COLLECT_H
#define SERVER_STRATEGY_COLLECT_H

#include "common/base/err.h"
#include "common/plan/exchange.h"
#include "server/strategy/strategy.h"

#include <stddef.h>
#include <stdint.h>

struct fl_collector {
    const char *exchange; /* its name, and the section's */
    int (*init)(const struct fl_plan *plan, const struct fl_exchange_terms *terms, void **ret,
                struct fl_err *e);
    void (*fini)(void *c); /* NULL is fine */
    void (*reset)(void *c);
    /* One at a time. As a strategy's fold. */
    int (*fold)(void *c, const struct fl_update *u, struct fl_err *e);
    /* The section: at most FL_EXCHANGE_BYTES_MAX bytes, freed by fl_free. A function of the set of
     * payloads, not of their order. May be repeated. */
    int (*finish)(const void *c, const struct fl_updates *updates, uint8_t **ret, size_t *ret_size,
                  struct fl_err *e);
};

/* NULL: the strategy's own exchange. */
const struct fl_collector *fl_collector_find(const char *exchange);

/* The section `counts`, little-endian: sites (uint32), classes (uint32), noise std of the sums
 * (double), then for each class the noised number of examples in all of these sites together
 * (double; may be below 0). */
struct fl_counts {
    uint32_t sites, classes;
    double noise_std;
    const uint8_t *values; /* of the section */
};
int fl_counts_view(const uint8_t *section, size_t size, struct fl_counts *ret, struct fl_err *e);
double fl_counts_at(const struct fl_counts *c, uint32_t i);

/* The section `scores`, little-endian: sites (uint32), 0 (uint32), noise std of each (double), then
 * of each site its number (uint64) and what its model is worth to it, noised (double), by rising
 * number. */
struct fl_scores {
    uint32_t sites;
    double noise_std;
    const uint8_t *values; /* of the section */
};
int fl_scores_view(const uint8_t *section, size_t size, struct fl_scores *ret, struct fl_err *e);
void fl_scores_at(const struct fl_scores *c, uint32_t i, uint64_t *ret_agent, double *ret_score);

extern const struct fl_collector fl_collect_score; /* collect_score.c */

#endif
