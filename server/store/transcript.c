/*
 * What each published round was made of, for whoever asks later.
 *
 * The record of a round is a text. Its digest (BLAKE2b-256 of exactly these bytes) stands in the
 * next record as `previous`, so one digest vouches for everything before it: who wants to be sure
 * that history is not rewritten keeps a digest, and checks later that it still stands in the chain.
 *
 *     cohort-transcript 1
 *     job demo
 *     incarnation 00112233445566778899aabbccddeeff
 *     round 7
 *     published 2026-01-02T03:04:05.678Z
 *     plan <digest>                                   of the job's text as this round ran it
 *     base <digest>                                   of the model it started from
 *     member 0 <key> <digest> 1 231650                exchange, agent's key, update, weight, bytes;
 *     ...                                             in the order of exchanges and enrolment
 *     checkpoint <digest>                             model, optimizer and strategy state
 *     model <digest>
 *     previous <digest>                               of the record before; zeros in round 1
 *
 * An export is the records in their order, each followed by `digest <digest>` and an empty line.
 * The record is made in the transaction that publishes: a round is published with its record or not
 * at all. Members are rows, copied inside SQLite, so that memory does not grow with their number;
 * the digest is computed by walking over them once.
 */
#include "common/io/file.h"
#include "server/store/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 256, BLOCK = 64 * 1024 };

struct record {
    char job[64];
    uint8_t incarnation[FL_INCARNATION_SIZE];
    uint64_t round, published_ms;
    struct fl_digest plan, base, checkpoint, model, previous;
};

/* Where a record's text goes: into a hash, and into a file if there is one. */
struct sink {
    struct fl_hash hash;
    int fd; /* -1 = none */
    uint64_t size;
    size_t used;
    char block[BLOCK];
};

static int flush(struct sink *to, struct fl_err *e)
{
    for (size_t at = 0; to->fd >= 0 && at < to->used;) {
        ssize_t n = write(to->fd, to->block + at, to->used - at);
        if (n < 0 && errno != EINTR) {
            return fl_fail_sys(e, fl_file_reason(errno), errno, "write a transcript");
        }
        at += n > 0 ? (size_t)n : 0;
    }
    to->size += to->used;
    to->used = 0;
    return 0;
}

static int put(struct sink *to, struct fl_err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int put(struct sink *to, struct fl_err *e, const char *fmt, ...)
{
    va_list ap;
    int r = to->used > BLOCK - LINE ? flush(to, e) : 0;

    if (r != 0) {
        return r;
    }
    va_start(ap, fmt);
    int n = vsnprintf(to->block + to->used, LINE, fmt, ap);
    va_end(ap);
    if (n < 0 || n >= LINE) {
        return fl_fail(e, FL_R_INTERNAL, "a line of a transcript is too long");
    }
    fl_hash_add(&to->hash, to->block + to->used, (size_t)n);
    to->used += (size_t)n;
    return 0;
}

static int put_digest(struct sink *to, const char *name, const struct fl_digest *d,
                      struct fl_err *e)
{
    char hex[FL_DIGEST_HEX];

    fl_digest_hex(d, hex);
    return put(to, e, "%s %s\n", name, hex);
}

static int put_members(struct fl_store *s, struct sink *to, uint64_t job, uint64_t round,
                       struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_TRANSCRIPT_MEMBERS);
    struct fl_digest key, update;
    char key_hex[FL_DIGEST_HEX], update_hex[FL_DIGEST_HEX];
    int r;

    fl_query_u64(&q, job);
    fl_query_u64(&q, round);
    while ((r = fl_query_step(&q, e)) == 1) {
        if (!fl_column_blob(&q, 1, key.bytes, sizeof key.bytes) ||
            !fl_column_blob(&q, 2, update.bytes, sizeof update.bytes)) {
            r = fl_fail(e, FL_R_STORE_CORRUPT, "a member's row is damaged");
            break;
        }
        fl_digest_hex(&key, key_hex);
        fl_digest_hex(&update, update_hex);
        r = put(to, e, "member %llu %s %s %llu %llu\n", (unsigned long long)fl_column_u64(&q, 0),
                key_hex, update_hex, (unsigned long long)fl_column_u64(&q, 3),
                (unsigned long long)fl_column_u64(&q, 4));
        if (r != 0) {
            break;
        }
    }
    fl_query_end(&q);
    return r;
}

/* The record's text; *ret_digest of it. */
static int put_record(struct fl_store *s, struct sink *to, uint64_t job, const struct record *x,
                      struct fl_digest *ret_digest, struct fl_err *e)
{
    char incarnation[2 * FL_INCARNATION_SIZE + 1], stamp[32];
    time_t seconds = (time_t)(x->published_ms / 1000);
    struct tm utc;
    int r;

    for (size_t i = 0; i < FL_INCARNATION_SIZE; i++) {
        snprintf(incarnation + 2 * i, 3, "%02x", x->incarnation[i]);
    }
    if (!gmtime_r(&seconds, &utc) ||
        strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc) == 0) {
        return fl_fail(e, FL_R_STORE_CORRUPT, "a time that is none");
    }
    fl_hash_init(&to->hash);
    if ((r = put(to, e, "cohort-transcript 1\njob %s\nincarnation %s\n", x->job, incarnation)) ||
        (r = put(to, e, "round %llu\npublished %s.%03uZ\n", (unsigned long long)x->round, stamp,
                 (unsigned)(x->published_ms % 1000))) ||
        (r = put_digest(to, "plan", &x->plan, e)) || (r = put_digest(to, "base", &x->base, e)) ||
        (r = put_members(s, to, job, x->round, e)) ||
        (r = put_digest(to, "checkpoint", &x->checkpoint, e)) ||
        (r = put_digest(to, "model", &x->model, e)) ||
        (r = put_digest(to, "previous", &x->previous, e))) {
        return r;
    }
    fl_hash_end(&to->hash, ret_digest);
    return 0;
}

static int name_job(struct fl_store *s, uint64_t job, struct record *x, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_TRANSCRIPT_JOB);

    fl_query_u64(&q, job);
    int r = fl_query_step(&q, e);
    if (r == 1) {
        fl_column_text(&q, 0, x->job, sizeof x->job);
        r = fl_column_blob(&q, 1, x->incarnation, sizeof x->incarnation)
                ? 0
                : fl_fail(e, FL_R_STORE_CORRUPT, "a job's row is damaged");
    } else if (r == 0) {
        r = fl_fail(e, FL_R_NO_JOB, "%s", fl_reason_text(FL_R_NO_JOB));
    }
    fl_query_end(&q);
    return r;
}

/* *ret_round is 0 and the digest zero when there is no record. */
static int find_head(struct fl_store *s, uint64_t job, uint64_t *ret_round, struct fl_digest *ret,
                     struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_TRANSCRIPT_HEAD);

    fl_query_u64(&q, job);
    int r = fl_query_step(&q, e);
    *ret_round = 0;
    memset(ret, 0, sizeof *ret);
    if (r == 1) {
        *ret_round = fl_column_u64(&q, 0);
        r = fl_column_blob(&q, 1, ret->bytes, sizeof ret->bytes)
                ? 0
                : fl_fail(e, FL_R_STORE_CORRUPT, "a transcript's row is damaged");
    }
    fl_query_end(&q);
    return r;
}

/* ---- adding ---- */

static int trim(struct fl_store *s, uint64_t job, struct fl_err *e)
{
    static const enum fl_sql tables[] = {FL_SQL_TRANSCRIPT_MEMBER_TRIM, FL_SQL_TRANSCRIPT_TRIM};
    struct fl_query q = fl_query(&s->db, FL_SQL_TRANSCRIPT_OLD);

    fl_query_u64(&q, job);
    fl_query_u64(&q, s->quota.transcript_rows ? s->quota.transcript_rows
                                              : (uint64_t)FL_STORE_TRANSCRIPT_ROWS);
    int r = fl_query_step(&q, e);
    uint64_t old = r == 1 ? fl_column_u64(&q, 0) : 0;
    fl_query_end(&q);
    r = r == 1 ? 0 : r;
    for (size_t i = 0; i < sizeof tables / sizeof tables[0] && r == 0 && old > 0; i++) {
        q = fl_query(&s->db, tables[i]);
        fl_query_u64(&q, job);
        fl_query_u64(&q, old);
        r = fl_query_run(&q, FL_R_INTERNAL, e);
    }
    return r;
}

int fl_transcript_add(struct fl_store *s, uint64_t job, uint64_t round,
                      const struct fl_digest *checkpoint, const struct fl_digest *model,
                      uint64_t published_ms, struct fl_err *e)
{
    struct record x = {
        .round = round, .published_ms = published_ms, .checkpoint = *checkpoint, .model = *model};
    struct sink to = {.fd = -1};
    struct fl_round_facts facts;
    struct fl_digest digest;
    uint64_t last;
    int r = fl_round_facts(s, job, round, &facts, e);

    if (r <= 0) {
        return r < 0 ? r : fl_fail(e, FL_R_NO_ROUND, "%s", fl_reason_text(FL_R_NO_ROUND));
    }
    x.plan = facts.plan;
    x.base = facts.base;
    struct fl_query q = fl_query(&s->db, FL_SQL_TRANSCRIPT_MEMBERS_ADD);
    fl_query_u64(&q, job);
    fl_query_u64(&q, round);
    if ((r = fl_query_run(&q, FL_R_INTERNAL, e)) != 0 || (r = name_job(s, job, &x, e)) != 0 ||
        (r = find_head(s, job, &last, &x.previous, e)) != 0 ||
        (r = put_record(s, &to, job, &x, &digest, e)) != 0) {
        return r;
    }
    q = fl_query(&s->db, FL_SQL_TRANSCRIPT_ADD);
    fl_query_u64(&q, job);
    fl_query_u64(&q, round);
    fl_query_digest(&q, &x.plan);
    fl_query_digest(&q, &x.base);
    fl_query_digest(&q, &x.checkpoint);
    fl_query_digest(&q, &x.model);
    fl_query_u64(&q, published_ms);
    fl_query_digest(&q, &x.previous);
    fl_query_digest(&q, &digest);
    r = fl_query_run(&q, FL_R_INTERNAL, e);
    return r == 0 ? trim(s, job, e) : r;
}

/* ---- exporting ---- */

/* The first record behind round `after`: 1 found, 0 none. */
static int next_record(struct fl_store *s, uint64_t job, uint64_t after, struct record *x,
                       struct fl_digest *ret_digest, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_TRANSCRIPTS);
    struct fl_digest *const at[] = {&x->plan, &x->base, &x->checkpoint, &x->model};

    fl_query_u64(&q, job);
    fl_query_u64(&q, after);
    int r = fl_query_step(&q, e);
    if (r == 1) {
        bool good = fl_column_blob(&q, 6, x->previous.bytes, sizeof x->previous.bytes) &&
                    fl_column_blob(&q, 7, ret_digest->bytes, sizeof ret_digest->bytes);
        for (int i = 0; i < 4; i++) {
            good = good && fl_column_blob(&q, 1 + i, at[i]->bytes, sizeof at[i]->bytes);
        }
        x->round = fl_column_u64(&q, 0);
        x->published_ms = fl_column_u64(&q, 5);
        r = good ? 1 : fl_fail(e, FL_R_STORE_CORRUPT, "a transcript's row is damaged");
    }
    fl_query_end(&q);
    return r;
}

int fl_store_transcript(struct fl_store *s, uint64_t job, int fd, uint64_t *ret_size,
                        uint64_t *ret_round, struct fl_digest *ret_head, struct fl_err *e)
{
    struct record x = {0};
    struct sink to = {.fd = fd};
    struct fl_digest recorded, digest = {0};
    char hex[FL_DIGEST_HEX];
    int r = name_job(s, job, &x, e);

    while (r == 0 && (r = next_record(s, job, x.round, &x, &recorded, e)) == 1) {
        r = put_record(s, &to, job, &x, &digest, e);
        if (r == 0 && !fl_digest_equal(&digest, &recorded)) {
            r = fl_fail(e, FL_R_STORE_CORRUPT, "the record of round %llu was changed",
                        (unsigned long long)x.round);
        }
        if (r == 0) {
            fl_digest_hex(&digest, hex);
            r = put(&to, e, "digest %s\n\n", hex);
        }
    }
    if (r == 0) {
        r = flush(&to, e);
    }
    if (r != 0) {
        return fl_wrap(e, r, "transcript of %s", x.job);
    }
    *ret_size = to.size;
    *ret_round = x.round;
    *ret_head = digest;
    return 0;
}

int fl_store_inclusion(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                       uint64_t agent, struct fl_store_inclusion *ret, bool *ret_recorded,
                       struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_INCLUSION);

    fl_query_u64(&q, job);
    fl_query_u64(&q, round);
    fl_query_u64(&q, exchange);
    fl_query_u64(&q, agent);
    int r = fl_query_step(&q, e);
    *ret_recorded = r == 1;
    if (r == 1 && fl_column_blob(&q, 2, ret->update.bytes, sizeof ret->update.bytes)) {
        ret->weight = (uint32_t)fl_column_u64(&q, 3);
        ret->size = fl_column_u64(&q, 4);
        if (!fl_column_blob(&q, 0, ret->record.bytes, sizeof ret->record.bytes) ||
            !fl_column_blob(&q, 1, ret->model.bytes, sizeof ret->model.bytes)) {
            r = fl_fail(e, FL_R_STORE_CORRUPT, "a transcript's row is damaged");
        }
    } else if (r == 1) {
        r = 0; /* no member of this name */
    }
    fl_query_end(&q);
    return r;
}
