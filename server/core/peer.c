#include "server/core/peer.h"

#include <string.h>

const char *fl_peer_state_name(enum fl_peer_state state)
{
    static const char *const names[] = {
        [FL_PEER_OPENING] = "opening", [FL_PEER_IDLE] = "idle",       [FL_PEER_ASKING] = "asking",
        [FL_PEER_TASKED] = "tasked",   [FL_PEER_WORKING] = "working", [FL_PEER_CLOSING] = "closing",
    };
    return names[state];
}

void fl_peer_init(struct fl_peer *p, uint64_t agent, uint64_t now_ms)
{
    *p = (struct fl_peer){.state = FL_PEER_OPENING, .agent = agent, .rate_ms = now_ms};
}

/* A token bucket kept as one number (the "generic cell rate algorithm"): rate_ms is when the bucket
 * would be full again. */
static bool too_fast(struct fl_peer *p, uint64_t now_ms)
{
    uint64_t full = p->rate_ms > now_ms ? p->rate_ms : now_ms;

    if (full + FL_PEER_RATE_MS > now_ms + (uint64_t)FL_PEER_RATE_MS * FL_PEER_RATE_BURST) {
        return true;
    }
    p->rate_ms = full + FL_PEER_RATE_MS;
    return false;
}

static const char *const msg_names[] = {
    [FL_PEER_MSG_HELLO] = "Hello",   [FL_PEER_MSG_ASK] = "Ask",
    [FL_PEER_MSG_ACCEPT] = "Accept", [FL_PEER_MSG_DECLINE] = "Decline",
    [FL_PEER_MSG_FETCH] = "Fetch",   [FL_PEER_MSG_OFFER] = "Offer",
    [FL_PEER_MSG_REFUSE] = "Refuse", [FL_PEER_MSG_BYE] = "Bye",
    [FL_PEER_MSG_CLAIM] = "Claim",   [FL_PEER_MSG_OTHER] = "a message of coordinators",
};

static int offence(struct fl_peer *p, enum fl_reason reason, enum fl_peer_msg msg, struct fl_err *e)
{
    enum fl_peer_state state = p->state;

    p->state = FL_PEER_CLOSING;
    if (reason == FL_R_LIMIT) {
        return fl_fail(e, reason, "more than %d messages at once or one each %d ms",
                       FL_PEER_RATE_BURST, FL_PEER_RATE_MS);
    }
    if (reason == FL_R_MSG_FIELD) {
        return fl_fail(e, reason, "%s without a key", msg_names[msg]);
    }
    return fl_fail(e, reason, "%s is not expected while %s", msg_names[msg],
                   fl_peer_state_name(state));
}

static bool about_task(const struct fl_peer *p, const struct fl_key *key)
{
    return p->has_task && key && fl_key_equal(&p->task, key);
}

int fl_peer_step(struct fl_peer *p, enum fl_peer_msg msg, const struct fl_key *key, uint64_t now_ms,
                 struct fl_err *e)
{
    if (p->state == FL_PEER_CLOSING) {
        return FL_PEER_STALE;
    }
    if (too_fast(p, now_ms)) {
        return offence(p, FL_R_LIMIT, msg, e);
    }
    if (msg == FL_PEER_MSG_BYE) {
        p->state = FL_PEER_CLOSING;
        return FL_PEER_OK;
    }
    if (msg == FL_PEER_MSG_OTHER || (msg == FL_PEER_MSG_HELLO) != (p->state == FL_PEER_OPENING)) {
        return offence(p, FL_R_MSG_ORDER, msg, e);
    }
    switch (msg) {
    case FL_PEER_MSG_ASK:
        p->state = FL_PEER_ASKING;
        p->has_task = false;
        return FL_PEER_OK;
    case FL_PEER_MSG_ACCEPT:
        if (!about_task(p, key)) {
            return FL_PEER_STALE;
        }
        if (p->state != FL_PEER_TASKED) {
            return offence(p, FL_R_MSG_ORDER, msg, e);
        }
        p->state = FL_PEER_WORKING;
        return FL_PEER_OK;
    case FL_PEER_MSG_DECLINE:
        if (!about_task(p, key)) {
            return FL_PEER_STALE;
        }
        p->state = FL_PEER_IDLE;
        p->has_task = false;
        return FL_PEER_OK;
    case FL_PEER_MSG_OFFER:
        if (!key) {
            return offence(p, FL_R_MSG_FIELD, msg, e);
        }
        p->task = *key;
        p->has_task = true;
        p->state = FL_PEER_WORKING;
        return FL_PEER_OK;
    default:
        return FL_PEER_OK;
    }
}

int fl_peer_hello(struct fl_peer *p, uint32_t min_version, uint32_t max_version, uint32_t own_min,
                  uint32_t own_max, struct fl_err *e)
{
    uint32_t version = max_version < own_max ? max_version : own_max;

    if (min_version > max_version || version < min_version || version < own_min) {
        p->state = FL_PEER_CLOSING;
        return fl_fail(e, FL_R_VERSION,
                       "the agent speaks versions %u to %u, this coordinator %u to %u", min_version,
                       max_version, own_min, own_max);
    }
    p->version = version;
    p->state = FL_PEER_IDLE;
    return 0;
}

static void offer_object(struct fl_peer *p, const struct fl_digest *object)
{
    for (size_t i = 0; i < FL_PEER_OBJECTS_MAX; i++) {
        if (fl_digest_equal(&p->object[i], object)) {
            return;
        }
    }
    p->object[p->object_next] = *object;
    p->object_next = (p->object_next + 1) % FL_PEER_OBJECTS_MAX;
}

void fl_peer_sent_object(struct fl_peer *p, const struct fl_digest *object)
{
    offer_object(p, object);
}

void fl_peer_sent_task(struct fl_peer *p, const struct fl_key *key, const struct fl_digest *plan,
                       const struct fl_digest *base)
{
    p->task = *key;
    p->has_task = true;
    p->state = FL_PEER_TASKED;
    offer_object(p, plan);
    offer_object(p, base);
    fl_peer_earn(p, FL_PEER_TASK_MESSAGES);
}

void fl_peer_earn(struct fl_peer *p, uint32_t messages)
{
    uint64_t ms = (uint64_t)messages * FL_PEER_RATE_MS;

    p->rate_ms = p->rate_ms > ms ? p->rate_ms - ms : 0;
}

bool fl_peer_sent_end(struct fl_peer *p, const struct fl_key *key)
{
    if (!about_task(p, key) || (p->state != FL_PEER_TASKED && p->state != FL_PEER_WORKING)) {
        return false;
    }
    p->has_task = false;
    p->state = FL_PEER_IDLE;
    return true;
}

void fl_peer_sent_rest(struct fl_peer *p)
{
    if (p->state == FL_PEER_ASKING) {
        p->state = FL_PEER_IDLE;
    }
}

void fl_peer_sent_bye(struct fl_peer *p)
{
    p->state = FL_PEER_CLOSING;
}

int fl_peer_fetch(const struct fl_peer *p, const struct fl_digest *object, uint64_t offset,
                  uint64_t size, struct fl_err *e)
{
    bool offered = false;

    for (size_t i = 0; i < FL_PEER_OBJECTS_MAX && !fl_digest_is_zero(object); i++) {
        offered = offered || fl_digest_equal(&p->object[i], object);
    }
    if (!offered) {
        return fl_fail(e, FL_R_NO_OBJECT, "no object of this digest is offered to this agent");
    }
    if (offset > size) {
        return fl_fail(e, FL_R_OFFSET, "offset %llu of an object of %llu bytes",
                       (unsigned long long)offset, (unsigned long long)size);
    }
    return 0;
}

static enum fl_offer_verdict refused(struct fl_err *e, enum fl_reason reason, const char *text)
{
    fl_fail(e, reason, "%s", text);
    return FL_OFFER_REFUSED;
}

enum fl_offer_verdict fl_peer_offer(const struct fl_offer_terms *terms,
                                    const struct fl_offer *offer, struct fl_err *e)
{
    if (!terms ||
        memcmp(terms->key.incarnation, offer->key.incarnation, FL_INCARNATION_SIZE) != 0) {
        return refused(e, FL_R_NO_JOB, "an offer for a job that does not run here");
    }
    if (fl_digest_is_zero(&offer->digest) || offer->key.round == 0) {
        return refused(e, FL_R_MSG_FIELD, "an offer without digest or round");
    }
    if (offer->key.round > terms->key.round) {
        return refused(e, FL_R_NO_ROUND, "an offer for a round of the future");
    }
    if (offer->key.round < terms->key.round && !terms->carried) {
        uint64_t behind = terms->key.round - offer->key.round;
        return behind <= terms->late_rounds ? FL_OFFER_LATE : FL_OFFER_OVER;
    }
    if (!terms->open && terms->carried) {
        return refused(e, FL_R_BUSY, "the round is not open yet");
    }
    if (!terms->open) {
        return refused(e, FL_R_NO_ROUND, "an offer for a round that is not open");
    }
    if (offer->key.exchange >= terms->exchange_count) {
        return refused(e, FL_R_MSG_FIELD, "an offer for an exchange that the plan does not have");
    }
    if (!fl_digest_equal(&offer->plan, &terms->plan)) {
        return refused(e, FL_R_UPDATE_SHAPE, "an update made for another plan");
    }
    if (!terms->carried && !fl_digest_equal(&offer->base, &terms->base)) {
        return refused(e, FL_R_UPDATE_SHAPE, "an update made from another model");
    }
    if (terms->at_most ? offer->size == 0 || offer->size > terms->update_size
                       : offer->size != terms->update_size &&
                             (offer->size == 0 || (offer->size != terms->narrow_size[0] &&
                                                   offer->size != terms->narrow_size[1]))) {
        fl_fail(e, FL_R_UPDATE_LENGTH, "an update of %llu bytes, the plan gives %llu",
                (unsigned long long)offer->size, (unsigned long long)terms->update_size);
        return FL_OFFER_REFUSED;
    }
    if (offer->weight == 0 || offer->weight > terms->max_weight) {
        fl_fail(e, FL_R_UPDATE_RANGE, "weight %u is not 1 to %u", offer->weight, terms->max_weight);
        return FL_OFFER_REFUSED;
    }
    return FL_OFFER_CURRENT;
}
