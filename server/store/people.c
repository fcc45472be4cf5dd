/* What people decide: who is enrolled, which jobs there are, and the audit of it. */
#include "common/base/crashpoint.h"
#include "server/store/internal.h"

#include <stdio.h>
#include <string.h>

/* One statement of a transaction with a single number as its answer. */
static int number(struct fl_store *s, enum fl_sql sql, uint64_t *ret, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, sql);
    int r = fl_query_step(&q, e);

    *ret = r == 1 ? fl_column_u64(&q, 0) : 0;
    fl_query_end(&q);
    return r < 0 ? r : 0;
}

/* Names go to logs, certificates and file listings of people. */
static int check_name(const char *what, const char *text, size_t max, bool empty, struct fl_err *e)
{
    size_t n = strlen(text);

    if (n >= max || (n == 0 && !empty)) {
        return fl_fail(e, FL_R_LIMIT, "%s must have %d to %zu bytes", what, empty ? 0 : 1, max - 1);
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
            return fl_fail(e, FL_R_ARG, "%s has a control character", what);
        }
    }
    return 0;
}

/* ---- enrolment ---- */

int fl_store_agent_add(struct fl_store *s, const uint8_t key[32], const char *name,
                       const char *serial, uint64_t *ret_id, struct fl_err *e)
{
    uint64_t count, id = 0;
    int r;

    if ((r = check_name("an agent's name", name, 64, false, e)) != 0 ||
        (r = check_name("a serial number", serial, 64, true, e)) != 0 ||
        (r = fl_db_begin(&s->db, e)) != 0) {
        return r;
    }
    r = number(s, FL_SQL_AGENT_COUNT, &count, e);
    if (r == 0 && count >= FL_STORE_AGENTS_MAX) {
        r = fl_fail(e, FL_R_LIMIT, "%d agents are enrolled", FL_STORE_AGENTS_MAX);
    }
    if (r == 0) {
        struct fl_query q = fl_query(&s->db, FL_SQL_AGENT_ADD);
        fl_query_blob(&q, key, 32);
        fl_query_text(&q, name);
        fl_query_text(&q, serial);
        r = fl_query_run(&q, FL_R_CTL_EXISTS, e);
        if (r == -FL_R_CTL_EXISTS) {
            fl_fail(e, FL_R_CTL_EXISTS, "an agent of this name or key is enrolled already");
        }
        id = (uint64_t)sqlite3_last_insert_rowid(s->db.handle);
    }
    if ((r = fl_db_finish(&s->db, r, e)) == 0) {
        *ret_id = id;
    }
    return r == 0 ? 0 : fl_wrap(e, r, "enrol %s", name);
}

int fl_store_agent_revoke(struct fl_store *s, const char *name, struct fl_err *e)
{
    int r = fl_db_begin(&s->db, e);

    if (r != 0) {
        return r;
    }
    struct fl_query q = fl_query(&s->db, FL_SQL_AGENT_REVOKE);
    fl_query_text(&q, name);
    r = fl_query_run(&q, FL_R_INTERNAL, e);
    if (r == 0 && sqlite3_changes(s->db.handle) == 0) {
        r = fl_fail(e, FL_R_NOT_ENROLLED, "no agent is enrolled as %.63s", name);
    }
    return fl_db_finish(&s->db, r, e);
}

int fl_store_agents(struct fl_store *s, int (*each)(void *arg, const struct fl_store_agent *a),
                    void *arg, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_AGENTS);
    int r;

    while ((r = fl_query_step(&q, e)) == 1) {
        struct fl_store_agent a = {.id = fl_column_u64(&q, 0)};
        fl_column_blob(&q, 1, a.key, sizeof a.key);
        fl_column_text(&q, 2, a.name, sizeof a.name);
        fl_column_text(&q, 3, a.serial, sizeof a.serial);
        a.revoked = fl_column_u64(&q, 4) != 0;
        a.releases = fl_column_u64(&q, 5);
        if (a.releases) {
            fl_column_blob(&q, 6, a.head.bytes, sizeof a.head.bytes);
        }
        if ((r = each(arg, &a)) != 0) {
            break;
        }
    }
    fl_query_end(&q);
    return r;
}

int fl_store_models_with(struct fl_store *s, uint64_t agent, uint32_t limit,
                         int (*each)(void *arg, const struct fl_store_containing *m), void *arg,
                         struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_MODELS_WITH);
    int r;

    fl_query_u64(&q, agent);
    fl_query_u64(&q, limit);
    while ((r = fl_query_step(&q, e)) == 1) {
        struct fl_store_containing m = {.round = fl_column_u64(&q, 1)};
        fl_column_text(&q, 0, m.job, sizeof m.job);
        m.published_ms = fl_column_u64(&q, 2);
        fl_column_blob(&q, 3, m.checkpoint.bytes, sizeof m.checkpoint.bytes);
        m.own = fl_column_u64(&q, 4) != 0;
        if ((r = each(arg, &m)) != 0) {
            break;
        }
    }
    fl_query_end(&q);
    return r;
}

/* ---- jobs ---- */

int fl_job_facts(struct fl_store *s, uint64_t job, struct fl_job_facts *ret, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_JOB);

    fl_query_u64(&q, job);
    int r = fl_query_step(&q, e);
    if (r == 1) {
        fl_column_blob(&q, 0, ret->incarnation, sizeof ret->incarnation);
        ret->state = (enum fl_job_state)fl_column_u64(&q, 1);
        ret->round = fl_column_u64(&q, 2);
        fl_column_blob(&q, 3, ret->checkpoint.bytes, sizeof ret->checkpoint.bytes);
        fl_column_blob(&q, 4, ret->model.bytes, sizeof ret->model.bytes);
        ret->model_size = fl_column_u64(&q, 5);
        r = 0;
    } else if (r == 0) {
        r = fl_fail(e, FL_R_NO_JOB, "there is no job %llu", (unsigned long long)job);
    }
    fl_query_end(&q);
    return r;
}

static int check_text(size_t size, struct fl_err *e)
{
    if (size == 0 || size > FL_STORE_TEXT_MAX) {
        return fl_fail(e, FL_R_LIMIT, "a job's description must have 1 to %d bytes",
                       FL_STORE_TEXT_MAX);
    }
    return 0;
}

/* The rows of a new job, inside a transaction. */
static int job_rows(struct fl_store *s, const struct fl_store_job *job, uint64_t checkpoint_size,
                    uint64_t *ret_id, struct fl_err *e)
{
    uint64_t count;
    int r = number(s, FL_SQL_JOB_COUNT, &count, e);

    if (r == 0 && count >= FL_STORE_JOBS_MAX) {
        r = fl_fail(e, FL_R_LIMIT, "%d jobs are recorded", FL_STORE_JOBS_MAX);
    }
    if (r != 0) {
        return r;
    }
    struct fl_query q = fl_query(&s->db, FL_SQL_JOB_ADD);
    fl_query_text(&q, job->name);
    fl_query_blob(&q, job->incarnation, sizeof job->incarnation);
    fl_query_u64(&q, job->state);
    fl_query_blob(&q, job->text, job->text_size);
    fl_query_digest(&q, &job->checkpoint);
    fl_query_u64(&q, job->model_size);
    fl_query_digest(&q, &job->model);
    if ((r = fl_query_run(&q, FL_R_CTL_EXISTS, e)) != 0) {
        return r;
    }
    *ret_id = (uint64_t)sqlite3_last_insert_rowid(s->db.handle);
    q = fl_query(&s->db, FL_SQL_CHECKPOINT_ADD);
    fl_query_u64(&q, *ret_id);
    fl_query_u64(&q, 0);
    fl_query_digest(&q, &job->checkpoint);
    fl_query_u64(&q, checkpoint_size);
    return fl_query_run(&q, FL_R_INTERNAL, e);
}

int fl_store_job_add(struct fl_store *s, const struct fl_store_job *job, uint64_t *ret_id,
                     struct fl_err *e)
{
    struct fl_file_key key = fl_file_key(job->incarnation, 0, FL_FILE_CHECKPOINT, 0);
    uint64_t size, id = 0;
    bool committed;
    int r;

    if ((r = check_name("a job's name", job->name, sizeof job->name, false, e)) != 0 ||
        (r = check_text(job->text_size, e)) != 0) {
        return r;
    }
    if (!fl_files_has(&s->files, &key, &job->checkpoint, &committed, &size) ||
        job->model_size > size) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "job %s: its first checkpoint is not written",
                       job->name);
    }
    if ((r = fl_db_begin(&s->db, e)) != 0) {
        return r;
    }
    r = job_rows(s, job, size, &id, e);
    FL_CRASH_POINT("store-job-before");
    if ((r = fl_db_finish(&s->db, r, e)) == 0) {
        FL_CRASH_POINT("store-job-after");
        fl_files_committed(&s->files, &key);
        *ret_id = id;
    }
    return r == 0 ? 0 : fl_wrap(e, r, "job %s", job->name);
}

struct over {
    const struct fl_store *s;
    uint64_t published;
};

/* Of a job that is over: all uploads but those that are kept for replays. */
static bool is_over(void *arg, const struct fl_file_key *key, const struct fl_digest *digest)
{
    const struct over *o = arg;

    (void)digest;
    return key->exchange != FL_FILE_CHECKPOINT && !fl_store_retains(o->s, o->published, key->round);
}

int fl_store_job_state(struct fl_store *s, uint64_t job, enum fl_job_state state, const char *why,
                       struct fl_err *e)
{
    struct fl_job_facts facts;
    char text[256];
    int r = fl_db_begin(&s->db, e);

    if (r != 0) {
        return r;
    }
    r = fl_job_facts(s, job, &facts, e);
    if (r == 0 && (facts.state == FL_JOB_DONE || facts.state == FL_JOB_CANCELLED) &&
        state != facts.state) {
        r = fl_fail(e, FL_R_JOB_STATE, "the job is over");
    }
    if (r == 0) {
        struct fl_query q = fl_query(&s->db, FL_SQL_JOB_STATE);
        snprintf(text, sizeof text, "%s", why ? why : "");
        fl_query_u64(&q, state);
        fl_query_text(&q, text);
        fl_query_u64(&q, job);
        r = fl_query_run(&q, FL_R_CTL_EXISTS, e);
    }
    if ((r = fl_db_finish(&s->db, r, e)) == 0 &&
        (state == FL_JOB_DONE || state == FL_JOB_CANCELLED)) {
        struct over over = {s, facts.round};
        fl_files_remove(&s->files, facts.incarnation, is_over, &over);
    }
    return r;
}

int fl_store_job_text(struct fl_store *s, uint64_t job, const char *text, size_t size,
                      struct fl_err *e)
{
    struct fl_job_facts facts;
    int r;

    if ((r = check_text(size, e)) != 0 || (r = fl_db_begin(&s->db, e)) != 0) {
        return r;
    }
    r = fl_job_facts(s, job, &facts, e);
    if (r == 0) {
        struct fl_query q = fl_query(&s->db, FL_SQL_JOB_TEXT);
        fl_query_blob(&q, text, size);
        fl_query_u64(&q, job);
        r = fl_query_run(&q, FL_R_INTERNAL, e);
    }
    return fl_db_finish(&s->db, r, e);
}

int fl_store_jobs(struct fl_store *s, int (*each)(void *arg, const struct fl_store_job *j),
                  void *arg, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_JOBS);
    int r;

    while ((r = fl_query_step(&q, e)) == 1) {
        struct fl_store_job j = {.id = fl_column_u64(&q, 0)};
        fl_column_text(&q, 1, j.name, sizeof j.name);
        fl_column_blob(&q, 2, j.incarnation, sizeof j.incarnation);
        j.state = (enum fl_job_state)fl_column_u64(&q, 3);
        j.text = sqlite3_column_blob(q.stmt, 4);
        j.text_size = (size_t)sqlite3_column_bytes(q.stmt, 4);
        j.round = fl_column_u64(&q, 5);
        fl_column_blob(&q, 6, j.checkpoint.bytes, sizeof j.checkpoint.bytes);
        j.model_size = fl_column_u64(&q, 7);
        fl_column_blob(&q, 8, j.model.bytes, sizeof j.model.bytes);
        fl_column_text(&q, 9, j.why, sizeof j.why);
        if ((r = each(arg, &j)) != 0) {
            break;
        }
    }
    fl_query_end(&q);
    return r;
}

/* ---- audit ---- */

int fl_store_audit(struct fl_store *s, uint64_t wall_ms, const char *who, const char *what,
                   struct fl_err *e)
{
    int r = fl_db_begin(&s->db, e);

    if (r != 0) {
        return r;
    }
    struct fl_query q = fl_query(&s->db, FL_SQL_AUDIT_ADD);
    fl_query_u64(&q, wall_ms);
    fl_query_text(&q, who);
    fl_query_text(&q, what);
    r = fl_query_run(&q, FL_R_INTERNAL, e);
    if (r == 0) {
        q = fl_query(&s->db, FL_SQL_AUDIT_TRIM);
        fl_query_u64(&q, FL_STORE_AUDIT_MAX);
        r = fl_query_run(&q, FL_R_INTERNAL, e);
    }
    return fl_db_finish(&s->db, r, e);
}

int fl_store_audits(struct fl_store *s, uint32_t limit,
                    int (*each)(void *arg, uint64_t wall_ms, const char *who, const char *what),
                    void *arg, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_AUDITS);
    int r;

    fl_query_u64(&q, limit);
    while ((r = fl_query_step(&q, e)) == 1) {
        char who[256], what[2048];
        fl_column_text(&q, 1, who, sizeof who);
        fl_column_text(&q, 2, what, sizeof what);
        if ((r = each(arg, fl_column_u64(&q, 0), who, what)) != 0) {
            break;
        }
    }
    fl_query_end(&q);
    return r;
}
