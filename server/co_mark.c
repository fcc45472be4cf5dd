/*
 * The echo of the agents' ledgers: an Offer shows how far a ledger is (proto/WIRE.md), the roster
 * keeps the farthest, the store makes it durable with the update, Welcome tells it back. So an
 * agent whose disk went back in time finds out before it releases anything, and if it does not care
 * to, its update is refused here.
 */
#include "common/base/log.h"
#include "server/co.h"

#include <string.h>

Cohort__Mark *co_mark_echo(const struct fl_roster_agent *a, struct co_mark *ret)
{
    if (a->releases == 0) {
        return NULL;
    }
    cohort__mark__init(&ret->message);
    ret->head = a->head;
    ret->message.releases = a->releases;
    ret->message.head = (ProtobufCBinaryData){.len = FL_DIGEST_SIZE, .data = ret->head.bytes};
    return &ret->message;
}

bool co_mark_fits(struct co_peer *p, const Cohort__Offer *m)
{
    struct fl_digest head = {{0}};

    if (m->ledger) {
        memcpy(head.bytes, m->ledger->head.data, FL_DIGEST_SIZE);
    }
    if (fl_roster_mark(p->co->roster, p->agent, m->ledger ? m->ledger->releases : 0, &head)) {
        return true;
    }
    fl_log(FL_LOG_WARN, p->identity.name,
           "its ledger is older than what it showed before: the update is not taken [%d %s]",
           FL_R_LEDGER, fl_reason_name(FL_R_LEDGER));
    struct fl_key key;
    fl_key_from_msg(m->key, &key);
    co_peer_send_refuse(p, &key, FL_R_LEDGER, NULL);
    return false;
}
