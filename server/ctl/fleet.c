/* Rounds and agents, and what is left. */
#include "server/ctl/cli.h"
#include "server/ctl/pki_x509.h"
#include "server/ctl/table.h"

#include <stdio.h>
#include <string.h>

/* ---- rounds ---- */

static void round_row(struct fl_table *t, const json_t *o)
{
    uint64_t opened = (uint64_t)fl_cli_int(o, "opened_ms"),
             published = (uint64_t)fl_cli_int(o, "published_ms");
    char when[FL_TEXT_MAX], span[FL_TEXT_MAX];

    fl_table_add(t, "%lld", (long long)fl_cli_int(o, "round"));
    fl_table_add(t, "%s", fl_cli_text(o, "state"));
    fl_table_add(t, "%s", fl_text_when(opened, fl_wall_ms(), when));
    fl_table_add(t, "%s", published > opened ? fl_text_span(published - opened, span) : "-");
    fl_table_add(t, "%lld", (long long)fl_cli_int(o, "invited"));
    fl_table_add(t, "%lld", (long long)fl_cli_int(o, "committed"));
}

int fl_cli_round_list(struct fl_cli *c)
{
    static const char *const heads[] = {">ROUND",   "STATE",      "OPENED", ">TOOK",
                                        ">INVITED", ">COMMITTED", NULL};
    struct fl_ctl_request q = {.verb = "round list"};

    fl_cli_argument(&q, "job", c->words[0]);
    fl_cli_argument(&q, "limit", fl_cli_option(c, "limit", 0));
    return fl_cli_ask_table(c, &q, heads, round_row, "no rounds yet");
}

static void print_members(const json_t *members, size_t from)
{
    static const char *const heads[] = {"AGENT", "STATE", "SINCE", ">SENT", ">OF", "REASON", NULL};
    struct fl_table *table = fl_table_new(heads);
    char t[FL_TEXT_MAX], u[FL_TEXT_MAX], v[FL_TEXT_MAX];
    uint64_t now = fl_wall_ms();

    for (size_t i = from; i < json_array_size(members); i++) {
        const json_t *o = json_array_get(members, i);
        fl_table_add(table, "%s", fl_cli_text(o, "agent"));
        fl_table_add(table, "%s", fl_cli_text(o, "state"));
        fl_table_add(table, "%s", fl_text_when((uint64_t)fl_cli_int(o, "since_ms"), now, t));
        bool known = fl_cli_int(o, "bytes_expected") > 0; /* not of a round that is over */
        fl_table_add(table, "%s", known ? fl_text_bytes((uint64_t)fl_cli_int(o, "bytes"), u) : "-");
        fl_table_add(table, "%s",
                     known ? fl_text_bytes((uint64_t)fl_cli_int(o, "bytes_expected"), v) : "-");
        fl_table_add(table, "%s", fl_cli_text(o, "reason_text"));
    }
    fl_table_print(table, stdout, NULL);
}

static int ask_round(struct fl_cli *c, const char *verb, json_t **ret)
{
    struct fl_ctl_request q = {.verb = verb};

    fl_cli_argument(&q, "job", c->words[0]);
    fl_cli_argument(&q, "round", fl_cli_option(c, "round", 0));
    return fl_cli_ask(c, &q, false, ret);
}

int fl_cli_round_show(struct fl_cli *c)
{
    json_t *list;
    int status = ask_round(c, "round show", &list);

    if (status == 0 && c->json) {
        json_t *round = json_incref(json_array_get(list, 0));
        json_array_remove(list, 0);
        json_t *o = json_pack("{so sO}", "round", round, "members", list);
        fl_cli_print_json(o);
        json_decref(o);
    } else if (status == 0) {
        fl_cli_print_round(json_array_get(list, 0));
        printf("\n");
        print_members(list, 1);
    }
    json_decref(list);
    return status;
}

int fl_cli_round_explain(struct fl_cli *c)
{
    json_t *list, *line;
    size_t i;
    int status = ask_round(c, "round explain", &list);
    const json_t *o = json_array_get(list, 0);

    if (status == 0 && c->json) {
        fl_cli_print_json(o);
    } else if (status == 0) {
        fl_cli_print_round(json_object_get(o, "round"));
        printf("\n");
        json_array_foreach(json_object_get(o, "text"), i, line)
        {
            printf("%s\n", json_string_value(line));
        }
        static const char *const groups[] = {"waiting_for", "lost"};
        for (size_t k = 0; k < 2; k++) {
            const json_t *members = json_object_get(o, groups[k]);
            if (json_array_size(members)) {
                printf("\n%s\n", k ? "Lost" : "Still out");
                print_members(members, 0);
            }
        }
    }
    json_decref(list);
    return status;
}

/* ---- agents ---- */

static void print_agents(const json_t *list)
{
    static const char *const heads[] = {"AGENT", "STATE",   "JOB",         "TASK", "SEEN",
                                        ">IN",   "ADDRESS", "CERTIFICATE", NULL};
    struct fl_table *table = fl_table_new(heads);
    char t[FL_TEXT_MAX], u[FL_TEXT_MAX], v[FL_TEXT_MAX];
    uint64_t now = fl_wall_ms();

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        bool revoked = json_is_true(json_object_get(o, "revoked")),
             connected = json_is_true(json_object_get(o, "connected"));
        fl_table_add(table, "%s", fl_cli_text(o, "agent"));
        fl_table_add(table, "%s", revoked ? "revoked" : connected ? "connected" : "away");
        fl_table_add(table, "%s", fl_cli_text(o, "job"));
        fl_table_add(table, "%s", fl_cli_text(o, "task"));
        fl_table_add(table, "%s",
                     connected ? "now" : fl_text_when((uint64_t)fl_cli_int(o, "seen_ms"), now, t));
        fl_table_add(table, "%s", fl_text_bytes((uint64_t)fl_cli_int(o, "bytes_in"), u));
        fl_table_add(table, "%s", fl_cli_text(o, "address"));
        fl_table_add(table, "%s", fl_text_date(fl_cli_int(o, "certificate_expires_s"), v));
    }
    fl_table_print(table, stdout, "no agents are enrolled");
}

/* All pages. */
int fl_cli_agent_list(struct fl_cli *c)
{
    json_t *all = json_array(), *page = NULL;
    char after[24] = "0";
    int status = 0;

    do {
        struct fl_ctl_request q = {.verb = "agent list"};
        fl_cli_argument(&q, "after", after);
        json_decref(page);
        status = fl_cli_ask(c, &q, false, &page);
        size_t n = json_array_size(page);
        if (n) {
            snprintf(after, sizeof after, "%lld",
                     (long long)fl_cli_int(json_array_get(page, n - 1), "id"));
        }
        json_array_extend(all, page);
    } while (status == 0 && json_array_size(page) > 0);
    if (status == 0 && c->json) {
        fl_cli_print_json(all);
    } else if (status == 0) {
        print_agents(all);
    }
    json_decref(page);
    json_decref(all);
    return status;
}

int fl_cli_agent_show(struct fl_cli *c)
{
    struct fl_ctl_request q = {.verb = "agent show"};
    json_t *list;

    fl_cli_argument(&q, "agent", c->words[0]);
    int status = fl_cli_ask_or_print(c, &q, false, false, &list);
    if (status) {
        return status < 0 ? status : 0;
    }
    print_agents(list);
    const json_t *o = json_array_get(list, 0);
    fl_cli_row("key", "%s", fl_cli_text(o, "key"));
    if (fl_cli_int(o, "ledger_releases")) {
        fl_cli_row("ledger", "%lld releases to this coordinator, as it last told",
                   (long long)fl_cli_int(o, "ledger_releases"));
    }
    json_decref(list);
    return 0;
}

static void explain_row(struct fl_table *t, const json_t *o)
{
    fl_table_add(t, "%s", fl_cli_text(o, "job"));
    fl_table_add(t, "%lld", (long long)fl_cli_int(o, "round"));
    fl_table_add(t, "%lld", (long long)fl_cli_int(o, "slot"));
    fl_table_add(t, "%s", fl_cli_text(o, "why"));
}

int fl_cli_agent_explain(struct fl_cli *c)
{
    static const char *const heads[] = {"JOB", ">ROUND", ">SLOT", "WHY", NULL};
    struct fl_ctl_request q = {.verb = "agent explain"};

    fl_cli_argument(&q, "agent", c->words[0]);
    return fl_cli_ask_table(c, &q, heads, explain_row, "no job tells this agent from others");
}

static void model_row(struct fl_table *t, const json_t *o)
{
    char when[FL_TEXT_MAX];

    fl_table_add(t, "%s", fl_cli_text(o, "job"));
    fl_table_add(t, "%lld", (long long)fl_cli_int(o, "round"));
    fl_table_add(t, "%s",
                 fl_text_when((uint64_t)fl_cli_int(o, "published_ms"), fl_wall_ms(), when));
    fl_table_add(t, "%s", json_is_true(json_object_get(o, "own")) ? "its own" : "inherited");
    fl_table_add(t, "%.16s", fl_cli_text(o, "checkpoint"));
}

int fl_cli_agent_models(struct fl_cli *c)
{
    static const char *const heads[] = {"JOB", ">ROUND", "PUBLISHED", "UPDATE", "CHECKPOINT", NULL};
    struct fl_ctl_request q = {.verb = "agent models"};

    fl_cli_argument(&q, "agent", c->words[0]);
    fl_cli_argument(&q, "limit", fl_cli_option(c, "limit", 0));
    return fl_cli_ask_table(c, &q, heads, model_row,
                            "no published model has an update of this agent");
}

/* One line of `list`: what became of it. */
static int enrol(struct fl_cli *c, const char *name, const char *key, json_t *list)
{
    struct fl_ctl_request q = {.verb = "agent enrol"};
    json_t *answer;

    fl_cli_argument(&q, "agent", name);
    fl_cli_argument(&q, "key", key);
    int status = fl_cli_ask(c, &q, false, &answer);
    bool anew = json_is_true(json_object_get(json_array_get(answer, 0), "anew"));

    json_decref(answer);
    if (status) {
        return fl_wrap(&c->err, status, "%.63s", name);
    }
    if (!c->json) {
        printf("%s %s %s\n", anew ? "enrolled" : "was enrolled before:", name, key);
    }
    json_array_append_new(list, json_pack("{ss ss sb}", "agent", name, "key", key, "anew", anew));
    return 0;
}

static int enrol_certificate(struct fl_cli *c, const char *path, const char *name, json_t *list)
{
    char hex[2 * FL_PKI_KEY + 1];
    struct fl_pki_info info;
    int status = fl_pki_read(path, &info, &c->err);

    for (size_t k = 0; k < FL_PKI_KEY && status == 0; k++) {
        snprintf(hex + 2 * k, 3, "%02x", info.key[k]);
    }
    return status ? status : enrol(c, name ? name : info.name, hex, list);
}

/* All of them, whatever becomes of one. */
static int enrol_list(struct fl_cli *c, const char *name, json_t *list)
{
    uint32_t refused = 0;
    int first = 0;

    for (uint32_t i = 0; i < c->word_count; i++) {
        int status = enrol_certificate(c, c->words[i], name, list);
        if (status == 0) {
            continue;
        }
        if (c->word_count == 1 || status == -FL_R_CTL_CONNECT || status == -FL_R_TIMEOUT) {
            return status; /* said by whoever called */
        }
        fprintf(stderr, "cohortctl: %s: %s\n", c->words[i], c->err.msg);
        json_array_append_new(list, json_pack("{ss ss si}", "file", c->words[i], "refused",
                                              c->err.msg, "reason", -status));
        first = first ? first : status;
        refused++;
    }
    return refused ? fl_fail(&c->err, (enum fl_reason) - first, "%u of %u are not enrolled",
                             refused, c->word_count)
                   : 0;
}

int fl_cli_agent_enrol(struct fl_cli *c)
{
    const char *key = fl_cli_option(c, "key", 0), *name = fl_cli_option(c, "name", 0);

    if (key ? !name || c->word_count : c->word_count == 0 || (name && c->word_count > 1)) {
        return fl_fail(&c->err, FL_R_ARG,
                       "certificates, or --key HEX --name NAME (one certificate may take --name)");
    }
    json_t *list = json_array();
    int status = key ? enrol(c, name, key, list) : enrol_list(c, name, list);
    if (c->json && json_array_size(list)) {
        fl_cli_print_json(list);
    }
    json_decref(list);
    return status;
}

static int plain(struct fl_cli *c, const struct fl_ctl_request *q, const char *done)
{
    json_t *list;
    int status = fl_cli_ask(c, q, false, &list);

    json_decref(list);
    if (status == 0 && !c->json) {
        printf("%s\n", done);
    }
    return status;
}

int fl_cli_agent_revoke(struct fl_cli *c)
{
    struct fl_ctl_request q = {.verb = "agent revoke"};

    fl_cli_argument(&q, "agent", c->words[0]);
    return plain(c, &q, "revoked");
}

int fl_cli_reload(struct fl_cli *c)
{
    json_t *list;
    int status =
        fl_cli_ask_or_print(c, &(struct fl_ctl_request){.verb = "reload"}, false, false, &list);

    if (status) {
        return status < 0 ? status : 0;
    }
    const char *waiting = fl_cli_text(json_array_get(list, 0), "waits_for_restart");
    printf("reloaded%s%s\n", waiting[0] ? "; waits for a restart: " : "", waiting);
    json_decref(list);
    return 0;
}

static void verb_row(struct fl_table *t, const json_t *o)
{
    char arguments[FL_TABLE_CELL_MAX] = "";
    const json_t *list = json_object_get(o, "arguments");
    size_t n = 0;

    for (size_t k = 0; k < json_array_size(list); k++) {
        const json_t *g = json_array_get(list, k);
        bool required = json_is_true(json_object_get(g, "required"));
        n += (size_t)snprintf(arguments + n, sizeof arguments - n, "%s%s%s%s", n ? " " : "",
                              required ? "" : "[", fl_cli_text(g, "name"), required ? "" : "]");
        n = n < sizeof arguments ? n : sizeof arguments - 1;
    }
    fl_table_add(t, "%s", fl_cli_text(o, "verb"));
    fl_table_add(t, "%s", arguments);
    fl_table_add(t, "%s", fl_cli_text(o, "summary"));
}

int fl_cli_verbs(struct fl_cli *c)
{
    static const char *const heads[] = {"VERB", "ARGUMENTS", "WHAT", NULL};

    return fl_cli_ask_table(c, &(struct fl_ctl_request){.verb = "verbs"}, heads, verb_row, NULL);
}
