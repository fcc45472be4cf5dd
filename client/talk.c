#include "client/talk.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

static const char *const capabilities[] = {"fedavg", "fedrep",       "hyperfl",
                                           "local",  "unit-example", "unit-client"};

/* protobuf-c's structs hold char *, and packing only reads. */
static char *borrow(const char *text)
{
    char *p;

    memcpy(&p, &text, sizeof p);
    return p;
}

static void start(struct fl_talk *t, Cohort__Frame__BodyCase what)
{
    memset(t, 0, sizeof *t);
    cohort__frame__init(&t->frame);
    t->frame.body_case = what;
}

static Cohort__Key *put_key(struct fl_talk *t, const struct fl_key *key)
{
    t->key_bytes = *key;
    cohort__key__init(&t->key);
    fl_key_to_msg(&t->key_bytes, &t->key);
    return &t->key;
}

static ProtobufCBinaryData put_digest(struct fl_talk *t, int place, const struct fl_digest *d)
{
    t->digest[place] = *d;
    return (ProtobufCBinaryData){.len = FL_DIGEST_SIZE, .data = t->digest[place].bytes};
}

void fl_talk_hello(struct fl_talk *t)
{
    start(t, COHORT__FRAME__BODY_HELLO);
    cohort__hello__init(&t->body.hello);
    t->frame.hello = &t->body.hello;
    t->body.hello.min_version = FL_WIRE_VERSION_MIN;
    t->body.hello.max_version = FL_WIRE_VERSION_MAX;
    for (size_t i = 0; i < FL_COUNT(capabilities); i++) {
        t->names[i] = borrow(capabilities[i]);
    }
    t->body.hello.capabilities = t->names;
    t->body.hello.n_capabilities = FL_COUNT(capabilities);
    t->body.hello.software = borrow("cohort-agent " FL_VERSION);
}

void fl_talk_ask(struct fl_talk *t, const char *const *jobs, uint32_t count)
{
    start(t, COHORT__FRAME__BODY_ASK);
    cohort__ask__init(&t->body.ask);
    t->frame.ask = &t->body.ask;
    for (uint32_t i = 0; i < count && i < FL_WIRE_JOBS_MAX; i++) {
        t->names[i] = borrow(jobs[i]);
        t->body.ask.n_jobs++;
    }
    t->body.ask.jobs = t->names;
}

void fl_talk_accept(struct fl_talk *t, const struct fl_key *key)
{
    start(t, COHORT__FRAME__BODY_ACCEPT);
    cohort__accept__init(&t->body.accept);
    t->frame.accept = &t->body.accept;
    t->body.accept.key = put_key(t, key);
}

void fl_talk_decline(struct fl_talk *t, const struct fl_key *key, int reason)
{
    start(t, COHORT__FRAME__BODY_DECLINE);
    cohort__decline__init(&t->body.decline);
    t->frame.decline = &t->body.decline;
    t->body.decline.key = put_key(t, key);
    t->body.decline.reason = (uint32_t)reason;
    t->body.decline.text = borrow(fl_reason_text(reason));
}

void fl_talk_fetch(struct fl_talk *t, const struct fl_digest *digest, uint64_t offset)
{
    start(t, COHORT__FRAME__BODY_FETCH);
    cohort__fetch__init(&t->body.fetch);
    t->frame.fetch = &t->body.fetch;
    t->body.fetch.digest = put_digest(t, 0, digest);
    t->body.fetch.offset = offset;
}

void fl_talk_offer(struct fl_talk *t, const struct fl_agent_offer *offer,
                   const struct fl_ledger_mark *mark)
{
    start(t, COHORT__FRAME__BODY_OFFER);
    cohort__offer__init(&t->body.offer);
    t->frame.offer = &t->body.offer;
    t->body.offer.key = put_key(t, &offer->key);
    t->body.offer.digest = put_digest(t, 0, &offer->digest);
    t->body.offer.size = offer->size;
    t->body.offer.plan_digest = put_digest(t, 1, &offer->plan);
    t->body.offer.base_digest = put_digest(t, 2, &offer->base);
    t->body.offer.weight = offer->weight;
    if (mark->releases) {
        cohort__mark__init(&t->mark);
        t->mark.releases = mark->releases;
        t->mark.head = put_digest(t, 3, &mark->head);
        t->body.offer.ledger = &t->mark;
    }
}

void fl_talk_claim(struct fl_talk *t, const struct fl_wanted *updates, uint32_t count)
{
    start(t, COHORT__FRAME__BODY_CLAIM);
    cohort__claim__init(&t->body.claim);
    t->frame.claim = &t->body.claim;
    for (uint32_t i = 0; i < count && i < FL_WIRE_CLAIMS_MAX; i++) {
        fl_claimed_to_msg(&updates[i].key, &updates[i].update, &t->claims[i]);
        t->claimed[i] = &t->claims[i];
        t->body.claim.n_updates++;
    }
    t->body.claim.updates = t->claimed;
}

/* ---- from the coordinator: fl_msg_unpack has checked every length and range ---------------------
 */

static void get_digest(const ProtobufCBinaryData *from, struct fl_digest *to)
{
    memcpy(to->bytes, from->data, FL_DIGEST_SIZE);
}

static void get_job(const char *from, char *to)
{
    snprintf(to, FL_PLAN_NAME_MAX, "%s", from);
}

static void get_task(const Cohort__Task *m, struct fl_agent_task *t)
{
    memset(t, 0, sizeof *t);
    fl_key_from_msg(m->key, &t->key);
    get_job(m->job, t->job);
    get_digest(&m->plan_digest, &t->plan);
    get_digest(&m->base_digest, &t->base);
    t->plan_size = m->plan_size;
    t->base_size = m->base_size;
    t->update_size = m->update_size;
    t->deadline_left_ms = m->deadline_left_ms;
    snprintf(t->exchange, sizeof t->exchange, "%s", m->exchange);
    if (m->input) {
        get_digest(&m->input->digest, &t->input);
        t->input_size = m->input->size;
    }
}

static void get_final(const Cohort__Final *m, struct fl_agent_task *t)
{
    memset(t, 0, sizeof *t);
    memcpy(t->key.incarnation, m->incarnation.data, FL_INCARNATION_SIZE);
    t->key.round = m->round;
    get_job(m->job, t->job);
    get_digest(&m->plan_digest, &t->plan);
    get_digest(&m->base_digest, &t->base);
    t->plan_size = m->plan_size;
    t->base_size = m->base_size;
    t->final = true;
}

static void get_rest(const Cohort__Rest *m, struct fl_agent_event *ev, struct fl_agent_task *finals)
{
    ev->type = FL_AGENT_EV_REST;
    ev->status = -(int)m->reason;
    ev->retry_ms = m->retry_ms;
    ev->finals = finals;
    for (size_t i = 0; i < m->n_finals && i < FL_AGENT_FINALS_MAX; i++) {
        get_final(m->finals[i], &finals[i]);
        ev->final_count++;
    }
}

bool fl_talk_event(const Cohort__Frame *f, struct fl_agent_event *ev, struct fl_agent_task *finals)
{
    memset(ev, 0, sizeof *ev);
    switch (f->body_case) {
    case COHORT__FRAME__BODY_WELCOME:
        ev->type = FL_AGENT_EV_WELCOME;
        memcpy(ev->coordinator, f->welcome->coordinator.data, sizeof ev->coordinator);
        return true;
    case COHORT__FRAME__BODY_REFUSE:
        ev->type = FL_AGENT_EV_REFUSE;
        ev->status = -(int)f->refuse->reason;
        ev->has_key = f->refuse->key != NULL;
        if (ev->has_key) {
            fl_key_from_msg(f->refuse->key, &ev->key);
        }
        return true;
    case COHORT__FRAME__BODY_REST:
        get_rest(f->rest, ev, finals);
        return true;
    case COHORT__FRAME__BODY_TASK:
        ev->type = FL_AGENT_EV_TASK;
        get_task(f->task, &ev->task);
        return true;
    case COHORT__FRAME__BODY_OVER:
        ev->type = FL_AGENT_EV_OVER;
        ev->status = -(int)f->over->reason;
        fl_key_from_msg(f->over->key, &ev->key);
        return true;
    case COHORT__FRAME__BODY_RESUME:
        ev->type = FL_AGENT_EV_RESUME;
        fl_key_from_msg(f->resume->key, &ev->key);
        get_digest(&f->resume->digest, &ev->digest);
        ev->offset = f->resume->offset;
        return true;
    case COHORT__FRAME__BODY_ACK:
        ev->type = FL_AGENT_EV_ACK;
        fl_key_from_msg(f->ack->key, &ev->key);
        get_digest(&f->ack->digest, &ev->digest);
        return true;
    default:
        return false;
    }
}
