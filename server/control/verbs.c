/*
 * The verbs, in one table: words, arguments with their kinds, and a function that asks the
 * coordinator. Arguments are checked here, by the table, before anything is asked; what only the
 * coordinator knows (does the job exist, does its state allow it) is its answer. `verbs` prints the
 * table, so a script can ask what this daemon understands.
 */
#include "common/base/mem.h"
#include "server/control/calls.h"
#include "server/control/json.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind {
    KIND_JOB,
    KIND_AGENT,
    KIND_KEY,    /* 64 hex digits */
    KIND_OPTION, /* dotted */
    KIND_VALUE,  /* one line */
    KIND_FILE,
    KIND_COUNT,
    KIND_FLAG, /* "1" */
};
static const struct {
    const char *word, *meaning;
} kinds[] = {{"job", "a job's name"},      {"agent", "an agent's name"},
             {"key", "64 hex digits"},     {"option", "a dotted key"},
             {"line", "one line of text"}, {"file", "a file's name"},
             {"count", "a whole number"},  {"flag", "1"}};

enum { ARGUMENTS_MAX = 3, LIST_MAX = 1000, LIST_DEFAULT = 20 };

struct argument {
    const char *name; /* NULL ends the list */
    enum kind kind;
    bool required;
};

/* A request on its way: what the table's functions see. */
struct ask {
    struct fl_control *c;
    struct fl_control_call *k;
    const struct fl_ctl_request *q;
    const struct fl_control_by *by;
    struct fl_err *e;
};

struct fl_control_verb {
    const char *words, *summary;
    struct argument arguments[ARGUMENTS_MAX + 1];
    int (*run)(struct ask *a);
    bool change; /* recorded with who and when */
    bool body;
    bool explains, changes_job;
    enum fl_control_for wait; /* what --wait waits for */
    enum fl_control_to to;
};

bool fl_control_verb_explains(const struct fl_control_verb *v)
{
    return v->explains;
}

bool fl_control_verb_changes_job(const struct fl_control_verb *v)
{
    return v->changes_job;
}

/* ---- small helpers ---- */

static const char *get(const struct ask *a, const char *name)
{
    return fl_ctl_argument(a->q, name);
}

static uint64_t get_count(const struct ask *a, const char *name, uint64_t absent)
{
    const char *text = get(a, name);

    return text ? strtoull(text, NULL, 10) : absent;
}

static const struct fl_control_ops *ops(const struct ask *a)
{
    return a->c->conf.ops;
}

static int finish(struct ask *a)
{
    fl_control_end(a->c, a->k, 0, NULL);
    return 0;
}

/* ---- views ---- */

static int run_status(struct ask *a)
{
    struct fl_control_status s = {0};

    ops(a)->status(a->c->conf.co, &s);
    return fl_control_send(a->c, a->k, fl_control_json_status(&s)) ? finish(a) : 0;
}

static void send_job(void *arg, const struct fl_control_job *j)
{
    struct ask *a = arg;

    if (a->k->ticket) {
        fl_control_send(a->c, a->k, fl_control_json_job(j, false));
    }
}

static int run_job_list(struct ask *a)
{
    ops(a)->jobs(a->c->conf.co, send_job, a);
    return a->k->ticket ? finish(a) : 0;
}

static int run_job_show(struct ask *a)
{
    struct fl_control_job j;
    struct fl_control_round r = {0};
    char why[256];
    json_t *o = fl_control_job_document(a->c, a->k->job, true, &j, why, sizeof why);

    if (!o) {
        return fl_fail(a->e, FL_R_NO_JOB, "no job '%s'", a->k->job);
    }
    bool open = ops(a)->round_now(a->c->conf.co, a->k->job, &r);
    json_object_set_new(o, "now", open ? fl_control_json_round(&r) : json_null());
    return fl_control_send(a->c, a->k, o) ? finish(a) : 0;
}

static int run_job_wait(struct ask *a)
{
    a->k->wait = a->k->verb->wait;
    fl_control_wait(a->c, a->k);
    return 0;
}

/* One page of agents behind `after`: a list of any length passes in bounded pieces. */
struct page {
    struct ask *a;
    uint64_t after, left;
    json_t *found;
};

static void send_agent(void *arg, const struct fl_control_agent *g)
{
    struct page *p = arg;

    if (p->left && g->id > p->after && p->a->k->ticket) {
        p->left--;
        fl_control_send(p->a->c, p->a->k, fl_control_json_agent(g));
    }
}

static int run_agent_list(struct ask *a)
{
    struct page p = {.a = a, .after = get_count(a, "after", 0)};

    p.left = get_count(a, "limit", LIST_MAX);
    if (p.left < 1 || p.left > LIST_MAX) {
        return fl_fail(a->e, FL_R_CTL_REQUEST, "limit: 1 to %d", LIST_MAX);
    }
    ops(a)->agents(a->c->conf.co, send_agent, &p);
    return a->k->ticket ? finish(a) : 0;
}

static void find_agent(void *arg, const struct fl_control_agent *g)
{
    struct page *p = arg;

    if (!p->found && strcmp(g->name, p->a->k->job) == 0) {
        p->found = fl_control_json_agent(g);
    }
}

static int run_agent_show(struct ask *a)
{
    struct page p = {.a = a};

    ops(a)->agents(a->c->conf.co, find_agent, &p);
    if (!p.found) {
        return fl_fail(a->e, FL_R_NOT_ENROLLED, "no agent '%s'", a->k->job);
    }
    return fl_control_send(a->c, a->k, p.found) ? finish(a) : 0;
}

static int run_agent_models(struct ask *a)
{
    uint64_t limit = get_count(a, "limit", LIST_MAX);

    if (limit < 1 || limit > LIST_MAX) {
        return fl_fail(a->e, FL_R_CTL_REQUEST, "limit: 1 to %d", LIST_MAX);
    }
    ops(a)->agent_models(a->c->conf.co, a->by->ticket, get(a, "agent"), (uint32_t)limit);
    return 0;
}

static int run_watch(struct ask *a)
{
    fl_control_watch(a->c, a->k);
    return 0;
}

/* ---- changes ---- */

static void set_wait(struct ask *a)
{
    if (get(a, "wait")) {
        a->k->wait = a->k->verb->wait;
    }
}

static int run_job_submit(struct ask *a)
{
    const char *file = get(a, "file");
    const struct fl_control_ops *o = ops(a);

    if (a->q->body_size == 0 || a->q->body_size > FL_PLAN_TEXT_MAX) {
        return fl_fail(a->e, FL_R_CTL_REQUEST, "a job description has 1 to %d bytes, not %zu",
                       FL_PLAN_TEXT_MAX, a->q->body_size);
    }
    set_wait(a);
    (a->k->verb->change ? o->job_submit : o->job_check)(a->c->conf.co, a->by, file ? file : "job",
                                                        (const char *)a->q->body, a->q->body_size);
    return 0;
}

static int run_job_to(struct ask *a)
{
    char job[FL_CONTROL_JOB_MAX];

    memcpy(job, a->k->job, sizeof job); /* the call may be over before the op returns */
    set_wait(a);
    ops(a)->job_state(a->c->conf.co, a->by, job, a->k->verb->to);
    return 0;
}

static int run_job_set(struct ask *a)
{
    ops(a)->job_set(a->c->conf.co, a->by, get(a, "job"), get(a, "key"), get(a, "value"));
    return 0;
}

static int run_agent_enrol(struct ask *a)
{
    struct fl_digest key; /* 32 bytes, as a digest has */

    fl_digest_from_hex(get(a, "key"), &key);
    ops(a)->agent_enrol(a->c->conf.co, a->by, key.bytes, get(a, "agent"));
    return 0;
}

static int run_agent_revoke(struct ask *a)
{
    ops(a)->agent_revoke(a->c->conf.co, a->by, get(a, "agent"));
    return 0;
}

static int run_reload(struct ask *a)
{
    ops(a)->reload(a->c->conf.co, a->by);
    return 0;
}

/* ---- queries ---- */

static int run_round_list(struct ask *a)
{
    uint64_t limit = get_count(a, "limit", LIST_DEFAULT);

    if (limit < 1 || limit > LIST_MAX) {
        return fl_fail(a->e, FL_R_CTL_REQUEST, "limit: 1 to %d", LIST_MAX);
    }
    ops(a)->round_list(a->c->conf.co, a->by->ticket, get(a, "job"), (uint32_t)limit);
    return 0;
}

static int run_round_show(struct ask *a)
{
    ops(a)->round_show(a->c->conf.co, a->by->ticket, get(a, "job"), get_count(a, "round", 0));
    return 0;
}

static int run_agent_explain(struct ask *a)
{
    ops(a)->agent_explain(a->c->conf.co, a->by->ticket, get(a, "agent"));
    return 0;
}

static int run_job_bubbles(struct ask *a)
{
    ops(a)->bubbles(a->c->conf.co, a->by->ticket, get(a, "job"));
    return 0;
}

static int run_job_scores(struct ask *a)
{
    ops(a)->scores(a->c->conf.co, a->by->ticket, get(a, "job"));
    return 0;
}

static int run_model_export(struct ask *a)
{
    struct fl_control_which which = {.job = get(a, "job"),
                                     .newest = !get(a, "round"),
                                     .round = get_count(a, "round", 0),
                                     .agent = get(a, "agent")};
    uint64_t slot = get_count(a, "slot", 0);

    if (slot > UINT32_MAX || (get(a, "slot") && which.agent)) {
        return fl_fail(a->e, FL_R_CTL_REQUEST, "slot or agent, not both");
    }
    which.slot = (uint32_t)slot;
    ops(a)->model(a->c->conf.co, a->by->ticket, &which);
    return 0;
}

static int run_audit_export(struct ask *a)
{
    ops(a)->transcript(a->c->conf.co, a->by->ticket, get(a, "job"));
    return 0;
}

static int run_audit_replay(struct ask *a)
{
    ops(a)->replay(a->c->conf.co, a->by->ticket, get(a, "job"), get_count(a, "round", 0));
    return 0;
}

/* ---- the table ---- */

static int run_verbs(struct ask *a);

static const struct fl_control_verb verbs[] = {
    {"status", "the coordinator at a glance", {{0}}, .run = run_status},
    {"job submit",
     "check a job description and start it",
     {{"file", KIND_FILE, false}, {"wait", KIND_FLAG, false}},
     .run = run_job_submit,
     .change = true,
     .body = true,
     .changes_job = true,
     .wait = FL_CONTROL_FOR_END},
    {"job check",
     "check a job description as `job submit` does, and change nothing",
     {{"file", KIND_FILE, false}},
     .run = run_job_submit,
     .body = true},
    {"job list", "all jobs", {{0}}, .run = run_job_list},
    {"job show",
     "one job, its description and its running round",
     {{"job", KIND_JOB, true}},
     .run = run_job_show},
    {"job wait",
     "until the job is over, or paused by a failure",
     {{"job", KIND_JOB, true}},
     .run = run_job_wait,
     .wait = FL_CONTROL_FOR_END},
    {"job bubbles",
     "which model each site has after the last round, and why, one document each",
     {{"job", KIND_JOB, true}},
     .run = run_job_bubbles},
    {"job scores",
     "what the sites say of the model of a job's last round, one document each",
     {{"job", KIND_JOB, true}},
     .run = run_job_scores},
    {"job pause",
     "finish the open round, then rest",
     {{"job", KIND_JOB, true}, {"wait", KIND_FLAG, false}},
     .run = run_job_to,
     .change = true,
     .changes_job = true,
     .wait = FL_CONTROL_FOR_PAUSED,
     .to = FL_CONTROL_PAUSE},
    {"job resume",
     "go on with a paused job",
     {{"job", KIND_JOB, true}},
     .run = run_job_to,
     .change = true,
     .changes_job = true,
     .to = FL_CONTROL_RESUME},
    {"job drain",
     "finish the open round, then the job is done",
     {{"job", KIND_JOB, true}, {"wait", KIND_FLAG, false}},
     .run = run_job_to,
     .change = true,
     .changes_job = true,
     .wait = FL_CONTROL_FOR_END,
     .to = FL_CONTROL_DRAIN},
    {"job cancel",
     "end the job now and drop its open round",
     {{"job", KIND_JOB, true}, {"wait", KIND_FLAG, false}},
     .run = run_job_to,
     .change = true,
     .changes_job = true,
     .wait = FL_CONTROL_FOR_CANCELLED,
     .to = FL_CONTROL_CANCEL},
    {"job set",
     "change one setting from the next round on",
     {{"job", KIND_JOB, true}, {"key", KIND_OPTION, true}, {"value", KIND_VALUE, true}},
     .run = run_job_set,
     .change = true,
     .changes_job = true},
    {"round list",
     "the last rounds of a job, newest first",
     {{"job", KIND_JOB, true}, {"limit", KIND_COUNT, false}},
     .run = run_round_list},
    {"round show",
     "one round, then its members",
     {{"job", KIND_JOB, true}, {"round", KIND_COUNT, false}},
     .run = run_round_show},
    {"round explain",
     "what a round waits for, who is missing and why",
     {{"job", KIND_JOB, true}, {"round", KIND_COUNT, false}},
     .run = run_round_show,
     .explains = true},
    {"agent list",
     "enrolled agents by rising id, those behind `after`",
     {{"after", KIND_COUNT, false}, {"limit", KIND_COUNT, false}},
     .run = run_agent_list},
    {"agent show", "one agent", {{"agent", KIND_AGENT, true}}, .run = run_agent_show},
    {"agent explain",
     "how each job sees an agent, and why",
     {{"agent", KIND_AGENT, true}},
     .run = run_agent_explain},
    {"agent models",
     "published models that an agent's update is in, newest first",
     {{"agent", KIND_AGENT, true}, {"limit", KIND_COUNT, false}},
     .run = run_agent_models},
    {"agent enrol",
     "allow the owner of this certificate key to take part",
     {{"agent", KIND_AGENT, true}, {"key", KIND_KEY, true}},
     .run = run_agent_enrol,
     .change = true},
    {"agent revoke",
     "never again: cut the agent off now and refuse it from here on",
     {{"agent", KIND_AGENT, true}},
     .run = run_agent_revoke,
     .change = true},
    {"watch",
     "a document whenever something changes",
     {{"job", KIND_JOB, false}},
     .run = run_watch},
    {"model export",
     "the model of a round as safetensors, the newest and of slot 0 by default",
     {{"job", KIND_JOB, true},
      {"round", KIND_COUNT, false},
      {"slot", KIND_COUNT, false},
      {"agent", KIND_AGENT, false}},
     .run = run_model_export},
    {"audit export",
     "what each published round was made of, as a chain of records",
     {{"job", KIND_JOB, true}},
     .run = run_audit_export},
    {"audit replay",
     "a published round computed again from the updates that are kept, and compared",
     {{"job", KIND_JOB, true}, {"round", KIND_COUNT, true}},
     .run = run_audit_replay},
    {"reload",
     "certificates, CRL and the live part of the configuration",
     {{0}},
     .run = run_reload,
     .change = true},
    {"verbs", "this table", {{0}}, .run = run_verbs},
};

static int run_verbs(struct ask *a)
{
    for (size_t i = 0; i < FL_COUNT(verbs); i++) {
        const struct fl_control_verb *v = &verbs[i];
        json_t *arguments = json_array();
        for (const struct argument *g = v->arguments; g->name; g++) {
            json_array_append_new(arguments,
                                  json_pack("{ss ss sb}", "name", g->name, "kind",
                                            kinds[g->kind].word, "required", g->required));
        }
        if (!fl_control_send(a->c, a->k,
                             json_pack("{ss ss so sb sb}", "verb", v->words, "summary", v->summary,
                                       "arguments", arguments, "change", v->change, "body",
                                       v->body))) {
            return 0;
        }
    }
    return finish(a);
}

/* ---- checking ---- */

static bool name_like(const char *s, size_t size_max)
{
    size_t n = strlen(s);

    if (n == 0 || n >= size_max || !isalnum((unsigned char)s[0])) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)s[i]) && !strchr("-_.", s[i])) {
            return false;
        }
    }
    return true;
}

static bool whole_number(const char *v)
{
    char *end;

    errno = 0;
    return isdigit((unsigned char)v[0]) && strtoull(v, &end, 10) <= INT64_MAX && errno == 0 &&
           *end == 0;
}

/* NAME or NAME@ID */
static bool job_like(const char *v)
{
    const char *at = strchr(v, '@');
    char name[FL_PLAN_NAME_MAX];

    if (!at) {
        return name_like(v, FL_PLAN_NAME_MAX);
    }
    size_t n = (size_t)(at - v);
    if (n >= sizeof name || !whole_number(at + 1) || at[1] == '0') {
        return false;
    }
    memcpy(name, v, n);
    name[n] = 0;
    return name_like(name, sizeof name);
}

static bool printable(const char *s, size_t size_max)
{
    size_t n = strlen(s);

    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f) {
            return false;
        }
    }
    return n < size_max;
}

static bool fits(enum kind kind, const char *v)
{
    struct fl_digest d;

    switch (kind) {
    case KIND_JOB:
        return job_like(v);
    case KIND_AGENT:
        return name_like(v, FL_PLAN_NAME_MAX);
    case KIND_KEY:
        return fl_digest_from_hex(v, &d);
    case KIND_OPTION:
        return name_like(v, 128);
    case KIND_VALUE:
        return printable(v, 1024);
    case KIND_FILE:
        return v[0] && printable(v, 256);
    case KIND_COUNT:
        return whole_number(v);
    case KIND_FLAG:
        return strcmp(v, "1") == 0;
    }
    return false;
}

static const struct fl_control_verb *find_verb(const char *words)
{
    for (size_t i = 0; i < FL_COUNT(verbs); i++) {
        if (strcmp(verbs[i].words, words) == 0) {
            return &verbs[i];
        }
    }
    return NULL;
}

static int check(const struct fl_control_verb *v, const struct fl_ctl_request *q, struct fl_err *e)
{
    for (uint32_t i = 0; i < q->argument_count; i++) {
        const struct fl_ctl_argument *given = &q->arguments[i];
        const struct argument *g = v->arguments;
        while (g->name && strcmp(g->name, given->name) != 0) {
            g++;
        }
        if (!g->name) {
            return fl_fail(e, FL_R_CTL_REQUEST, "%s: no argument '%.64s'", v->words, given->name);
        }
        if (!fits(g->kind, given->value)) {
            return fl_fail(e, FL_R_CTL_REQUEST, "%s: %s: '%.64s' is not %s", v->words, g->name,
                           given->value, kinds[g->kind].meaning);
        }
    }
    for (const struct argument *g = v->arguments; g->name; g++) {
        if (g->required && !fl_ctl_argument(q, g->name)) {
            return fl_fail(e, FL_R_CTL_REQUEST, "%s: needs %s", v->words, g->name);
        }
    }
    if (q->body_size > 0 && !v->body) {
        return fl_fail(e, FL_R_CTL_REQUEST, "%s: takes no file", v->words);
    }
    return 0;
}

/* "job set demo round.quorum 8", for the record */
static void describe(const struct fl_control_verb *v, const struct fl_ctl_request *q, char *ret,
                     size_t size)
{
    size_t n = (size_t)snprintf(ret, size, "%s", v->words);

    for (const struct argument *g = v->arguments; g->name && n < size; g++) {
        const char *value = g->kind == KIND_FLAG ? NULL : fl_ctl_argument(q, g->name);
        if (value) {
            n += (size_t)snprintf(ret + n, size - n, " %s", value);
        }
    }
}

int fl_control_handle(struct fl_control *c, struct fl_ctl_call *in)
{
    const struct fl_control_verb *v = find_verb(in->request.verb);
    char who[64], what[1400];
    size_t slot = 0;

    if (!v) {
        return fl_fail(&in->err, FL_R_CTL_REQUEST, "no verb '%.64s'; `verbs` lists them",
                       in->request.verb);
    }
    int status = check(v, &in->request, &in->err);
    if (status) {
        return status;
    }
    while (slot < FL_CTL_CALLS_MAX && c->calls[slot].ticket) {
        slot++;
    }
    if (slot == FL_CTL_CALLS_MAX) {
        return fl_fail(&in->err, FL_R_BUSY, "too many open calls");
    }
    struct fl_control_call *k = &c->calls[slot];
    const char *name = fl_ctl_argument(&in->request, "job");
    name = name ? name : fl_ctl_argument(&in->request, "agent");
    *k = (struct fl_control_call){.ticket = in->id, .verb = v};
    snprintf(k->job, sizeof k->job, "%s", name ? name : "");
    snprintf(who, sizeof who, "uid %u pid %d", (unsigned)in->uid, (int)in->pid);
    describe(v, &in->request, what, sizeof what);
    struct fl_control_by by = {in->id, who, what};
    struct ask a = {c, k, &in->request, &by, &in->err};
    status = v->run(&a);
    if (status) {
        fl_control_forget(k);
    }
    return status;
}
