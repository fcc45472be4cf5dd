/*
 * A receipt of inclusion: the coordinator's signature under what it did with one update. A receipt
 * is a text (proto/WIRE.md, section 12): both ends make it from the fields, so what was signed is
 * what was understood. Pure.
 */
#ifndef FL_WIRE_RECEIPT_H
#define FL_WIRE_RECEIPT_H

#include "common/base/hash.h"
#include "common/wire/ids.h"

#include <stddef.h>
#include <stdint.h>

enum { FL_RECEIPT_TEXT_MAX = 768, FL_RECEIPT_JOB_MAX = 64, FL_RECEIPT_AGENT = 32 };

struct fl_receipt {
    char job[FL_RECEIPT_JOB_MAX];
    struct fl_key key;
    uint8_t agent[FL_RECEIPT_AGENT]; /* the key of its certificate */
    struct fl_digest update;
    uint32_t weight;
    uint64_t size;
    uint64_t round; /* the record's: that of the key, or a later one that took the update */
    struct fl_digest record, model; /* the round's record in the chain; the model it published */
};

/* Returns the text's length, without its zero. */
size_t fl_receipt_text(const struct fl_receipt *r, char ret[FL_RECEIPT_TEXT_MAX]);
/* The line of the round's record that speaks of this update, with its line end: it is in the text
 * too. */
size_t fl_receipt_member(const struct fl_receipt *r, char ret[FL_RECEIPT_TEXT_MAX]);

#endif
