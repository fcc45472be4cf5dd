/* Seeds and intents: the same computation again, or none. */
#include "client/core/ledger.h"

#include "client/core/ledger_db.h"
#include "common/base/mem.h"

#include <string.h>

/* 1 and the seed that lies there for a key, or 0. */
static int find_seed(const struct fl_ledger *l, const struct fl_key *key, struct fl_seed *ret,
                     struct fl_err *e)
{
    sqlite3_stmt *s;
    int r = fl_ledger_db_prepare(
        l, "SELECT seed FROM seed WHERE incarnation = ?1 AND round = ?2 AND exchange = ?3", &s, e);

    if (r < 0) {
        return r;
    }
    fl_ledger_db_bind_key(s, 1, key);
    r = fl_ledger_db_step(l, s, e);
    if (r == 1 && !fl_ledger_db_blob(s, 0, ret->bytes, sizeof ret->bytes)) {
        r = fl_ledger_db_damaged(l, "a seed of wrong size", e);
    }
    sqlite3_finalize(s);
    return r;
}

static int write_seed(struct fl_ledger *l, const struct fl_key *key, const struct fl_seed *seed,
                      struct fl_err *e)
{
    sqlite3_stmt *s;
    int r = fl_ledger_db_prepare(l, "INSERT INTO seed VALUES (?1, ?2, ?3, ?4)", &s, e);

    if (r < 0) {
        return r;
    }
    fl_ledger_db_bind_key(s, 1, key);
    sqlite3_bind_blob(s, 4, seed->bytes, sizeof seed->bytes, SQLITE_STATIC);
    r = fl_ledger_db_step(l, s, e);
    sqlite3_finalize(s);
    return r;
}

int fl_ledger_db_erase_seed(struct fl_ledger *l, const struct fl_key *key, struct fl_err *e)
{
    sqlite3_stmt *s;
    int r = fl_ledger_db_prepare(
        l, "DELETE FROM seed WHERE incarnation = ?1 AND round = ?2 AND exchange = ?3", &s, e);

    if (r < 0) {
        return r;
    }
    fl_ledger_db_bind_key(s, 1, key);
    r = fl_ledger_db_step(l, s, e);
    sqlite3_finalize(s);
    return r;
}

/* The intent's row against what is asked now. */
static int compare_intent(const struct fl_ledger *l, sqlite3_stmt *row, const struct fl_key *key,
                          const struct fl_intent_inputs *in, const struct fl_seed *seed,
                          struct fl_err *e)
{
    const struct {
        enum fl_entry_column column;
        const struct fl_digest *now;
        const char *what;
    } inputs[] = {{FL_ENTRY_PLAN, &in->plan, "job description"},
                  {FL_ENTRY_BASE, &in->base, "base model or choice of examples"},
                  {FL_ENTRY_DATA, &in->data, "data set"},
                  {FL_ENTRY_PRIVATE, &in->private_state, "private state"}};
    struct fl_digest recorded, of_seed;

    for (size_t i = 0; i < FL_COUNT(inputs); i++) {
        if (!fl_ledger_db_blob(row, (int)inputs[i].column, recorded.bytes, sizeof recorded.bytes)) {
            return fl_ledger_db_damaged(l, "an intent with a field of wrong size", e);
        }
        if (!fl_digest_equal(&recorded, inputs[i].now)) {
            return fl_fail(e, FL_R_INTENT,
                           "round %llu was begun with another %s; nothing can be released for it",
                           (unsigned long long)key->round, inputs[i].what);
        }
    }
    if (!seed) {
        return fl_fail(e, FL_R_INTENT, "round %llu is released and acknowledged; its seed is gone",
                       (unsigned long long)key->round);
    }
    fl_digest_of(seed->bytes, sizeof seed->bytes, &of_seed);
    if (!fl_ledger_db_blob(row, FL_ENTRY_SEED, recorded.bytes, sizeof recorded.bytes) ||
        !fl_digest_equal(&recorded, &of_seed)) {
        return fl_ledger_db_damaged(l, "a seed is not the one that was recorded", e);
    }
    return 0;
}

static int append_intent(struct fl_ledger *l, const struct fl_key *key, enum fl_entry_kind kind,
                         const struct fl_intent_inputs *in, const struct fl_seed *seed,
                         uint64_t wall_ms, struct fl_err *e)
{
    struct fl_digest of_seed;
    sqlite3_stmt *s;
    int r = fl_ledger_db_entry_for(l, key, kind, wall_ms, &s, e);

    if (r < 0) {
        return r;
    }
    if (in) {
        fl_ledger_db_bind_digest(s, FL_ENTRY_PLAN, &in->plan);
        fl_ledger_db_bind_digest(s, FL_ENTRY_BASE, &in->base);
        fl_ledger_db_bind_digest(s, FL_ENTRY_DATA, &in->data);
        fl_ledger_db_bind_digest(s, FL_ENTRY_PRIVATE, &in->private_state);
    }
    fl_digest_of(seed->bytes, sizeof seed->bytes, &of_seed);
    fl_ledger_db_bind_digest(s, FL_ENTRY_SEED, &of_seed);
    return fl_ledger_db_append(l, s, e);
}

static int intent(struct fl_ledger *l, const struct fl_key *key, const struct fl_intent_inputs *in,
                  uint64_t wall_ms, struct fl_seed *seed, struct fl_err *e)
{
    sqlite3_stmt *row = NULL;
    int has_seed = find_seed(l, key, seed, e);
    int r = has_seed < 0 ? has_seed : fl_ledger_db_find(l, key, FL_ENTRY_INTENT, &row, e);

    if (r == 1) {
        r = compare_intent(l, row, key, in, has_seed ? seed : NULL, e);
        sqlite3_finalize(row);
        return r;
    }
    if (r < 0) {
        return r;
    }
    if (!has_seed) {
        r = fl_entropy(seed->bytes, sizeof seed->bytes, e);
        r = r < 0 ? r : write_seed(l, key, seed, e);
        if (r < 0) {
            return r;
        }
    }
    return append_intent(l, key, FL_ENTRY_INTENT, in, seed, wall_ms, e);
}

int fl_ledger_intent(struct fl_ledger *l, const struct fl_key *key,
                     const struct fl_intent_inputs *in, uint64_t wall_ms, struct fl_seed *ret,
                     struct fl_err *e)
{
    struct fl_seed seed;
    int r = fl_ledger_db_begin(l, e);

    r = r < 0 ? r : fl_ledger_db_end(l, intent(l, key, in, wall_ms, &seed, e), e);
    if (r == 0) {
        *ret = seed;
    }
    explicit_bzero(&seed, sizeof seed);
    return r;
}

static int prepare(struct fl_ledger *l, const struct fl_key *key, const struct fl_seed *seed,
                   uint64_t wall_ms, struct fl_err *e)
{
    struct fl_seed there;
    int r = find_seed(l, key, &there, e);
    bool same = r == 1 && memcmp(&there, seed, sizeof there) == 0;

    explicit_bzero(&there, sizeof there);
    if (same) {
        return 0;
    }
    if (r == 0) {
        r = fl_ledger_db_find(l, key, FL_ENTRY_INTENT, NULL, e);
    }
    if (r == 1) {
        return fl_fail(e, FL_R_INTENT, "round %llu has another seed already",
                       (unsigned long long)key->round);
    }
    r = r < 0 ? r : write_seed(l, key, seed, e);
    return r < 0 ? r : append_intent(l, key, FL_ENTRY_PREPARED, NULL, seed, wall_ms, e);
}

int fl_ledger_prepare(struct fl_ledger *l, const struct fl_key *key, const struct fl_seed *seed,
                      uint64_t wall_ms, struct fl_err *e)
{
    int r = fl_ledger_db_begin(l, e);

    return r < 0 ? r : fl_ledger_db_end(l, prepare(l, key, seed, wall_ms, e), e);
}
