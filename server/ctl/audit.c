/*
 * `audit export`: the chain of records of a job (server/store/transcript.c has the format), from
 * the coordinator. `audit verify`: the same chain from a file, anywhere, without a coordinator.
 *
 * Verifying reads strictly: every line in its order, every digest and number as it is written, no
 * line more. What it proves: nothing in the file was changed since whoever knows a later digest got
 * to know it. What it cannot prove: that the coordinator computed the model from these updates
 * (that takes the updates), or that the chain is not a second one made for this reader (compare the
 * head with other sites).
 */
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "server/ctl/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 512 };

/* What stands in the records of one file. */
struct chain {
    const char *file;
    FILE *in;
    unsigned line_number;
    char line[LINE_MAX_BYTES];
    struct fl_hash hash; /* of the record being read */
    char job[64], incarnation[40];
    uint64_t first_round, round, members, records;
    struct fl_digest plan, model, head;
    /* what is looked for */
    struct fl_digest want_plan, want_update, want_head;
    bool plan_wanted, update_wanted, head_wanted;
    uint64_t plan_rounds, update_round, head_round;
    struct fl_err *e;
};

static int wrong(struct chain *x, const char *what)
{
    return fl_fail(x->e, FL_R_AUDIT, "%s:%u: %s", x->file, x->line_number, what);
}

/* 1 a line, without its end; 0 the end of the file. */
static int next_line(struct chain *x)
{
    if (!fgets(x->line, sizeof x->line, x->in)) {
        return ferror(x->in) ? fl_fail_sys(x->e, FL_R_SYS, errno, "%s", x->file) : 0;
    }
    x->line_number++;
    size_t n = strlen(x->line);
    if (n == 0 || x->line[n - 1] != '\n') {
        return wrong(x, "a line without an end");
    }
    fl_hash_add(&x->hash, x->line, n);
    x->line[n - 1] = 0;
    return 1;
}

/* The rest of a line that begins with `name` and a space; NULL: it does not. */
static const char *value_of(const char *line, const char *name)
{
    size_t n = strlen(name);

    return strncmp(line, name, n) == 0 && line[n] == ' ' ? line + n + 1 : NULL;
}

static int read_value(struct chain *x, const char *name, const char **ret)
{
    char text[80];
    int r = next_line(x);

    if (r < 0) {
        return r;
    }
    *ret = r == 1 ? value_of(x->line, name) : NULL;
    if (!*ret) {
        snprintf(text, sizeof text, "'%s' is expected", name);
        return wrong(x, text);
    }
    return 0;
}

static int read_digest(struct chain *x, const char *name, struct fl_digest *ret)
{
    const char *hex = NULL;
    int r = read_value(x, name, &hex);

    if (r == 0 && !fl_digest_from_hex(hex, ret)) {
        return wrong(x, "not a digest");
    }
    return r;
}

/* A number as it is printed: no sign, no leading zero, nothing behind it. */
static bool number(const char *text, uint64_t *ret)
{
    char again[24], *end;

    errno = 0;
    *ret = strtoull(text, &end, 10);
    snprintf(again, sizeof again, "%" PRIu64, *ret);
    return errno == 0 && *end == 0 && strcmp(again, text) == 0;
}

/* "0 <key> <digest> 1 231650" */
static int read_member(struct chain *x, const char *text)
{
    char copy[LINE_MAX_BYTES], *save = NULL;
    const char *field[6] = {0};
    struct fl_digest key, update;
    uint64_t exchange, weight, size;

    snprintf(copy, sizeof copy, "%s", text);
    char *word = strtok_r(copy, " ", &save);
    for (int i = 0; i < 6 && word; i++) {
        field[i] = word;
        word = strtok_r(NULL, " ", &save);
    }
    if (!field[4] || field[5] || !number(field[0], &exchange) ||
        !fl_digest_from_hex(field[1], &key) || !fl_digest_from_hex(field[2], &update) ||
        !number(field[3], &weight) || !number(field[4], &size)) {
        return wrong(x, "not a member: exchange, key, update, weight, bytes");
    }
    x->members++;
    if (x->update_wanted && fl_digest_equal(&update, &x->want_update)) {
        x->update_round = x->round;
    }
    return 0;
}

static int read_identity(struct chain *x)
{
    const char *job, *incarnation, *text;
    uint64_t round;
    bool first = x->records == 0;
    int r;

    if (strcmp(x->line, "cohort-transcript 1") != 0) {
        return wrong(x, "not a record of a version that is known here");
    }
    if ((r = read_value(x, "job", &job)) != 0) {
        return r;
    }
    if (first) {
        snprintf(x->job, sizeof x->job, "%s", job);
    } else if (strcmp(job, x->job) != 0) {
        return wrong(x, "another job");
    }
    if ((r = read_value(x, "incarnation", &incarnation)) != 0) {
        return r;
    }
    if (first) {
        snprintf(x->incarnation, sizeof x->incarnation, "%s", incarnation);
    } else if (strcmp(incarnation, x->incarnation) != 0) {
        return wrong(x, "another incarnation of the job");
    }
    if ((r = read_value(x, "round", &text)) != 0) {
        return r;
    }
    if (!number(text, &round) || round == 0 || (!first && round != x->round + 1)) {
        return wrong(x, "not the round that follows");
    }
    x->first_round = first ? round : x->first_round;
    x->round = round;
    return read_value(x, "published", &text);
}

/* One record, whose first line was read, and its digest. */
static int read_record(struct chain *x)
{
    struct fl_digest base, checkpoint, model, previous, digest, said;
    const char *member;
    int r;

    if ((r = read_identity(x)) != 0 || (r = read_digest(x, "plan", &x->plan)) != 0 ||
        (r = read_digest(x, "base", &base)) != 0) {
        return r;
    }
    if (x->records > 0 && !fl_digest_equal(&base, &x->model)) {
        return wrong(x, "it does not start from the model of the round before");
    }
    while ((r = next_line(x)) == 1 && (member = value_of(x->line, "member")) != NULL) {
        if ((r = read_member(x, member)) != 0) {
            return r;
        }
    }
    const char *hex = r == 1 ? value_of(x->line, "checkpoint") : NULL;
    if (r < 0) {
        return r;
    }
    if (!hex || !fl_digest_from_hex(hex, &checkpoint)) {
        return wrong(x, "'checkpoint' is expected");
    }
    if ((r = read_digest(x, "model", &model)) != 0 ||
        (r = read_digest(x, "previous", &previous)) != 0) {
        return r;
    }
    fl_hash_end(&x->hash, &digest);
    fl_hash_init(&x->hash); /* what follows is not of the record */
    if (x->records > 0 ? !fl_digest_equal(&previous, &x->head)
                       : x->round == 1 && !fl_digest_is_zero(&previous)) {
        return wrong(x, "it does not follow the record before");
    }
    if ((r = read_digest(x, "digest", &said)) != 0) {
        return r;
    }
    if (!fl_digest_equal(&digest, &said)) {
        return wrong(x, "the record was changed: its digest is another one");
    }
    if ((r = next_line(x)) != 1 || x->line[0]) {
        return r < 0 ? r : wrong(x, "an empty line is expected");
    }
    x->head = digest;
    x->model = model;
    x->records++;
    x->plan_rounds += x->plan_wanted && fl_digest_equal(&x->plan, &x->want_plan);
    if (x->head_wanted && fl_digest_equal(&digest, &x->want_head)) {
        x->head_round = x->round;
    }
    return 0;
}

static int read_chain(struct chain *x)
{
    int r;

    fl_hash_init(&x->hash);
    while ((r = next_line(x)) == 1) {
        if ((r = read_record(x)) != 0) {
            return r;
        }
        fl_hash_init(&x->hash);
    }
    return r < 0 || x->records > 0 ? r : wrong(x, "no records");
}

static json_t *chain_json(const struct chain *x)
{
    char head[FL_DIGEST_HEX], model[FL_DIGEST_HEX];

    fl_digest_hex(&x->head, head);
    fl_digest_hex(&x->model, model);
    json_t *o =
        json_pack("{ss ss sI sI sI ss ss}", "job", x->job, "incarnation", x->incarnation,
                  "first_round", (json_int_t)x->first_round, "last_round", (json_int_t)x->round,
                  "updates", (json_int_t)x->members, "model", model, "head", head);
    if (x->plan_wanted) {
        json_object_set_new(o, "rounds_of_plan", json_integer((json_int_t)x->plan_rounds));
    }
    if (x->update_wanted) {
        json_object_set_new(o, "update_round", json_integer((json_int_t)x->update_round));
    }
    if (x->head_wanted) {
        json_object_set_new(o, "head_round", json_integer((json_int_t)x->head_round));
    }
    return o;
}

static void print_chain(const struct chain *x)
{
    char hex[FL_DIGEST_HEX];

    fl_cli_row("job", "%s, incarnation %s", x->job, x->incarnation);
    fl_cli_row("rounds", "%" PRIu64 " to %" PRIu64 ", every record as its digest says",
               x->first_round, x->round);
    fl_cli_row("updates", "%" PRIu64, x->members);
    if (x->first_round > 1) {
        fl_cli_row("before", "records of earlier rounds are not in this file");
    }
    if (x->plan_wanted) {
        fl_cli_row("plan", "%" PRIu64 " of these rounds ran this text", x->plan_rounds);
    }
    if (x->update_wanted) {
        fl_cli_row("update", "in round %" PRIu64, x->update_round);
    }
    if (x->head_wanted) {
        fl_cli_row("earlier head", "is the record of round %" PRIu64, x->head_round);
    }
    fl_digest_hex(&x->model, hex);
    fl_cli_row("model", "%s", hex);
    fl_digest_hex(&x->head, hex);
    fl_cli_row("head", "%s", hex);
}

/* What the options want to find. */
static int look_for(struct fl_cli *c, struct chain *x)
{
    const char *update = fl_cli_option(c, "update", 0), *head = fl_cli_option(c, "head", 0),
               *plan = fl_cli_option(c, "plan", 0);

    x->update_wanted = update != NULL;
    x->head_wanted = head != NULL;
    x->plan_wanted = plan != NULL;
    if ((update && !fl_digest_from_hex(update, &x->want_update)) ||
        (head && !fl_digest_from_hex(head, &x->want_head)) ||
        (plan && !fl_digest_from_hex(plan, &x->want_plan))) {
        return fl_fail(&c->err, FL_R_ARG, "a digest has 64 hex digits");
    }
    return 0;
}

static int found(struct fl_cli *c, const struct chain *x)
{
    if ((x->update_wanted && !x->update_round) || (x->head_wanted && !x->head_round) ||
        (x->plan_wanted && !x->plan_rounds)) {
        return fl_fail(&c->err, FL_R_AUDIT, "%s: the chain is whole, but the %s is not in it",
                       x->file,
                       x->update_wanted && !x->update_round ? "update"
                       : x->head_wanted && !x->head_round   ? "earlier head"
                                                            : "plan");
    }
    return 0;
}

int fl_cli_audit_verify(struct fl_cli *c)
{
    struct chain *x = fl_new(1, sizeof *x);

    x->file = c->words[0];
    x->e = &c->err;
    int status = look_for(c, x);
    if (status == 0) {
        x->in = strcmp(x->file, "-") == 0 ? stdin : fopen(x->file, "re");
        status = x->in ? read_chain(x) : fl_fail_sys(&c->err, FL_R_SYS, errno, "%s", x->file);
    }
    if (status == 0) {
        status = found(c, x);
    }
    if (status == 0 && c->json) {
        json_t *o = chain_json(x);
        fl_cli_print_json(o);
        json_decref(o);
    } else if (status == 0) {
        print_chain(x);
    }
    if (x->in && x->in != stdin) {
        fclose(x->in);
    }
    fl_free(x);
    return status;
}

/* ---- export ---- */

int fl_cli_audit_export(struct fl_cli *c)
{
    struct fl_ctl_request q = {.verb = "audit export"};
    struct fl_download x;

    fl_cli_argument(&q, "job", c->words[0]);
    /* Unchecked here: `audit verify` does, on any machine and at any time. */
    int status = fl_cli_download(c, &q, NULL, &x);
    if (status == 0 && x.to_file && c->json) {
        fl_cli_print_json(x.about);
    } else if (status == 0 && x.to_file) {
        printf("records of %s up to round %" PRId64 ", %" PRIu64 " bytes, head %s\n",
               fl_cli_text(x.about, "job"), fl_cli_int(x.about, "round"), x.bytes,
               fl_cli_text(x.about, "head"));
    }
    json_decref(x.about);
    return status;
}

/* ---- replay ---- */

int fl_cli_audit_replay(struct fl_cli *c)
{
    struct fl_ctl_request q = {.verb = "audit replay"};
    json_t *list = NULL;

    fl_cli_argument(&q, "job", c->words[0]);
    fl_cli_argument(&q, "round", c->words[1]);
    int status = fl_cli_ask(c, &q, true, &list);
    const json_t *o = json_array_get(list, 0);
    if (status == 0 && !o) {
        status = fl_fail(&c->err, FL_R_INTERNAL, "no answer");
    }
    bool same = o && json_is_true(json_object_get(o, "same"));
    if (status == 0 && c->json) {
        fl_cli_print_json(o);
    } else if (status == 0) {
        fl_cli_row("round", "%" PRId64 " of %s, %" PRId64 " updates", fl_cli_int(o, "round"),
                   fl_cli_text(o, "job"), fl_cli_int(o, "updates"));
        fl_cli_row("recorded", "%s", fl_cli_text(o, "recorded"));
        fl_cli_row("computed", "%s%s", fl_cli_text(o, "computed"),
                   json_is_true(json_object_get(o, "given_up"))
                       ? " (the round was given up: nothing changed)"
                       : "");
    }
    if (status == 0 && !same) {
        status = fl_fail(&c->err, FL_R_AUDIT,
                         "round %s of %s was not made of these updates by this program",
                         c->words[1], c->words[0]);
    }
    json_decref(list);
    return status;
}
