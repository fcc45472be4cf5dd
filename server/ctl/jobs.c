/* The coordinator and its jobs. */
#include "common/base/conf.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/plan/plan.h"
#include "server/ctl/cli.h"
#include "server/ctl/table.h"

#include <ctype.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Text of a document, safe for a terminal. */
static const char *clean(const json_t *o, const char *field, char *ret, size_t size)
{
    snprintf(ret, size, "%s", fl_cli_text(o, field));
    fl_text_clean(ret);
    return ret;
}

static const char *percent(char *ret, size_t size, uint64_t part, uint64_t whole)
{
    ret[0] = 0;
    if (whole) {
        snprintf(ret, size, " (%.0f %%)", 100.0 * (double)part / (double)whole);
    }
    return ret;
}

/* ---- status ---- */

static void print_status(const json_t *o)
{
    char t[FL_TEXT_MAX], u[FL_TEXT_MAX], p[FL_TEXT_MAX];
    uint64_t now = fl_wall_ms(), used = (uint64_t)fl_cli_int(o, "state_bytes"),
             quota = (uint64_t)fl_cli_int(o, "state_bytes_max");

    fl_cli_row("state", "%s, since %s, version %s", fl_cli_text(o, "state"),
               fl_text_when((uint64_t)fl_cli_int(o, "started_ms"), now, t),
               fl_cli_text(o, "version"));
    fl_cli_row("listens on", "%s port %lld", fl_cli_text(o, "address"),
               (long long)fl_cli_int(o, "port"));
    fl_cli_row("agents", "%lld connected of %lld enrolled",
               (long long)fl_cli_int(o, "agents_connected"),
               (long long)fl_cli_int(o, "agents_enrolled"));
    fl_cli_row("connections", "%lld of at most %lld, %lld half open",
               (long long)fl_cli_int(o, "connections"), (long long)fl_cli_int(o, "connections_max"),
               (long long)fl_cli_int(o, "half_open"));
    fl_cli_row("updates", "%lld committed, %lld refused",
               (long long)fl_cli_int(o, "updates_committed"),
               (long long)fl_cli_int(o, "updates_refused"));
    fl_cli_row("traffic", "%s in, %s out", fl_text_bytes((uint64_t)fl_cli_int(o, "bytes_in"), t),
               fl_text_bytes((uint64_t)fl_cli_int(o, "bytes_out"), u));
    fl_cli_row("disk", "%s%s%s%s", fl_text_bytes(used, t), quota ? " of " : ", no limit",
               quota ? fl_text_bytes(quota, u) : "", percent(p, sizeof p, used, quota));
    fl_cli_row("frame buffers", "at most %s for all connections together",
               fl_text_bytes((uint64_t)fl_cli_int(o, "frame_buffer_bytes"), t));
    fl_cli_row("certificate", "until %s", fl_text_date(fl_cli_int(o, "certificate_expires_s"), t));
    fl_cli_row("revocations", "%s%s", fl_cli_int(o, "crl_expires_s") ? "list until " : "no list",
               fl_cli_int(o, "crl_expires_s") ? fl_text_date(fl_cli_int(o, "crl_expires_s"), t)
                                              : "");
    fl_cli_row("key", "%s", fl_cli_text(o, "certificate_key"));
    fl_cli_row("coordinator", "%s", fl_cli_text(o, "coordinator"));
}

int fl_cli_status(struct fl_cli *c)
{
    struct fl_ctl_request q = {.verb = "status"};
    json_t *list;
    int status = fl_cli_ask_or_print(c, &q, false, false, &list);

    if (status) {
        return status < 0 ? status : 0;
    }
    print_status(json_array_get(list, 0));
    json_decref(list);
    return 0;
}

/* ---- jobs ---- */

static void print_jobs(const json_t *list)
{
    static const char *const heads[] = {"JOB",  ">ID",    "STATE",   ">ROUND",  "STRATEGY",
                                        "UNIT", ">MODEL", ">UPDATE", "BECAUSE", NULL};
    struct fl_table *t = fl_table_new(heads);
    char a[FL_TEXT_MAX], b[FL_TEXT_MAX];
    const json_t *o;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)list, i, o)
    {
        fl_table_add(t, "%s", fl_cli_text(o, "job"));
        fl_table_add(t, "%lld", (long long)fl_cli_int(o, "id"));
        fl_table_add(t, "%s", fl_cli_text(o, "state"));
        fl_table_add(t, "%lld/%lld", (long long)fl_cli_int(o, "round"),
                     (long long)fl_cli_int(o, "rounds"));
        fl_table_add(t, "%s", fl_cli_text(o, "strategy"));
        fl_table_add(t, "%s", fl_cli_text(o, "unit"));
        fl_table_add(t, "%s", fl_text_bytes((uint64_t)fl_cli_int(o, "model_bytes"), a));
        fl_table_add(t, "%s", fl_text_bytes((uint64_t)fl_cli_int(o, "update_bytes"), b));
        fl_table_add(t, "%s", fl_cli_text(o, "why"));
    }
    fl_table_print(t, stdout, "no jobs");
}

static int ask_jobs(struct fl_cli *c, const struct fl_ctl_request *q, bool waits, bool is_list)
{
    json_t *list;
    int status = fl_cli_ask_or_print(c, q, waits, is_list, &list);

    if (status) {
        return status < 0 ? status : 0;
    }
    print_jobs(list);
    json_decref(list);
    return 0;
}

int fl_cli_job_list(struct fl_cli *c)
{
    return ask_jobs(c, &(struct fl_ctl_request){.verb = "job list"}, false, true);
}

/* A verb about one job. */
static int job_verb(struct fl_cli *c, const char *verb, bool waits)
{
    struct fl_ctl_request *q = fl_new(1, sizeof *q);
    bool wait = fl_cli_option(c, "wait", 0) != NULL;

    q->verb = verb;
    fl_cli_argument(q, "job", c->words[0]);
    fl_cli_argument(q, "wait", wait ? "1" : NULL);
    int status = ask_jobs(c, q, wait || waits, false);
    fl_free(q);
    return status;
}

int fl_cli_job_wait(struct fl_cli *c)
{
    return job_verb(c, "job wait", true);
}

int fl_cli_job_pause(struct fl_cli *c)
{
    return job_verb(c, "job pause", false);
}

int fl_cli_job_resume(struct fl_cli *c)
{
    return job_verb(c, "job resume", false);
}

int fl_cli_job_drain(struct fl_cli *c)
{
    return job_verb(c, "job drain", false);
}

int fl_cli_job_cancel(struct fl_cli *c)
{
    return job_verb(c, "job cancel", false);
}

/* KEY=VALUE into a key of its own memory and the value behind it. */
static int split(struct fl_cli *c, const char *pair, char key[128], const char **ret_value)
{
    const char *equals = strchr(pair, '=');

    if (!equals || equals == pair || equals - pair >= 128) {
        return fl_fail(&c->err, FL_R_ARG, "KEY=VALUE, not '%.64s'", pair);
    }
    for (const char *s = pair; *s; s++) {
        if ((unsigned char)*s < 0x20 ||
            (s < equals && !isalnum((unsigned char)*s) && *s != '_' && *s != '.')) {
            return fl_fail(&c->err, FL_R_ARG,
                           "'%.64s': a key has letters, digits, '_' and '.', "
                           "a value is one line",
                           pair);
        }
    }
    snprintf(key, 128, "%.*s", (int)(equals - pair), pair);
    *ret_value = equals + 1;
    return 0;
}

int fl_cli_job_set(struct fl_cli *c)
{
    json_t *list = NULL;
    int status = 0;

    for (uint32_t i = 1; i < c->word_count && status == 0; i++) {
        struct fl_ctl_request q = {.verb = "job set"};
        char key[128];
        const char *value;
        status = split(c, c->words[i], key, &value);
        if (status == 0) {
            fl_cli_argument(&q, "job", c->words[0]);
            fl_cli_argument(&q, "key", key);
            fl_cli_argument(&q, "value", value);
            json_decref(list);
            status = fl_cli_ask(c, &q, false, &list);
        }
        if (status && i > 1) {
            fl_wrap(&c->err, status, "%u of %u are set; then", i - 1, c->word_count - 1);
        }
    }
    if (status == 0 && c->json) {
        fl_cli_print_json(json_array_get(list, 0));
    } else if (status == 0) {
        print_jobs(list);
    }
    json_decref(list);
    return status;
}

/* Appends the --set options as the text's trailing set: mapping, all before anything is checked:
 * two of them may only make sense together. */
static int add_sets(struct fl_cli *c, char *text, size_t *size)
{
    struct fl_conf *conf;
    const char *pair;
    int status = fl_conf_parse(c->words[0], text, *size, &conf, &c->err);

    if (status) {
        return status;
    }
    bool has = fl_conf_find(fl_conf_root(conf), "set") != NULL;
    fl_conf_free(conf);
    if (has) {
        return fl_fail(&c->err, FL_R_ARG, "%s has a set: mapping; put it there", c->words[0]);
    }
    size_t at = *size, room = FL_PLAN_TEXT_MAX;
    at += (size_t)snprintf(text + at, room - at, "\nset:\n");
    for (uint32_t i = 0; (pair = fl_cli_option(c, "set", i)) != NULL && at < room; i++) {
        char key[128];
        const char *value;
        status = split(c, pair, key, &value);
        if (status) {
            return status;
        }
        at += (size_t)snprintf(text + at, room - at, "  %s: %s\n", key, value);
    }
    *size = at;
    return at < room ? 0 : fl_fail(&c->err, FL_R_LIMIT, "with --set it is too long");
}

int fl_cli_job_text(struct fl_cli *c, char **ret, size_t *ret_size)
{
    uint8_t *file;
    char *text;
    size_t size;
    int status = fl_file_read(c->words[0], FL_PLAN_TEXT_MAX, &file, &size, &c->err);

    if (status) {
        return fl_wrap(&c->err, -FL_R_CONF_OPEN, "job description");
    }
    text = fl_try(1, FL_PLAN_TEXT_MAX + 1);
    if (text) {
        memcpy(text, file, size);
    }
    fl_free(file);
    if (!text) {
        return fl_fail(&c->err, FL_R_NOMEM, "no memory");
    }
    if (fl_cli_option(c, "set", 0)) {
        status = add_sets(c, text, &size);
    }
    if (status) {
        fl_free(text);
        return status;
    }
    *ret = text;
    *ret_size = size;
    return 0;
}

int fl_cli_job_plan(struct fl_cli *c, struct fl_plan **ret)
{
    struct fl_plan *plan = fl_try(1, sizeof *plan);
    char *text = NULL, *resolved = NULL;
    size_t size;
    int status = plan ? fl_cli_job_text(c, &text, &size) : fl_fail(&c->err, FL_R_NOMEM, "plan");

    if (status == 0) { /* for messages with the file's name */
        status = fl_plan_parse(plan, c->words[0], text, size, &c->err);
    }
    if (status == 0) {
        status = fl_plan_resolve(text, size, &resolved, &size, &c->err);
    }
    if (status == 0) {
        status = fl_plan_parse(plan, c->words[0], resolved, size, &c->err);
    }
    fl_free(text);
    fl_free(resolved);
    if (status) {
        fl_free(plan);
        return status;
    }
    *ret = plan;
    return 0;
}

void fl_cli_job_exact(const json_t *job, char ret[FL_CLI_JOB_MAX])
{
    snprintf(ret, FL_CLI_JOB_MAX, "%s@%lld", fl_cli_text(job, "job"),
             (long long)fl_cli_int(job, "id"));
}

int fl_cli_job_run(struct fl_cli *c, const struct fl_ctl_request *submit, json_t **ret_list,
                   char ret_job[FL_CLI_JOB_MAX])
{
    struct fl_ctl_request wait = {.verb = "job wait"};
    uint64_t limit = c->timeout_ms, began = fl_wall_ms();

    ret_job[0] = 0;
    int status = fl_cli_ask(c, submit, false, ret_list);
    if (status) {
        return status;
    }
    fl_cli_job_exact(json_array_get(*ret_list, 0), ret_job);
    json_decref(*ret_list);
    if (limit) { /* what the submission left of it */
        uint64_t passed = fl_wall_ms() - began;
        c->timeout_ms = passed < limit ? limit - passed : 1;
    }
    fl_cli_argument(&wait, "job", ret_job);
    status = fl_cli_ask(c, &wait, true, ret_list);
    c->timeout_ms = limit;
    if (status == -FL_R_TIMEOUT) {
        c->goes_on = true;
        fl_fail(&c->err, FL_R_TIMEOUT,
                "job %s is submitted and goes on; `cohortctl watch %s` shows it", ret_job, ret_job);
    }
    return status;
}

int fl_cli_job_submit(struct fl_cli *c)
{
    struct fl_ctl_request *q = fl_new(1, sizeof *q);
    char *text = NULL, *path = fl_strdup(c->words[0]);
    char exact[FL_CLI_JOB_MAX];
    json_t *list = NULL;
    size_t size = 0;
    int status = fl_cli_job_text(c, &text, &size);

    if (status == 0) {
        q->verb = "job submit";
        q->body = (const uint8_t *)text;
        q->body_size = size;
        fl_cli_argument(q, "file", basename(path));
        status = fl_cli_option(c, "wait", 0) ? fl_cli_job_run(c, q, &list, exact)
                                             : fl_cli_ask(c, q, false, &list);
    }
    if (status == 0 && c->json) {
        fl_cli_print_json(json_array_get(list, 0));
    } else if (status == 0) {
        print_jobs(list);
    }
    json_decref(list);
    fl_free(text);
    fl_free(path);
    fl_free(q);
    return status;
}

int fl_cli_job_check(struct fl_cli *c)
{
    struct fl_ctl_request q = {.verb = "job check"};
    char *text = NULL, *path = fl_strdup(c->words[0]);
    json_t *list = NULL, *o;
    size_t size = 0;
    int status = fl_cli_job_text(c, &text, &size);

    if (status == 0) {
        q.body = (const uint8_t *)text;
        q.body_size = size;
        fl_cli_argument(&q, "file", basename(path));
        status = fl_cli_ask(c, &q, false, &list);
    }
    json_decref(list);
    if (status == 0 && c->json) {
        o = json_pack("{ss sb}", "file", basename(path), "accepted", true);
        fl_cli_print_json(o);
        json_decref(o);
    } else if (status == 0) {
        printf("%s: this coordinator would start it\n", c->words[0]);
    }
    fl_free(text);
    fl_free(path);
    return status;
}

static void bubble_row(struct fl_table *t, const json_t *o)
{
    fl_table_add(t, "%s", fl_cli_text(o, "agent"));
    fl_table_add(t, "%lld", (long long)fl_cli_int(o, "slot"));
    fl_table_add(t, "%s", fl_cli_text(o, "why"));
}

int fl_cli_job_bubbles(struct fl_cli *c)
{
    static const char *const heads[] = {"AGENT", ">SLOT", "WHY", NULL};
    struct fl_ctl_request q = {.verb = "job bubbles"};

    fl_cli_argument(&q, "job", c->words[0]);
    return fl_cli_ask_table(c, &q, heads, bubble_row,
                            "one model, and nothing to tell sites apart by");
}

static void score_row(struct fl_table *t, const json_t *o)
{
    fl_table_add(t, "%s", fl_cli_text(o, "agent"));
    fl_table_add(t, "%lld", (long long)fl_cli_int(o, "round"));
    fl_table_add(t, "%.4f", json_number_value(json_object_get(o, "score")));
    fl_table_add(t, "%.4f", json_number_value(json_object_get(o, "noise_std")));
}

int fl_cli_job_scores(struct fl_cli *c)
{
    static const char *const heads[] = {"AGENT", ">ROUND", ">SCORE", ">NOISE", NULL};
    struct fl_ctl_request q = {.verb = "job scores"};

    fl_cli_argument(&q, "job", c->words[0]);
    return fl_cli_ask_table(c, &q, heads, score_row,
                            "no scores: the job has none, or its last round is not over");
}

/* Noised: shown with what the noise may be off by. */
static void print_counts(const json_t *counts)
{
    const json_t *list = json_object_get(counts, "examples");
    char text[FL_TEXT_MAX] = "";
    size_t n = 0;

    if (!json_is_object(counts)) {
        return;
    }
    for (size_t i = 0; i < json_array_size(list) && n + 16 < sizeof text; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%.0f", i ? " " : "",
                              json_number_value(json_array_get(list, i)));
    }
    fl_cli_row("class counts", "%s%s  (of %lld sites, each +- %.0f: one standard deviation)", text,
               n + 16 < sizeof text ? "" : " ...", (long long)fl_cli_int(counts, "sites"),
               json_number_value(json_object_get(counts, "noise_std")));
}

int fl_cli_job_show(struct fl_cli *c)
{
    struct fl_ctl_request q = {.verb = "job show"};
    char text[500];
    json_t *list;

    fl_cli_argument(&q, "job", c->words[0]);
    int status = fl_cli_ask_or_print(c, &q, false, false, &list);
    if (status) {
        return status < 0 ? status : 0;
    }
    const json_t *o = json_array_get(list, 0), *now = json_object_get(o, "now");
    print_jobs(list);
    if (fl_cli_text(o, "why")[0]) {
        fl_cli_row("because", "%s", clean(o, "why", text, sizeof text));
    }
    if (json_is_object(now)) {
        fl_cli_print_round(now);
    }
    fl_cli_row("incarnation", "%s", fl_cli_text(o, "incarnation"));
    fl_cli_row("model", "%s", fl_cli_text(o, "model"));
    if (fl_cli_int(o, "slots") > 1) {
        fl_cli_row("models", "%lld, one for each slot", (long long)fl_cli_int(o, "slots"));
    }
    if (fl_cli_text(o, "note")[0]) {
        fl_cli_row("last round", "%s", clean(o, "note", text, sizeof text));
    }
    print_counts(json_object_get(o, "counts"));
    printf("\n%s", fl_cli_text(o, "text"));
    json_decref(list);
    return 0;
}
