#include "server/control/json.h"

#include <stdio.h>
#include <string.h>

enum { HEX_MAX = 2 * 32 + 1 };

/* Adds a member and takes its reference; once anything failed, *o is NULL and stays it. */
static void put(json_t **o, const char *key, json_t *value)
{
    if (!*o) {
        json_decref(value);
    } else if (json_object_set_new(*o, key, value) < 0) {
        json_decref(*o);
        *o = NULL;
    }
}

static void put_hex(json_t **o, const char *key, const uint8_t *bytes, size_t size)
{
    char text[HEX_MAX];

    for (size_t i = 0; i < size; i++) {
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
    put(o, key, json_string(text));
}

static void put_digest(json_t **o, const char *key, const struct fl_digest *d)
{
    if (!d || fl_digest_is_zero(d)) {
        put(o, key, json_null());
    } else {
        put_hex(o, key, d->bytes, FL_DIGEST_SIZE);
    }
}

static void put_number(json_t **o, const char *key, uint64_t n)
{
    put(o, key, json_integer((json_int_t)n));
}

/* Null when it is not known. */
static void put_live(json_t **o, bool live, const char *key, uint64_t n)
{
    put(o, key, live ? json_integer((json_int_t)n) : json_null());
}

/* Where 0 means "not yet" or "unknown". */
static void put_known(json_t **o, const char *key, uint64_t n)
{
    put(o, key, n ? json_integer((json_int_t)n) : json_null());
}

static void put_text(json_t **o, const char *key, const char *s)
{
    put(o, key, s && s[0] ? json_string(s) : json_null());
}

const char *fl_control_job_state_name(enum fl_job_state s)
{
    static const char *const names[] = {
        [FL_JOB_RUNNING] = "running",     [FL_JOB_PAUSED] = "paused",
        [FL_JOB_DRAINING] = "draining",   [FL_JOB_DONE] = "done",
        [FL_JOB_CANCELLED] = "cancelled", [FL_JOB_FAILED] = "failed"};

    return names[s];
}

json_t *fl_control_json_status(const struct fl_control_status *s)
{
    json_t *o = json_object();

    put_text(&o, "state", s->state);
    put_text(&o, "version", FL_VERSION);
    put_hex(&o, "coordinator", s->coordinator, sizeof s->coordinator);
    put_number(&o, "started_ms", s->started_ms);
    put_text(&o, "address", s->address);
    put_number(&o, "port", s->port);
    put_number(&o, "connections", s->connections);
    put_number(&o, "connections_max", s->connections_max);
    put_number(&o, "half_open", s->half_open);
    put_number(&o, "agents_enrolled", s->agents_enrolled);
    put_number(&o, "agents_connected", s->agents_connected);
    put_number(&o, "frame_buffer_bytes", s->pool_bytes);
    put_number(&o, "state_bytes", s->state_bytes);
    put_known(&o, "state_bytes_max", s->state_bytes_max);
    put_text(&o, "certificate_key", s->certificate_key);
    put_known(&o, "certificate_expires_s", s->certificate_expires_s);
    put_known(&o, "crl_expires_s", s->crl_expires_s);
    put_number(&o, "updates_committed", s->updates_committed);
    put_number(&o, "updates_refused", s->updates_refused);
    put_number(&o, "bytes_in", s->bytes_in);
    put_number(&o, "bytes_out", s->bytes_out);
    return o;
}

static json_t *counts_json(const struct fl_control_counts *c)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < c->classes && i < FL_CONTROL_CLASSES_MAX; i++) {
        json_array_append_new(list, json_real(c->value[i]));
    }
    return json_pack("{si si sf so}", "sites", (int)c->sites, "classes", (int)c->classes,
                     "noise_std", c->noise_std, "examples", list);
}

json_t *fl_control_json_job(const struct fl_control_job *j, bool with_text)
{
    json_t *o = json_object();

    put_text(&o, "job", j->name);
    put_number(&o, "id", j->id);
    put_text(&o, "state", fl_control_job_state_name(j->state));
    put_text(&o, "why", j->why);
    put_text(&o, "strategy", j->strategy);
    put_text(&o, "unit", j->unit);
    put_number(&o, "round", j->round);
    put_number(&o, "rounds", j->rounds);
    put(&o, "round_open", json_boolean(j->round_open));
    put_number(&o, "slots", j->slots);
    put_number(&o, "model_bytes", j->model_size);
    put_number(&o, "update_bytes", j->update_size);
    put_hex(&o, "incarnation", j->incarnation, FL_INCARNATION_SIZE);
    put_digest(&o, "model", j->model);
    put_digest(&o, "checkpoint", j->checkpoint);
    if (with_text && j->note && j->note[0]) {
        put_text(&o, "note", j->note);
    }
    if (with_text && j->counts) {
        put(&o, "counts", counts_json(j->counts));
    }
    if (with_text) {
        put(&o, "text", json_stringn(j->text, j->text_size));
    }
    return o;
}

json_t *fl_control_json_round(const struct fl_control_round *r)
{
    json_t *o = json_object();
    bool live = r->wanted != 0; /* of a round that is over, the store keeps no more than the rest */

    put_text(&o, "job", r->job);
    put_number(&o, "round", r->round);
    put_text(&o, "state", r->state);
    put_live(&o, live, "attempt", r->attempt);
    put_live(&o, live, "exchange", r->exchange);
    put_live(&o, live, "exchanges", r->exchanges);
    put_text(&o, "exchange_name", live ? r->exchange_name : NULL);
    put_known(&o, "opened_ms", r->opened_ms);
    put_known(&o, "deadline_ms", r->deadline_ms);
    put_known(&o, "closed_ms", r->closed_ms);
    put_known(&o, "published_ms", r->published_ms);
    put_live(&o, live, "wanted", r->wanted);
    put_live(&o, live, "quorum", r->quorum);
    put_live(&o, live, "candidates", r->candidates);
    put_number(&o, "invited", r->invited);
    put_live(&o, live, "uploading", r->uploading);
    put_number(&o, "committed", r->committed);
    put_live(&o, live, "lost", r->lost);
    put_live(&o, live, "bytes_up", r->bytes_up);
    put_live(&o, live, "bytes_up_expected", r->bytes_up_expected);
    put_live(&o, live, "bytes_down", r->bytes_down);
    put_digest(&o, "plan", &r->plan);
    put_digest(&o, "checkpoint", &r->checkpoint);
    return o;
}

json_t *fl_control_json_member(const struct fl_control_member *m)
{
    json_t *o = json_object();

    put_text(&o, "agent", m->agent);
    put_text(&o, "state", m->state);
    put(&o, "counted", json_boolean(m->closed_in));
    put_known(&o, "since_ms", m->since_ms);
    put_number(&o, "bytes", m->bytes);
    put_number(&o, "bytes_expected", m->bytes_expected);
    put_known(&o, "reason", (uint64_t)(m->reason < 0 ? -(int64_t)m->reason : m->reason));
    put_text(&o, "reason_name", m->reason ? fl_reason_name(m->reason) : NULL);
    put_text(&o, "reason_text", m->reason ? fl_reason_text(m->reason) : NULL);
    return o;
}

json_t *fl_control_json_containing(const struct fl_control_containing *m)
{
    json_t *o = json_object();

    put_text(&o, "job", m->job);
    put_number(&o, "round", m->round);
    put_known(&o, "published_ms", m->published_ms);
    put_digest(&o, "checkpoint", m->checkpoint);
    put(&o, "own", json_boolean(m->own));
    return o;
}

json_t *fl_control_json_bubble(const struct fl_control_bubble *b)
{
    json_t *o = json_object();

    if (b->job) {
        put_text(&o, "job", b->job);
    }
    put_text(&o, "agent", b->agent);
    put_number(&o, "round", b->round);
    put_number(&o, "slot", b->slot);
    put_text(&o, "why", b->why);
    return o;
}

json_t *fl_control_json_replay(const struct fl_control_replay *r)
{
    char recorded[FL_DIGEST_HEX], computed[FL_DIGEST_HEX];

    fl_digest_hex(&r->recorded, recorded);
    fl_digest_hex(&r->computed, computed);
    return json_pack("{ss sI sI ss ss sb sb}", "job", r->job, "round", (json_int_t)r->round,
                     "updates", (json_int_t)r->updates, "recorded", recorded, "computed", computed,
                     "same", fl_digest_equal(&r->recorded, &r->computed), "given_up", r->given_up);
}

json_t *fl_control_json_score(const struct fl_control_score *s)
{
    json_t *o = json_object();

    put_text(&o, "agent", s->agent);
    put_number(&o, "round", s->round);
    put(&o, "score", json_real(s->score));
    put(&o, "noise_std", json_real(s->noise_std));
    return o;
}

json_t *fl_control_json_agent(const struct fl_control_agent *a)
{
    json_t *o = json_object();

    put_text(&o, "agent", a->name);
    put_number(&o, "id", a->id);
    put_hex(&o, "key", a->key, 32);
    put(&o, "revoked", json_boolean(a->revoked));
    put(&o, "connected", json_boolean(a->connected));
    put_text(&o, "address", a->address);
    put_text(&o, "serial", a->serial);
    put_known(&o, "connected_ms", a->connected_ms);
    put_known(&o, "seen_ms", a->seen_ms);
    put_known(&o, "certificate_expires_s", a->certificate_expires_s);
    put_text(&o, "job", a->job);
    put_text(&o, "task", a->task);
    put_number(&o, "bytes_in", a->bytes_in);
    put_number(&o, "bytes_out", a->bytes_out);
    put_known(&o, "ledger_releases", a->releases);
    return o;
}
