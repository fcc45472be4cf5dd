/*
 * The door to SQLite: a database opened so that a commit is on the disk, queries without ceremony,
 * and failures sorted into what may be tried again and what is final.
 *
 *     struct fl_query q = fl_query(db, FL_SQL_AGENT_ADD);
 *     fl_query_blob(&q, key, 32);
 *     fl_query_text(&q, name);
 *     int r = fl_query_step(&q, e);       1 a row, 0 done, negative: an error
 *     fl_query_end(&q);
 *
 * Parameters are bound in their order; a failure anywhere shows at the next step.
 */
#ifndef SERVER_STORE_DB_H
#define SERVER_STORE_DB_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "server/store/sql.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fl_db {
    sqlite3 *handle;
    sqlite3_stmt *cache[FL_SQL_COUNT];
    int wal_pages; /* frames in the write-ahead log after the last commit */
    bool broken;   /* a durable write failed: nothing may be recorded any more */
    char why[160];
};

/* Opens or creates (mode 0600) and checks; see db.c for what is asserted. When there was no
 * database its tables are made, and `fill` runs in the same transaction. On failure everything is
 * closed. */
int fl_db_open(const char *path, struct fl_db *db, int (*fill)(struct fl_db *db, struct fl_err *e),
               struct fl_err *e);
void fl_db_close(struct fl_db *db);

/* Refuses when the handle is broken. */
int fl_db_begin(struct fl_db *db, struct fl_err *e);
/* 0: on the disk. Otherwise rolled back. */
int fl_db_commit(struct fl_db *db, struct fl_err *e);
void fl_db_rollback(struct fl_db *db);
/* Ends a transaction: commits when r is 0, otherwise rolls back and returns r. */
int fl_db_finish(struct fl_db *db, int r, struct fl_err *e);
/* From now on nothing is recorded; for failures outside the database. Returns e->code. */
int fl_db_break(struct fl_db *db, struct fl_err *e);
int fl_db_usable(const struct fl_db *db, struct fl_err *e);

struct fl_query {
    struct fl_db *db;
    sqlite3_stmt *stmt;
    int next; /* parameter to bind */
    int rc;
};

struct fl_query fl_query(struct fl_db *db, enum fl_sql sql);
void fl_query_u64(struct fl_query *q, uint64_t value); /* up to INT64_MAX */
void fl_query_text(struct fl_query *q, const char *text);
void fl_query_blob(struct fl_query *q, const void *data, size_t size);
void fl_query_digest(struct fl_query *q, const struct fl_digest *d);
int fl_query_step(struct fl_query *q, struct fl_err *e);
/* As step, then end; for statements without rows. A violated UNIQUE or foreign key is
 * -`constraint`.
 */
int fl_query_run(struct fl_query *q, enum fl_reason constraint, struct fl_err *e);
void fl_query_end(struct fl_query *q);

uint64_t fl_column_u64(struct fl_query *q, int column);
/* Cut to size; always terminated. */
void fl_column_text(struct fl_query *q, int column, char *ret, size_t size);
/* False when the value does not have exactly this size. */
bool fl_column_blob(struct fl_query *q, int column, void *ret, size_t size);

#endif
