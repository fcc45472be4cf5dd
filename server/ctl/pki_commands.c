#include "common/base/mem.h"
#include "server/ctl/cli.h"
#include "server/ctl/pki.h"
#include "server/ctl/table.h"

#include <stdio.h>
#include <string.h>

static json_t *entry_json(const struct fl_pki_entry *t)
{
    return json_pack("{ss ss ss ss sI sI so}", "name", t->name, "kind", fl_pki_kind_name(t->kind),
                     "key", t->key, "serial", t->serial, "not_before_s", (json_int_t)t->not_before,
                     "not_after_s", (json_int_t)t->not_after, "revoked_s",
                     t->revoked ? json_integer((json_int_t)t->revoked) : json_null());
}

static void collect(void *arg, const struct fl_pki_entry *t)
{
    json_array_append_new(arg, entry_json(t));
}

static void print_entries(const struct fl_cli *c, const json_t *list, const char *empty)
{
    static const char *const heads[] = {"NAME", "KIND", "STATE", "UNTIL", "KEY", NULL};
    char t[FL_TEXT_MAX];
    int64_t now = (int64_t)(fl_wall_ms() / 1000);

    if (c->json) {
        fl_cli_print_json(list);
        return;
    }
    struct fl_table *table = fl_table_new(heads);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        fl_table_add(table, "%s", fl_cli_text(o, "name"));
        fl_table_add(table, "%s", fl_cli_text(o, "kind"));
        fl_table_add(table, "%s",
                     fl_cli_int(o, "revoked_s")            ? "revoked"
                     : fl_cli_int(o, "not_after_s") <= now ? "expired"
                                                           : "valid");
        fl_table_add(table, "%s", fl_text_date(fl_cli_int(o, "not_after_s"), t));
        fl_table_add(table, "%s", fl_cli_text(o, "key"));
    }
    fl_table_print(table, stdout, empty);
}

int fl_cli_pki_init(struct fl_cli *c)
{
    const char *name = fl_cli_option(c, "name", 0);
    int status = fl_pki_init(c->words[0], name ? name : "Cohort CA", &c->err);

    if (status == 0 && !c->json) {
        printf("%s/ca.crt  give this to everyone\n"
               "%s/ca.key  keep this to yourself, best on a machine without a network\n"
               "%s/ca.crl  the revocation list; valid %d days, then nobody connects:\n"
               "           run `cohortctl pki refresh %s` from a timer\n",
               c->words[0], c->words[0], c->words[0], FL_PKI_CRL_DAYS, c->words[0]);
    }
    return status;
}

int fl_cli_pki_issue(struct fl_cli *c)
{
    struct fl_pki_order o = {.kind = FL_PKI_AGENT};
    uint64_t count, first, days;
    const char *host;
    int status = 0;

    if (strcmp(c->words[1], "coordinator") == 0) {
        o.kind = FL_PKI_COORDINATOR;
    } else if (strcmp(c->words[1], "agent") != 0) {
        return fl_fail(&c->err, FL_R_ARG, "coordinator or agent, not '%.40s'", c->words[1]);
    }
    o.name = c->word_count > 2 ? c->words[2] : "coordinator";
    if (o.kind == FL_PKI_AGENT && c->word_count < 3) {
        return fl_fail(&c->err, FL_R_ARG,
                       "an agent needs a name; it is seen on the network, so "
                       "make it a pseudonym as site-01");
    }
    if ((status = fl_cli_count(c, "count", 1, FL_PKI_COUNT_MAX, 1, &count)) ||
        (status = fl_cli_count(c, "first", 0, 100000000, 1, &first)) ||
        (status = fl_cli_count(c, "days", 1, FL_PKI_AUTHORITY_DAYS, FL_PKI_DAYS, &days))) {
        return status;
    }
    while ((host = fl_cli_option(c, "dns", o.host_count)) != NULL) {
        if (o.kind == FL_PKI_AGENT || o.host_count == FL_PKI_HOSTS_MAX) {
            return fl_fail(&c->err, FL_R_ARG, "--dns is for a coordinator, at most %d times",
                           FL_PKI_HOSTS_MAX);
        }
        o.hosts[o.host_count++] = host;
    }
    o.count = (uint32_t)count;
    o.first = (uint32_t)first;
    o.days = (uint32_t)days;
    json_t *list = json_array();
    status = fl_pki_issue(c->words[0], &o, collect, list, &c->err);
    if (status == 0) {
        print_entries(c, list, NULL);
    }
    json_decref(list);
    return status;
}

int fl_cli_pki_revoke(struct fl_cli *c)
{
    json_t *list = json_array();
    int status = fl_pki_revoke(c->words[0], c->words[1], collect, list, &c->err);

    if (status == 0) {
        print_entries(c, list, NULL);
        if (!c->json) {
            printf("\nhand %s/ca.crl to the coordinator and `cohortctl reload`\n", c->words[0]);
        }
    }
    json_decref(list);
    return status;
}

int fl_cli_pki_refresh(struct fl_cli *c)
{
    int status = fl_pki_refresh(c->words[0], &c->err);

    if (status == 0 && !c->json) {
        printf("%s/ca.crl is valid for another %d days; hand it to the coordinator and "
               "`cohortctl reload`\n",
               c->words[0], FL_PKI_CRL_DAYS);
    }
    return status;
}

int fl_cli_pki_list(struct fl_cli *c)
{
    json_t *list = json_array();
    time_t expires = 0;
    char t[FL_TEXT_MAX];
    int status = fl_pki_list(c->words[0], collect, list, &expires, &c->err);

    if (status == 0) {
        print_entries(c, list, "nothing was issued yet");
        if (!c->json) {
            printf("\nrevocation list until %s\n", fl_text_date(expires, t));
        }
    }
    json_decref(list);
    return status;
}
