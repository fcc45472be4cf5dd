#include "client/core/ledger_receipts.h"

#include "client/core/ledger_db.h"

#include <stdio.h>
#include <string.h>

/* Of a row of `receipt`: wall_ms 0 = wanted. */

int fl_ledger_receipts_wanted(struct fl_ledger *l, const uint8_t coordinator[16],
                              struct fl_wanted *ret, uint32_t room, uint32_t *ret_count,
                              struct fl_err *e)
{
    sqlite3_stmt *s;
    /* By chance, so that those of a round that is never published do not stand before others. */
    int r = fl_ledger_db_prepare(l,
                                 "SELECT r.incarnation, r.round, r.exchange, x.update_digest"
                                 " FROM receipt r JOIN entry x USING (incarnation, round, exchange)"
                                 " WHERE x.kind = 3 AND r.wall_ms = 0 AND r.coordinator = ?1"
                                 " ORDER BY random() LIMIT ?2",
                                 &s, e);

    if (r < 0) {
        return r;
    }
    sqlite3_bind_blob(s, 1, coordinator, 16, SQLITE_STATIC);
    sqlite3_bind_int64(s, 2, room);
    *ret_count = 0;
    while ((r = fl_ledger_db_step(l, s, e)) == 1 && *ret_count < room) {
        struct fl_wanted *w = &ret[(*ret_count)++];
        struct fl_key *k = &w->key;
        k->round = (uint64_t)sqlite3_column_int64(s, 1);
        k->exchange = (uint32_t)sqlite3_column_int64(s, 2);
        if (!fl_ledger_db_blob(s, 0, k->incarnation, sizeof k->incarnation) ||
            !fl_ledger_db_blob(s, 3, w->update.bytes, FL_DIGEST_SIZE)) {
            r = fl_ledger_db_damaged(l, "a receipt with a field of wrong size", e);
            break;
        }
    }
    sqlite3_finalize(s);
    return r < 0 ? r : 0;
}

/* Within the transaction of the debit. */
int fl_ledger_db_want_receipt(struct fl_ledger *l, const struct fl_key *key,
                              const uint8_t coordinator[16], struct fl_err *e)
{
    sqlite3_stmt *s;
    int r = fl_ledger_db_prepare(l,
                                 "INSERT INTO receipt (incarnation, round, exchange, coordinator)"
                                 " VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                                 &s, e);

    if (r < 0) {
        return r;
    }
    fl_ledger_db_bind_key(s, 1, key);
    sqlite3_bind_blob(s, 4, coordinator, 16, SQLITE_STATIC);
    r = fl_ledger_db_step(l, s, e);
    sqlite3_finalize(s);
    return r < 0 ? r : 0;
}

static int keep_certificate(struct fl_ledger *l, const struct fl_receipt_proof *p,
                            struct fl_digest *ret, struct fl_err *e)
{
    sqlite3_stmt *s;

    fl_digest_of(p->certificate, p->certificate_size, ret);
    int r = fl_ledger_db_prepare(
        l, "INSERT INTO signer (digest, certificate) VALUES (?1, ?2) ON CONFLICT DO NOTHING", &s,
        e);
    if (r < 0) {
        return r;
    }
    sqlite3_bind_blob(s, 1, ret->bytes, sizeof ret->bytes, SQLITE_STATIC);
    sqlite3_bind_blob(s, 2, p->certificate, (int)p->certificate_size, SQLITE_STATIC);
    r = fl_ledger_db_step(l, s, e);
    sqlite3_finalize(s);
    return r < 0 ? r : 0;
}

static int keep(struct fl_ledger *l, const struct fl_receipt_proof *p, uint64_t wall_ms,
                struct fl_err *e)
{
    const struct fl_receipt *x = &p->receipt;
    struct fl_digest signer;
    sqlite3_stmt *s;
    int r = p->reason ? 0 : keep_certificate(l, p, &signer, e);

    r = r < 0 ? r
              : fl_ledger_db_prepare(
                    l,
                    "UPDATE receipt SET wall_ms = ?4, reason = ?5, weight = ?6, record = ?7,"
                    " model = ?8, signer = ?9, signature = ?10, counted = ?11 WHERE incarnation = "
                    "?1 AND round ="
                    " ?2 AND exchange = ?3 AND wall_ms = 0",
                    &s, e);
    if (r < 0) {
        return r;
    }
    fl_ledger_db_bind_key(s, 1, &x->key);
    sqlite3_bind_int64(s, 4, (sqlite3_int64)wall_ms);
    sqlite3_bind_int64(s, 5, p->reason);
    if (!p->reason) {
        sqlite3_bind_int64(s, 6, x->weight);
        sqlite3_bind_blob(s, 7, x->record.bytes, FL_DIGEST_SIZE, SQLITE_STATIC);
        sqlite3_bind_blob(s, 8, x->model.bytes, FL_DIGEST_SIZE, SQLITE_STATIC);
        sqlite3_bind_blob(s, 9, signer.bytes, FL_DIGEST_SIZE, SQLITE_STATIC);
        sqlite3_bind_blob(s, 10, p->signature, (int)p->signature_size, SQLITE_STATIC);
        sqlite3_bind_int64(s, 11, (sqlite3_int64)x->round);
    }
    r = fl_ledger_db_step(l, s, e);
    sqlite3_finalize(s);
    return r < 0 ? r : 0;
}

int fl_ledger_receipts_keep(struct fl_ledger *l, const struct fl_receipt_proof *p, uint32_t count,
                            uint64_t wall_ms, struct fl_err *e)
{
    int r = fl_ledger_db_begin(l, e);

    if (r < 0) {
        return r;
    }
    for (uint32_t i = 0; r == 0 && i < count; i++) {
        r = keep(l, &p[i], wall_ms ? wall_ms : 1, e);
    }
    return fl_ledger_db_end(l, r, e);
}

/* A blob of at most `room` bytes. */
static bool copy_blob(sqlite3_stmt *s, int column, uint8_t *ret, size_t room, size_t *ret_size)
{
    *ret_size = (size_t)sqlite3_column_bytes(s, column);
    if (*ret_size == 0 || *ret_size > room) {
        return false;
    }
    memcpy(ret, sqlite3_column_blob(s, column), *ret_size);
    return true;
}

static bool read_row(sqlite3_stmt *s, uint64_t wall_ms, struct fl_receipt_proof *p)
{
    struct fl_receipt *x = &p->receipt;

    p->reason = wall_ms ? sqlite3_column_int(s, 7) : -1;
    snprintf(x->job, sizeof x->job, "%s", (const char *)sqlite3_column_text(s, 2));
    x->key.round = (uint64_t)sqlite3_column_int64(s, 4);
    x->key.exchange = (uint32_t)sqlite3_column_int64(s, 5);
    x->size = (uint64_t)sqlite3_column_int64(s, 13);
    if (!fl_ledger_db_blob(s, 3, x->key.incarnation, FL_INCARNATION_SIZE) ||
        !fl_ledger_db_blob(s, 6, x->update.bytes, FL_DIGEST_SIZE) ||
        !fl_ledger_db_blob(s, 14, x->agent, sizeof x->agent)) {
        return false;
    }
    if (p->reason) {
        return true;
    }
    x->weight = (uint32_t)sqlite3_column_int64(s, 8);
    x->round = (uint64_t)sqlite3_column_int64(s, 15);
    return fl_ledger_db_blob(s, 9, x->record.bytes, FL_DIGEST_SIZE) &&
           fl_ledger_db_blob(s, 10, x->model.bytes, FL_DIGEST_SIZE) &&
           copy_blob(s, 11, p->signature, sizeof p->signature, &p->signature_size) &&
           copy_blob(s, 12, p->certificate, sizeof p->certificate, &p->certificate_size);
}

int fl_ledger_receipts_each(struct fl_ledger *l, uint64_t after, uint32_t limit,
                            int (*each)(void *arg, uint64_t number, uint64_t wall_ms,
                                        const struct fl_receipt_proof *p),
                            void *arg, struct fl_err *e)
{
    sqlite3_stmt *s;
    int r = fl_ledger_db_prepare(
        l,
        "SELECT x.seq, r.wall_ms, x.job, r.incarnation, r.round, r.exchange, x.update_digest,"
        " r.reason, r.weight, r.record, r.model, r.signature, g.certificate, x.size, m.owner,"
        " r.counted"
        " FROM entry x JOIN receipt r USING (incarnation, round, exchange) JOIN meta m"
        " LEFT JOIN signer g ON g.digest = r.signer"
        " WHERE x.kind = 3 AND x.seq > ?1 ORDER BY x.seq LIMIT ?2",
        &s, e);

    if (r < 0) {
        return r;
    }
    sqlite3_bind_int64(s, 1, (sqlite3_int64)after);
    sqlite3_bind_int64(s, 2, limit);
    while ((r = fl_ledger_db_step(l, s, e)) == 1) {
        uint64_t wall_ms = (uint64_t)sqlite3_column_int64(s, 1);
        struct fl_receipt_proof p = {.reason = 0};
        if (!read_row(s, wall_ms, &p)) {
            r = fl_ledger_db_damaged(l, "a receipt with a field of wrong size", e);
            break;
        }
        if (each(arg, (uint64_t)sqlite3_column_int64(s, 0), wall_ms, &p) != 0) {
            r = 0;
            break;
        }
    }
    sqlite3_finalize(s);
    return r < 0 ? r : 0;
}
