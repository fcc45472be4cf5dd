/*
 * The ledger's file: opening and trusting it, transactions, statements, the chain. Private to
 * ledger.c.
 */
#ifndef CLIENT_CORE_LEDGER_DB_H
#define CLIENT_CORE_LEDGER_DB_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/privacy/accountant.h"
#include "common/wire/ids.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

/* Columns of table `entry`, in its order; parameter numbers of its insert are these plus 1. */
enum fl_entry_column {
    FL_ENTRY_SEQ,
    FL_ENTRY_KIND,
    FL_ENTRY_WALL_MS,
    FL_ENTRY_INCARNATION, /* the key: three columns, NULL where there is none */
    FL_ENTRY_ROUND,
    FL_ENTRY_EXCHANGE,
    FL_ENTRY_JOB,
    FL_ENTRY_COORDINATOR,
    FL_ENTRY_UNIT,
    FL_ENTRY_MECHANISM,
    FL_ENTRY_Q,
    FL_ENTRY_SIGMA,
    FL_ENTRY_A,
    FL_ENTRY_B,
    FL_ENTRY_COUNT,
    FL_ENTRY_DATA,
    FL_ENTRY_UPDATE,
    FL_ENTRY_SIZE,
    FL_ENTRY_PRIVATE,
    FL_ENTRY_NORM,
    FL_ENTRY_CLIP,
    FL_ENTRY_STD,
    FL_ENTRY_SATURATED,
    FL_ENTRY_PLAN,
    FL_ENTRY_BASE,
    FL_ENTRY_SEED, /* digest of the seed, which has a table of its own and is erased in time */
    FL_ENTRY_FLAG, /* of WITHDRAW: 1 = withdrawn; of RELEASE: who adds the noise, and PLACELESS */
    FL_ENTRY_CHAIN,
    FL_ENTRY_COLUMNS,
};

enum {
    FL_ENTRY_NOISE = 3,
    FL_ENTRY_PLACELESS = 4
}; /* parts of FLAG; earlier entries lack the latter */

enum fl_entry_kind {
    FL_ENTRY_PREPARED = 1,
    FL_ENTRY_INTENT = 2,
    FL_ENTRY_RELEASE = 3,
    FL_ENTRY_ACKNOWLEDGED = 4,
    FL_ENTRY_WITHDRAW = 5,
};

struct fl_ledger {
    sqlite3 *db;
    char path[256]; /* for messages, perhaps cut */
    struct fl_digest genesis, head;
    uint64_t entries;
    struct fl_digest head_before; /* of the running transaction, for its rollback */
    uint64_t entries_before;
};

int fl_ledger_db_open(struct fl_ledger *l, const char *path, const uint8_t owner[32],
                      struct fl_err *e);
void fl_ledger_db_close(struct fl_ledger *l);

/* A failure of SQLite (rc not OK) as an error of the registry, saying what is wrong with the file.
 */
int fl_ledger_db_fail(const struct fl_ledger *l, int rc, const char *what, struct fl_err *e);
/* The file contradicts itself. */
int fl_ledger_db_damaged(const struct fl_ledger *l, const char *what, struct fl_err *e);

int fl_ledger_db_begin(struct fl_ledger *l, struct fl_err *e);
/* Commits when r is 0, else rolls back; returns r or the failure to commit. */
int fl_ledger_db_end(struct fl_ledger *l, int r, struct fl_err *e);

int fl_ledger_db_prepare(const struct fl_ledger *l, const char *sql, sqlite3_stmt **ret,
                         struct fl_err *e);
/* One step: 1 a row, 0 the end, or an error. */
int fl_ledger_db_step(const struct fl_ledger *l, sqlite3_stmt *s, struct fl_err *e);

/* The statement that inserts an entry of this kind: the caller binds what it has, then append. */
int fl_ledger_db_entry(struct fl_ledger *l, enum fl_entry_kind kind, uint64_t wall_ms,
                       sqlite3_stmt **ret, struct fl_err *e);
/* Takes the statement: inserts the row and chains it. Within a transaction. */
int fl_ledger_db_append(struct fl_ledger *l, sqlite3_stmt *insert, struct fl_err *e);

/* The same for an entry about a key. */
int fl_ledger_db_entry_for(struct fl_ledger *l, const struct fl_key *key, enum fl_entry_kind kind,
                           uint64_t wall_ms, sqlite3_stmt **ret, struct fl_err *e);
/* The entry of this kind for a key: 1 with its row in *ret (to finalize; ret may be NULL), 0 none.
 */
int fl_ledger_db_find(const struct fl_ledger *l, const struct fl_key *key, enum fl_entry_kind kind,
                      sqlite3_stmt **ret, struct fl_err *e);

/* Within a transaction (ledger_receipts.c): a release that a receipt is expected of. */
int fl_ledger_db_want_receipt(struct fl_ledger *l, const struct fl_key *key,
                              const uint8_t coordinator[16], struct fl_err *e);
/* Within a transaction (ledger_intent.c). */
int fl_ledger_db_erase_seed(struct fl_ledger *l, const struct fl_key *key, struct fl_err *e);

/* A key takes three parameters from `first` on. Values must live until the statement has run. */
void fl_ledger_db_bind_key(sqlite3_stmt *s, int first, const struct fl_key *key);
void fl_ledger_db_bind_digest(sqlite3_stmt *s, enum fl_entry_column column,
                              const struct fl_digest *d);
/* False when the column has another size. */
bool fl_ledger_db_blob(sqlite3_stmt *s, int column, void *ret, size_t size);
/* q, sigma, a, b stand side by side. */
struct fl_event fl_ledger_db_event(sqlite3_stmt *s, int mechanism, int q, int count);

/* Recomputes the chain; on success the last digest and the number of entries. */
int fl_ledger_db_verify(const struct fl_ledger *l, struct fl_digest *ret_head,
                        uint64_t *ret_entries, struct fl_err *e);

#endif
