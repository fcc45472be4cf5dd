/*
 * The stages of a secure sum beside the masked vector itself: keys, shares, a signature, and what
 * takes masks off the sum. None of them is shaped by the data, so they cost the ledger nothing;
 * each is in the outbox and on the ledger all the same, once for a key.
 *
 * Unlike other producers these draw from the kernel and are not made a second time from the same
 * intent: until the debit nothing has left, and with the process the session is gone.
 */
#include "client/produce.h"

#include <stdlib.h>
#include <string.h>

static int event(const struct fl_plan *plan, const struct fl_exchange_terms *terms,
                 struct fl_event *ret, struct fl_err *e)
{
    (void)plan;
    (void)terms;
    (void)e;
    *ret = (struct fl_event){.count = 0};
    return 0;
}

/* A cheat on purpose, for the test that must see it found out (-Dseeded_leaks): never in a build
 * that is used. One neighbour cannot open the shares that it is dealt. */
static void cheat(const char *exchange, const struct fl_secagg_bytes *made)
{
#ifdef FL_SEEDED_LEAKS
    const char *chosen = getenv("COHORT_SEEDED_LEAK");
    bool deals = fl_plan_secure_stage(exchange) == FL_SECAGG_SHARE;

    if (deals && chosen && strcmp(chosen, "shares") == 0) {
        made->bytes[made->size - 1] ^= 1;
    }
#else
    (void)exchange;
    (void)made;
#endif
}

static int make(const struct fl_produce *in, struct fl_produced *ret, struct fl_err *e)
{
    struct fl_secagg_bytes made = {NULL, 0};

    memset(ret, 0, sizeof *ret);
    int r =
        fl_session_stage(in->sessions, in->plan, &in->key, fl_plan_secure_stage(in->terms->name),
                         in->tls, in->input, in->input_size, NULL, &made, e);
    if (r == 0) {
        cheat(in->terms->name, &made);
        ret->bytes = made.bytes;
        ret->size = made.size;
    }
    return r;
}

#define STAGE(word)                                                                                \
    const struct fl_producer fl_produce_##word = {                                                 \
        .exchange = "secagg-" #word, .event = event, .make = make}

STAGE(advertise);
STAGE(share);
STAGE(sign);
STAGE(unmask);
