/*
 * A coordinator of a page, for tests of the agent: it hands out ROUNDS tasks to each of AGENTS
 * agents, one after the other, then the final model; it can cut uploads in their middle and refuse
 * the first offer. It insists that no two different updates are ever offered under one key. Include
 * it in one file of a test program.
 */
#ifndef TESTS_LIB_HUB_H
#define TESTS_LIB_HUB_H

#include "client/config.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/io/stream.h"
#include "common/nn/tensors.h"
#include "common/plan/plan.h"
#include "common/wire/receipt.h"
#include "common/wire/tls_sign.h"
#include "server/ctl/pki.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { AGENTS = 2, ROUNDS = 3, IN = 64, HIDDEN = 700, CLASSES = 3 };
enum { ELEMENTS = IN * HIDDEN + HIDDEN, UPDATE = 2 * ELEMENTS };

static const char plan_text[] = "name: demo\n"
                                "strategy: fedrep\n"
                                "rounds: 3\n"
                                "model:\n"
                                "  input: [64]\n"
                                "  classes: 3\n"
                                "  layers:\n"
                                "    - linear: {out: 700}\n"
                                "    - leaky_relu:\n"
                                "    - linear: {out: 3}\n"
                                "train: {lr: 0.1}\n"
                                "round: {members: 2}\n";

/* ---- a coordinator --------------------------------------------------------------------------- */

struct upload { /* of one agent in one round */
    uint8_t bytes[UPDATE];
    uint64_t have;
    struct fl_digest digest;
    bool offered, done;
    uint32_t cuts;
};

struct peer {
    struct hub *hub;
    struct fl_stream *stream;
    uint32_t agent; /* number, by its certificate's name */
    uint8_t key[FL_IDENTITY_KEY];
    uint64_t round; /* being uploaded */
};

struct hub {
    uv_loop_t loop;
    struct fl_work *work;
    struct fl_pool *pool;
    struct fl_tls_conf *tls;
    struct fl_listener *listener;
    struct fl_digest plan, base;
    uint8_t *base_bytes; /* safetensors */
    size_t base_size;
    struct peer peers[64];
    uint32_t peer_count;
    struct upload up[AGENTS][ROUNDS + 1];
    uint64_t round[AGENTS]; /* last acknowledged */
    uint32_t finals[AGENTS], connections, declines;
    uint32_t quiet[AGENTS]; /* Asks since the last Claim */
    bool restless;          /* no Ask is held: each after the final model is answered again */
    bool cut;               /* cut each upload once in its middle */
    bool refuse_first;      /* answer the first offer of each with "busy" */
    uint32_t claimed[AGENTS][ROUNDS + 1]; /* receipts: first another update's, then a wrong
                                             signature, then as it should be */
};

static void send_frame(struct peer *p, Cohort__Frame *f)
{
    int r = fl_stream_send(p->stream, f);
    ck_assert_msg(r == 0 || r == -FL_R_PEER_CLOSED, "send %s: %d", fl_msg_name(f), r);
}

static void set(ProtobufCBinaryData *to, const void *bytes, size_t size)
{
    to->len = size;
    memcpy(&to->data, &bytes, sizeof bytes);
}

static uint8_t incarnation[FL_INCARNATION_SIZE] = {5, 5, 5};
static char job_name[] = "demo";

static void send_task(struct peer *p, uint64_t round)
{
    Cohort__Frame f = COHORT__FRAME__INIT;
    Cohort__Task t = COHORT__TASK__INIT;
    Cohort__Key k = COHORT__KEY__INIT;
    char exchange[] = "update";

    set(&k.incarnation, incarnation, sizeof incarnation);
    k.round = round;
    t.key = &k;
    t.job = job_name;
    t.exchange = exchange;
    set(&t.plan_digest, p->hub->plan.bytes, FL_DIGEST_SIZE);
    t.plan_size = strlen(plan_text);
    set(&t.base_digest, p->hub->base.bytes, FL_DIGEST_SIZE);
    t.base_size = p->hub->base_size;
    t.update_size = UPDATE;
    t.deadline_left_ms = 60000;
    f.body_case = COHORT__FRAME__BODY_TASK;
    f.task = &t;
    send_frame(p, &f);
}

static void send_final(struct peer *p)
{
    Cohort__Frame f = COHORT__FRAME__INIT;
    Cohort__Rest r = COHORT__REST__INIT;
    Cohort__Final final = COHORT__FINAL__INIT, *list[1] = {&final};
    char text[] = "done";

    set(&final.incarnation, incarnation, sizeof incarnation);
    final.job = job_name;
    final.round = ROUNDS;
    set(&final.plan_digest, p->hub->plan.bytes, FL_DIGEST_SIZE);
    final.plan_size = strlen(plan_text);
    set(&final.base_digest, p->hub->base.bytes, FL_DIGEST_SIZE);
    final.base_size = p->hub->base_size;
    r.reason = FL_R_JOB_STATE;
    r.text = text;
    r.retry_ms = 1;
    r.finals = list;
    r.n_finals = 1;
    f.body_case = COHORT__FRAME__BODY_REST;
    f.rest = &r;
    send_frame(p, &f);
}

static void on_ask(struct peer *p)
{
    uint64_t round = p->hub->round[p->agent] + 1;

    p->hub->quiet[p->agent]++;
    if (round <= ROUNDS) {
        send_task(p, round);
    } else if (p->hub->finals[p->agent]++ == 0 || p->hub->restless) {
        send_final(p);
    } /* the next Ask is held */
}

static int source_read(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    (void)e;
    memcpy(to, (const uint8_t *)arg + offset, size);
    return 0;
}

static void on_fetch(struct peer *p, const Cohort__Fetch *m)
{
    struct hub *h = p->hub;
    bool plan = memcmp(m->digest.data, h->plan.bytes, FL_DIGEST_SIZE) == 0;
    struct fl_source s = {.read = source_read, .offset = m->offset};

    s.digest = plan ? h->plan : h->base;
    s.size = plan ? strlen(plan_text) : h->base_size;
    const void *bytes = plan ? (const void *)plan_text : h->base_bytes;
    memcpy(&s.arg, &bytes, sizeof bytes);
    ck_assert_int_eq(fl_stream_send_source(p->stream, &s), 0);
}

static int sink_write(void *arg, uint64_t offset, const uint8_t *data, size_t size,
                      struct fl_err *e)
{
    struct upload *u = arg;

    (void)e;
    memcpy(u->bytes + offset, data, size);
    u->have = offset + size;
    if (u->cuts == 1 && u->have > UPDATE / 2) {
        return -FL_R_STORE_IO; /* as if the coordinator died here */
    }
    return 0;
}

static void key_of(const Cohort__Key *m, struct fl_key *key)
{
    fl_key_from_msg(m, key);
    ck_assert_uint_ge(key->round, 1);
    ck_assert_uint_le(key->round, ROUNDS);
}

static void on_offer(struct peer *p, const Cohort__Offer *m)
{
    struct fl_key key;
    Cohort__Frame f = COHORT__FRAME__INIT;
    Cohort__Key k = COHORT__KEY__INIT;

    key_of(m->key, &key);
    struct upload *u = &p->hub->up[p->agent][key.round];
    ck_assert_uint_eq(m->size, UPDATE);
    ck_assert_uint_eq(m->weight, 1);
    ck_assert_mem_eq(m->base_digest.data, p->hub->base.bytes, FL_DIGEST_SIZE);
    bool first = !u->offered;
    if (u->offered) {
        ck_assert_mem_eq(m->digest.data, u->digest.bytes, FL_DIGEST_SIZE);
    }
    u->offered = true;
    memcpy(u->digest.bytes, m->digest.data, FL_DIGEST_SIZE);
    fl_key_to_msg(&key, &k);
    if (p->hub->refuse_first && first) {
        Cohort__Refuse r = COHORT__REFUSE__INIT;
        r.reason = FL_R_BUSY;
        r.key = &k;
        f.body_case = COHORT__FRAME__BODY_REFUSE;
        f.refuse = &r;
        send_frame(p, &f);
        return;
    }
    Cohort__Resume r = COHORT__RESUME__INIT;
    r.key = &k;
    set(&r.digest, u->digest.bytes, FL_DIGEST_SIZE);
    r.offset = u->have;
    u->cuts += p->hub->cut;
    struct fl_sink s = {
        .write = sink_write, .arg = u, .digest = u->digest, .offset = u->have, .size = UPDATE};
    p->round = key.round;
    ck_assert_int_eq(fl_stream_set_sink(p->stream, &s), 0);
    f.body_case = COHORT__FRAME__BODY_RESUME;
    f.resume = &r;
    send_frame(p, &f);
}

static void on_sink_end(void *owner, struct fl_stream *s, void *arg, int status,
                        const struct fl_err *e)
{
    struct peer *p = owner;
    struct upload *u = arg;
    struct fl_digest d;
    Cohort__Frame f = COHORT__FRAME__INIT;
    Cohort__Ack a = COHORT__ACK__INIT;
    Cohort__Key k = COHORT__KEY__INIT;

    (void)e;
    if (status) {
        fl_stream_close(s, FL_R_STORE_IO, "cut", 1);
        return;
    }
    fl_digest_of(u->bytes, UPDATE, &d);
    ck_assert(fl_digest_equal(&d, &u->digest));
    u->done = true;
    p->hub->round[p->agent] = p->round;
    set(&k.incarnation, incarnation, sizeof incarnation);
    k.round = p->round;
    a.key = &k;
    set(&a.digest, u->digest.bytes, FL_DIGEST_SIZE);
    f.body_case = COHORT__FRAME__BODY_ACK;
    f.ack = &a;
    send_frame(p, &f);
}

static void on_source_end(void *owner, struct fl_stream *s, void *arg, int status,
                          const struct fl_err *e)
{
    (void)owner;
    (void)s;
    (void)arg;
    (void)status;
    (void)e;
}

static void on_open(void *owner, struct fl_stream *s, const struct fl_identity *who)
{
    struct peer *p = owner;

    p->stream = s;
    p->hub->connections++;
    ck_assert_int_eq(sscanf(who->name, "site-%u", &p->agent), 1);
    p->agent--;
    memcpy(p->key, who->key, sizeof p->key);
}

static void on_hello(struct peer *p)
{
    static uint8_t id[16] = {3};
    static char name[] = "you", word[] = "receipts", *capabilities[] = {word};
    Cohort__Frame f = COHORT__FRAME__INIT;
    Cohort__Welcome w = COHORT__WELCOME__INIT;

    w.version = 1;
    w.capabilities = capabilities;
    w.n_capabilities = 1;
    w.agent = name;
    w.heartbeat_ms = 5000;
    w.max_frame = FL_FRAME_MAX;
    set(&w.coordinator, id, sizeof id);
    f.body_case = COHORT__FRAME__BODY_WELCOME;
    f.welcome = &w;
    fl_stream_set_max_frame(p->stream, FL_FRAME_MAX, FL_FRAME_MAX);
    send_frame(p, &f);
}

static void send_receipt(struct peer *p, const struct fl_key *key)
{
    struct upload *u = &p->hub->up[p->agent][key->round];
    uint32_t turn = p->hub->claimed[p->agent][key->round]++;
    Cohort__Frame f = COHORT__FRAME__INIT;
    Cohort__Receipt receipt = COHORT__RECEIPT__INIT;
    Cohort__Inclusion in = COHORT__INCLUSION__INIT;
    Cohort__Key k = COHORT__KEY__INIT;
    struct fl_receipt r = {.job = "demo",
                           .key = *key,
                           .update = turn == 0 ? p->hub->base : u->digest,
                           .weight = 1,
                           .size = UPDATE,
                           .round = key->round,
                           .record = p->hub->plan,
                           .model = p->hub->base};
    char text[FL_RECEIPT_TEXT_MAX];
    uint8_t sig[FL_TLS_SIG_MAX];
    const uint8_t *certificate;
    size_t sig_size, size = fl_tls_certificate(p->hub->tls, &certificate);
    struct fl_err e;

    memcpy(r.agent, p->key, sizeof r.agent);
    ck_assert_int_eq(fl_tls_sign(p->hub->tls, (const uint8_t *)text, fl_receipt_text(&r, text), sig,
                                 &sig_size, &e),
                     0);
    fl_key_to_msg(key, &k);
    set(&in.update, r.update.bytes, FL_DIGEST_SIZE);
    set(&in.record, r.record.bytes, FL_DIGEST_SIZE);
    set(&in.model, r.model.bytes, FL_DIGEST_SIZE);
    in.weight = turn == 1 ? 2 : 1; /* not what was signed */
    in.size = UPDATE;
    in.round = key->round;
    set(&in.certificate, certificate, size);
    set(&in.signature, sig, sig_size);
    receipt.key = &k;
    receipt.inclusion = &in;
    f.body_case = COHORT__FRAME__BODY_RECEIPT;
    f.receipt = &receipt;
    send_frame(p, &f);
}

static void on_claim(struct peer *p, const Cohort__Claim *m)
{
    p->hub->quiet[p->agent] = 0;
    for (size_t i = 0; i < m->n_updates; i++) {
        struct fl_key key;
        struct fl_digest update;
        fl_claimed_from_msg(m->updates[i], &key, &update);
        ck_assert(fl_digest_equal(&update, &p->hub->up[p->agent][key.round].digest) ||
                  !p->hub->up[p->agent][key.round].offered);
        ck_assert(key.round >= 1 && key.round <= ROUNDS);
        if (p->hub->up[p->agent][key.round].done) {
            send_receipt(p, &key);
        }
    }
}

static void on_message(void *owner, struct fl_stream *s, const Cohort__Frame *f)
{
    struct peer *p = owner;

    (void)s;
    switch (f->body_case) {
    case COHORT__FRAME__BODY_HELLO:
        on_hello(p);
        break;
    case COHORT__FRAME__BODY_ASK:
        ck_assert_uint_eq(f->ask->n_jobs, 1);
        ck_assert_str_eq(f->ask->jobs[0], "demo");
        on_ask(p);
        break;
    case COHORT__FRAME__BODY_FETCH:
        on_fetch(p, f->fetch);
        break;
    case COHORT__FRAME__BODY_OFFER:
        on_offer(p, f->offer);
        break;
    case COHORT__FRAME__BODY_CLAIM:
        on_claim(p, f->claim);
        break;
    case COHORT__FRAME__BODY_DECLINE:
        p->hub->declines++;
        break;
    case COHORT__FRAME__BODY_ACCEPT:
    case COHORT__FRAME__BODY_BYE:
        break;
    default:
        ck_abort_msg("an agent said %s", fl_msg_name(f));
    }
}

static void on_close(void *owner, struct fl_stream *s, const struct fl_err *why)
{
    struct peer *p = owner;

    (void)s;
    (void)why;
    p->stream = NULL;
}

static const struct fl_stream_events hub_events = {.on_open = on_open,
                                                   .on_message = on_message,
                                                   .on_sink_end = on_sink_end,
                                                   .on_source_end = on_source_end,
                                                   .on_close = on_close};

static bool accepting(void *arg, struct fl_stream_conf *conf)
{
    struct hub *h = arg;

    ck_assert_uint_lt(h->peer_count, FL_COUNT(h->peers));
    struct peer *p = &h->peers[h->peer_count++];
    p->hub = h;
    conf->work = h->work;
    conf->pool = h->pool;
    conf->tls = h->tls;
    conf->events = &hub_events;
    conf->owner = p;
    conf->heartbeat_ms = 5000;
    return true;
}

/* ---- the stage ------------------------------------------------------------------------------- */

static char dir[64];
static struct fl_err e;

static void no_entry(void *arg, const struct fl_pki_entry *entry)
{
    (void)arg;
    (void)entry;
}

static void write_stage(void)
{
    struct fl_pki_order hub = {.kind = FL_PKI_COORDINATOR,
                               .name = "hub",
                               .count = 1,
                               .first = 1,
                               .days = 30,
                               .host_count = 1,
                               .hosts = {"localhost"}};
    struct fl_pki_order sites = {
        .kind = FL_PKI_AGENT, .name = "site-{nn}", .count = AGENTS, .first = 1, .days = 30};
    char path[128], *text = fl_new(1, 64 * 1024);
    size_t at = 0;

    snprintf(dir, sizeof dir, "/tmp/cohort-client-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/pki", dir);
    ck_assert_msg(fl_pki_init(path, "test", &e) == 0, "%s", e.msg);
    ck_assert_msg(fl_pki_issue(path, &hub, no_entry, NULL, &e) == 0, "%s", e.msg);
    ck_assert_msg(fl_pki_issue(path, &sites, no_entry, NULL, &e) == 0, "%s", e.msg);
    for (int c = 0; c < IN; c++) {
        at += (size_t)snprintf(text + at, 32, "f%d,", c);
    }
    at += (size_t)snprintf(text + at, 32, "class\n");
    for (int row = 0; row < 60; row++) {
        for (int c = 0; c < IN; c++) {
            at += (size_t)snprintf(text + at, 32, "%d,", (row * c) % 7);
        }
        at += (size_t)snprintf(text + at, 32, "%d\n", row % CLASSES);
    }
    snprintf(path, sizeof path, "%s/data.csv", dir);
    ck_assert_int_eq(fl_file_replace(path, text, at, 0600, &e), 0);
    fl_free(text);
}

static void make_base(struct hub *h)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    float *values = fl_new(ELEMENTS, sizeof *values);

    ck_assert_msg(fl_plan_parse(plan, "plan", plan_text, strlen(plan_text), &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(plan->layout.shared.elements, ELEMENTS);
    ck_assert_int_eq(
        fl_tensors_write(&plan->layout.shared, values, &h->base_bytes, &h->base_size, &e), 0);
    fl_digest_of(h->base_bytes, h->base_size, &h->base);
    fl_free(values);
    fl_free(plan);
}

static void hub_open(struct hub *h)
{
    char ca[128], crt[128], key[128];
    struct fl_tls_files files = {.ca = ca, .certificate = crt, .key = key};
    const unsigned threads[FL_WORK_CLASSES] = {2, 1, 1};

    memset(h, 0, sizeof *h);
    snprintf(ca, sizeof ca, "%s/pki/ca.crt", dir);
    snprintf(crt, sizeof crt, "%s/pki/hub.crt", dir);
    snprintf(key, sizeof key, "%s/pki/hub.key", dir);
    uv_loop_init(&h->loop);
    ck_assert_int_eq(fl_work_new(&h->loop, threads, &h->work, &e), 0);
    ck_assert_int_eq(fl_pool_new(8, &h->pool, &e), 0);
    ck_assert_msg(fl_tls_conf_new(true, &files, &h->tls, &e) == 0, "%s", e.msg);
    ck_assert_msg(fl_listen(&h->loop, "127.0.0.1", 0, accepting, h, &h->listener, &e) == 0, "%s",
                  e.msg);
    make_base(h);
    fl_digest_of(plan_text, strlen(plan_text), &h->plan);
}

static void hub_close(struct hub *h)
{
    fl_listener_close(h->listener);
    for (uint32_t i = 0; i < h->peer_count; i++) {
        if (h->peers[i].stream) {
            fl_stream_close(h->peers[i].stream, 0, "", 0);
        }
    }
    uv_run(&h->loop, UV_RUN_DEFAULT);
    fl_pool_free(h->pool);
    fl_work_free(h->work);
    fl_tls_conf_unref(h->tls);
    uv_run(&h->loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&h->loop), 0);
    fl_free(h->base_bytes);
}

static struct fl_config *load_config(const struct hub *h, const char *more)
{
    struct fl_config *c = NULL;
    char path[128], text[1024];

    int n = snprintf(text, sizeof text,
                     "state: state\n"
                     "coordinator: {host: 127.0.0.1, port: %u, name: localhost, ca: pki/ca.crt}\n"
                     "backoff: {min: 10ms, max: 50ms}\n"
                     "log: {level: error}\n"
                     "%s"
                     "agents:\n"
                     "  - count: %d\n"
                     "    name: site-{nn}\n"
                     "    certificate: pki/site-{nn}.crt\n"
                     "    key: pki/site-{nn}.key\n"
                     "    jobs: [demo]\n"
                     "    data: {format: csv, train_x: data.csv, target: class, classes: 3,\n"
                     "           train: 40, test: 20}\n",
                     fl_listener_port(h->listener), more, AGENTS);
    snprintf(path, sizeof path, "%s/agent.yaml", dir);
    ck_assert_int_eq(fl_file_replace(path, text, (size_t)n, 0600, &e), 0);
    ck_assert_msg(fl_config_load(path, &c, &e) == 0, "%s", e.msg);
    return c;
}

static inline int count_lines(uint32_t agent, const char *what)
{
    char path[128], line[8192];
    int n = 0;

    snprintf(path, sizeof path, "%s/state/site-%02u/report.jsonl", dir, agent + 1);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        n += strstr(line, what) != NULL;
    }
    if (f) {
        fclose(f);
    }
    return n;
}

static inline bool all_evaluated(void)
{
    for (uint32_t i = 0; i < AGENTS; i++) {
        if (count_lines(i, "\"event\":\"final\"") == 0) {
            return false;
        }
    }
    return true;
}

/* The coordinator has read what the agents said last. */
static inline void run_until_left(struct hub *h)
{
    for (uint32_t i = 0; i < h->peer_count; i++) {
        while (h->peers[i].stream) {
            uv_run(&h->loop, UV_RUN_ONCE);
        }
    }
}

static inline void clear_state(void)
{
    char command[128];

    snprintf(command, sizeof command, "rm -rf %s/state", dir);
    ck_assert_int_eq(system(command), 0);
}

static inline void remove_stage(void)
{
    char command[128];

    snprintf(command, sizeof command, "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

#endif
