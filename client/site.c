#include "client/site.h"

#include "client/core/outbox.h"
#include "client/host.h"
#include "client/report.h"
#include "client/show.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fl_site {
    struct fl_host *host;
    struct fl_ctl *ctl;
    uint64_t asked; /* calls under way, each with its agents' queries */
    bool closed;
};

/* One request that goes to the vaults of one or all agents. */
struct call {
    struct fl_site *site;
    uint64_t id;
    uint32_t left;       /* queries not answered */
    struct fl_err first; /* failure */
};

struct query {
    struct fl_runner_query q;
    struct call *call;
    struct fl_runner *runner;
    bool withdraw, undo;
    bool verify, entries, outbox, receipts;
    uint64_t after;
    uint32_t limit;
    char job[FL_PLAN_NAME_MAX];
    bool flags[FL_POLICY_JOBS_MAX];
    char *json;
    struct fl_err err;
};

static int send_json(struct fl_site *s, uint64_t id, json_t *document)
{
    char *text = json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(12));

    json_decref(document);
    if (!text) {
        return -FL_R_NOMEM;
    }
    int r = fl_ctl_json(s->ctl, id, text);
    free(text);
    return r;
}

/* ---- answers from the vaults --------------------------------------------------------------------
 */

static void query_run(struct fl_runner_query *rq)
{
    struct query *q = (struct query *)rq;
    struct fl_vault *v = rq->vault;
    json_t *document = NULL;

    if (q->withdraw) {
        int r = fl_ledger_withdraw(v->ledger, q->job, !q->undo, fl_vault_wall_ms(), &q->err);
        if (r == 0) {
            r = fl_runner_withdrawn_flags(v, q->flags, &q->err);
        }
        if (r) {
            return;
        }
    }
    document = q->outbox     ? fl_show_outbox(v->dir, v->ledger, v->agent, q->limit, &q->err)
               : q->receipts ? fl_show_receipts(v->ledger, v->agent, q->after, &q->err)
               : q->verify   ? fl_show_verified(v->ledger, v->agent, &q->err)
               : q->entries  ? fl_show_entries(v->ledger, v->agent, q->after, &q->err)
                             : fl_show_ledger(v->ledger, v->agent, q->limit, &q->err);
    if (document) {
        q->json = json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(q->entries ? 17U : 12U));
        json_decref(document);
        if (!q->json) {
            fl_fail(&q->err, FL_R_NOMEM, "out of memory");
        }
    }
}

static void call_ended(struct call *c)
{
    struct fl_site *s = c->site;

    if (!s->closed) {
        fl_ctl_end(s->ctl, c->id, -c->first.code, c->first.code ? c->first.msg : NULL);
    }
    s->asked--;
    if (s->closed && s->asked == 0) {
        fl_free(s);
    }
    fl_free(c);
}

static void query_done(struct fl_runner_query *rq)
{
    struct query *q = (struct query *)rq;
    struct call *c = q->call;

    if (rq->job.cancelled) {
        fl_fail(&q->err, FL_R_SHUTDOWN, "the process is stopping");
    }
    if (q->err.code && !c->first.code) {
        c->first = q->err;
    }
    if (q->json && !c->site->closed) {
        fl_ctl_json(c->site->ctl, c->id, q->json);
    }
    if (q->withdraw && q->err.code == 0 && !rq->job.cancelled) {
        fl_log(FL_LOG_WARN, fl_runner_name(q->runner), "%s from job %s by the site's administrator",
               q->undo ? "no longer withdrawn" : "withdrawn", q->job);
        fl_runner_withdrawn(q->runner, q->undo ? "" : q->job, q->flags);
    }
    free(q->json);
    fl_free(q);
    if (--c->left == 0) {
        call_ended(c);
    }
}

/* ---- requests -----------------------------------------------------------------------------------
 */

static int get_limit(struct fl_ctl_call *call, uint32_t *ret)
{
    const char *text = fl_ctl_argument(&call->request, "limit");
    char *end;

    *ret = 50;
    if (!text) {
        return 0;
    }
    unsigned long n = strtoul(text, &end, 10);
    if (end == text || *end || n > FL_SHOW_RELEASES_MAX) {
        return fl_fail(&call->err, FL_R_ARG, "limit is a number up to %d", FL_SHOW_RELEASES_MAX);
    }
    *ret = (uint32_t)n;
    return 0;
}

static int get_after(struct fl_ctl_call *call, uint64_t *ret)
{
    const char *after = fl_ctl_argument(&call->request, "after");
    char *end = NULL;

    if (after) {
        *ret = strtoull(after, &end, 10);
        if (end == after || *end) {
            return fl_fail(&call->err, FL_R_ARG, "after is a number");
        }
    }
    return 0;
}

/* What of the ledger: show (the default), verify, or export behind entry `after`. */
static int get_ledger(struct fl_ctl_call *call, struct query *ret)
{
    const char *what = fl_ctl_argument(&call->request, "what");

    what = what ? what : "show";
    ret->verify = strcmp(what, "verify") == 0;
    ret->entries = strcmp(what, "export") == 0;
    if (!ret->verify && !ret->entries && strcmp(what, "show") != 0) {
        return fl_fail(&call->err, FL_R_ARG, "of a ledger there are show, export and verify");
    }
    int r = get_after(call, &ret->after);
    return r ? r : get_limit(call, &ret->limit);
}

static void ask_runner(struct call *c, struct fl_runner *runner, const struct query *what)
{
    struct query *q = fl_try(1, sizeof *q);

    if (!q) {
        fl_fail(&c->first, FL_R_NOMEM, "out of memory");
        return;
    }
    *q = *what;
    q->call = c;
    q->runner = runner;
    q->q.run = query_run;
    q->q.done = query_done;
    if (fl_runner_ask(runner, &q->q)) {
        fl_fail(&c->first, FL_R_BUSY, "agent %s is busy with other questions",
                fl_runner_name(runner));
        fl_free(q);
        return;
    }
    c->left++;
}

/* The agent that the request names; NULL: it names none, and means all. */
static int find_one(struct fl_site *s, struct fl_ctl_call *call, struct fl_runner **ret)
{
    const char *name = fl_ctl_argument(&call->request, "agent");

    *ret = name ? fl_host_find(s->host, name) : NULL;
    return !name || *ret ? 0 : fl_fail(&call->err, FL_R_ARG, "no agent %.63s here", name);
}

/* To the vault of one agent, or of all. The answer comes when the last has answered. */
static int ask_vaults(struct fl_site *s, struct fl_ctl_call *call, const struct query *what)
{
    struct fl_runner *one;
    int r = find_one(s, call, &one);

    if (r) {
        return r;
    }
    struct call *c = fl_try(1, sizeof *c);
    if (!c) {
        return fl_fail(&call->err, FL_R_NOMEM, "out of memory");
    }
    c->site = s;
    c->id = call->id;
    s->asked++;
    c->left = 1; /* ours, until all are asked */
    for (uint32_t i = 0; i < fl_host_count(s->host); i++) {
        if (!one || one == fl_host_runner(s->host, i)) {
            ask_runner(c, fl_host_runner(s->host, i), what);
        }
    }
    if (--c->left == 0) {
        call_ended(c);
    }
    return 0;
}

static int do_status(struct fl_site *s, struct fl_ctl_call *call)
{
    struct fl_runner *one;
    int r = find_one(s, call, &one);

    if (r) {
        return r;
    }
    json_t *all = json_object(), *agents = json_array();
    fl_report_text(all, "state", fl_host_stopping(s->host) ? "draining" : "running");
    fl_report_count(all, "started_ms", fl_host_started_ms(s->host));
    for (uint32_t i = 0; i < fl_host_count(s->host); i++) {
        struct fl_runner_view v;
        if (one && one != fl_host_runner(s->host, i)) {
            continue;
        }
        fl_runner_view(fl_host_runner(s->host, i), &v);
        json_array_append_new(agents, fl_show_runner(&v));
    }
    json_object_set_new(all, "agents", agents);
    r = send_json(s, call->id, all);
    if (r == 0) {
        r = fl_ctl_end(s->ctl, call->id, 0, NULL);
    }
    return r == -FL_R_NOMEM ? fl_fail(&call->err, FL_R_NOMEM, "out of memory") : 0;
}

static int do_withdraw(struct fl_site *s, struct fl_ctl_call *call)
{
    const char *job = fl_ctl_argument(&call->request, "job");
    struct query what = {.withdraw = true};

    if (!job || !job[0] || strlen(job) >= sizeof what.job) {
        return fl_fail(&call->err, FL_R_ARG, "which job? \"*\" means all");
    }
    snprintf(what.job, sizeof what.job, "%s", job);
    what.undo = fl_ctl_argument(&call->request, "undo") != NULL;
    return ask_vaults(s, call, &what);
}

/* The agents that were asked about and have an update that waits; its digest beside each. */
static uint32_t find_held(struct fl_site *s, const struct fl_runner *one, struct fl_runner **ret,
                          struct fl_digest *ret_digests)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < fl_host_count(s->host); i++) {
        struct fl_runner *r = fl_host_runner(s->host, i);
        if (fl_runner_held(r) && (!one || one == r)) {
            ret_digests[count] = fl_runner_held(r)->digest;
            ret[count++] = r;
        }
    }
    return count;
}

static void decide_one(struct fl_site *s, uint64_t call, struct fl_runner *r, bool approve)
{
    const struct fl_agent_offer *held = fl_runner_held(r);
    char hex[FL_DIGEST_HEX];

    fl_digest_hex(&held->digest, hex);
    json_t *o = json_pack("{ss ss sI ss sI ss}", "agent", fl_runner_name(r), "job", held->job,
                          "round", (json_int_t)held->key.round, "update", hex, "update_bytes",
                          (json_int_t)held->size, "decided", approve ? "approve" : "reject");
    fl_runner_decide(r, approve);
    send_json(s, call, o); /* who asked may be gone; the word is given all the same */
}

/* The word on updates that wait: of one agent or all, of one digest or whichever waits. */
static int decide(struct fl_site *s, struct fl_ctl_call *call, bool approve)
{
    uint32_t room = fl_host_count(s->host), count = 0;
    struct fl_runner **held = fl_try(room, sizeof(void *)), *one;
    struct fl_digest *digests = fl_try(room, sizeof *digests);
    bool *meant = fl_try(room, sizeof *meant);
    int r = held && digests && meant ? find_one(s, call, &one)
                                     : fl_fail(&call->err, FL_R_NOMEM, "out of memory");

    if (r == 0) {
        count = find_held(s, one, held, digests);
        r = fl_outbox_pick(digests, count, fl_ctl_argument(&call->request, "update"), meant,
                           &call->err);
    }
    for (uint32_t i = 0; r == 0 && i < count; i++) {
        if (meant[i]) {
            decide_one(s, call->id, held[i], approve);
        }
    }
    fl_free(held);
    fl_free(digests);
    fl_free(meant);
    if (r == 0) {
        fl_ctl_end(s->ctl, call->id, 0, NULL);
    }
    return r;
}

static int do_outbox(struct fl_site *s, struct fl_ctl_call *call)
{
    const char *what = fl_ctl_argument(&call->request, "what");
    struct query q = {.outbox = true};

    if (what && strcmp(what, "show") != 0) {
        bool approve = strcmp(what, "approve") == 0;
        return approve || strcmp(what, "reject") == 0
                   ? decide(s, call, approve)
                   : fl_fail(&call->err, FL_R_ARG,
                             "of an outbox there are show, approve and reject");
    }
    int r = get_limit(call, &q.limit);
    return r ? r : ask_vaults(s, call, &q);
}

static int do_receipts(struct fl_site *s, struct fl_ctl_call *call)
{
    struct query what = {.receipts = true};
    int r = get_after(call, &what.after);

    return r ? r : ask_vaults(s, call, &what);
}

static int do_reload(struct fl_site *s, struct fl_ctl_call *call)
{
    char waiting[FL_HOST_WAITING_MAX];
    int r = fl_host_reload(s->host, waiting, &call->err);
    json_t *o = r ? NULL : json_pack("{ss}", "waits_for_restart", waiting);
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

    json_decref(o);
    r = r      ? r
        : text ? fl_ctl_json(s->ctl, call->id, text)
               : fl_fail(&call->err, FL_R_NOMEM, "memory");
    free(text);
    return r ? r : fl_ctl_end(s->ctl, call->id, 0, NULL);
}

static int handle(void *arg, struct fl_ctl_call *call)
{
    struct fl_site *s = arg;
    const char *verb = call->request.verb;
    struct query what = {0};

    if (strcmp(verb, "status") == 0) {
        return do_status(s, call);
    }
    if (strcmp(verb, "ledger") == 0) {
        int r = get_ledger(call, &what);
        return r ? r : ask_vaults(s, call, &what);
    }
    if (strcmp(verb, "receipts") == 0) {
        return do_receipts(s, call);
    }
    if (strcmp(verb, "outbox") == 0) {
        return do_outbox(s, call);
    }
    if (strcmp(verb, "withdraw") == 0) {
        return do_withdraw(s, call);
    }
    if (strcmp(verb, "reload") == 0) {
        return do_reload(s, call);
    }
    return fl_fail(
        &call->err, FL_R_CTL_REQUEST,
        "no such verb here; there are status, ledger, receipts, outbox, withdraw and reload");
}

int fl_site_open(struct fl_host *host, struct fl_site **ret, struct fl_err *e)
{
    const struct fl_config *c = fl_host_config(host);
    struct fl_site *s = fl_new(1, sizeof *s);
    struct fl_ctl_conf conf = {.loop = fl_host_loop(host),
                               .path = c->socket.path,
                               .group = c->socket.group[0] ? c->socket.group : NULL,
                               .handle = handle,
                               .arg = s};

    s->host = host;
    int r = fl_ctl_listen(&conf, &s->ctl, e);
    if (r) {
        fl_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

void fl_site_close(struct fl_site *s)
{
    if (!s) {
        return;
    }
    fl_ctl_close(s->ctl);
    s->closed = true;
    if (s->asked == 0) {
        fl_free(s);
    }
}
