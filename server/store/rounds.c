/*
 * Rounds: frozen plan, members, accepted uploads, closed exchanges, published checkpoints.
 *
 *     open -> members_add -> (place -> [spool] -> commit)* -> close_exchange -> ... -> publish
 *
 * What is asked for twice is answered from the record; what contradicts the record is refused. So a
 * shell that was killed between any two calls may simply go on where its records say it is.
 */
#include "common/base/crashpoint.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "server/store/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- facts ---- */

int fl_round_facts(struct fl_store *s, uint64_t job, uint64_t round, struct fl_round_facts *ret,
                   struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_ROUND);

    fl_query_u64(&q, job);
    fl_query_u64(&q, round);
    int r = fl_query_step(&q, e);
    if (r == 1) {
        fl_column_blob(&q, 0, ret->plan.bytes, sizeof ret->plan.bytes);
        fl_column_blob(&q, 1, ret->base.bytes, sizeof ret->base.bytes);
        ret->closed = (uint32_t)fl_column_u64(&q, 2);
        ret->published = fl_column_u64(&q, 3) != 0;
        fl_column_blob(&q, 4, ret->checkpoint.bytes, sizeof ret->checkpoint.bytes);
    }
    fl_query_end(&q);
    return r;
}

/* The round must be there. */
static int need_round(struct fl_store *s, uint64_t job, uint64_t round, struct fl_round_facts *ret,
                      struct fl_err *e)
{
    int r = fl_round_facts(s, job, round, ret, e);

    if (r == 0) {
        return fl_fail(e, FL_R_NO_ROUND, "job %llu has no round %llu", (unsigned long long)job,
                       (unsigned long long)round);
    }
    return r < 0 ? r : 0;
}

/* What an offer or record for this exchange is answered. */
static int takes_uploads(const struct fl_round_facts *f, uint32_t exchange, struct fl_err *e)
{
    if (f->published || exchange < f->closed) {
        return fl_fail(e, FL_R_ROUND_OVER, "%s", fl_reason_text(FL_R_ROUND_OVER));
    }
    return 0;
}

static int find_digest(struct fl_store *s, enum fl_sql sql, uint64_t job, uint64_t round,
                       uint32_t exchange, uint64_t agent, struct fl_digest *ret, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, sql);

    fl_query_u64(&q, job);
    fl_query_u64(&q, round);
    fl_query_u64(&q, exchange);
    fl_query_u64(&q, agent);
    int r = fl_query_step(&q, e);
    if (r == 1 && !fl_column_blob(&q, 0, ret->bytes, sizeof ret->bytes)) {
        r = fl_fail(e, FL_R_STORE_CORRUPT, "a digest of %d bytes", FL_DIGEST_SIZE);
    }
    fl_query_end(&q);
    return r;
}

int fl_store_update_find(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                         uint64_t agent, struct fl_digest *ret, struct fl_err *e)
{
    return find_digest(s, FL_SQL_UPLOAD, job, round, exchange, agent, ret, e);
}

int fl_store_update_made(struct fl_store *s, uint64_t job, uint64_t base, uint32_t exchange,
                         uint64_t agent, struct fl_digest *ret, struct fl_err *e)
{
    return find_digest(s, FL_SQL_UPLOAD_MADE, job, base, exchange, agent, ret, e);
}

static int upload_key(struct fl_store *s, const struct fl_store_update *u, struct fl_file_key *ret,
                      struct fl_err *e)
{
    struct fl_job_facts job;
    int r = fl_job_facts(s, u->job, &job, e);

    if (r == 0) {
        *ret = fl_file_key(job.incarnation, u->round, u->exchange, u->agent);
    }
    return r;
}

/* ---- opening ---- */

static int same_round(struct fl_store *s, const struct fl_round_facts *facts, const char *text,
                      size_t size, const struct fl_digest *plan, const struct fl_digest *base,
                      struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_PLAN);

    fl_query_digest(&q, plan);
    int r = fl_query_step(&q, e);
    if (r == 1) {
        bool same = fl_digest_equal(&facts->plan, plan) && fl_digest_equal(&facts->base, base) &&
                    (size_t)sqlite3_column_bytes(q.stmt, 0) == size &&
                    memcmp(sqlite3_column_blob(q.stmt, 0), text, size) == 0;
        r = same ? 0 : 1;
    } else if (r == 0) {
        r = 1;
    }
    fl_query_end(&q);
    if (r == 1) {
        r = fl_fail(e, FL_R_STORE_MISMATCH, "the round is open with another plan or base");
    }
    return r;
}

static int open_rows(struct fl_store *s, uint64_t job, uint64_t round, const char *text,
                     size_t size, const struct fl_digest *plan, const struct fl_digest *base,
                     struct fl_err *e)
{
    struct fl_round_facts facts;
    struct fl_job_facts of;
    int r = fl_job_facts(s, job, &of, e);

    if (r != 0 || (r = fl_round_facts(s, job, round, &facts, e)) < 0) {
        return r;
    }
    if (r == 1) {
        return same_round(s, &facts, text, size, plan, base, e);
    }
    if (round != of.round + 1) {
        return fl_fail(e, FL_R_JOB_STATE, "round %llu cannot open: round %llu is published",
                       (unsigned long long)round, (unsigned long long)of.round);
    }
    struct fl_query q = fl_query(&s->db, FL_SQL_PLAN_ADD);
    fl_query_digest(&q, plan);
    fl_query_blob(&q, text, size);
    if ((r = fl_query_run(&q, FL_R_INTERNAL, e)) != 0) {
        return r;
    }
    q = fl_query(&s->db, FL_SQL_ROUND_ADD);
    fl_query_u64(&q, job);
    fl_query_u64(&q, round);
    fl_query_digest(&q, plan);
    fl_query_digest(&q, base);
    fl_query_u64(&q, fl_store_wall_ms());
    return fl_query_run(&q, FL_R_JOB_STATE, e);
}

int fl_store_round_open(struct fl_store *s, uint64_t job, uint64_t round, const char *text,
                        size_t size, const struct fl_digest *plan, const struct fl_digest *base,
                        struct fl_err *e)
{
    if (size == 0 || size > FL_STORE_TEXT_MAX) {
        return fl_fail(e, FL_R_LIMIT, "a plan must have 1 to %d bytes", FL_STORE_TEXT_MAX);
    }
    int r = fl_db_begin(&s->db, e);
    if (r != 0) {
        return r;
    }
    r = open_rows(s, job, round, text, size, plan, base, e);
    FL_CRASH_POINT("store-round-open-before");
    r = fl_db_finish(&s->db, r, e);
    FL_CRASH_POINT("store-round-open-after");
    return r;
}

int fl_store_round_load(struct fl_store *s, uint64_t job, struct fl_store_round *ret,
                        struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_ROUND_OPEN);

    fl_query_u64(&q, job);
    int r = fl_query_step(&q, e);
    if (r == 1) {
        size_t size = (size_t)sqlite3_column_bytes(q.stmt, 1);
        const void *text = sqlite3_column_blob(q.stmt, 1);
        char *copy = fl_try(size + 1, 1);
        if (!copy) {
            r = fl_fail(e, FL_R_NOMEM, "no memory for a plan of %zu bytes", size);
        } else {
            memcpy(copy, text ? text : "", size);
            *ret = (struct fl_store_round){
                .job = job,
                .round = fl_column_u64(&q, 0),
                .text = copy,
                .text_size = size,
                .closed = (uint32_t)fl_column_u64(&q, 4),
                .opened_ms = fl_column_u64(&q, 5),
            };
            fl_column_blob(&q, 2, ret->plan.bytes, sizeof ret->plan.bytes);
            fl_column_blob(&q, 3, ret->base.bytes, sizeof ret->base.bytes);
        }
    }
    fl_query_end(&q);
    return r;
}

int fl_store_rounds(struct fl_store *s, uint64_t job, uint32_t limit,
                    int (*each)(void *arg, const struct fl_store_round_row *r), void *arg,
                    struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_ROUNDS);
    int r;

    fl_query_u64(&q, job);
    fl_query_u64(&q, limit);
    while ((r = fl_query_step(&q, e)) == 1) {
        struct fl_store_round_row row = {
            .round = fl_column_u64(&q, 0),
            .opened_ms = fl_column_u64(&q, 1),
            .closed_ms = fl_column_u64(&q, 2),
            .published_ms = fl_column_u64(&q, 3),
            .invited = (uint32_t)fl_column_u64(&q, 4),
            .committed = (uint32_t)fl_column_u64(&q, 5),
        };
        fl_column_blob(&q, 6, row.plan.bytes, sizeof row.plan.bytes);
        fl_column_blob(&q, 7, row.checkpoint.bytes, sizeof row.checkpoint.bytes);
        if ((r = each(arg, &row)) != 0) {
            break;
        }
    }
    fl_query_end(&q);
    return r;
}

/* ---- members ---- */

int fl_store_members_add(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                         uint64_t base, const uint64_t *agents, uint32_t count, struct fl_err *e)
{
    struct fl_round_facts facts;
    int r = fl_db_begin(&s->db, e);

    if (r != 0) {
        return r;
    }
    r = need_round(s, job, round, &facts, e);
    for (uint32_t i = 0; i < count && r == 0; i++) {
        struct fl_query q = fl_query(&s->db, FL_SQL_MEMBER_ADD);
        fl_query_u64(&q, job);
        fl_query_u64(&q, round);
        fl_query_u64(&q, exchange);
        fl_query_u64(&q, agents[i]);
        fl_query_u64(&q, base == round ? 0 : base);
        r = fl_query_run(&q, FL_R_NOT_ENROLLED, e);
    }
    FL_CRASH_POINT("store-members-before");
    r = fl_db_finish(&s->db, r, e);
    FL_CRASH_POINT("store-members-after");
    return r;
}

int fl_store_members(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                     int (*each)(void *arg, uint64_t agent, uint64_t base, bool closed_in),
                     void *arg, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_MEMBERS);
    int r;

    fl_query_u64(&q, job);
    fl_query_u64(&q, round);
    fl_query_u64(&q, exchange);
    while ((r = fl_query_step(&q, e)) == 1) {
        uint64_t base = fl_column_u64(&q, 2);
        if ((r = each(arg, fl_column_u64(&q, 0), base ? base : round, fl_column_u64(&q, 1) != 0)) !=
            0) {
            break;
        }
    }
    fl_query_end(&q);
    return r;
}

/* ---- uploads ---- */

int fl_store_room(struct fl_store *s, uint64_t more, struct fl_err *e)
{
    return fl_files_room(&s->files, more, e);
}

int fl_store_upload_place(struct fl_store *s, const struct fl_store_update *u,
                          char ret_dir[FL_STORE_PATH_MAX], char ret_name[FL_STORE_NAME_MAX],
                          struct fl_err *e)
{
    struct fl_round_facts facts;
    struct fl_file_key key;
    struct fl_digest there;
    int r;

    if ((r = fl_db_usable(&s->db, e)) != 0 || (r = upload_key(s, u, &key, e)) != 0 ||
        (r = need_round(s, u->job, u->round, &facts, e)) != 0) {
        return r;
    }
    r = fl_store_update_find(s, u->job, u->round, u->exchange, u->agent, &there, e);
    if (r < 0) {
        return r;
    }
    if (r == 1 && !fl_digest_equal(&there, &u->digest)) {
        return fl_fail(e, FL_R_UPDATE_CONFLICT, "%s", fl_reason_text(FL_R_UPDATE_CONFLICT));
    }
    if ((r = takes_uploads(&facts, u->exchange, e)) != 0 ||
        (r = fl_files_take(&s->files, &key, &u->digest, u->size, false, e)) != 0) {
        return r;
    }
    if ((r = fl_files_ensure(&s->files, &key, e)) != 0) {
        fl_files_drop(&s->files, &key, &u->digest);
        return r == -FL_R_STORE_IO ? fl_db_break(&s->db, e) : r;
    }
    FL_CRASH_POINT("store-place-after");
    fl_files_folder(&s->files, &key, ret_dir);
    fl_files_name(&key, &u->digest, ret_name);
    return 0;
}

int fl_store_upload_drop(struct fl_store *s, const struct fl_store_update *u, struct fl_err *e)
{
    struct fl_file_key key;
    int r = upload_key(s, u, &key, e);

    if (r == 0) {
        fl_files_drop(&s->files, &key, &u->digest);
    }
    return r;
}

void fl_store_upload_path(const struct fl_store *s, const uint8_t incarnation[FL_INCARNATION_SIZE],
                          const struct fl_store_update *u, char ret_path[FL_STORE_PATH_MAX])
{
    struct fl_file_key key = fl_file_key(incarnation, u->round, u->exchange, u->agent);

    fl_files_path(&s->files, &key, &u->digest, ret_path);
}

/* One update of a group: its answer in *ret_status; an error return ends the group. */
static int commit_one(struct fl_store *s, const struct fl_store_update *u, int *ret_status,
                      struct fl_err *e)
{
    struct fl_round_facts facts;
    struct fl_file_key key;
    struct fl_digest there;
    char path[FL_STORE_PATH_MAX];
    int r = fl_round_facts(s, u->job, u->round, &facts, e);

    if (r < 0) {
        return r;
    }
    if (r == 0) {
        *ret_status = -FL_R_NO_ROUND;
        return 0;
    }
    r = fl_store_update_find(s, u->job, u->round, u->exchange, u->agent, &there, e);
    if (r != 0) {
        *ret_status = r == 1 && fl_digest_equal(&there, &u->digest) ? 0 : -FL_R_UPDATE_CONFLICT;
        return r < 0 ? r : 0;
    }
    if (takes_uploads(&facts, u->exchange, NULL) != 0) {
        *ret_status = -FL_R_ROUND_OVER;
        return 0;
    }
    struct fl_query known = fl_query(&s->db, FL_SQL_AGENT_HAS);
    fl_query_u64(&known, u->agent);
    r = fl_query_step(&known, e);
    fl_query_end(&known);
    if (r != 1) {
        *ret_status = -FL_R_NOT_ENROLLED;
        return r;
    }
    if ((r = upload_key(s, u, &key, e)) != 0) {
        return r;
    }
    fl_files_path(&s->files, &key, &u->digest, path);
    if (fl_files_has_size(path, u->size, NULL) != 0) {
        *ret_status = -FL_R_STORE_MISMATCH;
        return 0;
    }
    /* The bytes are there: they count, whoever placed them. */
    if ((r = fl_files_take(&s->files, &key, &u->digest, u->size, true, e)) != 0) {
        return r;
    }
    struct fl_query q = fl_query(&s->db, FL_SQL_UPLOAD_ADD);
    fl_query_u64(&q, u->job);
    fl_query_u64(&q, u->round);
    fl_query_u64(&q, u->exchange);
    fl_query_u64(&q, u->agent);
    fl_query_u64(&q, u->weight);
    fl_query_u64(&q, u->size);
    fl_query_digest(&q, &u->digest);
    *ret_status = 0;
    if ((r = fl_query_run(&q, FL_R_INTERNAL, e)) != 0 || u->releases == 0) {
        return r;
    }
    q = fl_query(&s->db, FL_SQL_MARK);
    fl_query_u64(&q, u->agent);
    fl_query_u64(&q, u->releases);
    fl_query_digest(&q, &u->head);
    return fl_query_run(&q, FL_R_INTERNAL, e);
}

int fl_store_commit(struct fl_store *s, const struct fl_store_update *updates, uint32_t count,
                    int *ret_status, struct fl_err *e)
{
    struct fl_file_key key;
    int r = fl_db_begin(&s->db, e);

    if (r != 0) {
        return r;
    }
    for (uint32_t i = 0; i < count && r == 0; i++) {
        r = commit_one(s, &updates[i], &ret_status[i], e);
    }
    FL_CRASH_POINT("store-commit-before");
    r = fl_db_finish(&s->db, r, e);
    FL_CRASH_POINT("store-commit-after");
    if (r != 0) {
        return fl_wrap(e, r, "commit %u updates", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (ret_status[i] == 0 && upload_key(s, &updates[i], &key, NULL) == 0) {
            fl_files_committed(&s->files, &key);
        }
    }
    return 0;
}

int fl_store_updates(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                     int (*each)(void *arg, const struct fl_store_update *u), void *arg,
                     struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_UPLOADS);
    int r;

    fl_query_u64(&q, job);
    fl_query_u64(&q, round);
    fl_query_u64(&q, exchange);
    while ((r = fl_query_step(&q, e)) == 1) {
        struct fl_store_update u = {
            .job = job,
            .round = round,
            .exchange = exchange,
            .agent = fl_column_u64(&q, 0),
            .weight = (uint32_t)fl_column_u64(&q, 1),
            .size = fl_column_u64(&q, 2),
        };
        fl_column_blob(&q, 3, u.digest.bytes, sizeof u.digest.bytes);
        if ((r = each(arg, &u)) != 0) {
            break;
        }
    }
    fl_query_end(&q);
    return r;
}
