/*
 * One table of entries, appended and chained; what is asked is read from them. An entry is
 *
 *   PREPARED       a seed laid in for a key before anything asks for it
 *   INTENT         a seed bound to the digests of everything that the computation reads
 *   RELEASE        the debit: what left under a key, what it cost, of which data
 *   ACKNOWLEDGED   the coordinator has it
 *   WITHDRAW       the administrator's word on a job
 *
 * and there is at most one of each for a key, by an index. Seeds themselves stand in a table beside
 * and are erased when the update is acknowledged: until then they may be needed to repeat the
 * computation, afterwards they could only help to subtract the noise. The chain keeps their digest.
 *
 * A key lives like this:
 *
 *   nothing -> (PREPARED) -> INTENT -> RELEASE -> ACKNOWLEDGED
 *
 * Whatever happens twice is the same and fine, or different and refused: another input of an
 * intent, another digest of a release. A debit without its intent is refused as well, and so is one
 * for other data than the intent named.
 *
 * ledger_db.c has the file and the chain, ledger_intent.c seeds, ledger_budget.c what may be spent.
 */
#include "client/core/ledger.h"

#include "client/core/ledger_db.h"
#include "common/base/mem.h"

#include <string.h>

int fl_ledger_open(const char *path, const uint8_t owner[32], struct fl_ledger **ret,
                   struct fl_err *e)
{
    struct fl_ledger *l = fl_try(1, sizeof *l);
    int r;

    if (!l) {
        return fl_fail(e, FL_R_NOMEM, "ledger");
    }
    r = fl_ledger_db_open(l, path, owner, e);
    if (r < 0) {
        fl_ledger_close(l);
        return r;
    }
    *ret = l;
    return 0;
}

void fl_ledger_close(struct fl_ledger *l)
{
    if (l) {
        fl_ledger_db_close(l);
        fl_free(l);
    }
}

int fl_ledger_verify(struct fl_ledger *l, struct fl_err *e)
{
    struct fl_digest head;
    uint64_t entries;
    int r = fl_ledger_db_verify(l, &head, &entries, e);

    if (r == 0 && (entries != l->entries || !fl_digest_equal(&head, &l->head))) {
        return fl_ledger_db_damaged(l, "the chain does not end where it did", e);
    }
    return r;
}

int fl_ledger_head(struct fl_ledger *l, uint64_t *ret_entries, struct fl_digest *ret_digest,
                   struct fl_err *e)
{
    static const struct fl_digest zero;

    (void)e;
    *ret_entries = l->entries;
    *ret_digest = l->entries ? l->head : zero;
    return 0;
}

void fl_ledger_genesis(const struct fl_ledger *l, struct fl_digest *ret)
{
    *ret = l->genesis;
}

static struct fl_ledger_column column_of(sqlite3_stmt *s, int i)
{
    struct fl_ledger_column c = {.name = sqlite3_column_name(s, i)};

    switch (sqlite3_column_type(s, i)) {
    case SQLITE_INTEGER:
        c.type = FL_LEDGER_COUNT;
        c.count = sqlite3_column_int64(s, i);
        break;
    case SQLITE_FLOAT:
        c.type = FL_LEDGER_REAL;
        c.real = sqlite3_column_double(s, i);
        break;
    case SQLITE_NULL:
        c.type = FL_LEDGER_NONE;
        break;
    default:
        c.type = sqlite3_column_type(s, i) == SQLITE_TEXT ? FL_LEDGER_TEXT : FL_LEDGER_BYTES;
        c.data = sqlite3_column_blob(s, i);
        c.size = (size_t)sqlite3_column_bytes(s, i);
        break;
    }
    return c;
}

int fl_ledger_entries(struct fl_ledger *l, uint64_t after, uint32_t limit,
                      int (*each)(void *arg, const struct fl_ledger_column *columns, int count),
                      void *arg, struct fl_err *e)
{
    struct fl_ledger_column columns[FL_ENTRY_COLUMNS];
    sqlite3_stmt *s;
    int r =
        fl_ledger_db_prepare(l, "SELECT * FROM entry WHERE seq > ?1 ORDER BY seq LIMIT ?2", &s, e);

    if (r < 0) {
        return r;
    }
    sqlite3_bind_int64(s, 1, (sqlite3_int64)(after > INT64_MAX ? INT64_MAX : after));
    sqlite3_bind_int64(s, 2, limit);
    while ((r = fl_ledger_db_step(l, s, e)) == 1) {
        for (int i = 0; i < FL_ENTRY_COLUMNS; i++) {
            columns[i] = column_of(s, i);
        }
        if ((r = each(arg, columns, FL_ENTRY_COLUMNS)) != 0) {
            break;
        }
    }
    sqlite3_finalize(s);
    return r;
}

/* The number-th release to this coordinator, or the newest (number 0): 1 found, 0 none. */
static int read_mark(struct fl_ledger *l, const uint8_t coordinator[16], uint64_t number,
                     struct fl_ledger_mark *ret, struct fl_err *e)
{
    sqlite3_stmt *s;
    struct fl_ledger_mark mark = {0};
    int r = fl_ledger_db_prepare(
        l,
        number ? "SELECT chain FROM entry WHERE kind = 3 AND coordinator = ?1"
                 " ORDER BY seq LIMIT 1 OFFSET ?2 - 1"
               : "SELECT chain, (SELECT count(*) FROM entry WHERE kind = 3 AND coordinator = ?1)"
                 " FROM entry WHERE kind = 3 AND coordinator = ?1 ORDER BY seq DESC LIMIT 1",
        &s, e);

    if (r < 0) {
        return r;
    }
    sqlite3_bind_blob(s, 1, coordinator, 16, SQLITE_STATIC);
    if (number) {
        sqlite3_bind_int64(s, 2, (sqlite3_int64)number);
    }
    r = fl_ledger_db_step(l, s, e);
    if (r == 1 && !fl_ledger_db_blob(s, 0, mark.head.bytes, sizeof mark.head.bytes)) {
        r = fl_ledger_db_damaged(l, "a release with a field of wrong size", e);
    } else if (r == 1) {
        mark.releases = number ? number : (uint64_t)sqlite3_column_int64(s, 1);
        *ret = mark;
    }
    sqlite3_finalize(s);
    return r;
}

int fl_ledger_mark(struct fl_ledger *l, const uint8_t coordinator[16], struct fl_ledger_mark *ret,
                   struct fl_err *e)
{
    struct fl_ledger_mark mark = {0};
    int r = read_mark(l, coordinator, 0, &mark, e);

    if (r >= 0) {
        *ret = mark;
    }
    return r < 0 ? r : 0;
}

int fl_ledger_holds(struct fl_ledger *l, const uint8_t coordinator[16],
                    const struct fl_ledger_mark *echo, struct fl_err *e)
{
    struct fl_ledger_mark mine = {0};
    int r;

    if (echo->releases == 0) {
        return 0;
    }
    if (echo->releases > INT64_MAX) {
        return fl_fail(e, FL_R_MSG_FIELD, "an echo of %llu releases",
                       (unsigned long long)echo->releases);
    }
    r = read_mark(l, coordinator, echo->releases, &mine, e);
    if (r < 0) {
        return r;
    }
    if (r == 0) {
        r = fl_ledger_mark(l, coordinator, &mine, e);
        return r < 0 ? r
                     : fl_fail(e, FL_R_LEDGER,
                               "ledger %s is an old copy: it holds %llu releases to this "
                               "coordinator, which has seen %llu; nothing is released",
                               l->path, (unsigned long long)mine.releases,
                               (unsigned long long)echo->releases);
    }
    if (!fl_digest_equal(&mine.head, &echo->head)) {
        return fl_fail(e, FL_R_LEDGER,
                       "ledger %s has another history than what this coordinator has seen (release "
                       "%llu differs); nothing is released",
                       l->path, (unsigned long long)echo->releases);
    }
    return 0;
}

/* ---- releases ---- */

static int read_release(const struct fl_ledger *l, sqlite3_stmt *s, struct fl_release *ret,
                        struct fl_err *e)
{
    struct fl_release r = {0};
    int job = sqlite3_column_bytes(s, FL_ENTRY_JOB);

    if (!fl_ledger_db_blob(s, FL_ENTRY_INCARNATION, r.key.incarnation, sizeof r.key.incarnation) ||
        !fl_ledger_db_blob(s, FL_ENTRY_COORDINATOR, r.coordinator, sizeof r.coordinator) ||
        !fl_ledger_db_blob(s, FL_ENTRY_DATA, r.data.bytes, sizeof r.data.bytes) ||
        !fl_ledger_db_blob(s, FL_ENTRY_UPDATE, r.update.bytes, sizeof r.update.bytes) ||
        !fl_ledger_db_blob(s, FL_ENTRY_PRIVATE, r.private_state.bytes,
                           sizeof r.private_state.bytes) ||
        job >= FL_PLAN_NAME_MAX) {
        return fl_ledger_db_damaged(l, "a release with a field of wrong size", e);
    }
    if (job) {
        memcpy(r.job, sqlite3_column_text(s, FL_ENTRY_JOB), (size_t)job);
    }
    r.key.round = (uint64_t)sqlite3_column_int64(s, FL_ENTRY_ROUND);
    r.key.exchange = (uint32_t)sqlite3_column_int64(s, FL_ENTRY_EXCHANGE);
    r.unit = (enum fl_unit)sqlite3_column_int(s, FL_ENTRY_UNIT);
    r.event = fl_ledger_db_event(s, FL_ENTRY_MECHANISM, FL_ENTRY_Q, FL_ENTRY_COUNT);
    r.size = (uint64_t)sqlite3_column_int64(s, FL_ENTRY_SIZE);
    r.norm_before = sqlite3_column_double(s, FL_ENTRY_NORM);
    r.clip = sqlite3_column_double(s, FL_ENTRY_CLIP);
    r.noise_std = sqlite3_column_double(s, FL_ENTRY_STD);
    r.saturated = (uint64_t)sqlite3_column_int64(s, FL_ENTRY_SATURATED);
    int flag = sqlite3_column_int(s, FL_ENTRY_FLAG);
    r.noise = (enum fl_noise_place)(flag & FL_ENTRY_NOISE);
    r.placeless = (flag & FL_ENTRY_PLACELESS) != 0;
    *ret = r;
    return 0;
}

static int append_release(struct fl_ledger *l, const struct fl_release *r, uint64_t wall_ms,
                          struct fl_err *e)
{
    sqlite3_stmt *s;
    int result = fl_ledger_db_entry_for(l, &r->key, FL_ENTRY_RELEASE, wall_ms, &s, e);

    if (result < 0) {
        return result;
    }
    sqlite3_bind_text(s, FL_ENTRY_JOB + 1, r->job, -1, SQLITE_STATIC);
    sqlite3_bind_blob(s, FL_ENTRY_COORDINATOR + 1, r->coordinator, sizeof r->coordinator,
                      SQLITE_STATIC);
    sqlite3_bind_int(s, FL_ENTRY_UNIT + 1, (int)r->unit);
    sqlite3_bind_int(s, FL_ENTRY_MECHANISM + 1, (int)r->event.mechanism);
    sqlite3_bind_double(s, FL_ENTRY_Q + 1, r->event.q);
    sqlite3_bind_double(s, FL_ENTRY_SIGMA + 1, r->event.sigma);
    sqlite3_bind_double(s, FL_ENTRY_A + 1, r->event.a);
    sqlite3_bind_double(s, FL_ENTRY_B + 1, r->event.b);
    sqlite3_bind_int64(s, FL_ENTRY_COUNT + 1, (sqlite3_int64)r->event.count);
    fl_ledger_db_bind_digest(s, FL_ENTRY_DATA, &r->data);
    fl_ledger_db_bind_digest(s, FL_ENTRY_UPDATE, &r->update);
    sqlite3_bind_int64(s, FL_ENTRY_SIZE + 1, (sqlite3_int64)r->size);
    fl_ledger_db_bind_digest(s, FL_ENTRY_PRIVATE, &r->private_state);
    sqlite3_bind_double(s, FL_ENTRY_NORM + 1, r->norm_before);
    sqlite3_bind_double(s, FL_ENTRY_CLIP + 1, r->clip);
    sqlite3_bind_double(s, FL_ENTRY_STD + 1, r->noise_std);
    sqlite3_bind_int64(s, FL_ENTRY_SATURATED + 1, (sqlite3_int64)r->saturated);
    int flag = (int)r->noise | (r->placeless ? FL_ENTRY_PLACELESS : 0);
    if (flag) {
        sqlite3_bind_int(s, FL_ENTRY_FLAG + 1, flag);
    }
    return fl_ledger_db_append(l, s, e);
}

/* The intent of a release: there, and for the same data. */
static int check_intent(const struct fl_ledger *l, const struct fl_release *r, struct fl_err *e)
{
    struct fl_digest data;
    sqlite3_stmt *row = NULL;
    int result = fl_ledger_db_find(l, &r->key, FL_ENTRY_INTENT, &row, e);

    if (result < 0) {
        return result;
    }
    if (result == 0) {
        return fl_fail(e, FL_R_INTENT, "round %llu has no intent; nothing is released without one",
                       (unsigned long long)r->key.round);
    }
    bool same = fl_ledger_db_blob(row, FL_ENTRY_DATA, data.bytes, sizeof data.bytes) &&
                fl_digest_equal(&data, &r->data);
    sqlite3_finalize(row);
    return same ? 0
                : fl_fail(e, FL_R_INTENT, "round %llu was begun with other data",
                          (unsigned long long)r->key.round);
}

static int debit(struct fl_ledger *l, const struct fl_budget *budget, const struct fl_release *r,
                 uint64_t wall_ms, struct fl_err *e)
{
    struct fl_release there;
    int result = fl_ledger_find(l, &r->key, &there, e);

    if (result < 0) {
        return result;
    }
    if (result == 1) {
        if (fl_digest_equal(&there.update, &r->update) && there.size == r->size) {
            return 0;
        }
        return fl_fail(e, FL_R_LEDGER,
                       "another update was already released for round %llu of job %s",
                       (unsigned long long)r->key.round, there.job);
    }
    result = check_intent(l, r, e);
    result = result < 0 ? result : fl_ledger_participates(l, &r->key, &r->event, e);
    result = result < 0
                 ? result
                 : fl_ledger_allows(l, budget, r->job, r->unit, r->noise, &r->event, &r->data, e);
    result = result < 0 ? result : append_release(l, r, wall_ms, e);
    return result < 0 ? result : fl_ledger_db_want_receipt(l, &r->key, r->coordinator, e);
}

int fl_ledger_debit(struct fl_ledger *l, const struct fl_budget *budget, const struct fl_release *r,
                    uint64_t wall_ms, struct fl_err *e)
{
    int result = fl_ledger_db_begin(l, e);

    return result < 0 ? result : fl_ledger_db_end(l, debit(l, budget, r, wall_ms, e), e);
}

int fl_ledger_find(struct fl_ledger *l, const struct fl_key *key, struct fl_release *ret,
                   struct fl_err *e)
{
    sqlite3_stmt *row = NULL;
    int r = fl_ledger_db_find(l, key, FL_ENTRY_RELEASE, &row, e);

    if (r == 1) {
        int read = read_release(l, row, ret, e);
        sqlite3_finalize(row);
        return read < 0 ? read : 1;
    }
    return r;
}

int fl_ledger_private(struct fl_ledger *l, const uint8_t incarnation[FL_INCARNATION_SIZE],
                      struct fl_digest *ret, uint64_t *ret_round, struct fl_err *e)
{
    sqlite3_stmt *s;
    struct fl_digest d;
    int r = fl_ledger_db_prepare(l,
                                 "SELECT private_state, round FROM entry WHERE incarnation = ?1"
                                 " AND kind = 3 ORDER BY seq DESC LIMIT 1",
                                 &s, e);

    if (r < 0) {
        return r;
    }
    sqlite3_bind_blob(s, 1, incarnation, FL_INCARNATION_SIZE, SQLITE_STATIC);
    r = fl_ledger_db_step(l, s, e);
    if (r == 1) {
        if (fl_ledger_db_blob(s, 0, d.bytes, sizeof d.bytes)) {
            *ret = d;
            *ret_round = (uint64_t)sqlite3_column_int64(s, 1);
        } else {
            r = fl_ledger_db_damaged(l, "a release with a field of wrong size", e);
        }
    }
    sqlite3_finalize(s);
    return r;
}

static int acknowledge(struct fl_ledger *l, const struct fl_key *key, uint64_t wall_ms,
                       struct fl_err *e)
{
    sqlite3_stmt *s;
    int r = fl_ledger_db_find(l, key, FL_ENTRY_ACKNOWLEDGED, NULL, e);

    if (r != 0) {
        return r < 0 ? r : 0;
    }
    r = fl_ledger_db_find(l, key, FL_ENTRY_RELEASE, NULL, e);
    if (r == 0) {
        return fl_fail(e, FL_R_LEDGER, "round %llu was acknowledged but never released",
                       (unsigned long long)key->round);
    }
    r = r < 0 ? r : fl_ledger_db_entry_for(l, key, FL_ENTRY_ACKNOWLEDGED, wall_ms, &s, e);
    r = r < 0 ? r : fl_ledger_db_append(l, s, e);
    return r < 0 ? r : fl_ledger_db_erase_seed(l, key, e);
}

int fl_ledger_acknowledged(struct fl_ledger *l, const struct fl_key *key, uint64_t wall_ms,
                           struct fl_err *e)
{
    int r = fl_ledger_db_begin(l, e);

    return r < 0 ? r : fl_ledger_db_end(l, acknowledge(l, key, wall_ms, e), e);
}

int fl_ledger_each(struct fl_ledger *l,
                   int (*each)(void *arg, const struct fl_release *r, uint64_t wall_ms,
                               bool acknowledged),
                   void *arg, struct fl_err *e)
{
    struct fl_release release;
    sqlite3_stmt *s;
    int r = fl_ledger_db_prepare(
        l,
        "SELECT *, EXISTS (SELECT 1 FROM entry AS k WHERE k.incarnation = entry.incarnation AND"
        " k.round = entry.round AND k.exchange = entry.exchange AND k.kind = 4)"
        " FROM entry WHERE kind = 3 ORDER BY seq",
        &s, e);

    if (r < 0) {
        return r;
    }
    while ((r = fl_ledger_db_step(l, s, e)) == 1) {
        r = read_release(l, s, &release, e);
        if (r == 0) {
            r = each(arg, &release, (uint64_t)sqlite3_column_int64(s, FL_ENTRY_WALL_MS),
                     sqlite3_column_int(s, FL_ENTRY_COLUMNS) != 0);
        }
        if (r != 0) {
            break;
        }
    }
    sqlite3_finalize(s);
    return r;
}

/* ---- withdrawal ---- */

int fl_ledger_withdraw(struct fl_ledger *l, const char *job, bool withdrawn, uint64_t wall_ms,
                       struct fl_err *e)
{
    sqlite3_stmt *s;
    int r = fl_ledger_db_begin(l, e);

    if (r < 0) {
        return r;
    }
    r = fl_ledger_db_entry(l, FL_ENTRY_WITHDRAW, wall_ms, &s, e);
    if (r == 0) {
        sqlite3_bind_text(s, FL_ENTRY_JOB + 1, job, -1, SQLITE_STATIC);
        sqlite3_bind_int(s, FL_ENTRY_FLAG + 1, withdrawn);
        r = fl_ledger_db_append(l, s, e);
    }
    return fl_ledger_db_end(l, r, e);
}

int fl_ledger_withdrawn(struct fl_ledger *l, const char *job, bool *ret, struct fl_err *e)
{
    sqlite3_stmt *s;
    int r = fl_ledger_db_prepare(
        l,
        "SELECT coalesce((SELECT flag FROM entry WHERE kind = 5 AND job = ?1 ORDER BY seq DESC"
        " LIMIT 1), 0) OR coalesce((SELECT flag FROM entry WHERE kind = 5 AND job = '*'"
        " ORDER BY seq DESC LIMIT 1), 0)",
        &s, e);

    if (r < 0) {
        return r;
    }
    sqlite3_bind_text(s, 1, job, -1, SQLITE_STATIC);
    r = fl_ledger_db_step(l, s, e);
    if (r == 1) {
        *ret = sqlite3_column_int(s, 0) != 0;
    }
    sqlite3_finalize(s);
    return r < 0 ? r : 0;
}
