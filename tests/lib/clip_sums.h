/* A clipped sum as one vector, as tests of client/trainer/clipsum look at it. */
#ifndef TESTS_LIB_CLIP_SUMS_H
#define TESTS_LIB_CLIP_SUMS_H

#include "client/trainer/clipsum.h"
#include "common/base/mem.h"
#include "tests/lib/check_main.h"

#include <string.h>

static int64_t taken[1 << 18];
static size_t taken_count;

/* In order, without a gap; changing what is handed out changes nothing of the next sum. */
static inline void take_part(void *arg, size_t at, int64_t *q, size_t count)
{
    (void)arg;
    ck_assert_uint_eq(at, taken_count);
    ck_assert_uint_le(at + count, FL_COUNT(taken));
    memcpy(taken + at, q, count * sizeof *q);
    memset(q, 0x55, count * sizeof *q);
    taken_count += count;
}

/* Valid until the next one. */
static inline const int64_t *take_all(struct fl_clipsum *c)
{
    taken_count = 0;
    fl_clipsum_drain(c, take_part, NULL);
    return taken;
}

#endif
