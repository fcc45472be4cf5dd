/*
 * The embedded store: opening it. In this order, each step resting on the one before:
 *
 *   folder and its parents durable -> lock -> database (asserted, checked, log folded back)
 *   -> slots of what the records name, bytes compared with their digests -> sweep
 *
 * A damaged database stops the daemon: nothing in it can be believed. A damaged checkpoint or
 * upload fails the one job it belongs to; everyone else goes on.
 */
#include "common/base/crashpoint.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/io/file.h"
#include "server/store/internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t fl_store_wall_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

const char *fl_store_dir(const struct fl_store *s)
{
    return s->dir;
}

uint64_t fl_store_bytes(const struct fl_store *s)
{
    return s->files.bytes;
}

/* The identity of this state folder, made once with its tables. */
static int fill(struct fl_db *db, struct fl_err *e)
{
    uint8_t coordinator[16];
    int r = fl_entropy(coordinator, sizeof coordinator, e);

    if (r != 0) {
        return r;
    }
    struct fl_query q = fl_query(db, FL_SQL_META_ADD);
    fl_query_blob(&q, coordinator, sizeof coordinator);
    fl_query_u64(&q, fl_store_wall_ms());
    return fl_query_run(&q, FL_R_INTERNAL, e);
}

static int identity(struct fl_store *s, uint8_t ret[16], struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_META);
    int r = fl_query_step(&q, e);

    if (r == 1) {
        r = fl_column_blob(&q, 0, ret, 16) ? 0 : fl_fail(e, FL_R_STORE_CORRUPT, "no identity");
    } else if (r == 0) {
        r = fl_fail(e, FL_R_STORE_CORRUPT, "cohortd.db has no identity");
    }
    fl_query_end(&q);
    return r;
}

/* ---- slots of what the records name ---- */

/* A file whose bytes are wrong, and the job it belongs to. */
struct damage {
    uint64_t job;
    struct fl_err what;
};

/* Takes a slot for one recorded file; 1 when its bytes must be right and are not. */
static int recorded(struct fl_store *s, const struct fl_file_key *key,
                    const struct fl_digest *digest, uint64_t size, bool check,
                    struct damage *ret_damage, struct fl_err *e)
{
    char path[FL_STORE_PATH_MAX];
    int r = fl_files_take(&s->files, key, digest, size, true, e);

    if (r != 0) {
        return r;
    }
    fl_files_committed(&s->files, key);
    if (!check) {
        return 0;
    }
    fl_files_path(&s->files, key, digest, path);
    r = fl_files_verify(path, size, digest, &ret_damage->what);
    if (r == -FL_R_STORE_MISMATCH) {
        return 1;
    }
    if (r != 0 && e) {
        *e = ret_damage->what;
    }
    return r;
}

static int recorded_checkpoints(struct fl_store *s, struct damage *ret, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_CHECKPOINTS);
    uint8_t incarnation[FL_INCARNATION_SIZE];
    struct fl_digest digest;
    int r;

    while ((r = fl_query_step(&q, e)) == 1) {
        fl_column_blob(&q, 1, incarnation, sizeof incarnation);
        fl_column_blob(&q, 3, digest.bytes, sizeof digest.bytes);
        struct fl_file_key key =
            fl_file_key(incarnation, fl_column_u64(&q, 2), FL_FILE_CHECKPOINT, 0);
        ret->job = fl_column_u64(&q, 0);
        r = recorded(s, &key, &digest, fl_column_u64(&q, 4), fl_column_u64(&q, 5) != 0, ret, e);
        if (r != 0) {
            break;
        }
    }
    fl_query_end(&q);
    return r;
}

static int recorded_uploads(struct fl_store *s, struct damage *ret, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_UPLOADS_OPEN);
    uint8_t incarnation[FL_INCARNATION_SIZE];
    struct fl_digest digest;
    int r;

    while ((r = fl_query_step(&q, e)) == 1) {
        fl_column_blob(&q, 1, incarnation, sizeof incarnation);
        fl_column_blob(&q, 6, digest.bytes, sizeof digest.bytes);
        struct fl_file_key key = fl_file_key(incarnation, fl_column_u64(&q, 2),
                                             (uint32_t)fl_column_u64(&q, 3), fl_column_u64(&q, 4));
        ret->job = fl_column_u64(&q, 0);
        r = recorded(s, &key, &digest, fl_column_u64(&q, 5), fl_column_u64(&q, 7) != 0, ret, e);
        if (r != 0) {
            break;
        }
    }
    fl_query_end(&q);
    return r;
}

/* A failed job is not checked again, so this ends. */
static int load(struct fl_store *s, struct fl_err *e)
{
    for (;;) {
        struct damage damage = {0};
        int r = recorded_checkpoints(s, &damage, e);

        if (r == 0) {
            r = recorded_uploads(s, &damage, e);
        }
        if (r != 1) {
            return r;
        }
        fl_log_err(FL_LOG_ERROR, "store", &damage.what, "job %llu fails",
                   (unsigned long long)damage.job);
        r = fl_store_job_state(s, damage.job, FL_JOB_FAILED, damage.what.msg, e);
        if (r != 0) {
            return r;
        }
        fl_files_fini(&s->files);
    }
}

static int part_wanted(void *arg, const struct fl_file_key *key, struct fl_err *e)
{
    struct fl_store *s = arg;

    if (key->round > INT64_MAX || key->agent > INT64_MAX) {
        return 0;
    }
    struct fl_query q = fl_query(&s->db, FL_SQL_PART_WANTED);
    fl_query_blob(&q, key->incarnation, sizeof key->incarnation);
    fl_query_u64(&q, key->round);
    fl_query_u64(&q, key->exchange);
    fl_query_u64(&q, key->agent);
    int r = fl_query_step(&q, e);
    fl_query_end(&q);
    return r;
}

/* ---- opening ---- */

/* The folder's own entry; a parent that is not ours to read was not made by us either. */
static int sync_parent(const char *dir, struct fl_err *e)
{
    char up[FL_STORE_NAME_MAX + 4];

    snprintf(up, sizeof up, "%s/..", dir);
    return access(up, R_OK) == 0 ? fl_file_sync_dir(up, e) : 0;
}

int fl_store_open(const char *dir, const struct fl_store_quota *quota, struct fl_store **ret,
                  uint8_t ret_coordinator[16], struct fl_err *e)
{
    char path[FL_STORE_PATH_MAX];
    int r;

    if (strlen(dir) >= FL_STORE_NAME_MAX || dir[0] == '\0') {
        return fl_fail(e, FL_R_STORE_OPEN, "the state folder's path must have 1 to %d bytes",
                       FL_STORE_NAME_MAX - 1);
    }
    struct fl_store *s = fl_try(1, sizeof *s);
    if (!s) {
        return fl_fail(e, FL_R_NOMEM, "no memory for the store");
    }
    s->lock = -1;
    s->quota = *quota;
    s->quota.keep_models = quota->keep_models < 2 ? 2 : quota->keep_models;
    snprintf(s->dir, sizeof s->dir, "%s", dir);
    s->files.dir = s->dir;
    s->files.limit = quota->state_bytes;

    if ((r = fl_file_make_dirs(s->dir, e)) != 0 || (r = sync_parent(s->dir, e)) != 0 ||
        (r = fl_file_lock_dir(s->dir, &s->lock, e)) != 0) {
        goto fail;
    }
    snprintf(path, sizeof path, "%s/cohortd.db", s->dir);
    if ((r = fl_db_open(path, &s->db, fill, e)) != 0 ||
        (r = identity(s, ret_coordinator, e)) != 0 || (r = fl_file_sync_dir(s->dir, e)) != 0) {
        goto fail;
    }
    FL_CRASH_POINT("store-open-loaded");
    if ((r = load(s, e)) != 0 || (r = fl_store_replay_files(s, e)) != 0 ||
        (r = fl_files_sweep(&s->files, part_wanted, s, e)) != 0) {
        goto fail;
    }
    FL_CRASH_POINT("store-open-swept");
    *ret = s;
    return 0;
fail:
    fl_store_close(s);
    return fl_wrap(e, r, "state folder %s", dir);
}

void fl_store_close(struct fl_store *s)
{
    if (!s) {
        return;
    }
    fl_db_close(&s->db);
    fl_files_fini(&s->files);
    if (s->lock >= 0) {
        close(s->lock); /* last: whoever takes the lock finds everything closed */
    }
    fl_free(s);
}
