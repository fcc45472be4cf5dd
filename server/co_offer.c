/*
 * Offers: what they claim against what the round takes; and late ones, of rounds that are
 * published.
 */
#include "server/co.h"

#include "common/base/mem.h"

#include <string.h>

/* A late offer: was that very update committed? */
struct late_op {
    struct co_op op;
    struct fl_key key;
    uint64_t agent;
    struct fl_digest offered, found;
    int result;
};

static void late_run(struct co_op *op)
{
    struct late_op *l = (struct late_op *)op;
    op->status = fl_store_update_made(op->co->store, op->job_id, l->key.round, l->key.exchange,
                                      l->agent, &l->found, &op->err);
    l->result = op->status;
}

static void late_done(struct co_op *op)
{
    struct late_op *l = (struct late_op *)op;
    struct co_peer *p = co_peer_by_connection(op->co, op->connection);

    if (op->status < 0) {
        co_store_failed(op->co, op, "look up a late update");
    }
    if (p) {
        p->late = false;
    }
    if (!p || op->status < 0) {
        return;
    }
    if (l->result == 0) {
        co_peer_send_over(p, &l->key, FL_R_ROUND_OVER);
    } else if (fl_digest_equal(&l->found, &l->offered)) {
        co_peer_send_ack(p, &l->key, &l->offered);
    } else {
        co_peer_send_refuse(p, &l->key, FL_R_UPDATE_CONFLICT, NULL);
    }
}

/* It has its task of an earlier round still, and the one that is collected takes what it makes. */
static bool carried(const struct co_peer *p, const struct co_job *j, const struct fl_offer *offer)
{
    struct fl_member_view m;

    return j->round && offer->key.round <= j->published &&
           fl_round_member(j->round, offer->key.exchange, p->agent, &m) &&
           m.base == offer->key.round;
}

static void offer_terms(const struct co_peer *p, const struct co_job *j,
                        const struct fl_offer *offer, struct fl_offer_terms *ret)
{
    const struct co_sums *s = j->sums;
    const struct fl_plan *plan = s ? s->plan : j->plan;
    uint32_t slot = 0;

    ret->key.round = j->published + 1;
    memcpy(ret->key.incarnation, j->incarnation, sizeof ret->key.incarnation);
    ret->late_rounds = plan->round.late_rounds;
    ret->open = s != NULL;
    ret->carried = carried(p, j, offer);
    ret->exchange_count = s ? s->terms_count : 1;
    if (!s) {
        return;
    }
    ret->plan = *fl_object_digest(j->frozen_text);
    /* While an exchange is finished nothing is taken for it, and where a member is cannot be asked:
     * then the offer's word is enough for the answer, which is the round's. */
    ret->base = offer->base;
    if (!s->finishing && co_sums_place(s, p->agent, &slot, NULL) == 0) {
        ret->base = j->model->model[slot];
    }
    if (offer->key.exchange < s->terms_count) {
        const struct fl_exchange_terms *x = &s->terms[offer->key.exchange];
        ret->update_size = x->size;
        for (uint32_t i = 0; i < FL_COUNT(ret->narrow_size); i++) {
            uint32_t bits = 4 + 2 * i;
            bool may = plan->grid.narrow && bits >= plan->grid.narrow && x->model;
            ret->narrow_size[i] = may ? fl_narrow_bytes(bits, x->elements) : 0;
        }
        ret->at_most = x->payload == FL_PAYLOAD_BYTES;
        ret->max_weight = x->max_weight;
    }
}

void co_peer_offered(struct co_peer *p, const Cohort__Offer *m)
{
    struct co *co = p->co;
    struct fl_err e = {0};
    struct fl_offer offer = {.size = m->size, .weight = m->weight};
    struct fl_offer_terms terms = {0};

    fl_key_from_msg(m->key, &offer.key);
    memcpy(offer.digest.bytes, m->digest.data, FL_DIGEST_SIZE);
    memcpy(offer.plan.bytes, m->plan_digest.data, FL_DIGEST_SIZE);
    memcpy(offer.base.bytes, m->base_digest.data, FL_DIGEST_SIZE);
    struct co_job *j = co_job_by_incarnation(co, offer.key.incarnation);
    if (j) {
        offer_terms(p, j, &offer, &terms);
    }
    switch (fl_peer_offer(j ? &terms : NULL, &offer, &e)) {
    case FL_OFFER_CURRENT:
        co_event(co, j->id,
                 &(struct fl_round_event){.type = FL_ROUND_EV_OFFERED,
                                          .round = terms.key.round,
                                          .base = offer.key.round,
                                          .exchange = offer.key.exchange,
                                          .agent = p->agent,
                                          .digest = offer.digest,
                                          .size = offer.size,
                                          .weight = offer.weight},
                 false);
        return;
    case FL_OFFER_LATE: {
        if (p->late) { /* one at a time: what a connection can queue has a bound */
            co_peer_send_refuse(p, &offer.key, FL_R_BUSY, NULL);
            return;
        }
        p->late = true;
        struct late_op *l = co_op_new(co, sizeof *l, late_run, late_done);
        l->op.job_id = j->id;
        l->op.connection = p->connection;
        l->key = offer.key;
        l->agent = p->agent;
        l->offered = offer.digest;
        co_submit(co, co->store_lane, &l->op);
        return;
    }
    case FL_OFFER_OVER:
        co_peer_send_over(p, &offer.key, FL_R_ROUND_OVER);
        return;
    case FL_OFFER_REFUSED:
        co_peer_send_refuse(p, &offer.key, e.code, e.msg);
        return;
    }
}

void co_peer_send_resume(struct co_peer *p, const struct fl_key *key,
                         const struct fl_digest *digest, uint64_t offset)
{
    Cohort__Frame frame = COHORT__FRAME__INIT;
    Cohort__Resume resume = COHORT__RESUME__INIT;
    Cohort__Key k = COHORT__KEY__INIT;

    fl_key_to_msg(key, &k);
    resume.key = &k;
    resume.digest =
        (ProtobufCBinaryData){.len = FL_DIGEST_SIZE, .data = (uint8_t *)(uintptr_t)digest->bytes};
    resume.offset = offset;
    frame.body_case = COHORT__FRAME__BODY_RESUME;
    frame.resume = &resume;
    co_peer_send(p, &frame);
}
