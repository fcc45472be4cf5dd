#include "server/ctl/cli.h"

#include "server/ctl/table.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INTERRUPT_MS = 200 }; /* how late a signal may be noticed */

enum fl_exit fl_cli_exit(int status)
{
    int r = status < 0 ? -status : status;

    switch (r) {
    case 0:
        return FL_EXIT_OK;
    case FL_R_ARG:
    case FL_R_CTL_REQUEST:
        return FL_EXIT_USAGE;
    case FL_R_CTL_CONNECT:
    case FL_R_SHUTDOWN:
    case FL_R_PEER_CLOSED:
        return FL_EXIT_CONNECT;
    case FL_R_TIMEOUT:
        return FL_EXIT_TIMEOUT;
    case FL_R_CTL_PEER:
    case FL_R_QUOTA:
    case FL_R_PLAN_PRIVACY:
    case FL_R_BUDGET_SPENT:
    case FL_R_POLICY_JOB:
    case FL_R_POLICY_NOISE:
    case FL_R_WITHDRAWN:
        return FL_EXIT_POLICY;
    default:
        return r >= FL_R_CONF_OPEN && r <= FL_R_PLAN_STRATEGY ? FL_EXIT_CONFIG : FL_EXIT_FAILURE;
    }
}

const char *fl_cli_option(const struct fl_cli *c, const char *name, uint32_t n)
{
    for (uint32_t i = 0; i < c->option_count; i++) {
        if (strcmp(c->options[i].name, name) == 0 && n-- == 0) {
            return c->options[i].value;
        }
    }
    return NULL;
}

int fl_cli_count(struct fl_cli *c, const char *name, uint64_t min, uint64_t max, uint64_t absent,
                 uint64_t *ret)
{
    const char *text = fl_cli_option(c, name, 0);
    char *end;

    if (!text) {
        *ret = absent;
        return 0;
    }
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || n < min || n > max) {
        return fl_fail(&c->err, FL_R_ARG, "--%s: a whole number from %llu to %llu, not '%.40s'",
                       name, (unsigned long long)min, (unsigned long long)max, text);
    }
    *ret = n;
    return 0;
}

int fl_cli_number(struct fl_cli *c, const char *name, double min, double max, double *ret)
{
    const char *text = fl_cli_option(c, name, 0);
    char *end;

    if (!text) {
        return fl_fail(&c->err, FL_R_ARG, "--%s is needed", name);
    }
    double x = strtod(text, &end);
    if (text[0] == 0 || *end || !isfinite(x) || x <= min || x > max) {
        return fl_fail(&c->err, FL_R_ARG, "--%s: a number above %g, at most %g, not '%.40s'", name,
                       min, max, text);
    }
    *ret = x;
    return 0;
}

/* ---- asking ---- */

void fl_cli_argument(struct fl_ctl_request *q, const char *name, const char *value)
{
    if (value && q->argument_count < FL_CTL_ARGUMENTS_MAX) {
        q->arguments[q->argument_count++] = (struct fl_ctl_argument){name, value};
    }
}

struct gathering {
    struct fl_cli *c;
    json_t *list;
};

static int gather(void *arg, const struct fl_ctl_answer *part)
{
    struct gathering *g = arg;
    json_t *o;

    if (g->c->interrupted && *g->c->interrupted) {
        return fl_fail(&g->c->err, FL_R_CANCELLED, "interrupted");
    }
    if (!part) {
        return 0;
    }
    if (part->kind != FL_CTL_JSON) {
        return 0;
    }
    o = json_loads(part->text, 0, NULL);
    return json_array_append_new(g->list, o) == 0 ? 0 : -FL_R_FRAME_PARSE;
}

int fl_cli_ask(struct fl_cli *c, const struct fl_ctl_request *q, bool waits, json_t **ret_list)
{
    uint64_t timeout = c->timeout_ms ? c->timeout_ms : waits ? 0 : FL_CLI_REQUEST_MS;

    *ret_list = json_array();
    if (!*ret_list) {
        return fl_fail(&c->err, FL_R_NOMEM, "no memory");
    }
    struct gathering g = {c, *ret_list};
    int status = fl_ctl_ask_ticking(c->socket, q, timeout, c->interrupted ? INTERRUPT_MS : 0,
                                    gather, &g, &c->err);
    if (status == -FL_R_FRAME_PARSE && !c->err.msg[0]) {
        fl_fail(&c->err, FL_R_FRAME_PARSE, "the daemon's answer is not JSON");
    }
    return status;
}

void fl_cli_print_json(const json_t *document)
{
    json_dumpf(document, stdout, JSON_INDENT(1));
    putchar('\n');
}

const char *fl_cli_text(const json_t *o, const char *field)
{
    const char *s = json_string_value(json_object_get(o, field));

    return s ? s : "";
}

int64_t fl_cli_int(const json_t *o, const char *field)
{
    return json_integer_value(json_object_get(o, field));
}

/* Asks; prints JSON when that is wanted and returns 1; else 0 with the documents in *ret. */
int fl_cli_ask_or_print(struct fl_cli *c, const struct fl_ctl_request *q, bool waits, bool list,
                        json_t **ret)
{
    int status = fl_cli_ask(c, q, waits, ret);

    if (status == 0 && c->json) {
        json_t *one = json_array_get(*ret, 0);
        if (list || one) {
            fl_cli_print_json(list ? *ret : one);
        }
        status = 1;
    }
    if (status) {
        json_decref(*ret);
        *ret = NULL;
    }
    return status;
}

int fl_cli_ask_table(struct fl_cli *c, const struct fl_ctl_request *q, const char *const *heads,
                     void (*row)(struct fl_table *t, const json_t *o), const char *none)
{
    json_t *list;
    int status = fl_cli_ask_or_print(c, q, false, true, &list);

    if (status) {
        return status < 0 ? status : 0;
    }
    struct fl_table *table = fl_table_new(heads);
    for (size_t i = 0; i < json_array_size(list); i++) {
        row(table, json_array_get(list, i));
    }
    fl_table_print(table, stdout, none);
    json_decref(list);
    return 0;
}

void fl_cli_row(const char *name, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fl_text_clean(text);
    printf("%-14s %s\n", name, text);
}

void fl_cli_print_round(const json_t *r)
{
    char a[FL_TEXT_MAX], b[FL_TEXT_MAX], t[FL_TEXT_MAX];

    if (!fl_cli_int(r, "wanted")) { /* a round that is over */
        fl_cli_row("round", "%lld, %s", (long long)fl_cli_int(r, "round"), fl_cli_text(r, "state"));
        fl_cli_row("updates", "%lld of %lld invited agents", (long long)fl_cli_int(r, "committed"),
                   (long long)fl_cli_int(r, "invited"));
        return;
    }
    long long exchanges = (long long)fl_cli_int(r, "exchanges");
    fl_cli_row("round", "%lld, %s, attempt %lld", (long long)fl_cli_int(r, "round"),
               fl_cli_text(r, "state"), (long long)fl_cli_int(r, "attempt") + 1);
    if (exchanges > 1) {
        fl_cli_row("exchange", "%s, %lld of %lld", fl_cli_text(r, "exchange_name"),
                   (long long)fl_cli_int(r, "exchange") + 1, exchanges);
    }
    fl_cli_row("updates", "%lld committed of %lld wanted (quorum %lld); %lld invited, %lld lost",
               (long long)fl_cli_int(r, "committed"), (long long)fl_cli_int(r, "wanted"),
               (long long)fl_cli_int(r, "quorum"), (long long)fl_cli_int(r, "invited"),
               (long long)fl_cli_int(r, "lost"));
    if (fl_cli_int(r, "deadline_ms")) {
        fl_cli_row("deadline", "%s",
                   fl_text_when((uint64_t)fl_cli_int(r, "deadline_ms"), fl_wall_ms(), t));
    }
    fl_cli_row("bytes", "%s up, %s down", fl_text_bytes((uint64_t)fl_cli_int(r, "bytes_up"), a),
               fl_text_bytes((uint64_t)fl_cli_int(r, "bytes_down"), b));
}
