/*
 * The file is trusted only after it was looked at: regular and private (0600), a database of this
 * application and version, of this agent, with sound pages (quick_check) and an unbroken chain.
 * Only then is its journal mode touched, so that a file of somebody else is never changed.
 *
 * WAL with synchronous=FULL makes a commit durable when it returns; both are read back, since
 * SQLite answers a refused pragma with silence. The lock is exclusive: one process owns a ledger,
 * and there is no shared-memory file.
 *
 * The chain: digest 0 names the owner, digest n covers digest n-1 and every column of row n as
 * SQLite holds it (type, length, value). It is computed from the row read back, so writing and
 * verifying cannot disagree about a conversion.
 */
#include "client/core/ledger_db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { APPLICATION = 0x46434c47, VERSION = 1 }; /* "FCLG" */

static const char schema[] =
    "CREATE TABLE meta (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), owner BLOB NOT NULL)"
    " STRICT;"
    "CREATE TABLE entry (seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL, wall_ms INTEGER NOT NULL,"
    " incarnation BLOB, round INTEGER, exchange INTEGER, job TEXT, coordinator BLOB, unit INTEGER,"
    " mechanism INTEGER, q REAL, sigma REAL, a REAL, b REAL, count INTEGER, data BLOB,"
    " update_digest BLOB, size INTEGER, private_state BLOB, norm_before REAL, clip REAL,"
    " noise_std REAL, saturated INTEGER, plan BLOB, base BLOB, seed_digest BLOB, flag INTEGER,"
    " chain BLOB NOT NULL) STRICT;"
    "CREATE UNIQUE INDEX entry_key ON entry (incarnation, round, exchange, kind)"
    " WHERE incarnation IS NOT NULL;"
    "CREATE INDEX entry_data ON entry (data) WHERE kind = 3;"
    "CREATE INDEX entry_word ON entry (job) WHERE kind = 5;"
    "CREATE TABLE seed (incarnation BLOB NOT NULL, round INTEGER NOT NULL,"
    " exchange INTEGER NOT NULL, seed BLOB NOT NULL, PRIMARY KEY (incarnation, round, exchange))"
    " STRICT, WITHOUT ROWID;";

/* Beside the entries (ledger_receipts.c); files of earlier builds get them when they are opened. */
static const char receipts[] =
    "CREATE TABLE IF NOT EXISTS receipt (incarnation BLOB NOT NULL, round INTEGER NOT NULL,"
    " exchange INTEGER NOT NULL, coordinator BLOB NOT NULL, wall_ms INTEGER NOT NULL DEFAULT 0,"
    " reason INTEGER, counted INTEGER, weight INTEGER, record BLOB, model BLOB, signer BLOB, "
    "signature BLOB,"
    " PRIMARY KEY (incarnation, round, exchange)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS receipt_wanted ON receipt (coordinator) WHERE wall_ms = 0;"
    "CREATE TABLE IF NOT EXISTS signer (digest BLOB PRIMARY KEY, certificate BLOB NOT NULL)"
    " STRICT, WITHOUT ROWID;";

/* ---- errors ---- */

int fl_ledger_db_damaged(const struct fl_ledger *l, const char *what, struct fl_err *e)
{
    return fl_fail(e, FL_R_LEDGER, "ledger %s is damaged: %s", l->path, what);
}

int fl_ledger_db_fail(const struct fl_ledger *l, int rc, const char *what, struct fl_err *e)
{
    int sys = l->db ? sqlite3_system_errno(l->db) : 0;

    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return fl_fail(e, FL_R_NOMEM, "ledger %s: %s", l->path, what);
    case SQLITE_FULL:
        return fl_fail(e, FL_R_DISK_FULL, "ledger %s: %s: no space left on the disk", l->path,
                       what);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return fl_fail(e, FL_R_LEDGER, "ledger %s is in use by another process or agent", l->path);
    case SQLITE_READONLY:
        return fl_fail(e, FL_R_LEDGER, "ledger %s is read-only; nothing can be released", l->path);
    case SQLITE_NOTADB:
        return fl_fail(e, FL_R_LEDGER, "ledger %s is not a database", l->path);
    case SQLITE_CORRUPT:
        return fl_ledger_db_damaged(l, sqlite3_errmsg(l->db), e);
    case SQLITE_CANTOPEN:
        return fl_fail_sys(e, FL_R_LEDGER, sys, "ledger %s cannot be opened", l->path);
    case SQLITE_IOERR:
        if (sys == ENOSPC || sys == EDQUOT) {
            return fl_fail_sys(e, FL_R_DISK_FULL, sys, "ledger %s: %s", l->path, what);
        }
        return fl_fail_sys(e, FL_R_LEDGER, sys ? sys : EIO, "ledger %s: %s", l->path, what);
    default:
        return fl_fail(e, FL_R_LEDGER, "ledger %s: %s: %s", l->path, what,
                       l->db ? sqlite3_errmsg(l->db) : sqlite3_errstr(rc));
    }
}

/* ---- statements ---- */

int fl_ledger_db_prepare(const struct fl_ledger *l, const char *sql, sqlite3_stmt **ret,
                         struct fl_err *e)
{
    int rc = sqlite3_prepare_v2(l->db, sql, -1, ret, NULL);

    return rc == SQLITE_OK ? 0 : fl_ledger_db_fail(l, rc, "prepare", e);
}

int fl_ledger_db_step(const struct fl_ledger *l, sqlite3_stmt *s, struct fl_err *e)
{
    int rc = sqlite3_step(s);

    if (rc == SQLITE_ROW || rc == SQLITE_DONE) {
        return rc == SQLITE_ROW;
    }
    return fl_ledger_db_fail(l, rc, sqlite3_stmt_readonly(s) ? "read" : "write", e);
}

static int run(const struct fl_ledger *l, const char *sql, const char *what, struct fl_err *e)
{
    int rc = sqlite3_exec(l->db, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? 0 : fl_ledger_db_fail(l, rc, what, e);
}

int fl_ledger_db_begin(struct fl_ledger *l, struct fl_err *e)
{
    l->head_before = l->head;
    l->entries_before = l->entries;
    return run(l, "BEGIN IMMEDIATE", "begin", e);
}

int fl_ledger_db_end(struct fl_ledger *l, int r, struct fl_err *e)
{
    if (r == 0) {
        r = run(l, "COMMIT", "commit", e);
    }
    if (r < 0 && !sqlite3_get_autocommit(l->db)) {
        /* A rollback that fails leaves the connection unusable, and every later call says so. */
        sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
    }
    if (r < 0) {
        l->head = l->head_before;
        l->entries = l->entries_before;
    }
    return r;
}

/* ---- the chain ---- */

static void chain_row(const struct fl_digest *before, sqlite3_stmt *row, struct fl_digest *ret)
{
    struct fl_hash h;

    fl_hash_init(&h);
    fl_hash_add(&h, before->bytes, sizeof before->bytes);
    for (int i = 0; i < FL_ENTRY_CHAIN; i++) {
        int type = sqlite3_column_type(row, i);
        double real;
        uint64_t bits = 0;
        fl_hash_add_u64(&h, (uint64_t)type);
        switch (type) {
        case SQLITE_INTEGER:
            fl_hash_add_u64(&h, (uint64_t)sqlite3_column_int64(row, i));
            break;
        case SQLITE_FLOAT:
            real = sqlite3_column_double(row, i);
            memcpy(&bits, &real, sizeof bits);
            fl_hash_add_u64(&h, bits);
            break;
        case SQLITE_NULL:
            break;
        default: {
            const void *blob = sqlite3_column_blob(row, i);
            size_t size = (size_t)sqlite3_column_bytes(row, i);
            fl_hash_add_u64(&h, size);
            if (size) {
                fl_hash_add(&h, blob, size);
            }
            break;
        }
        }
    }
    fl_hash_end(&h, ret);
}

int fl_ledger_db_entry(struct fl_ledger *l, enum fl_entry_kind kind, uint64_t wall_ms,
                       sqlite3_stmt **ret, struct fl_err *e)
{
    int r = fl_ledger_db_prepare(
        l,
        "INSERT INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14,"
        " ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, x'')",
        ret, e);

    if (r == 0) {
        sqlite3_bind_int64(*ret, FL_ENTRY_SEQ + 1, (sqlite3_int64)l->entries + 1);
        sqlite3_bind_int64(*ret, FL_ENTRY_KIND + 1, kind);
        sqlite3_bind_int64(*ret, FL_ENTRY_WALL_MS + 1, (sqlite3_int64)wall_ms);
    }
    return r;
}

int fl_ledger_db_append(struct fl_ledger *l, sqlite3_stmt *insert, struct fl_err *e)
{
    sqlite3_stmt *s = NULL;
    struct fl_digest next;
    int r = fl_ledger_db_step(l, insert, e);

    sqlite3_finalize(insert);
    r = r < 0 ? r : fl_ledger_db_prepare(l, "SELECT * FROM entry WHERE seq = ?1", &s, e);
    if (r < 0) {
        return r;
    }
    sqlite3_bind_int64(s, 1, (sqlite3_int64)l->entries + 1);
    r = fl_ledger_db_step(l, s, e);
    if (r == 1) {
        chain_row(&l->head, s, &next);
    }
    sqlite3_finalize(s);
    if (r != 1) {
        return r < 0 ? r : fl_ledger_db_damaged(l, "an entry vanished", e);
    }
    r = fl_ledger_db_prepare(l, "UPDATE entry SET chain = ?1 WHERE seq = ?2", &s, e);
    if (r < 0) {
        return r;
    }
    sqlite3_bind_blob(s, 1, next.bytes, sizeof next.bytes, SQLITE_STATIC);
    sqlite3_bind_int64(s, 2, (sqlite3_int64)l->entries + 1);
    r = fl_ledger_db_step(l, s, e);
    sqlite3_finalize(s);
    if (r < 0) {
        return r;
    }
    l->head = next;
    l->entries++;
    return 0;
}

int fl_ledger_db_verify(const struct fl_ledger *l, struct fl_digest *ret_head,
                        uint64_t *ret_entries, struct fl_err *e)
{
    struct fl_digest head = l->genesis;
    uint64_t entries = 0;
    sqlite3_stmt *s;
    int r = fl_ledger_db_prepare(l, "SELECT * FROM entry ORDER BY seq", &s, e);

    if (r < 0) {
        return r;
    }
    while ((r = fl_ledger_db_step(l, s, e)) == 1) {
        chain_row(&head, s, &head);
        entries++;
        if (sqlite3_column_int64(s, FL_ENTRY_SEQ) != (sqlite3_int64)entries ||
            sqlite3_column_bytes(s, FL_ENTRY_CHAIN) != (int)sizeof head.bytes ||
            memcmp(sqlite3_column_blob(s, FL_ENTRY_CHAIN), head.bytes, sizeof head.bytes) != 0) {
            r = fl_fail(e, FL_R_LEDGER, "ledger %s is not to be trusted: entry %llu was changed",
                        l->path, (unsigned long long)entries);
            break;
        }
    }
    sqlite3_finalize(s);
    if (r < 0) {
        return r;
    }
    *ret_head = head;
    *ret_entries = entries;
    return 0;
}

/* ---- columns ---- */

void fl_ledger_db_bind_key(sqlite3_stmt *s, int first, const struct fl_key *key)
{
    sqlite3_bind_blob(s, first, key->incarnation, sizeof key->incarnation, SQLITE_STATIC);
    sqlite3_bind_int64(s, first + 1, (sqlite3_int64)key->round);
    sqlite3_bind_int64(s, first + 2, key->exchange);
}

void fl_ledger_db_bind_digest(sqlite3_stmt *s, enum fl_entry_column column,
                              const struct fl_digest *d)
{
    sqlite3_bind_blob(s, (int)column + 1, d->bytes, sizeof d->bytes, SQLITE_STATIC);
}

bool fl_ledger_db_blob(sqlite3_stmt *s, int column, void *ret, size_t size)
{
    if ((size_t)sqlite3_column_bytes(s, column) != size) {
        return false;
    }
    memcpy(ret, sqlite3_column_blob(s, column), size);
    return true;
}

struct fl_event fl_ledger_db_event(sqlite3_stmt *s, int mechanism, int q, int count)
{
    return (struct fl_event){
        .mechanism = (enum fl_mechanism)sqlite3_column_int(s, mechanism),
        .q = sqlite3_column_double(s, q),
        .sigma = sqlite3_column_double(s, q + 1),
        .a = sqlite3_column_double(s, q + 2),
        .b = sqlite3_column_double(s, q + 3),
        .count = (uint64_t)sqlite3_column_int64(s, count),
    };
}

int fl_ledger_db_find(const struct fl_ledger *l, const struct fl_key *key, enum fl_entry_kind kind,
                      sqlite3_stmt **ret, struct fl_err *e)
{
    sqlite3_stmt *s;
    int r = fl_ledger_db_prepare(l,
                                 "SELECT * FROM entry WHERE incarnation = ?1 AND round = ?2"
                                 " AND exchange = ?3 AND kind = ?4",
                                 &s, e);

    if (r < 0) {
        return r;
    }
    fl_ledger_db_bind_key(s, 1, key);
    sqlite3_bind_int(s, 4, (int)kind);
    r = fl_ledger_db_step(l, s, e);
    if (r == 1 && ret) {
        *ret = s;
    } else {
        sqlite3_finalize(s);
    }
    return r;
}

int fl_ledger_db_entry_for(struct fl_ledger *l, const struct fl_key *key, enum fl_entry_kind kind,
                           uint64_t wall_ms, sqlite3_stmt **ret, struct fl_err *e)
{
    int r = fl_ledger_db_entry(l, kind, wall_ms, ret, e);

    if (r == 0) {
        fl_ledger_db_bind_key(*ret, FL_ENTRY_INCARNATION + 1, key);
    }
    return r;
}

/* ---- opening ---- */

/* A file's creation or removal is durable when its folder is synced. */
static int sync_folder(const struct fl_ledger *l, const char *path, struct fl_err *e)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');
    int length = slash ? (int)(slash - path) + 1 : 2, fd, r = 0;

    if (snprintf(folder, sizeof folder, "%.*s", length, slash ? path : "./") >=
        (int)sizeof folder) {
        return fl_fail(e, FL_R_LEDGER, "ledger %s: the path is too long", l->path);
    }
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0) {
        r = fl_fail_sys(e, FL_R_LEDGER, errno, "ledger %s: sync its folder", l->path);
    }
    if (fd >= 0) {
        close(fd);
    }
    return r;
}

/* The file exists and is ours alone afterwards. */
static int ready_file(const struct fl_ledger *l, const char *path, struct fl_err *e)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd >= 0) {
        close(fd);
        return sync_folder(l, path, e);
    }
    if (errno != EEXIST) {
        enum fl_reason reason = errno == ENOSPC || errno == EDQUOT ? FL_R_DISK_FULL : FL_R_LEDGER;
        return fl_fail_sys(e, reason, errno, "ledger %s cannot be created", l->path);
    }
    /* Not opened to look at: closing a descriptor would drop the locks of whoever has it open in
     * this process. */
    if (stat(path, &st) < 0) {
        return fl_fail_sys(e, FL_R_LEDGER, errno, "ledger %s cannot be opened", l->path);
    }
    if (!S_ISREG(st.st_mode)) {
        return fl_fail(e, FL_R_LEDGER, "ledger %s is not a regular file", l->path);
    }
    if (st.st_mode & 077) {
        return fl_fail(e, FL_R_FILE_MODE,
                       "ledger %s has mode %03o: others could read it; chmod 600 it", l->path,
                       st.st_mode & 0777u);
    }
    return 0;
}

/* The one value of a pragma, as text; cut to size. Runs to its end: a change is committed only
 * there, after the row that already tells the new value. */
static int ask(const struct fl_ledger *l, const char *sql, char *ret, size_t size, struct fl_err *e)
{
    sqlite3_stmt *s;
    int r = fl_ledger_db_prepare(l, sql, &s, e);

    if (r < 0) {
        return r;
    }
    r = fl_ledger_db_step(l, s, e);
    const char *text = r == 1 ? (const char *)sqlite3_column_text(s, 0) : NULL;
    snprintf(ret, size, "%s", text ? text : "");
    while (r == 1) {
        r = fl_ledger_db_step(l, s, e);
    }
    sqlite3_finalize(s);
    return r;
}

static int demand(const struct fl_ledger *l, const char *sql, const char *want, struct fl_err *e)
{
    char got[64];
    int r = ask(l, sql, got, sizeof got, e);

    if (r == 0 && strcmp(got, want) != 0) {
        return fl_fail(e, FL_R_LEDGER, "ledger %s: %s answers %s, not %s", l->path, sql, got, want);
    }
    return r;
}

static int create(struct fl_ledger *l, const uint8_t owner[32], struct fl_err *e)
{
    char pragmas[96];
    sqlite3_stmt *s = NULL;
    int r = fl_ledger_db_begin(l, e);

    if (r < 0) {
        return r;
    }
    snprintf(pragmas, sizeof pragmas, "PRAGMA application_id = %d; PRAGMA user_version = %d;",
             APPLICATION, VERSION);
    r = run(l, schema, "create", e);
    r = r < 0 ? r : run(l, pragmas, "create", e);
    r = r < 0 ? r : fl_ledger_db_prepare(l, "INSERT INTO meta VALUES (1, ?1)", &s, e);
    if (r == 0) {
        sqlite3_bind_blob(s, 1, owner, 32, SQLITE_STATIC);
        r = fl_ledger_db_step(l, s, e);
    }
    sqlite3_finalize(s);
    return fl_ledger_db_end(l, r, e);
}

static int check_owner(const struct fl_ledger *l, const uint8_t owner[32], struct fl_err *e)
{
    sqlite3_stmt *s;
    int r = fl_ledger_db_prepare(l, "SELECT owner FROM meta", &s, e);

    if (r < 0) {
        return r;
    }
    r = fl_ledger_db_step(l, s, e);
    if (r == 0) {
        r = fl_ledger_db_damaged(l, "it names no owner", e);
    } else if (r == 1 && (sqlite3_column_bytes(s, 0) != 32 ||
                          memcmp(sqlite3_column_blob(s, 0), owner, 32) != 0)) {
        r = fl_fail(e, FL_R_LEDGER, "ledger %s belongs to another agent", l->path);
    }
    sqlite3_finalize(s);
    return r < 0 ? r : 0;
}

/* *ret_fresh: there is nothing in it yet. */
static int identify(const struct fl_ledger *l, bool *ret_fresh, struct fl_err *e)
{
    char application[32], version[32], tables[32], sound[128];
    int r = ask(l, "PRAGMA application_id", application, sizeof application, e);

    r = r < 0 ? r : ask(l, "PRAGMA user_version", version, sizeof version, e);
    r = r < 0 ? r : ask(l, "SELECT count(*) FROM sqlite_schema", tables, sizeof tables, e);
    if (r < 0) {
        return r;
    }
    *ret_fresh =
        strcmp(application, "0") == 0 && strcmp(version, "0") == 0 && strcmp(tables, "0") == 0;
    if (*ret_fresh) {
        return 0;
    }
    char want[32];
    snprintf(want, sizeof want, "%d", APPLICATION);
    if (strcmp(application, want) != 0) {
        return fl_fail(e, FL_R_LEDGER, "ledger %s is the database of another program", l->path);
    }
    snprintf(want, sizeof want, "%d", VERSION);
    if (strcmp(version, want) != 0) {
        return fl_fail(e, FL_R_LEDGER, "ledger %s has version %s; this program knows %s", l->path,
                       version, want);
    }
    r = ask(l, "PRAGMA quick_check(1)", sound, sizeof sound, e);
    if (r == 0 && strcmp(sound, "ok") != 0) {
        r = fl_ledger_db_damaged(l, sound, e);
    }
    return r;
}

/* A process that was killed before a sync leaves entries that are visible but not on the disk. They
 * must be before anything is answered from them: an update that was released again because of a
 * debit which then is lost with the power would be one that was never paid for. */
static int settle(const struct fl_ledger *l, const char *path, struct fl_err *e)
{
    int rc = sqlite3_wal_checkpoint_v2(l->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);

    return rc == SQLITE_OK ? sync_folder(l, path, e)
                           : fl_ledger_db_fail(l, rc, "fold the log back", e);
}

int fl_ledger_db_open(struct fl_ledger *l, const char *path, const uint8_t owner[32],
                      struct fl_err *e)
{
    static const char purpose[] = "cohort ledger of";
    struct fl_hash h;
    bool fresh = false;
    int rc, r;

    snprintf(l->path, sizeof l->path, "%s", path);
    r = ready_file(l, path, e);
    if (r < 0) {
        return r;
    }
    rc = sqlite3_open_v2(path, &l->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK) {
        return fl_ledger_db_fail(l, rc, "open", e);
    }
    sqlite3_extended_result_codes(l->db, 1);
    sqlite3_busy_timeout(l->db, 500);
    if (sqlite3_db_readonly(l->db, "main") == 1) {
        return fl_ledger_db_fail(l, SQLITE_READONLY, "open", e);
    }
    sqlite3_db_config(l->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    /* First of all: after any look at the file it would be too late to do without shared memory. */
    r = demand(l, "PRAGMA locking_mode = EXCLUSIVE", "exclusive", e);
    r = r < 0 ? r
              : run(l,
                    "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;"
                    " PRAGMA cache_size = -256",
                    "open", e);
    r = r < 0 ? r : identify(l, &fresh, e);
    r = r < 0 ? r : demand(l, "PRAGMA journal_mode = WAL", "wal", e);
    r = r < 0 ? r : run(l, "PRAGMA synchronous = FULL", "open", e);
    r = r < 0 ? r : demand(l, "PRAGMA synchronous", "2", e);
    r = r < 0 ? r : demand(l, "PRAGMA secure_delete = ON", "1", e);
    if (r == 0) {
        /* The rollback journal of the change to WAL must not come back after a loss of power. */
        r = fresh ? sync_folder(l, path, e) : check_owner(l, owner, e);
        r = r == 0 && fresh ? create(l, owner, e) : r;
        r = r == 0 ? run(l, receipts, "create", e) : r;
        r = r == 0 ? settle(l, path, e) : r;
    }
    if (r < 0) {
        return r;
    }
    fl_hash_init(&h);
    fl_hash_add(&h, purpose, sizeof purpose);
    fl_hash_add(&h, owner, 32);
    fl_hash_end(&h, &l->genesis);
    return fl_ledger_db_verify(l, &l->head, &l->entries, e);
}

void fl_ledger_db_close(struct fl_ledger *l)
{
    sqlite3_close_v2(l->db);
    l->db = NULL;
}
