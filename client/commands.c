#include "client/commands_in.h"

#include "client/core/ledger.h"
#include "client/report.h"
#include "client/served.h"
#include "client/show.h"
#include "client/vault.h"
#include "common/base/mem.h"
#include "common/io/ctl_client.h"
#include "common/io/file.h"
#include "common/plan/secure.h"
#include "common/wire/tls.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int failed(const struct fl_err *e)
{
    fprintf(stderr, "cohort-agent: %s [%d %s]\n", e->msg, -e->code, fl_reason_name(-e->code));
    return e->code == -FL_R_CTL_CONNECT ? FL_EXIT_NOT_RUNNING
           : e->code == -FL_R_ARG       ? FL_EXIT_USAGE
                                        : FL_EXIT_FAILED;
}

/* ---- printing -----------------------------------------------------------------------------------
 */

const char *fl_command_number(const json_t *o, const char *name, char buf[32], const char *fmt)
{
    const json_t *v = json_object_get(o, name);

    if (!json_is_number(v)) {
        return "-";
    }
    double x = json_number_value(v);
    if (strcmp(fmt, "percent") == 0) {
        snprintf(buf, 32, "%.1f%%", 100 * x);
    } else {
        snprintf(buf, 32, "%.4g", x);
    }
    return buf;
}

void fl_command_print_json(const json_t *document)
{
    json_dumpf(document, stdout, JSON_COMPACT | JSON_REAL_PRECISION(12));
    putchar('\n');
}

/* Reals to their last bit: whoever recomputes the chain needs them. */
static void print_exact(const json_t *document)
{
    json_dumpf(document, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
    putchar('\n');
}

static void print_status(const json_t *all)
{
    const json_t *a;
    size_t i;

    printf("%s, %zu agents\n", fl_command_text(all, "state"),
           json_array_size(json_object_get(all, "agents")));
    printf("%-20s %-10s %-10s %-20s %6s %8s %8s %10s %10s\n", "AGENT", "LINK", "STATE", "JOB",
           "ROUND", "SETTLED", "DECLINED", "DOWN KiB", "UP KiB");
    json_array_foreach(json_object_get(all, "agents"), i, a)
    {
        printf("%-20s %-10s %-10s %-20s %6lld %8lld %8lld %10lld %10lld\n",
               fl_command_text(a, "agent"), fl_command_text(a, "link"), fl_command_text(a, "state"),
               fl_command_text(a, "job"), fl_command_count(a, "round"),
               fl_command_count(a, "settled"), fl_command_count(a, "declined"),
               fl_command_count(a, "bytes_down") / 1024, fl_command_count(a, "bytes_up") / 1024);
        if (fl_command_text(a, "last_error")[0]) {
            printf("  last: %s [%lld]\n", fl_command_text(a, "last_error"),
                   fl_command_count(a, "last_reason"));
        }
    }
}

static void print_ledger(const json_t *all)
{
    const json_t *o;
    char b[4][32];
    size_t i;

    printf("%s: %lld entries, head %.16s\n", fl_command_text(all, "agent"),
           fl_command_count(all, "entries"), fl_command_text(all, "head"));
    json_array_foreach(json_object_get(all, "withdrawn"), i, o)
    {
        printf("  withdrawn: %s\n", json_string_value(o));
    }
    json_array_foreach(json_object_get(all, "spent"), i, o)
    {
        bool keys = !fl_command_text(o, "data")[0];
        printf("  %s%.16s: %lld releases, %lld waiting; ",
               keys ? "no data (keys, shares and signatures of secure sums)" : "data ",
               fl_command_text(o, "data"), fl_command_count(o, "releases"),
               fl_command_count(o, "waiting"));
        if (json_is_number(json_object_get(o, "epsilon"))) {
            printf("epsilon %s of %s at delta %s (unit %s: %s; against %s; "
                   "bound %s)\n",
                   fl_command_number(o, "epsilon", b[0], ""),
                   fl_command_number(o, "budget", b[1], ""),
                   fl_command_number(o, "delta", b[2], ""), fl_command_text(o, "unit"),
                   fl_command_text(o, "neighbours"), fl_command_text(o, "adversary"),
                   fl_command_text(o, "bound"));
        } else if (keys) {
            printf("they need no epsilon\n");
        } else {
            printf("no epsilon (unit %s)\n", fl_command_text(o, "unit"));
        }
    }
    json_array_foreach(json_object_get(all, "releases"), i, o)
    {
        time_t when = (time_t)(fl_command_count(o, "time_ms") / 1000);
        struct tm tm;
        char stamp[32];
        localtime_r(&when, &tm);
        strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &tm);
        bool noised = json_number_value(json_object_get(o, "sigma")) > 0;
        printf("  %s %-20s round %-5lld %8lld bytes  unit %-8s noise multiplier %-8s %.16s %s\n",
               stamp, fl_command_text(o, "job"), fl_command_count(o, "round"),
               fl_command_count(o, "size"), fl_command_text(o, "unit"),
               noised ? fl_command_number(o, "sigma", b[0], "") : "-", fl_command_text(o, "update"),
               json_is_true(json_object_get(o, "acknowledged")) ? "settled" : "waiting");
    }
}

static void print_verified(const json_t *o)
{
    printf("%s: %lld entries, every one follows from the one before; head %s\n",
           fl_command_text(o, "agent"), fl_command_count(o, "entries"), fl_command_text(o, "head"));
}

/* One line an entry; the first says where the chain begins and ends. Returns the last number. */
static uint64_t print_page(const json_t *page, uint64_t after)
{
    const json_t *o;
    size_t i;
    json_t *head = json_copy((json_t *)(uintptr_t)page);

    if (head && after == 0) {
        json_object_del(head, "page");
        print_exact(head);
    }
    json_decref(head);
    json_array_foreach(json_object_get(page, "page"), i, o)
    {
        print_exact(o);
        after = (uint64_t)fl_command_count(o, "seq");
    }
    return after;
}

/* Of the received, trained or served model: accuracy, or R2 where numbers are predicted. */
static const char *score(const json_t *o, const char *model, char b[32])
{
    char accuracy[32], r2[32];

    snprintf(accuracy, sizeof accuracy, "accuracy_%s", model);
    snprintf(r2, sizeof r2, "r2_%s", model);
    const json_t *value = json_object_get(o, r2);
    if (!json_is_number(value)) {
        return fl_command_number(o, accuracy, b, "percent");
    }
    snprintf(b, 32, "R2 %.3f", json_number_value(value));
    return b;
}

static void print_report(const char *agent, const json_t *o)
{
    char b[6][32];

    printf(
        "%-20s %-10s %-14s round %-5lld %-16s received %-7s trained %-7s served %-7s epsilon %s\n",
        agent, fl_command_text(o, "event"), fl_command_text(o, "job"), fl_command_count(o, "round"),
        fl_command_text(o, "outcome"), score(o, "received", b[0]), score(o, "trained", b[1]),
        score(o, "served", b[2]), fl_command_number(o, "epsilon", b[3], ""));
    const json_t *guard = json_object_get(o, "guard");
    if (guard) {
        const json_t *chosen = json_object_get(guard, fl_command_text(guard, "choice")),
                     *alone = json_object_get(guard, "alone");
        printf("%-20s   serves %s: accuracy %s, loss %s (alone %s, %s)\n", "",
               fl_command_text(guard, "choice"),
               fl_command_number(chosen, "accuracy", b[0], "percent"),
               fl_command_number(chosen, "loss", b[1], ""),
               fl_command_number(alone, "accuracy", b[2], "percent"),
               fl_command_number(alone, "loss", b[4], ""));
    }
}

/* ---- over the socket ----------------------------------------------------------------------------
 */

struct answer {
    const struct fl_command *command;
    json_t *keep; /* not NULL: documents are gathered here instead */
    void (*print)(const json_t *document);
};

static int on_part(void *arg, const struct fl_ctl_answer *part)
{
    const struct answer *a = arg;

    if (part->kind != FL_CTL_JSON) {
        return 0;
    }
    json_t *document = json_loads(part->text, 0, NULL);
    if (!document) {
        return -FL_R_CTL_REQUEST;
    }
    if (a->keep) {
        json_array_append(a->keep, document);
    } else if (a->command->json) {
        fl_command_print_json(document);
    } else {
        a->print(document);
    }
    json_decref(document);
    return 0;
}

int fl_command_ask(const struct fl_config *config, const struct fl_command *c,
                   void (*print)(const json_t *document), struct fl_err *e)
{
    struct answer answer = {.command = c, .print = print};
    struct fl_ctl_request request = {.verb = c->verb};
    char limit[16];

    snprintf(limit, sizeof limit, "%u", c->limit);
    if (c->agent) {
        request.arguments[request.argument_count++] = (struct fl_ctl_argument){"agent", c->agent};
    }
    if (c->job) {
        request.arguments[request.argument_count++] = (struct fl_ctl_argument){"job", c->job};
    }
    if (c->what) {
        request.arguments[request.argument_count++] = (struct fl_ctl_argument){"what", c->what};
    }
    if (c->update) {
        request.arguments[request.argument_count++] = (struct fl_ctl_argument){"update", c->update};
    }
    if (c->undo) {
        request.arguments[request.argument_count++] = (struct fl_ctl_argument){"undo", "true"};
    }
    request.arguments[request.argument_count++] = (struct fl_ctl_argument){"limit", limit};
    return fl_ctl_ask(config->socket.path, &request, 60000, on_part, &answer, e);
}

/* ---- on the files -------------------------------------------------------------------------------
 */

int fl_command_each(const struct fl_config *config, const struct fl_command *c,
                    int (*each)(const struct fl_config *config, const struct fl_config_agent *agent,
                                const struct fl_command *c, struct fl_err *e),
                    struct fl_err *e)
{
    bool any = false;
    int r = 0;

    for (uint32_t i = 0; i < config->agent_count && r == 0; i++) {
        if (!c->agent || strcmp(c->agent, config->agents[i].name) == 0) {
            any = true;
            r = each(config, &config->agents[i], c, e);
        }
    }
    return any ? r : fl_fail(e, FL_R_ARG, "no agent %s in the configuration", c->agent);
}

/* The ledger of an agent that does not run. */
int fl_command_ledger(const struct fl_config *config, const struct fl_config_agent *agent,
                      struct fl_ledger **ret, struct fl_err *e)
{
    struct fl_tls_files files = {.ca = config->coordinator.ca,
                                 .certificate = agent->certificate,
                                 .key = agent->key,
                                 .order = FL_TLS_ORDER_CHACHA};
    struct fl_tls_conf *tls = NULL;
    char path[FL_VAULT_PATH_MAX];

    int w = snprintf(path, sizeof path, "%s/%s", config->state, agent->name);
    int r = w < 0 || (size_t)w >= sizeof path - 16
                ? fl_fail(e, FL_R_CONF_RANGE, "the state folder's name is too long")
                : fl_tls_conf_new(false, &files, &tls, e);
    if (r == 0) {
        r = fl_file_make_dirs(path, e);
    }
    if (r == 0) {
        snprintf(path + w, sizeof path - (size_t)w, "/ledger.db");
        r = fl_ledger_open(path, fl_tls_conf_identity(tls)->key, ret, e);
    }
    fl_tls_conf_unref(tls);
    return r;
}

/* Everything that was ever entered, page by page: the process that runs goes on meanwhile. */
static int export_online(const struct fl_config *config, const struct fl_config_agent *agent,
                         const struct fl_command *c, struct fl_err *e)
{
    uint64_t after = 0, next = 0;
    char text_after[24];
    int r = 0;

    do {
        struct answer answer = {.command = c, .keep = json_array()};
        struct fl_ctl_request request = {.verb = "ledger"};
        snprintf(text_after, sizeof text_after, "%llu", (unsigned long long)after);
        request.arguments[request.argument_count++] =
            (struct fl_ctl_argument){"agent", agent->name};
        request.arguments[request.argument_count++] = (struct fl_ctl_argument){"what", "export"};
        request.arguments[request.argument_count++] = (struct fl_ctl_argument){"after", text_after};
        r = fl_ctl_ask(config->socket.path, &request, 60000, on_part, &answer, e);
        next = after;
        if (r == 0) {
            after = print_page(json_array_get(answer.keep, 0), after);
        }
        json_decref(answer.keep);
    } while (r == 0 && after > next);
    return r;
}

static int export_offline(struct fl_ledger *l, const struct fl_config_agent *agent,
                          struct fl_err *e)
{
    uint64_t after = 0, next = 0;

    do {
        json_t *page = fl_show_entries(l, agent, after, e);
        if (!page) {
            return e->code;
        }
        next = after;
        after = print_page(page, after);
        json_decref(page);
    } while (after > next);
    return 0;
}

static int ledger_offline(const struct fl_config *config, const struct fl_config_agent *agent,
                          const struct fl_command *c, struct fl_err *e)
{
    struct fl_ledger *l = NULL;
    int r = fl_command_ledger(config, agent, &l, e);

    if (r == 0 && strcmp(c->verb, "withdraw") == 0) {
        r = fl_ledger_withdraw(l, c->job, !c->undo, fl_vault_wall_ms(), e);
    }
    bool verify = c->what && strcmp(c->what, "verify") == 0;
    if (r == 0 && c->what && strcmp(c->what, "export") == 0) {
        r = export_offline(l, agent, e);
    } else if (r == 0) {
        json_t *document =
            verify ? fl_show_verified(l, agent, e) : fl_show_ledger(l, agent, c->limit, e);
        r = document ? 0 : e->code;
        if (document && c->json) {
            fl_command_print_json(document);
        } else if (document) {
            verify ? print_verified(document) : print_ledger(document);
        }
        json_decref(document);
    }
    fl_ledger_close(l);
    return r;
}

/* Seeds laid in before, so that runs can be compared. They are no secret then: for tests only. */
static int prepare(const struct fl_config *config, const struct fl_config_agent *agent,
                   const struct fl_command *c, struct fl_err *e)
{
    struct fl_key key = {.exchange = 0};
    struct fl_ledger *l = NULL;
    struct fl_seed root, own, seed;

    for (size_t i = 0; i < FL_INCARNATION_SIZE; i++) {
        unsigned byte;
        if (!c->incarnation || strlen(c->incarnation) != 2 * FL_INCARNATION_SIZE ||
            sscanf(c->incarnation + 2 * i, "%2x", &byte) != 1) {
            return fl_fail(e, FL_R_ARG, "--incarnation takes %d hex digits",
                           2 * FL_INCARNATION_SIZE);
        }
        key.incarnation[i] = (uint8_t)byte;
    }
    int r = fl_command_ledger(config, agent, &l, e);
    fl_seed_from_u64(c->seed, &root);
    fl_seed_derive(&root, agent->name, 0, &own);
    for (uint64_t i = 0; i < c->rounds * (c->exchanges ? c->exchanges : 1) && r == 0; i++) {
        uint64_t number = i / c->rounds;
        key.round = 1 + i % c->rounds;
        key.exchange = (uint32_t)(c->exchange + number);
        fl_seed_derive(&own, number ? "exchange" : "round", key.round + number * c->rounds, &seed);
        r = fl_ledger_prepare(l, &key, &seed, fl_vault_wall_ms(), e);
    }
    fl_ledger_close(l);
    if (r == 0) {
        char path[FL_VAULT_PATH_MAX];
        static const char *const secrets[][2] = {{"seed", "private"}, {"rows.key", "rows"}};
        for (size_t i = 0; i < FL_COUNT(secrets) && r == 0; i++) {
            int w =
                snprintf(path, sizeof path, "%s/%s/%s", config->state, agent->name, secrets[i][0]);
            (void)w; /* checked by open_ledger */
            fl_seed_derive(&own, secrets[i][1], 0, &seed);
            r = fl_file_replace(path, seed.bytes, FL_SEED_SIZE, 0600, e);
        }
    }
    return r;
}

static int report(const struct fl_config *config, const struct fl_config_agent *agent,
                  const struct fl_command *c, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX], last[FL_CONFIG_NAME_MAX] = "";
    char *line = NULL;
    size_t room = 0;

    int w = snprintf(path, sizeof path, "%s/%s/report.jsonl", config->state, agent->name);
    FILE *f = w > 0 && (size_t)w < sizeof path ? fopen(path, "re") : NULL;
    if (!f) {
        return errno == ENOENT ? 0 : fl_fail_sys(e, FL_R_STORE_OPEN, errno, "%s", path);
    }
    while (getline(&line, &room, f) > 0) {
        json_t *o = json_loads(line, 0, NULL);
        if (!o) {
            continue; /* cut by a crash; the round is reported again */
        }
        if (!c->job || strcmp(c->job, fl_command_text(o, "job")) == 0) {
            snprintf(last, sizeof last, "%s", fl_command_text(o, "job"));
            if (c->json) {
                fl_report_text(o, "agent", agent->name);
                fl_command_print_json(o);
            } else {
                print_report(agent->name, o);
            }
        }
        json_decref(o);
    }
    free(line);
    fclose(f);
    if (last[0] && !c->json && !fl_command_report_ended(path, last)) {
        printf("(%s %s goes on: its final line comes when the job is done and this agent has "
               "fetched and judged the last model; --wait 60s waits)\n",
               agent->name, last);
    }
    return 0;
}

/* ---- verbs --------------------------------------------------------------------------------------
 */

static const char *const verbs[] = {"status",  "ledger",     "outbox",  "withdraw",
                                    "report",  "check-data", "preview", "reload",
                                    "prepare", "model",      "receipts"};

bool fl_command_known(const char *verb)
{
    for (size_t i = 0; i < FL_COUNT(verbs); i++) {
        if (strcmp(verb, verbs[i]) == 0) {
            return true;
        }
    }
    return false;
}

bool fl_command_has(const char *verb, const char *what)
{
    static const char *const words[][2] = {
        {"ledger", "show"},     {"ledger", "export"},  {"ledger", "verify"}, {"outbox", "show"},
        {"outbox", "approve"},  {"outbox", "reject"},  {"model", "export"},  {"receipts", "show"},
        {"receipts", "export"}, {"receipts", "verify"}};

    for (size_t i = 0; i < FL_COUNT(words); i++) {
        if (strcmp(verb, words[i][0]) == 0 && strcmp(what, words[i][1]) == 0) {
            return true;
        }
    }
    return false;
}

static int export_model(const struct fl_config *config, const struct fl_config_agent *agent,
                        const struct fl_command *c, struct fl_err *e)
{
    char dir[FL_VAULT_PATH_MAX];

    snprintf(dir, sizeof dir, "%s/%s", config->state, agent->name);
    int r = fl_served_export(dir, c->job, c->onnx, c->safetensors, e);
    return r ? fl_wrap(e, r, "agent %s", agent->name) : 0;
}

static int run_model(const struct fl_config *config, const struct fl_command *c, struct fl_err *e)
{
    if (!c->what || !c->job || (!c->onnx && !c->safetensors)) {
        return fl_fail(e, FL_R_ARG, "model export needs --job NAME and --onnx or --safetensors");
    }
    if (!c->agent && config->agent_count > 1) {
        return fl_fail(e, FL_R_ARG, "model export: of which of the %u agents? --agent NAME",
                       config->agent_count);
    }
    if (strchr(c->job, '/')) {
        return fl_fail(e, FL_R_ARG, "%s is not the name of a job", c->job);
    }
    return fl_command_each(config, c, export_model, e);
}

static int run_preview(const struct fl_config *config, const struct fl_command *c, struct fl_err *e)
{
    if (!c->job || !c->model) {
        return fl_fail(e, FL_R_ARG,
                       "preview needs --job JOB.yaml and --model FILE, a published model "
                       "(cohortctl model export)");
    }
    return fl_command_each(config, c, fl_command_preview, e);
}

/* Asks the process that runs; if none does, reads the files. */
static int run_ledger(const struct fl_config *config, const struct fl_command *c, struct fl_err *e)
{
    bool verify = c->what && strcmp(c->what, "verify") == 0;
    int r = c->what && strcmp(c->what, "export") == 0
                ? fl_command_each(config, c, export_online, e)
                : fl_command_ask(config, c, verify ? print_verified : print_ledger, e);

    return r == -FL_R_CTL_CONNECT ? fl_command_each(config, c, ledger_offline, e) : r;
}

static void print_reloaded(const json_t *o)
{
    printf("certificates and revocation list read again%s%s\n",
           fl_command_text(o, "waits_for_restart")[0] ? "; waits for a restart: " : "",
           fl_command_text(o, "waits_for_restart"));
}

int fl_command_run(const struct fl_config *config, const struct fl_command *c)
{
    struct fl_err e = {0};
    int r;

    if (strcmp(c->verb, "check-data") == 0) {
        r = fl_command_each(config, c, fl_command_check_data, &e);
    } else if (strcmp(c->verb, "preview") == 0) {
        r = run_preview(config, c, &e);
    } else if (strcmp(c->verb, "model") == 0) {
        r = run_model(config, c, &e);
    } else if (strcmp(c->verb, "report") == 0) {
        r = c->wait ? fl_command_report_wait(config, c, &e) : 0;
        r = r ? r : fl_command_each(config, c, report, &e);
    } else if (strcmp(c->verb, "receipts") == 0) {
        r = fl_command_each(config, c, fl_command_receipts, &e);
    } else if (strcmp(c->verb, "prepare") == 0) {
        r = fl_command_each(config, c, prepare, &e);
    } else if (strcmp(c->verb, "outbox") == 0) {
        r = fl_command_outbox(config, c, &e);
    } else if (strcmp(c->verb, "reload") == 0) {
        r = fl_command_ask(config, c, print_reloaded, &e);
    } else if (strcmp(c->verb, "withdraw") == 0 && !c->job) {
        r = fl_fail(&e, FL_R_ARG, "withdraw needs --job NAME, or --job '*' for all");
    } else {
        /* When nobody listens the ledger can be read, and withdrawn from, all the same. */
        bool ledger = strcmp(c->verb, "ledger") == 0 || strcmp(c->verb, "withdraw") == 0;
        r = ledger ? run_ledger(config, c, &e) : fl_command_ask(config, c, print_status, &e);
    }
    return r ? failed(&e) : FL_EXIT_OK;
}
