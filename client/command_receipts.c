/*
 * `receipts show|export|verify`: what the coordinator has signed about this site's updates. Shown
 * and exported from the ledger's file, through the agent that runs or, if none does, directly.
 *
 * `verify` needs nobody: the signature of each receipt by the coordinator's certificate that was
 * kept with it, and that certificate by the authority of the configuration (not its dates: it was
 * judged when the receipt came). With --chain FILE, an exported chain of records
 * (`cohortctl audit export`), each receipt must also stand there: the record of its round has the
 * digest that was signed, follows from the one before, and has the very line of this update.
 */
#include "client/commands_in.h"

#include "client/report.h"
#include "client/show.h"
#include "common/base/mem.h"
#include "common/io/ctl_client.h"
#include "common/wire/receipt.h"
#include "common/wire/tls_sign.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- all receipts of one agent ---- */

static int on_part(void *arg, const struct fl_ctl_answer *part)
{
    json_t **ret = arg;

    if (part->kind == FL_CTL_JSON) {
        json_decref(*ret);
        *ret = json_loads(part->text, 0, NULL);
    }
    return 0;
}

static int ask_page(const struct fl_config *config, const struct fl_config_agent *agent,
                    uint64_t after, json_t **ret, struct fl_err *e)
{
    char number[24];
    struct fl_ctl_request q = {.verb = "receipts",
                               .arguments = {{"agent", agent->name}, {"after", number}},
                               .argument_count = 2};

    snprintf(number, sizeof number, "%llu", (unsigned long long)after);
    return fl_ctl_ask(config->socket.path, &q, 60000, on_part, ret, e);
}

/* A list of documents, those of `job` (NULL: all), oldest first. */
static int gather(const struct fl_config *config, const struct fl_config_agent *agent,
                  const char *job, json_t *list, struct fl_err *e)
{
    struct fl_ledger *l = NULL;
    uint64_t after = 0, last = 0;
    json_t *page = NULL, *o;
    size_t i;
    int r;

    do {
        after = last;
        r = l ? -FL_R_CTL_CONNECT : ask_page(config, agent, after, &page, e);
        if (r == -FL_R_CTL_CONNECT) { /* nobody runs: the file itself */
            r = l ? 0 : fl_command_ledger(config, agent, &l, e);
            page = r ? NULL : fl_show_receipts(l, agent, after, e);
            r = r ? r : page ? 0 : e->code;
        }
        if (r == 0) {
            last = (uint64_t)fl_command_count(page, "last");
            json_array_foreach(json_object_get(page, "page"), i, o)
            {
                if (!job || strcmp(job, fl_command_text(o, "job")) == 0) {
                    json_array_append(list, o);
                }
            }
        }
        json_decref(page);
        page = NULL;
    } while (r == 0 && last > after);
    fl_ledger_close(l);
    return r;
}

/* ---- verifying ---- */

static bool from_hex(const char *hex, uint8_t *ret, size_t room, size_t *ret_size)
{
    size_t n = strlen(hex) / 2;
    unsigned byte;

    if (n == 0 || n > room || strlen(hex) % 2) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1) {
            return false;
        }
        ret[i] = (uint8_t)byte;
    }
    *ret_size = n;
    return true;
}

static int verify_one(const struct fl_config *config, const struct fl_tls_conf *tls,
                      const json_t *o, struct fl_err *e)
{
    uint8_t certificate[FL_TLS_CERT_MAX], signature[FL_TLS_SIG_MAX];
    size_t certificate_size, signature_size;
    struct fl_identity who;

    if (!from_hex(fl_command_text(o, "certificate"), certificate, sizeof certificate,
                  &certificate_size) ||
        !from_hex(fl_command_text(o, "signature"), signature, sizeof signature, &signature_size)) {
        return fl_fail(e, FL_R_RECEIPT, "it has no certificate or signature");
    }
    int r = fl_tls_verify_coordinator(tls, config->coordinator.name, false, certificate,
                                      certificate_size, (const uint8_t *)fl_command_text(o, "text"),
                                      strlen(fl_command_text(o, "text")), signature, signature_size,
                                      &who, e);
    return r ? fl_wrap(e, -FL_R_RECEIPT, "not signed by this coordinator") : 0;
}

/* A record of a chain while it is read (server/store/transcript.c has the format). */
struct record {
    struct fl_hash hash;
    char incarnation[40], round[24], previous[FL_DIGEST_HEX], model[FL_DIGEST_HEX];
    struct fl_digest digest;
    bool ended; /* by its line `previous` */
};

static bool same_round(const json_t *o, const struct record *x)
{
    char round[24];

    snprintf(round, sizeof round, "%lld", fl_command_count(o, "counted_in"));
    return strcmp(x->round, round) == 0 &&
           strcmp(x->incarnation, fl_command_text(o, "incarnation")) == 0;
}

/* The member's line is in the receipt's own text. */
static void look_for_member(json_t *list, const struct record *x, const char *line)
{
    json_t *o;
    size_t i;

    json_array_foreach(list, i, o)
    {
        const char *at = same_round(o, x) ? strstr(fl_command_text(o, "text"), line) : NULL;
        if (at && at > fl_command_text(o, "text") && at[-1] == '\n') {
            json_object_set_new(o, "member", json_true());
        }
    }
}

static void end_of_record(json_t *list, const struct record *x)
{
    char digest[FL_DIGEST_HEX];
    json_t *o;
    size_t i;

    fl_digest_hex(&x->digest, digest);
    json_array_foreach(list, i, o)
    {
        if (same_round(o, x)) {
            json_object_set_new(o, "in_chain",
                                json_boolean(json_is_true(json_object_get(o, "member")) &&
                                             strcmp(fl_command_text(o, "record"), digest) == 0 &&
                                             strcmp(fl_command_text(o, "model"), x->model) == 0));
        }
    }
}

static bool value(const char *line, const char *name, char *ret, size_t size)
{
    size_t n = strlen(name);

    if (strncmp(line, name, n) != 0 || line[n] != ' ') {
        return false;
    }
    snprintf(ret, size, "%.*s", (int)strcspn(line + n + 1, "\n"), line + n + 1);
    return true;
}

/* One line; false: the chain is broken there. `head`: of the record before, "" at first. */
static bool chain_line(json_t *list, struct record *x, char head[FL_DIGEST_HEX], const char *line)
{
    char digest[FL_DIGEST_HEX], want[FL_DIGEST_HEX];

    if (x->ended && line[0] == '\n') {
        memset(x, 0, sizeof *x);
        fl_hash_init(&x->hash);
        return true;
    }
    if (x->ended) { /* of what was read, and what it follows from */
        fl_digest_hex(&x->digest, want);
        bool good = value(line, "digest", digest, sizeof digest) && strcmp(digest, want) == 0 &&
                    (!head[0] || strcmp(head, x->previous) == 0);
        memcpy(head, want, FL_DIGEST_HEX);
        end_of_record(list, x);
        return good;
    }
    fl_hash_add(&x->hash, line, strlen(line));
    if (strncmp(line, "member ", 7) == 0) {
        look_for_member(list, x, line);
    } else if (value(line, "previous", x->previous, sizeof x->previous)) {
        fl_hash_end(&x->hash, &x->digest);
        x->ended = true;
    } else if (!value(line, "incarnation", x->incarnation, sizeof x->incarnation) &&
               !value(line, "round", x->round, sizeof x->round)) {
        value(line, "model", x->model, sizeof x->model);
    }
    return true;
}

static int read_chain(const char *path, json_t *list, struct fl_err *e)
{
    FILE *f = fopen(path, "re");
    char head[FL_DIGEST_HEX] = "", line[512];
    struct record x = {0};
    unsigned number = 0;
    int r = 0;

    if (!f) {
        return fl_fail_sys(e, FL_R_SYS, errno, "%s", path);
    }
    fl_hash_init(&x.hash);
    while (r == 0 && fgets(line, sizeof line, f)) {
        number++;
        if (!strchr(line, '\n') || !chain_line(list, &x, head, line)) {
            r = fl_fail(e, FL_R_AUDIT, "%s:%u: not a chain of records as it was made", path,
                        number);
        }
    }
    fclose(f);
    return r || head[0] ? r : fl_fail(e, FL_R_AUDIT, "%s: no records", path);
}

struct tally {
    unsigned kept, wanted, none, wrong, in_chain, not_in_file;
};

static void judge_one(const struct fl_config *config, const struct fl_tls_conf *tls, json_t *o,
                      const char *chain, struct tally *n)
{
    struct fl_err e = {0};
    const json_t *in = json_object_get(o, "in_chain");

    if (strcmp(fl_command_text(o, "state"), "kept") != 0) {
        n->none += strcmp(fl_command_text(o, "state"), "none") == 0;
        n->wanted += strcmp(fl_command_text(o, "state"), "wanted") == 0;
        return;
    }
    n->kept++;
    int r = verify_one(config, tls, o, &e);
    if (r == 0 && json_is_false(in)) {
        r = fl_fail(&e, FL_R_RECEIPT, "the chain has another record of this round");
    }
    n->in_chain += json_is_true(in);
    n->not_in_file += chain && !in;
    json_object_set_new(o, "verified", json_boolean(r == 0));
    if (r) {
        n->wrong++;
        fprintf(stderr, "cohort-agent: receipt of round %lld of %s: %s [%d %s]\n",
                fl_command_count(o, "round"), fl_command_text(o, "job"), e.msg, -r,
                fl_reason_name(r));
    }
}

static int verify_all(const struct fl_config *config, const struct fl_config_agent *agent,
                      const struct fl_command *c, json_t *list, struct fl_err *e)
{
    struct fl_tls_files files = {.ca = config->coordinator.ca,
                                 .certificate = agent->certificate,
                                 .key = agent->key,
                                 .order = FL_TLS_ORDER_CHACHA};
    struct fl_tls_conf *tls = NULL;
    struct tally n = {0};
    json_t *o;
    size_t i;
    int r = c->chain ? read_chain(c->chain, list, e) : 0;

    r = r ? r : fl_tls_conf_new(false, &files, &tls, e);
    if (r) {
        return r;
    }
    json_array_foreach(list, i, o)
    {
        judge_one(config, tls, o, c->chain, &n);
        if (c->json) {
            json_object_del(o, "member");
            fl_command_print_json(o);
        }
    }
    fl_tls_conf_unref(tls);
    if (!c->json) {
        printf("%s: %u receipts, %u of them verified", agent->name, n.kept, n.kept - n.wrong);
        if (c->chain) {
            printf(", %u stand in %s (%u are of rounds that it does not have)", n.in_chain,
                   c->chain, n.not_in_file);
        }
        printf("; %u updates wait for theirs, %u have none\n", n.wanted, n.none);
    }
    return n.wrong ? fl_fail(e, FL_R_RECEIPT, "agent %s: %u receipts do not verify", agent->name,
                             n.wrong)
                   : 0;
}

/* ---- the verb ---- */

static void show_one(const char *agent, const json_t *o)
{
    const char *state = fl_command_text(o, "state");

    printf("%-20s %-14s round %-5lld exchange %-2lld update %.16s  ", agent,
           fl_command_text(o, "job"), fl_command_count(o, "round"), fl_command_count(o, "exchange"),
           fl_command_text(o, "update"));
    if (strcmp(state, "kept") == 0) {
        printf("counted in round %lld with weight %lld, record %.16s, model %.16s\n",
               fl_command_count(o, "counted_in"), fl_command_count(o, "weight"),
               fl_command_text(o, "record"), fl_command_text(o, "model"));
    } else if (strcmp(state, "none") == 0) {
        printf("not in a published round: %s\n", fl_command_text(o, "reason_name"));
    } else {
        printf("no receipt yet\n");
    }
}

int fl_command_receipts(const struct fl_config *config, const struct fl_config_agent *agent,
                        const struct fl_command *c, struct fl_err *e)
{
    const char *what = c->what ? c->what : "show";
    json_t *list = json_array(), *o;
    size_t i;
    int r = gather(config, agent, c->job, list, e);

    if (r == 0 && strcmp(what, "verify") == 0) {
        r = verify_all(config, agent, c, list, e);
    } else if (r == 0) {
        json_array_foreach(list, i, o)
        {
            if (c->json || strcmp(what, "export") == 0) {
                fl_report_text(o, "agent", agent->name);
                fl_command_print_json(o);
            } else {
                show_one(agent->name, o);
            }
        }
    }
    json_decref(list);
    return r;
}
