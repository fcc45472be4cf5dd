/*
 * From a closed exchange to a published checkpoint, and what may be forgotten then.
 *
 * A checkpoint is written beside, synced, renamed, and its folder synced, before the transaction
 * that names it. The transaction is the one moment of change: before it the old model is current
 * and the closed round is computed again from the same uploads; after it the new one is, and the
 * uploads are not needed any more.
 */
#include "common/base/crashpoint.h"
#include "common/io/file.h"
#include "server/store/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS_KEPT = 10000 }; /* rows per job, for people and for late offers */

/* ---- closing ---- */

/* Over the plan, the exchange's name, and each member with the digest of its update. Every member
 * must have a committed one. */
static int close_digest(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                        const struct fl_digest *plan, const uint64_t *members, uint32_t count,
                        struct fl_digest *ret, struct fl_err *e)
{
    struct fl_digest update;
    struct fl_hash h;

    fl_hash_init(&h);
    fl_hash_add(&h, plan->bytes, sizeof plan->bytes);
    fl_hash_add_u64(&h, round);
    fl_hash_add_u64(&h, exchange);
    fl_hash_add_u64(&h, count);
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0 && members[i] <= members[i - 1]) {
            return fl_fail(e, FL_R_STORE_MISMATCH, "members are not in ascending order");
        }
        int r = fl_store_update_find(s, job, round, exchange, members[i], &update, e);
        if (r == 0) {
            return fl_fail(e, FL_R_STORE_MISMATCH, "agent %llu has no committed update",
                           (unsigned long long)members[i]);
        }
        if (r < 0) {
            return r;
        }
        fl_hash_add_u64(&h, members[i]);
        fl_hash_add(&h, update.bytes, sizeof update.bytes);
    }
    fl_hash_end(&h, ret);
    return 0;
}

/* 0 when it is closed with this digest. */
static int same_close(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                      const struct fl_digest *digest, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_EXCHANGE);
    struct fl_digest there = {0};

    fl_query_u64(&q, job);
    fl_query_u64(&q, round);
    fl_query_u64(&q, exchange);
    int r = fl_query_step(&q, e);
    if (r == 1) {
        fl_column_blob(&q, 0, there.bytes, sizeof there.bytes);
    }
    fl_query_end(&q);
    if (r >= 0 && !fl_digest_equal(&there, digest)) {
        r = fl_fail(e, FL_R_STORE_MISMATCH, "the exchange is closed with other members");
    }
    return r < 0 ? r : 0;
}

static int close_rows(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                      const uint64_t *members, uint32_t count, uint64_t wall_ms, struct fl_err *e)
{
    struct fl_round_facts facts;
    struct fl_digest digest;
    int r = fl_round_facts(s, job, round, &facts, e);

    if (r <= 0) {
        return r < 0 ? r : fl_fail(e, FL_R_NO_ROUND, "%s", fl_reason_text(FL_R_NO_ROUND));
    }
    r = close_digest(s, job, round, exchange, &facts.plan, members, count, &digest, e);
    if (r != 0) {
        return r;
    }
    if (exchange < facts.closed) {
        return same_close(s, job, round, exchange, &digest, e);
    }
    if (exchange > facts.closed || facts.published) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "exchange %u cannot close now", exchange);
    }
    struct fl_query q = fl_query(&s->db, FL_SQL_EXCHANGE_ADD);
    fl_query_u64(&q, job);
    fl_query_u64(&q, round);
    fl_query_u64(&q, exchange);
    fl_query_digest(&q, &digest);
    r = fl_query_run(&q, FL_R_INTERNAL, e);
    for (uint32_t i = 0; i < count && r == 0; i++) {
        q = fl_query(&s->db, FL_SQL_MEMBER_CLOSE);
        fl_query_u64(&q, job);
        fl_query_u64(&q, round);
        fl_query_u64(&q, exchange);
        fl_query_u64(&q, members[i]);
        r = fl_query_run(&q, FL_R_INTERNAL, e);
    }
    if (r == 0) {
        q = fl_query(&s->db, FL_SQL_ROUND_CLOSE);
        fl_query_u64(&q, (uint64_t)exchange + 1);
        fl_query_u64(&q, wall_ms);
        fl_query_u64(&q, job);
        fl_query_u64(&q, round);
        r = fl_query_run(&q, FL_R_INTERNAL, e);
    }
    return r;
}

int fl_store_close_exchange(struct fl_store *s, uint64_t job, uint64_t round, uint32_t exchange,
                            const uint64_t *members, uint32_t count, uint64_t wall_ms,
                            struct fl_err *e)
{
    int r = fl_db_begin(&s->db, e);

    if (r != 0) {
        return r;
    }
    r = close_rows(s, job, round, exchange, members, count, wall_ms, e);
    FL_CRASH_POINT("store-close-before");
    r = fl_db_finish(&s->db, r, e);
    FL_CRASH_POINT("store-close-after");
    return r == 0 ? 0 : fl_wrap(e, r, "close exchange %u", exchange);
}

/* ---- checkpoints ---- */

void fl_store_checkpoint_path(const struct fl_store *s,
                              const uint8_t incarnation[FL_INCARNATION_SIZE], uint64_t round,
                              const struct fl_digest *digest, char *ret_path)
{
    struct fl_file_key key = fl_file_key(incarnation, round, FL_FILE_CHECKPOINT, 0);
    fl_files_path(&s->files, &key, digest, ret_path);
}

/* From the file beside to its name. */
static int take_place(struct fl_store *s, const struct fl_file_key *key, const char *folder,
                      const char *beside, const struct fl_digest *digest, uint64_t size,
                      struct fl_err *e)
{
    char path[FL_STORE_PATH_MAX];
    int r = fl_files_take(&s->files, key, digest, size, true, e);

    if (r != 0) {
        return r == -FL_R_UPDATE_CONFLICT
                   ? fl_fail(e, FL_R_STORE_MISMATCH, "published with another checkpoint")
                   : r;
    }
    fl_files_path(&s->files, key, digest, path);
    FL_CRASH_POINT("store-checkpoint-synced");
    if (rename(beside, path) != 0) {
        return fl_fail_sys(e, fl_file_reason(errno), errno, "rename to %s", path);
    }
    FL_CRASH_POINT("store-checkpoint-renamed");
    return fl_file_sync_dir(folder, e);
}

int fl_store_checkpoint_copy(struct fl_store *s, const uint8_t incarnation[FL_INCARNATION_SIZE],
                             uint64_t round, const struct fl_store_bytes *from,
                             struct fl_digest *ret, struct fl_err *e)
{
    struct fl_file_key key = fl_file_key(incarnation, round, FL_FILE_CHECKPOINT, 0);
    char folder[FL_STORE_PATH_MAX], beside[FL_STORE_PATH_MAX];
    struct fl_digest digest;
    uint64_t size = from->size;
    int r;

    if ((r = fl_db_usable(&s->db, e)) != 0 || (r = fl_files_room(&s->files, size, e)) != 0 ||
        (r = fl_files_ensure(&s->files, &key, e)) != 0) {
        goto out;
    }
    fl_files_folder(&s->files, &key, folder);
    if (snprintf(beside, sizeof beside, "%.480s/%llu.new", folder, (unsigned long long)round) < 0) {
        r = -FL_R_INTERNAL;
        goto out;
    }
    if ((r = fl_files_write(beside, from, &digest, e)) != 0) {
        goto out;
    }
    if ((r = take_place(s, &key, folder, beside, &digest, size, e)) != 0) {
        unlink(beside);
        fl_files_drop(&s->files, &key, &digest);
        goto out;
    }
    FL_CRASH_POINT("store-checkpoint-after");
    *ret = digest;
    return 0;
out:
    if (r == -FL_R_STORE_IO) {
        fl_db_break(&s->db, e);
    }
    return fl_wrap(e, r, "checkpoint of round %llu", (unsigned long long)round);
}

struct pieces {
    const struct fl_piece *at;
    uint32_t count;
};

static int read_pieces(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    const struct pieces *p = arg;

    (void)e;
    for (uint32_t i = 0; i < p->count && size > 0; i++) {
        size_t n = p->at[i].size;
        if (offset >= n) {
            offset -= n;
            continue;
        }
        n -= (size_t)offset;
        n = n < size ? n : size;
        memcpy(to, (const uint8_t *)p->at[i].data + offset, n);
        to += n;
        size -= n;
        offset = 0;
    }
    return 0;
}

int fl_store_checkpoint_write(struct fl_store *s, const uint8_t incarnation[FL_INCARNATION_SIZE],
                              uint64_t round, const struct fl_piece *pieces, uint32_t count,
                              struct fl_digest *ret, struct fl_err *e)
{
    struct pieces all = {pieces, count};
    struct fl_store_bytes from = {.read = read_pieces, .arg = &all};

    for (uint32_t i = 0; i < count; i++) {
        if (pieces[i].size > INT64_MAX - from.size) {
            return fl_fail(e, FL_R_LIMIT, "a checkpoint of more than 2^63 bytes");
        }
        from.size += pieces[i].size;
    }
    return fl_store_checkpoint_copy(s, incarnation, round, &from, ret, e);
}

/* ---- publishing ---- */

struct publication {
    uint64_t job, round;
    const struct fl_digest *checkpoint, *model;
    uint64_t model_size, size, late_rounds;
};

/* Rows that nobody can ask for any more. Children before their parents. */
static int trim(struct fl_store *s, const struct publication *p, struct fl_err *e)
{
    static const enum fl_sql children[] = {FL_SQL_MEMBER_TRIM, FL_SQL_UPLOAD_TRIM,
                                           FL_SQL_EXCHANGE_TRIM};
    uint64_t late = p->late_rounds < ROUNDS_KEPT ? p->late_rounds : ROUNDS_KEPT;
    int r = 0;

    for (size_t i = 0; i < sizeof children / sizeof children[0] && r == 0 && p->round > late; i++) {
        struct fl_query q = fl_query(&s->db, children[i]);
        fl_query_u64(&q, p->job);
        fl_query_u64(&q, p->round - late);
        r = fl_query_run(&q, FL_R_INTERNAL, e);
    }
    if (r == 0 && p->round > ROUNDS_KEPT) {
        struct fl_query q = fl_query(&s->db, FL_SQL_ROUND_TRIM);
        fl_query_u64(&q, p->job);
        fl_query_u64(&q, p->round - ROUNDS_KEPT);
        r = fl_query_run(&q, FL_R_INTERNAL, e);
    }
    if (r == 0) {
        struct fl_query q = fl_query(&s->db, FL_SQL_PLAN_TRIM);
        r = fl_query_run(&q, FL_R_INTERNAL, e);
    }
    if (r == 0) {
        struct fl_query q = fl_query(&s->db, FL_SQL_CHECKPOINT_TRIM);
        fl_query_u64(&q, p->job);
        /* A replay begins with the checkpoint before. */
        fl_query_u64(&q, s->quota.keep_rounds >= s->quota.keep_models
                             ? (uint64_t)s->quota.keep_rounds + 1
                             : s->quota.keep_models);
        r = fl_query_run(&q, FL_R_INTERNAL, e);
    }
    return r;
}

static int publish_rows(struct fl_store *s, const struct publication *p, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_ROUND_COUNT);
    uint64_t now_ms = fl_store_wall_ms();

    fl_query_u64(&q, p->job);
    fl_query_u64(&q, p->round);
    int r = fl_query_run(&q, FL_R_INTERNAL, e);
    if (r == 0) {
        r = fl_transcript_add(s, p->job, p->round, p->checkpoint, p->model, now_ms, e);
    }
    if (r == 0) {
        q = fl_query(&s->db, FL_SQL_ROUND_PUBLISH);
        fl_query_u64(&q, now_ms);
        fl_query_digest(&q, p->checkpoint);
        fl_query_u64(&q, p->job);
        fl_query_u64(&q, p->round);
        r = fl_query_run(&q, FL_R_INTERNAL, e);
    }
    if (r == 0) {
        q = fl_query(&s->db, FL_SQL_CHECKPOINT_ADD);
        fl_query_u64(&q, p->job);
        fl_query_u64(&q, p->round);
        fl_query_digest(&q, p->checkpoint);
        fl_query_u64(&q, p->size);
        r = fl_query_run(&q, FL_R_INTERNAL, e);
    }
    if (r == 0) {
        q = fl_query(&s->db, FL_SQL_JOB_PUBLISH);
        fl_query_u64(&q, p->round);
        fl_query_digest(&q, p->checkpoint);
        fl_query_digest(&q, p->model);
        fl_query_u64(&q, p->model_size);
        fl_query_u64(&q, p->job);
        r = fl_query_run(&q, FL_R_INTERNAL, e);
    }
    return r == 0 ? trim(s, p, e) : r;
}

struct gone {
    struct fl_store *s;
    uint64_t job, round;
};

/* Uploads of published rounds that are not kept for replays, and checkpoints that their table no
 * longer has. */
static bool goes(void *arg, const struct fl_file_key *key, const struct fl_digest *digest)
{
    struct gone *g = arg;

    if (key->exchange != FL_FILE_CHECKPOINT) {
        bool committed = false;
        uint64_t size;
        bool stays = fl_files_has(&g->s->files, key, digest, &committed, &size) && committed &&
                     fl_store_retains(g->s, g->round, key->round);
        return key->round <= g->round && !stays;
    }
    if (key->round > g->round) {
        return false;
    }
    struct fl_query q = fl_query(&g->s->db, FL_SQL_CHECKPOINT_HAS);
    fl_query_u64(&q, g->job);
    fl_query_u64(&q, key->round);
    fl_query_digest(&q, digest);
    int r = fl_query_step(&q, NULL);
    fl_query_end(&q);
    return r == 0;
}

int fl_store_publish(struct fl_store *s, uint64_t job, uint64_t round,
                     const struct fl_digest *checkpoint, const struct fl_digest *model,
                     uint64_t model_size, uint32_t late_rounds, struct fl_err *e)
{
    struct publication p = {job, round, checkpoint, model, model_size, 0, late_rounds};
    struct fl_round_facts facts;
    struct fl_job_facts of;
    bool committed;
    int r;

    if ((r = fl_job_facts(s, job, &of, e)) != 0 ||
        (r = fl_round_facts(s, job, round, &facts, e)) < 0) {
        return r;
    }
    if (r == 0 || (!facts.published && facts.closed == 0)) {
        return fl_fail(e, r == 0 ? FL_R_NO_ROUND : FL_R_STORE_MISMATCH,
                       "round %llu cannot be published: it is not closed",
                       (unsigned long long)round);
    }
    if (facts.published) {
        return fl_digest_equal(&facts.checkpoint, checkpoint)
                   ? 0
                   : fl_fail(e, FL_R_STORE_MISMATCH, "round %llu is published with another digest",
                             (unsigned long long)round);
    }
    struct fl_file_key key = fl_file_key(of.incarnation, round, FL_FILE_CHECKPOINT, 0);
    char path[FL_STORE_PATH_MAX];
    fl_files_path(&s->files, &key, checkpoint, path);
    if (!fl_files_has(&s->files, &key, checkpoint, &committed, &p.size) || model_size > p.size) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "the checkpoint of round %llu is not written",
                       (unsigned long long)round);
    }
    if ((r = fl_files_has_size(path, p.size, e)) != 0 || (r = fl_db_begin(&s->db, e)) != 0) {
        return r;
    }
    r = publish_rows(s, &p, e);
    FL_CRASH_POINT("store-publish-before");
    if ((r = fl_db_finish(&s->db, r, e)) != 0) {
        return fl_wrap(e, r, "publish round %llu", (unsigned long long)round);
    }
    FL_CRASH_POINT("store-publish-after");
    struct gone gone = {s, job, round};
    fl_files_committed(&s->files, &key);
    fl_files_remove(&s->files, of.incarnation, goes, &gone);
    fl_files_retain(&s->files, of.incarnation, round);
    FL_CRASH_POINT("store-publish-removed");
    return 0;
}
