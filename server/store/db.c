/*
 * What makes a commit durable, and what may be believed after a failure.
 *
 * The settings are asserted by reading them back, since SQLite answers an unknown or refused PRAGMA
 * with silence:
 *
 *   journal_mode=WAL         one append and one sync per commit
 *   synchronous=FULL (2)     the log is synced before COMMIT returns; NORMAL would not survive a
 *                            power cut
 *   locking_mode=EXCLUSIVE   one connection owns the file (the folder's lock says so too): no
 *                            shared memory beside it, and no reader from outside that keeps the log
 *                            from being folded back, so its size has a ceiling
 *   foreign_keys=ON, mmap_size=0 (a mapped file turns a read error into SIGBUS), cell_size_check,
 *   trusted_schema off, defensive on
 *
 * A killed process is the hard case, not the easy one. Its last commit may stand in the page cache
 * without ever having been synced; the next process reads it as committed, tells an agent "I have
 * that already", and then the power goes. So opening ends with a checkpoint that truncates the log:
 * SQLite syncs the log, copies it into the database and syncs that. What was visible at start is
 * durable before anything is answered from it.
 *
 * The same goes for folding the log back later: done here by hand after a commit and not by
 * SQLite's automatic checkpoint, which keeps its failures to itself.
 *
 * Failures. An ENOSPC while writing the log leaves frames without a commit record: SQLite rolls
 * back, the next transaction writes over them, and the service goes on when there is space. After a
 * failed sync the kernel drops the dirty pages and says so once; trying again would report success
 * for bytes that are gone. So any such failure breaks the handle for good.
 */
#include "server/store/db.h"

#include "server/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FOLD_PAGES = 250,           /* frames in the log before it is folded back: 1 MB */
    LOG_BYTES = 4 * 1024 * 1024 /* a longer log is cut to this when it is empty */
};

static const char *const sql_text[FL_SQL_COUNT] = {
#define SQL_TEXT(name, text) [FL_SQL_##name] = text,
    FL_STORE_SQL(SQL_TEXT)
#undef SQL_TEXT
};

/* ---- failures ---- */

static bool is_space(int sys_errno)
{
    return sys_errno == ENOSPC || sys_errno == EDQUOT;
}

/* The reason of a result code; *ret_final when nothing can be believed afterwards. */
static enum fl_reason reason_of(sqlite3 *handle, int rc, bool *ret_final)
{
    *ret_final = false;
    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return FL_R_NOMEM;
    case SQLITE_FULL:
        return FL_R_DISK_FULL;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        *ret_final = true;
        return FL_R_STORE_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return FL_R_STORE_LOCKED;
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        *ret_final = true;
        return FL_R_STORE_OPEN;
    case SQLITE_IOERR:
        if (rc == SQLITE_IOERR_NOMEM) {
            return FL_R_NOMEM;
        }
        if (rc == SQLITE_IOERR_WRITE && handle && is_space(sqlite3_system_errno(handle))) {
            return FL_R_DISK_FULL;
        }
        *ret_final = true;
        return FL_R_STORE_IO;
    case SQLITE_TOOBIG:
    case SQLITE_RANGE:
        return FL_R_LIMIT;
    default:
        return FL_R_INTERNAL;
    }
}

int fl_db_break(struct fl_db *db, struct fl_err *e)
{
    if (!db->broken) {
        db->broken = true;
        snprintf(db->why, sizeof db->why, "%.150s", e && e->code ? e->msg : "a write failed");
    }
    return e ? e->code : -FL_R_STORE_IO;
}

int fl_db_usable(const struct fl_db *db, struct fl_err *e)
{
    if (db->broken) {
        return fl_fail(e, FL_R_STORE_IO, "stopped after an earlier failure: %s", db->why);
    }
    return 0;
}

static int fail(struct fl_db *db, int rc, const char *what, struct fl_err *e)
{
    struct fl_err mine = {0};
    bool final;
    enum fl_reason reason = reason_of(db->handle, rc, &final);
    int sys = db->handle && (rc & 0xff) == SQLITE_IOERR ? sqlite3_system_errno(db->handle) : 0;

    if (sys) {
        fl_fail_sys(&mine, reason, sys, "%s: %s", what, sqlite3_errstr(rc));
    } else {
        /* errmsg says more than errstr, but only about the connection's last failure. */
        bool last = db->handle && sqlite3_extended_errcode(db->handle) == rc;
        fl_fail(&mine, reason, "%s: %s", what,
                last ? sqlite3_errmsg(db->handle) : sqlite3_errstr(rc));
    }
    if (final) {
        fl_db_break(db, &mine);
    }
    if (e) {
        *e = mine;
    }
    return mine.code;
}

/* ---- queries ---- */

struct fl_query fl_query(struct fl_db *db, enum fl_sql sql)
{
    struct fl_query q = {.db = db, .next = 1};

    if (!db->cache[sql]) {
        q.rc = sqlite3_prepare_v3(db->handle, sql_text[sql], -1, SQLITE_PREPARE_PERSISTENT,
                                  &db->cache[sql], NULL);
    }
    q.stmt = db->cache[sql];
    return q;
}

void fl_query_u64(struct fl_query *q, uint64_t value)
{
    if (q->rc == SQLITE_OK) {
        q->rc = value > INT64_MAX ? SQLITE_TOOBIG
                                  : sqlite3_bind_int64(q->stmt, q->next++, (sqlite3_int64)value);
    }
}

/* Bound values live until the query ends: nothing is copied. */
void fl_query_text(struct fl_query *q, const char *text)
{
    if (q->rc == SQLITE_OK) {
        q->rc = sqlite3_bind_text(q->stmt, q->next++, text, -1, SQLITE_STATIC);
    }
}

void fl_query_blob(struct fl_query *q, const void *data, size_t size)
{
    if (q->rc == SQLITE_OK) {
        q->rc = sqlite3_bind_blob64(q->stmt, q->next++, size ? data : "", size, SQLITE_STATIC);
    }
}

void fl_query_digest(struct fl_query *q, const struct fl_digest *d)
{
    fl_query_blob(q, d->bytes, sizeof d->bytes);
}

int fl_query_step(struct fl_query *q, struct fl_err *e)
{
    int rc = q->rc != SQLITE_OK ? q->rc : sqlite3_step(q->stmt);

    if (rc == SQLITE_ROW) {
        return 1;
    }
    if (rc == SQLITE_DONE) {
        return 0;
    }
    q->rc = rc;
    return fail(q->db, rc, "cohortd.db", e);
}

int fl_query_run(struct fl_query *q, enum fl_reason constraint, struct fl_err *e)
{
    int r = fl_query_step(q, e);

    if (r < 0 && (q->rc & 0xff) == SQLITE_CONSTRAINT) {
        r = fl_fail(e, constraint, "%s", fl_reason_text((int)constraint));
    }
    fl_query_end(q);
    return r < 0 ? r : 0;
}

void fl_query_end(struct fl_query *q)
{
    if (q->stmt) {
        sqlite3_reset(q->stmt); /* repeats the step's error, which was reported */
        sqlite3_clear_bindings(q->stmt);
    }
    q->stmt = NULL;
}

uint64_t fl_column_u64(struct fl_query *q, int column)
{
    sqlite3_int64 v = sqlite3_column_int64(q->stmt, column);
    return v < 0 ? 0 : (uint64_t)v;
}

void fl_column_text(struct fl_query *q, int column, char *ret, size_t size)
{
    const unsigned char *text = sqlite3_column_text(q->stmt, column);
    snprintf(ret, size, "%s", text ? (const char *)text : "");
}

bool fl_column_blob(struct fl_query *q, int column, void *ret, size_t size)
{
    const void *data = sqlite3_column_blob(q->stmt, column);

    if (!data || (size_t)sqlite3_column_bytes(q->stmt, column) != size) {
        memset(ret, 0, size);
        return false;
    }
    memcpy(ret, data, size);
    return true;
}

/* ---- transactions ---- */

static int simple(struct fl_db *db, enum fl_sql sql, struct fl_err *e)
{
    struct fl_query q = fl_query(db, sql);
    return fl_query_run(&q, FL_R_INTERNAL, e);
}

int fl_db_begin(struct fl_db *db, struct fl_err *e)
{
    int r = fl_db_usable(db, e);
    return r ? r : simple(db, FL_SQL_BEGIN, e);
}

void fl_db_rollback(struct fl_db *db)
{
    struct fl_err e = {0};

    /* SQLite rolls back by itself after the worse failures. */
    if (!sqlite3_get_autocommit(db->handle) && simple(db, FL_SQL_ROLLBACK, &e) != 0) {
        fl_db_break(db, &e);
    }
}

/* Folds the log back into the database. */
static int fold(struct fl_db *db, int mode, struct fl_err *e)
{
    int rc = sqlite3_wal_checkpoint_v2(db->handle, NULL, mode, NULL, NULL);

    if (rc != SQLITE_OK) {
        return fail(db, rc, "cohortd.db: folding the log back", e);
    }
    return 0;
}

int fl_db_commit(struct fl_db *db, struct fl_err *e)
{
    int r = simple(db, FL_SQL_COMMIT, e);

    if (r != 0) {
        fl_db_rollback(db);
        return r;
    }
    if (db->wal_pages >= FOLD_PAGES) {
        /* The commit itself is durable whatever happens here. Out of space or memory: the log is
         * whole, the next commit tries again. Anything worse has broken the handle. */
        fold(db, SQLITE_CHECKPOINT_PASSIVE, NULL);
    }
    return 0;
}

int fl_db_finish(struct fl_db *db, int r, struct fl_err *e)
{
    if (r != 0) {
        fl_db_rollback(db);
        return r;
    }
    return fl_db_commit(db, e);
}

static int on_wal(void *arg, sqlite3 *handle, const char *name, int pages)
{
    (void)handle;
    (void)name;
    ((struct fl_db *)arg)->wal_pages = pages;
    return SQLITE_OK;
}

/* ---- opening ---- */

/* Runs one statement to its end (a change is committed only there); ret_number (may be NULL) gets
 * the first column of its first row, ret_text its text. */
static int ask(struct fl_db *db, const char *sql, int64_t *ret_number, char *ret_text, size_t size,
               struct fl_err *e)
{
    sqlite3_stmt *stmt = NULL;
    bool first = true;
    int rc = sqlite3_prepare_v2(db->handle, sql, -1, &stmt, NULL);

    while (rc == SQLITE_OK || rc == SQLITE_ROW) {
        rc = sqlite3_step(stmt);
        if (rc == SQLITE_ROW && first && ret_number) {
            *ret_number = sqlite3_column_int64(stmt, 0);
        }
        if (rc == SQLITE_ROW && first && ret_text) {
            const unsigned char *text = sqlite3_column_text(stmt, 0);
            snprintf(ret_text, size, "%s", text ? (const char *)text : "");
        }
        first = first && rc != SQLITE_ROW;
    }
    int r = rc == SQLITE_DONE ? 0 : fail(db, rc, "cohortd.db", e);
    sqlite3_finalize(stmt);
    return r;
}

/* Sets a number and demands to read it back. */
static int demand(struct fl_db *db, const char *pragma, int64_t value, struct fl_err *e)
{
    char sql[96];
    int64_t got = -1;
    int r;

    snprintf(sql, sizeof sql, "PRAGMA %s = %lld", pragma, (long long)value);
    if ((r = ask(db, sql, NULL, NULL, 0, e)) != 0) {
        return r;
    }
    snprintf(sql, sizeof sql, "PRAGMA %s", pragma);
    if ((r = ask(db, sql, &got, NULL, 0, e)) != 0) {
        return r;
    }
    if (got != value) {
        return fl_fail(e, FL_R_STORE_OPEN, "SQLite keeps %s at %lld instead of %lld", pragma,
                       (long long)got, (long long)value);
    }
    return 0;
}

static int settings(struct fl_db *db, struct fl_err *e)
{
    char mode[16] = "";
    int r;

    if ((r = ask(db, "PRAGMA journal_mode = WAL", NULL, NULL, 0, e)) != 0 ||
        (r = ask(db, "PRAGMA journal_mode", NULL, mode, sizeof mode, e)) != 0) {
        return r;
    }
    if (strcmp(mode, "wal") != 0) {
        return fl_fail(e, FL_R_STORE_OPEN, "SQLite keeps journal_mode at %s instead of wal", mode);
    }
    if ((r = demand(db, "synchronous", 2, e)) != 0 || (r = demand(db, "foreign_keys", 1, e)) != 0 ||
        (r = demand(db, "cell_size_check", 1, e)) != 0 ||
        (r = demand(db, "trusted_schema", 0, e)) != 0 ||
        (r = demand(db, "wal_autocheckpoint", 0, e)) != 0 ||
        (r = demand(db, "journal_size_limit", LOG_BYTES, e)) != 0 ||
        (r = demand(db, "temp_store", 2, e)) != 0) {
        return r;
    }
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_wal_hook(db->handle, on_wal, db);
    return 0;
}

/* What the file says it is: *ret_new for an empty one. */
static int identify(struct fl_db *db, bool *ret_new, struct fl_err *e)
{
    int64_t application = 0, version = 0, tables = 0;
    int r;

    if ((r = ask(db, "SELECT count(*) FROM sqlite_schema", &tables, NULL, 0, e)) != 0 ||
        (r = ask(db, "PRAGMA application_id", &application, NULL, 0, e)) != 0 ||
        (r = ask(db, "PRAGMA user_version", &version, NULL, 0, e)) != 0) {
        return r;
    }
    *ret_new = tables == 0 && application == 0 && version == 0;
    if (*ret_new) {
        return 0;
    }
    if (application != FL_STORE_APPLICATION_ID) {
        return fl_fail(e, FL_R_STORE_FOREIGN,
                       "cohortd.db belongs to another program (application id %08llx)",
                       (unsigned long long)application);
    }
    if (version > FL_STORE_SCHEMA) {
        return fl_fail(e, FL_R_STORE_FOREIGN,
                       "cohortd.db has schema %lld of a newer cohortd; this one knows %d",
                       (long long)version, FL_STORE_SCHEMA);
    }
    if (version < 1) {
        return fl_fail(e, FL_R_STORE_CORRUPT, "cohortd.db has schema %lld, which never existed",
                       (long long)version);
    }
    char verdict[160] = "";
    if ((r = ask(db, "PRAGMA quick_check(1)", NULL, verdict, sizeof verdict, e)) != 0) {
        return r;
    }
    if (strcmp(verdict, "ok") != 0) {
        return fl_fail(e, FL_R_STORE_CORRUPT, "cohortd.db is damaged: %s", verdict);
    }
    return 0;
}

/* All or nothing: identity and tables are one transaction. */
static int create(struct fl_db *db, int (*fill)(struct fl_db *db, struct fl_err *e),
                  struct fl_err *e)
{
    int r = fl_db_begin(db, e);

    if (r != 0) {
        return r;
    }
    int rc = sqlite3_exec(db->handle, FL_STORE_TABLES, NULL, NULL, NULL);
    if (rc != SQLITE_OK) {
        r = fail(db, sqlite3_extended_errcode(db->handle), "cohortd.db: making tables", e);
    }
    if (r == 0) {
        r = demand(db, "application_id", FL_STORE_APPLICATION_ID, e);
    }
    if (r == 0) {
        r = demand(db, "user_version", FL_STORE_SCHEMA, e);
    }
    if (r == 0) {
        r = fill(db, e);
    }
    return fl_db_finish(db, r, e);
}

/* A state folder of an earlier cohortd, brought up in one transaction. */
static int upgrade(struct fl_db *db, struct fl_err *e)
{
    int64_t version = 0;
    int r = ask(db, "PRAGMA user_version", &version, NULL, 0, e);

    if (r != 0 || version == FL_STORE_SCHEMA) {
        return r;
    }
    if ((r = fl_db_begin(db, e)) != 0) {
        return r;
    }
    int rc =
        version < 2 ? sqlite3_exec(db->handle, FL_STORE_TABLES_2, NULL, NULL, NULL) : SQLITE_OK;
    if (rc == SQLITE_OK) {
        rc = sqlite3_exec(db->handle, FL_STORE_TABLES_3, NULL, NULL, NULL);
    }
    if (rc != SQLITE_OK) {
        r = fail(db, sqlite3_extended_errcode(db->handle), "cohortd.db: new tables", e);
    }
    if (r == 0) {
        r = demand(db, "user_version", FL_STORE_SCHEMA, e);
    }
    return fl_db_finish(db, r, e);
}

/* Made by hand so that it is nobody else's to read; SQLite gives the log the same mode. */
static int touch(const char *path, struct fl_err *e)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

    if (fd < 0) {
        enum fl_reason reason = is_space(errno) ? FL_R_DISK_FULL : FL_R_STORE_OPEN;
        return fl_fail_sys(e, reason, errno, "%s", path);
    }
    int r = 0;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        r = fl_fail(e, FL_R_STORE_OPEN, "%s: not a regular file", path);
    }
    close(fd);
    return r;
}

int fl_db_open(const char *path, struct fl_db *db, int (*fill)(struct fl_db *db, struct fl_err *e),
               struct fl_err *e)
{
    bool is_new = false;
    int r;

    memset(db, 0, sizeof *db);
    if ((r = touch(path, e)) != 0) {
        return r;
    }
    int rc =
        sqlite3_open_v2(path, &db->handle,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
    if (rc != SQLITE_OK) {
        r = fail(db, rc, path, e);
        goto out;
    }
    if (sqlite3_db_readonly(db->handle, "main") != 0) {
        r = fl_fail(e, FL_R_STORE_OPEN, "%s is read-only", path);
        goto out;
    }
    if ((r = ask(db, "PRAGMA mmap_size = 0", NULL, NULL, 0, e)) != 0 ||
        (r = ask(db, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL, 0, e)) != 0 ||
        (r = identify(db, &is_new, e)) != 0 || (r = settings(db, e)) != 0 ||
        (r = is_new ? create(db, fill, e) : upgrade(db, e)) != 0 ||
        (r = fold(db, SQLITE_CHECKPOINT_TRUNCATE, e)) != 0) {
        goto out;
    }
    return 0;
out:
    fl_db_close(db);
    return r;
}

void fl_db_close(struct fl_db *db)
{
    for (int i = 0; i < FL_SQL_COUNT; i++) {
        sqlite3_finalize(db->cache[i]);
        db->cache[i] = NULL;
    }
    if (db->handle && db->broken) {
        /* Closing folds the log back, from pages that a failed sync may have lost. Not so. */
        sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    }
    sqlite3_close_v2(db->handle);
    db->handle = NULL;
}
