/*
 * Receipts: an agent names updates that it has none for (Claim), and gets the coordinator's
 * signature under what the round's record says of each (proto/WIRE.md, section 12). Nothing is kept
 * for it: the content is that of the chain of records, so a receipt can be made again at any time,
 * and no round waits for one: they are asked for when an agent has nothing else to say, read
 * between the store's other jobs and signed on a worker.
 */
#include "server/co.h"

#include "common/base/mem.h"
#include "common/wire/receipt.h"
#include "common/wire/tls_sign.h"

#include <stdio.h>
#include <string.h>

struct claimed {
    struct fl_receipt receipt;
    uint64_t job, published;
    uint64_t last; /* the last round that may take it */
    bool over, found;
    int reason; /* there is none and never will be; neither: not yet */
    uint8_t signature[FL_TLS_SIG_MAX];
    size_t signature_size;
};

struct claim_op {
    struct co_op op;
    uint64_t agent;
    struct fl_tls_conf *tls; /* of the time of the claim */
    uint32_t count;
    struct claimed of[FL_WIRE_CLAIMS_MAX];
};

static void finish(struct claim_op *c)
{
    struct co_peer *p = co_peer_by_connection(c->op.co, c->op.connection);

    if (p) {
        p->claiming = false;
    }
    fl_tls_conf_unref(c->tls);
}

static void send_receipt(struct co_peer *p, const struct claim_op *c, const struct claimed *x)
{
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Receipt receipt = COHORT__RECEIPT__INIT;
    Cohort__Inclusion inclusion = COHORT__INCLUSION__INIT;
    Cohort__Key key = COHORT__KEY__INIT;
    struct claimed copy = *x; /* protobuf-c's pointers are not const */
    const uint8_t *certificate;
    size_t size = fl_tls_certificate(c->tls, &certificate);

    fl_key_to_msg(&copy.receipt.key, &key);
    receipt.key = &key;
    receipt.reason = (uint32_t)copy.reason;
    if (copy.found) {
        inclusion.update =
            (ProtobufCBinaryData){.len = FL_DIGEST_SIZE, .data = copy.receipt.update.bytes};
        inclusion.weight = copy.receipt.weight;
        inclusion.size = copy.receipt.size;
        inclusion.round = copy.receipt.round;
        inclusion.record =
            (ProtobufCBinaryData){.len = FL_DIGEST_SIZE, .data = copy.receipt.record.bytes};
        inclusion.model =
            (ProtobufCBinaryData){.len = FL_DIGEST_SIZE, .data = copy.receipt.model.bytes};
        inclusion.certificate =
            (ProtobufCBinaryData){.len = size, .data = (uint8_t *)(uintptr_t)certificate};
        inclusion.signature =
            (ProtobufCBinaryData){.len = copy.signature_size, .data = copy.signature};
        receipt.inclusion = &inclusion;
    }
    frame.body_case = COHORT__FRAME__BODY_RECEIPT;
    frame.receipt = &receipt;
    co_peer_send(p, &frame);
}

/* [short] */
static void sign_run(struct co_op *op)
{
    struct claim_op *c = (struct claim_op *)op;
    char text[FL_RECEIPT_TEXT_MAX];

    for (uint32_t i = 0; op->status == 0 && i < c->count; i++) {
        struct claimed *x = &c->of[i];
        if (x->found) {
            size_t size = fl_receipt_text(&x->receipt, text);
            op->status = fl_tls_sign(c->tls, (const uint8_t *)text, size, x->signature,
                                     &x->signature_size, &op->err);
        }
    }
}

static void sign_done(struct co_op *op)
{
    struct claim_op *c = (struct claim_op *)op;
    struct co_peer *p = co_peer_by_connection(op->co, op->connection);

    for (uint32_t i = 0; op->status == 0 && p && i < c->count; i++) {
        if (c->of[i].found || c->of[i].reason) {
            send_receipt(p, c, &c->of[i]);
        }
    }
    finish(c); /* what failed is claimed again */
}

/* Its own round's record, or with staleness that of a later one, has this very update. */
static int look(struct fl_store *store, uint64_t agent, struct claimed *x, struct fl_err *e)
{
    struct fl_receipt *r = &x->receipt;
    struct fl_store_inclusion in;
    bool recorded, any = false;
    int status = 0;

    for (uint64_t round = r->key.round; !x->found && round <= x->last; round++) {
        status =
            fl_store_inclusion(store, x->job, round, r->key.exchange, agent, &in, &recorded, e);
        if (status < 0) {
            return status;
        }
        any = any || recorded;
        x->found = status == 1 && fl_digest_equal(&in.update, &r->update);
        r->round = round;
    }
    if (x->found) {
        r->weight = in.weight;
        r->size = in.size;
        r->record = in.record;
        r->model = in.model;
    } else if (x->over || x->last <= x->published) {
        x->reason = any ? FL_R_NOT_MEMBER : FL_R_NO_ROUND;
    }
    return 0;
}

/* [store] */
static void look_run(struct co_op *op)
{
    struct claim_op *c = (struct claim_op *)op;

    for (uint32_t i = 0; op->status == 0 && i < c->count; i++) {
        if (!c->of[i].reason) {
            op->status = look(op->co->store, c->agent, &c->of[i], &op->err);
        }
    }
}

static void look_done(struct co_op *op)
{
    struct claim_op *c = (struct claim_op *)op, *next;

    if (op->status) {
        if (op->status != -FL_R_CANCELLED) {
            co_store_failed(op->co, op, "look up receipts");
        }
        finish(c);
        return;
    }
    next = co_op_new(op->co, sizeof *next, sign_run, sign_done);
    next->op.connection = op->connection;
    next->tls = c->tls;
    next->count = c->count;
    memcpy(next->of, c->of, sizeof next->of);
    co_submit(op->co, op->co->receipt_lane, &next->op);
}

/* By how many rounds an update may be late and still count (buffers). */
static uint64_t last_behind(const struct co_job *j)
{
    struct fl_round_rules rules;

    if (!j->plan) {
        return 0;
    }
    fl_strategy_rules(j->plan, 1, &rules);
    return rules.staleness;
}

void co_peer_claims(struct co_peer *p, const Cohort__Claim *m)
{
    struct co *co = p->co;

    if (p->claiming || m->n_updates == 0) {
        return; /* one at a time; it will ask again */
    }
    struct claim_op *c = co_op_new(co, sizeof *c, look_run, look_done);
    p->claiming = true;
    c->op.connection = p->connection;
    c->agent = p->agent;
    c->tls = fl_tls_conf_ref(co->tls);
    for (size_t i = 0; i < m->n_updates && i < FL_WIRE_CLAIMS_MAX; i++) {
        struct claimed *x = &c->of[c->count++];
        fl_claimed_from_msg(m->updates[i], &x->receipt.key, &x->receipt.update);
        const struct co_job *j = co_job_by_incarnation(co, x->receipt.key.incarnation);
        memcpy(x->receipt.agent, p->identity.key, sizeof x->receipt.agent);
        if (!j) {
            x->reason = FL_R_NO_JOB;
            continue;
        }
        if (x->receipt.key.round > j->published + 1) {
            x->reason = FL_R_NO_ROUND; /* nobody was ever asked for it */
            continue;
        }
        snprintf(x->receipt.job, sizeof x->receipt.job, "%s", j->name);
        x->job = j->id;
        x->published = j->published;
        x->last = x->receipt.key.round + last_behind(j);
        x->over = j->state == FL_JOB_DONE || j->state == FL_JOB_CANCELLED;
    }
    co_submit(co, co->store_lane, &c->op);
}
