/* Models in memory, for tests of a strategy's finish: rows of `elements` values, a row a slot. */
#ifndef TESTS_LIB_NEXT_MEMORY_H
#define TESTS_LIB_NEXT_MEMORY_H

#include "server/strategy/strategy.h"

#include <string.h>

struct next_memory {
    const float *base;
    float *next;
    size_t elements;
};

static inline int next_memory_base(void *arg, uint32_t slot, size_t first, size_t count, float *to,
                                   struct fl_err *e)
{
    const struct next_memory *m = arg;

    (void)e;
    memcpy(to, m->base + slot * m->elements + first, count * sizeof *to);
    return 0;
}

static inline int next_memory_put(void *arg, uint32_t slot, size_t first, size_t count,
                                  const float *values, struct fl_err *e)
{
    const struct next_memory *m = arg;

    (void)e;
    memcpy(m->next + slot * m->elements + first, values, count * sizeof *values);
    return 0;
}

static inline struct fl_next next_in_memory(struct next_memory *m, uint32_t slots, uint8_t *state,
                                            size_t state_size)
{
    return (struct fl_next){.base = next_memory_base,
                            .put = next_memory_put,
                            .arg = m,
                            .base_count = slots,
                            .put_count = slots,
                            .state = state,
                            .state_size = state_size};
}

#endif
