/* A small secure sum that has begun, and what its tests ask of it. */
#ifndef TESTS_LIB_SECAGG_SMALL_H
#define TESTS_LIB_SECAGG_SMALL_H

#include "tests/lib/check_main.h"
#include "tests/lib/secagg_world.h"

static inline struct fl_secagg_setup plain(uint32_t n)
{
    return (struct fl_secagg_setup){.context = {{7}},
                                    .members_min = 2,
                                    .members_max = n,
                                    .survivors_min = 2,
                                    .bits = 32,
                                    .max = 1 << 20,
                                    .count = 33};
}

static inline struct sw *world(uint32_t n)
{
    struct fl_secagg_setup s = plain(n);
    struct sw *w = sw_new(&s, n, n);

    ck_assert_int_eq(sw_start(w), 0);
    return w;
}

/* Agent i's index in the roster, read from where everybody sees it. */
static inline uint32_t index_of(const struct sw *w, uint32_t i)
{
    struct fl_secagg_bytes b = {NULL, 0};
    struct fl_roster_view v;
    struct fl_digest principal;
    uint32_t index = 0;

    ck_assert_int_eq(
        fl_secagg_server_reply(w->server, FL_SECAGG_ADVERTISE, w->agent[i].id, &b, NULL), 0);
    ck_assert_int_eq(fl_roster_read(&w->setup.context, b.bytes, b.size, &v, NULL), 0);
    fl_digest_of(w->agent[i].cert, SW_CERT, &principal);
    while (memcmp(v.entries + (size_t)index * FL_SECAGG_ENTRY_SIZE, principal.bytes, 32) != 0) {
        index++;
    }
    fl_secagg_bytes_free(&b);
    return index;
}

static inline uint32_t ended(const struct sw *w, int error)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < w->count; i++) {
        count += w->agent[i].error == error;
    }
    return count;
}

#endif
