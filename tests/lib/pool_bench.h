/* Updates of a slot in memory, packed on a grid, and what a robust rule makes of them. For tests
 * that include Check. */
#ifndef TESTS_LIB_POOL_BENCH_H
#define TESTS_LIB_POOL_BENCH_H

#include "common/base/mem.h"
#include "server/strategy/robust.h"

#include <check.h>
#include <string.h>

struct pool_bench {
    struct fl_robust_terms terms;
    uint32_t n;
    size_t size;
    struct fl_standings standings; /* with gates */
    uint64_t round;                /* that is next */
    int64_t *q;                    /* n x elements */
    uint8_t *packed;
    struct fl_update *update;
};

static inline int pool_bench_read(void *arg, uint64_t offset, uint8_t *to, size_t size,
                                  struct fl_err *e)
{
    (void)e;
    memcpy(to, (const uint8_t *)arg + offset, size);
    return 0;
}

static inline void pool_bench_open(struct pool_bench *b, uint32_t bits, int32_t step, uint32_t n,
                                   size_t elements)
{
    *b = (struct pool_bench){.n = n, .round = 1};
    b->terms.grid = (struct fl_grid){bits, step};
    b->terms.elements = elements;
    b->terms.conf = (struct fl_aggregate_conf){.on = true, .bucket = 2};
    ck_assert(fl_grid_bytes(&b->terms.grid, elements, &b->size));
    b->q = fl_new(n * elements, sizeof *b->q);
    b->packed = fl_new(n, b->size);
    b->update = fl_new(n, sizeof *b->update);
    for (uint32_t i = 0; i < n; i++) {
        b->update[i] = (struct fl_update){.agent = i + 1,
                                          .weight = 1,
                                          .size = b->size,
                                          .read = pool_bench_read,
                                          .arg = b->packed + i * b->size};
    }
}

static inline void pool_bench_close(struct pool_bench *b)
{
    fl_free(b->q);
    fl_free(b->packed);
    fl_free(b->update);
    fl_standings_fini(&b->standings);
}

/* After q was filled: 0, or what the rule failed with. `last` may be NULL. */
static inline int pool_bench_run(struct pool_bench *b, const float *last, double *ret,
                                 struct fl_err *e)
{
    const struct fl_updates updates = {.count = b->n, .at = b->update};
    struct fl_robust *rule;
    size_t d = b->terms.elements;

    for (uint32_t i = 0; i < b->n; i++) {
        fl_grid_pack(&b->terms.grid, b->q + i * d, d, b->packed + i * b->size);
    }
    int r = fl_robust_new(&b->terms, &updates, last, &b->standings, NULL, b->round++, &rule, e);
    if (r != 0) {
        return r;
    }
    size_t tile = fl_robust_tile(rule);
    for (size_t first = 0; r == 0 && first < d; first += tile) {
        r = fl_robust_values(rule, first, d - first < tile ? d - first : tile, ret + first, e);
    }
    fl_robust_free(rule);
    return r;
}

#endif
