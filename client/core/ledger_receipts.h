/*
 * The coordinator's receipts, in the ledger's file: two tables beside the entries. A release is
 * expected to be answered by a receipt; one that came is kept with the coordinator's certificate,
 * so that it can be shown and verified anywhere later. Receipts are no part of the chain of
 * entries: they come later, and are signed by somebody else.
 *
 * What is kept here was verified by the caller. All functions wait for the disk: one thread at a
 * time, as the ledger's.
 */
#ifndef CLIENT_CORE_LEDGER_RECEIPTS_H
#define CLIENT_CORE_LEDGER_RECEIPTS_H

#include "client/core/ledger.h"
#include "common/wire/receipt.h"

enum { FL_RECEIPT_CERT_MAX = 2048, FL_RECEIPT_SIG_MAX = 160 };

/* A receipt with what proves it. */
struct fl_receipt_proof {
    struct fl_receipt receipt;
    int reason; /* not 0: there is none for this reason; then only job, key and update are set */
    uint8_t certificate[FL_RECEIPT_CERT_MAX];
    size_t certificate_size;
    uint8_t signature[FL_RECEIPT_SIG_MAX];
    size_t signature_size;
};

struct fl_wanted {
    struct fl_key key;
    struct fl_digest update;
};
/* Releases to this coordinator that nothing was heard of, in no order: at most `room`. */
int fl_ledger_receipts_wanted(struct fl_ledger *l, const uint8_t coordinator[16],
                              struct fl_wanted *ret, uint32_t room, uint32_t *ret_count,
                              struct fl_err *e);
/* Durable on return, all or none; one that is there already stays as it is. -FL_R_LEDGER: of a key
 * that was never released. */
int fl_ledger_receipts_keep(struct fl_ledger *l, const struct fl_receipt_proof *p, uint32_t count,
                            uint64_t wall_ms, struct fl_err *e);
/* `limit` of them behind number `after`, in the order of their releases, also those that are still
 * wanted (wall_ms 0: then reason is -1); `each` ends the walk with anything but 0. `agent`: whose
 * ledger this is. */
int fl_ledger_receipts_each(struct fl_ledger *l, uint64_t after, uint32_t limit,
                            int (*each)(void *arg, uint64_t number, uint64_t wall_ms,
                                        const struct fl_receipt_proof *p),
                            void *arg, struct fl_err *e);

#endif
