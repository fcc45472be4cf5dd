/* Names of contributions, without any protobuf: what cores and stores know of the wire. */
#ifndef FL_WIRE_IDS_H
#define FL_WIRE_IDS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { FL_INCARNATION_SIZE = 16 };

/* No agent ever releases two different updates under one key. */
struct fl_key {
    uint8_t incarnation[FL_INCARNATION_SIZE];
    uint64_t round;    /* 1, 2, ... */
    uint32_t exchange; /* index in the plan's list */
};

static inline bool fl_key_equal(const struct fl_key *a, const struct fl_key *b)
{
    return memcmp(a->incarnation, b->incarnation, FL_INCARNATION_SIZE) == 0 &&
           a->round == b->round && a->exchange == b->exchange;
}

#endif
