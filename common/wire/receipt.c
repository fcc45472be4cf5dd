#include "common/wire/receipt.h"

#include <stdio.h>
#include <string.h>

static void hex_of(const uint8_t *bytes, size_t size, char *ret)
{
    for (size_t i = 0; i < size; i++) {
        snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
    }
}

size_t fl_receipt_member(const struct fl_receipt *r, char ret[FL_RECEIPT_TEXT_MAX])
{
    char agent[2 * FL_RECEIPT_AGENT + 1], update[FL_DIGEST_HEX];

    hex_of(r->agent, sizeof r->agent, agent);
    fl_digest_hex(&r->update, update);
    return (size_t)snprintf(ret, FL_RECEIPT_TEXT_MAX, "member %u %s %s %u %llu\n", r->key.exchange,
                            agent, update, r->weight, (unsigned long long)r->size);
}

size_t fl_receipt_text(const struct fl_receipt *r, char ret[FL_RECEIPT_TEXT_MAX])
{
    char incarnation[2 * FL_INCARNATION_SIZE + 1], member[FL_RECEIPT_TEXT_MAX];
    char record[FL_DIGEST_HEX], model[FL_DIGEST_HEX];

    hex_of(r->key.incarnation, FL_INCARNATION_SIZE, incarnation);
    fl_receipt_member(r, member);
    fl_digest_hex(&r->record, record);
    fl_digest_hex(&r->model, model);
    int n = snprintf(ret, FL_RECEIPT_TEXT_MAX,
                     "cohort-receipt 1\njob %.63s\nincarnation %s\nround %llu\n%.240srecord %s\n"
                     "model %s\n",
                     r->job, incarnation, (unsigned long long)r->round, member, record, model);
    return (size_t)n; /* 555 at most: every field has its ceiling */
}
