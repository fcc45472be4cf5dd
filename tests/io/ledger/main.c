/*
 * An agent without a network and without training, for the crash tests of its ledger: intent,
 * bytes, debit, release, acknowledgement, round after round, as client/core/ledger.h orders them.
 *
 * ledger-driver act DIR ROUNDS SEED [VARIANT]   prints each promise: "intent ROUND SEED", "debit
 *                                               ROUND DIGEST" (and with it: released), "ack ROUND",
 *                                               "withdrawn N". VARIANT unsynced: a wrong program,
 *                                               which debits before the bytes are on the disk
 * ledger-driver verify DIR FACTS                exit 0 when all of it is still so, and it goes on
 *
 * Whatever an earlier life left in the ledger is released again at the start, as the agent does;
 * so it must be durable by then.
 */
#include "client/core/ledger.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void powerfail_note(const char *line) __attribute__((weak));

enum { UPDATE = 3000, ROUNDS_MAX = 4096 };
static const uint8_t owner[32] = {7}, incarnation[FL_INCARNATION_SIZE] = {0xcd};
static const struct fl_budget budget = {.unit = FL_UNIT_CLIENT, .epsilon = 1000, .delta = 1e-5};

struct site {
    struct fl_ledger *ledger;
    const char *dir;
    bool quiet, unsynced;
    uint64_t last; /* round of the newest debit */
    uint8_t acknowledged[ROUNDS_MAX], debits[ROUNDS_MAX];
    struct fl_digest update[ROUNDS_MAX];
};

static void tell(const struct site *s, const char *what, uint64_t round, const char *hex)
{
    char line[200];
    int n = snprintf(line, sizeof line, "%s %" PRIu64 "%s%s", what, round, hex ? " " : "",
                     hex ? hex : "");

    if (s->quiet) {
        return;
    }
    if (powerfail_note) {
        powerfail_note(line);
    }
    line[n] = '\n';
    if (write(STDOUT_FILENO, line, (size_t)n + 1) != n + 1) {
        _exit(3);
    }
}

/* ---- what follows from a round's number ---- */

static struct fl_key key_of(uint64_t round)
{
    struct fl_key key = {.round = round};
    memcpy(key.incarnation, incarnation, sizeof incarnation);
    return key;
}

static struct fl_intent_inputs inputs_of(uint64_t round)
{
    struct fl_intent_inputs in;

    fl_digest_of(&round, sizeof round, &in.plan);
    in.base = in.data = in.private_state = in.plan;
    return in;
}

static void update_of(const struct fl_seed *seed, uint8_t ret[UPDATE])
{
    struct fl_rng rng;

    fl_rng_init(&rng, seed, 0);
    fl_rng_bytes(&rng, ret, UPDATE);
}

static void path_of(const struct site *s, const struct fl_digest *d, char ret[512])
{
    char hex[FL_DIGEST_HEX];

    fl_digest_hex(d, hex);
    snprintf(ret, 512, "%s/outbox/%s", s->dir, hex);
}

/* ---- reading ---- */

static int on_release(void *arg, const struct fl_release *r, uint64_t wall_ms, bool acknowledged)
{
    struct site *s = arg;

    (void)wall_ms;
    if (r->key.round < ROUNDS_MAX) {
        s->debits[r->key.round]++;
        s->update[r->key.round] = r->update;
        s->acknowledged[r->key.round] = acknowledged;
        s->last = r->key.round > s->last ? r->key.round : s->last;
    }
    return 0;
}

static int open_site(struct site *s, struct fl_err *e)
{
    char path[512];
    int r;

    snprintf(path, sizeof path, "%s/outbox", s->dir);
    if ((r = fl_file_make_dirs(path, e)) != 0 || (r = fl_file_sync_dir(s->dir, e)) != 0) {
        return r;
    }
    snprintf(path, sizeof path, "%s/ledger.db", s->dir);
    r = fl_ledger_open(path, owner, &s->ledger, e);
    return r != 0 ? r : fl_ledger_each(s->ledger, on_release, s, e);
}

/* ---- acting ---- */

static int acknowledge(struct site *s, uint64_t round, struct fl_err *e)
{
    struct fl_key key = key_of(round);
    char path[512];
    int r = fl_ledger_acknowledged(s->ledger, &key, 2, e);

    if (r == 0) {
        tell(s, "ack", round, NULL);
        path_of(s, &s->update[round], path);
        r = fl_file_remove(path, e);
    }
    return r;
}

static int one_round(struct site *s, uint64_t round, struct fl_err *e)
{
    struct fl_release release = {.key = key_of(round),
                                 .job = "job",
                                 .unit = FL_UNIT_CLIENT,
                                 .event = {.q = 1, .sigma = 20, .count = 1},
                                 .size = UPDATE};
    struct fl_intent_inputs in = inputs_of(round);
    struct fl_seed seed;
    uint8_t bytes[UPDATE];
    char hex[FL_DIGEST_HEX], path[512];
    int r = fl_ledger_intent(s->ledger, &release.key, &in, 1, &seed, e);

    if (r != 0) {
        return r;
    }
    fl_digest_hex((const struct fl_digest *)(const void *)&seed, hex);
    tell(s, "intent", round, hex);
    update_of(&seed, bytes);
    fl_digest_of(bytes, sizeof bytes, &release.update);
    release.data = in.data;
    path_of(s, &release.update, path);
    if (!s->unsynced && (r = fl_file_replace(path, bytes, sizeof bytes, 0600, e)) != 0) {
        return r;
    }
    if ((r = fl_ledger_debit(s->ledger, &budget, &release, 1, e)) != 0) {
        return r;
    }
    fl_digest_hex(&release.update, hex);
    tell(s, "debit", round, hex);
    if (s->unsynced && (r = fl_file_replace(path, bytes, sizeof bytes, 0600, e)) != 0) {
        return r;
    }
    s->update[round] = release.update;
    s->last = round;
    if (round % 4 == 0) {
        if ((r = fl_ledger_withdraw(s->ledger, "other", round % 8 == 0, 3, e)) != 0) {
            return r;
        }
        tell(s, "withdrawn", round, NULL);
    }
    return acknowledge(s, round, e);
}

static int act(struct site *s, uint64_t more, struct fl_err *e)
{
    char hex[FL_DIGEST_HEX];
    int r = open_site(s, e);

    for (uint64_t round = 1; r == 0 && round <= s->last; round++) {
        if (s->debits[round]) {
            fl_digest_hex(&s->update[round], hex);
            tell(s, "debit", round, hex); /* offered again */
            r = s->acknowledged[round] ? 0 : acknowledge(s, round, e);
        }
    }
    for (uint64_t until = s->last + more; r == 0 && s->last < until && s->last + 1 < ROUNDS_MAX;) {
        r = one_round(s, s->last + 1, e);
    }
    fl_ledger_close(s->ledger);
    return r;
}

/* ---- verifying ---- */

#define BROKEN(...) fl_fail(e, FL_R_STORE_MISMATCH, __VA_ARGS__)

static int verify_debit(struct site *s, uint64_t round, const char *hex, struct fl_err *e)
{
    struct fl_digest promised, got;
    uint8_t *bytes;
    size_t size;
    char path[512];

    if (!s->debits[round] || !fl_digest_from_hex(hex, &promised) ||
        !fl_digest_equal(&promised, &s->update[round])) {
        return BROKEN("released, but not in the ledger");
    }
    if (s->acknowledged[round]) {
        return 0;
    }
    path_of(s, &promised, path);
    if (fl_file_read(path, UPDATE, &bytes, &size, e) != 0) {
        return BROKEN("the bytes to offer again are gone");
    }
    fl_digest_of(bytes, size, &got);
    fl_free(bytes);
    return fl_digest_equal(&got, &promised) ? 0 : BROKEN("other bytes would be offered");
}

static int verify_fact(struct site *s, const char *line, struct fl_err *e)
{
    char hex[FL_DIGEST_HEX] = "", now[FL_DIGEST_HEX];
    uint64_t round;
    bool withdrawn;
    int r;

    if (sscanf(line, "intent %" SCNu64 " %64s", &round, hex) == 2 && round < ROUNDS_MAX) {
        struct fl_intent_inputs in = inputs_of(round);
        struct fl_key key = key_of(round);
        struct fl_seed seed;
        if (s->debits[round]) {
            return 0; /* it was used; verify_debit looks at the result */
        }
        if ((r = fl_ledger_intent(s->ledger, &key, &in, 1, &seed, e)) != 0) {
            return r;
        }
        fl_digest_hex((const struct fl_digest *)(const void *)&seed, now);
        return strcmp(hex, now) == 0 ? 0 : BROKEN("another seed");
    }
    if (sscanf(line, "debit %" SCNu64 " %64s", &round, hex) == 2 && round < ROUNDS_MAX) {
        return verify_debit(s, round, hex, e);
    }
    if (sscanf(line, "ack %" SCNu64, &round) == 1 && round < ROUNDS_MAX) {
        return s->acknowledged[round] ? 0 : BROKEN("not acknowledged");
    }
    if (sscanf(line, "withdrawn %" SCNu64, &round) == 1) {
        /* A later word may be there too. */
        if ((r = fl_ledger_withdrawn(s->ledger, "other", &withdrawn, e)) != 0) {
            return r;
        }
        return withdrawn == (round % 8 == 0) || s->last > round + 3 ? 0 : BROKEN("forgotten");
    }
    return BROKEN("not understood");
}

static int verify(struct site *s, const char *facts, struct fl_err *e)
{
    int r = open_site(s, e);

    for (uint64_t round = 1; r == 0 && round <= s->last; round++) {
        if (s->debits[round] > 1) {
            r = BROKEN("round %" PRIu64 " was paid for twice", round);
        }
    }
    for (const char *at = facts; r == 0 && *at;) {
        char line[200];
        size_t n = strcspn(at, "\n");
        snprintf(line, sizeof line, "%.*s", (int)n, at);
        if ((r = verify_fact(s, line, e)) != 0) {
            r = fl_wrap(e, r, "promised \"%s\"", line);
        }
        at += at[n] ? n + 1 : n;
    }
    fl_ledger_close(s->ledger);
    return r;
}

int main(int argc, char **argv)
{
    static struct site site, again;
    struct fl_err e = {0};
    uint8_t *facts;
    size_t size;
    int r;

    fl_log_setup("ledger-driver", FL_LOG_WARN, FL_LOG_TEXT);
    if (argc >= 5 && strcmp(argv[1], "act") == 0) {
        site.dir = argv[2];
        site.unsynced = argc > 5 && strcmp(argv[5], "unsynced") == 0;
        r = act(&site, strtoull(argv[3], NULL, 10), &e);
    } else if (argc == 4 && strcmp(argv[1], "verify") == 0) {
        site.dir = again.dir = argv[2];
        again.quiet = true;
        r = fl_file_read(argv[3], 1 << 26, &facts, &size, &e);
        if (r == 0) {
            r = verify(&site, (const char *)facts, &e);
            r = r == 0 ? act(&again, 1, &e) : r;
            fl_free(facts);
        }
    } else {
        fprintf(stderr, "usage: ledger-driver act DIR ROUNDS SEED [unsynced] | verify DIR FACTS\n");
        return 64;
    }
    if (r != 0) {
        fprintf(stderr, "%s: %s [%d]\n", argv[1], e.msg, -r);
    }
    return r != 0;
}
