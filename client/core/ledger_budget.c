/*
 * The budget: all releases of a data set version (unit `client`: of the site, whatever its data)
 * under the budget's unit, over jobs and coordinators, grouped into events, go into the adaptive
 * filter together with what is asked for. A release under another unit has no place in that sum (an
 * update without noise costs infinitely much, one that protects examples costs nothing that is
 * known of clients), so once there is one, no epsilon can be claimed for these data under this
 * unit, and the ledger refuses instead of printing a number that is not true. An update of no bytes
 * (local training) releases nothing and counts for nothing.
 */
#include "client/core/ledger.h"

#include "client/core/ledger_db.h"
#include "common/base/mem.h"

#include <math.h>
#include <string.h>

enum { EVENTS_MAX = 1 << 16 };
#define COUNT_MAX ((uint64_t)1 << 40)

struct spending {
    struct fl_event *events;
    uint32_t count;
    uint64_t foreign; /* releases of these data under another unit */
    enum fl_unit other;
    uint64_t bare;   /* releases whose noise was left to others, where that matters */
    uint64_t placed; /* releases under this unit that are not placeless */
};

/* Of these data. Under the unit `client` the site itself is protected, whichever of its data it
 * trained on: then of all data. */
static int load_spending(const struct fl_ledger *l, const struct fl_digest *data, enum fl_unit unit,
                         enum fl_noise_place trust, struct spending *ret, struct fl_err *e)
{
    static const struct fl_digest no_data; /* of releases that no data shape */
    struct spending sp = {0};
    sqlite3_stmt *s;
    int r = fl_ledger_db_prepare(
        l,
        "SELECT unit, count(*), mechanism, q, sigma, a, b, sum(count), coalesce(flag, 0) AS flags"
        " FROM entry WHERE kind = 3 AND size > 0 AND (data = ?1 OR (?2 AND data <> ?3))"
        " GROUP BY unit, mechanism, q, sigma, a, b, flags",
        &s, e);

    if (r < 0) {
        return r;
    }
    sqlite3_bind_blob(s, 1, data->bytes, sizeof data->bytes, SQLITE_STATIC);
    sqlite3_bind_int(s, 2, unit == FL_UNIT_CLIENT);
    sqlite3_bind_blob(s, 3, no_data.bytes, sizeof no_data.bytes, SQLITE_STATIC);
    while ((r = fl_ledger_db_step(l, s, e)) == 1) {
        int flag = sqlite3_column_int(s, 8);
        if (!fl_noise_trusts(trust, (enum fl_noise_place)(flag & FL_ENTRY_NOISE))) {
            sp.bare += (uint64_t)sqlite3_column_int64(s, 1);
            continue;
        }
        if (sqlite3_column_int(s, 0) != (int)unit) {
            sp.foreign += (uint64_t)sqlite3_column_int64(s, 1);
            sp.other = (enum fl_unit)sqlite3_column_int(s, 0);
            continue;
        }
        sp.placed += flag & FL_ENTRY_PLACELESS ? 0 : (uint64_t)sqlite3_column_int64(s, 1);
        if (sp.count == EVENTS_MAX) {
            r = fl_fail(e, FL_R_LIMIT, "ledger %s: more than %d different events", l->path,
                        EVENTS_MAX);
            break;
        }
        if ((sp.count & (sp.count + 1)) == 0 && /* 0, 1, 3, 7, ...: room for twice as many */
            !fl_try_grow((void **)&sp.events, (size_t)sp.count * 2 + 2, sizeof *sp.events)) {
            r = fl_fail(e, FL_R_NOMEM, "ledger %s", l->path);
            break;
        }
        sp.events[sp.count++] = fl_ledger_db_event(s, 2, 3, 7);
    }
    sqlite3_finalize(s);
    if (r < 0) {
        fl_free(sp.events);
        return r;
    }
    *ret = sp;
    return 0;
}

static int refuse_spent(const struct spending *sp, const struct fl_budget *budget,
                        const struct fl_event *event, struct fl_err *e)
{
    struct fl_event *all = NULL;
    double before = INFINITY, after = INFINITY;
    enum fl_bound bound = FL_BOUND_RDP;

    if (fl_try_grow((void **)&all, (size_t)sp->count + 1, sizeof *all)) {
        if (sp->count) {
            memcpy(all, sp->events, sp->count * sizeof *all);
        }
        all[sp->count] = *event;
        fl_epsilon(all, sp->count, budget->delta, &before, &bound, NULL);
        fl_epsilon(all, sp->count + 1, budget->delta, &after, &bound, NULL);
    }
    fl_free(all);
    return fl_fail(e, FL_R_BUDGET_SPENT,
                   "epsilon would reach %.4g of the %.4g that this site allows for its data (unit "
                   "%s, delta %g; %.4g spent so far, bound %s)",
                   after, budget->epsilon, fl_policy_unit_name(budget->unit), budget->delta, before,
                   fl_bound_name(bound));
}

static int check_spending(const struct spending *sp, const struct fl_budget *budget,
                          const struct fl_event *event, struct fl_err *e)
{
    bool allowed = false;
    int r;

    if (sp->foreign) {
        return fl_fail(e, FL_R_POLICY_NOISE,
                       "%llu updates of these data were released under unit `%s`; no epsilon under "
                       "unit `%s` can be kept any more",
                       (unsigned long long)sp->foreign, fl_policy_unit_name(sp->other),
                       fl_policy_unit_name(budget->unit));
    }
    if (sp->bare) {
        return fl_fail(
            e, FL_R_POLICY_NOISE,
            "%llu updates of these data went to a coordinator that adds the noise, or with a "
            "part of it that members share; no epsilon of this budget holds any more "
            "(privacy.noise: central, or distributed, counts against everybody else)",
            (unsigned long long)sp->bare);
    }
    r = fl_filter_allows(sp->events, sp->count, event, 1, budget->epsilon, budget->delta, &allowed,
                         e);
    if (r < 0) {
        return r;
    }
    return allowed ? 0 : refuse_spent(sp, budget, event, e);
}

int fl_ledger_participates(struct fl_ledger *l, const struct fl_key *key,
                           const struct fl_event *event, struct fl_err *e)
{
    sqlite3_stmt *s;

    if (event->mechanism != FL_MECHANISM_TREE || event->count == 0 || !(event->a >= 1)) {
        return 0;
    }
    uint64_t tree = (uint64_t)event->a, round = key->round ? key->round - 1 : 0;
    uint64_t first = round / tree * tree + 1, last = first + tree - 1;
    int r = fl_ledger_db_prepare(l,
                                 "SELECT round FROM entry WHERE kind = 3 AND incarnation = ?1 AND"
                                 " round BETWEEN ?2 AND ?3 AND size > 0 AND mechanism = ?6 AND"
                                 " NOT (round = ?4 AND exchange = ?5) LIMIT 1",
                                 &s, e);
    if (r < 0) {
        return r;
    }
    sqlite3_bind_blob(s, 1, key->incarnation, sizeof key->incarnation, SQLITE_STATIC);
    sqlite3_bind_int64(s, 2, (sqlite3_int64)first);
    sqlite3_bind_int64(s, 3, (sqlite3_int64)last);
    sqlite3_bind_int64(s, 4, (sqlite3_int64)key->round);
    sqlite3_bind_int64(s, 5, key->exchange);
    sqlite3_bind_int(s, 6, FL_MECHANISM_TREE);
    r = fl_ledger_db_step(l, s, e);
    if (r == 1) {
        r = fl_fail(e, FL_R_PARTICIPATION,
                    "round %llu is in the tree of rounds %llu to %llu, of which this site was in "
                    "round %lld already",
                    (unsigned long long)key->round, (unsigned long long)first,
                    (unsigned long long)last, (long long)sqlite3_column_int64(s, 0));
    }
    sqlite3_finalize(s);
    return r;
}

int fl_ledger_allows(struct fl_ledger *l, const struct fl_budget *budget, const char *job,
                     enum fl_unit unit, enum fl_noise_place noise, const struct fl_event *event,
                     const struct fl_digest *data, struct fl_err *e)
{
    struct spending sp = {0};
    bool withdrawn = false;
    int r = fl_ledger_withdrawn(l, job, &withdrawn, e);

    if (r < 0) {
        return r;
    }
    if (withdrawn) {
        return fl_fail(e, FL_R_WITHDRAWN, "this site's administrator withdrew from job %s", job);
    }
    if (unit != FL_UNIT_NONE) {
        r = fl_event_check(event, e);
        if (r < 0) {
            return r;
        }
        if (fl_event_is_void(event) || event->count > COUNT_MAX) {
            return fl_fail(e, FL_R_ACCOUNTING, "a release under unit `%s` that costs %llu events",
                           fl_policy_unit_name(unit), (unsigned long long)event->count);
        }
    }
    if (budget->unit == FL_UNIT_NONE || (unit == FL_UNIT_NONE && fl_digest_is_zero(data))) {
        return 0;
    }
    if (unit != budget->unit) {
        return fl_fail(e, FL_R_POLICY_NOISE,
                       "job %s releases under unit `%s`; this site's budget is for unit `%s`", job,
                       fl_policy_unit_name(unit), fl_policy_unit_name(budget->unit));
    }
    if (!fl_noise_trusts(budget->noise, noise)) {
        return fl_fail(e, FL_R_POLICY_NOISE,
                       noise == FL_NOISE_CENTRAL
                           ? "job %s leaves the noise to the coordinator; this site does not"
                           : "job %s shares the noise among its members; this site does not",
                       job);
    }
    r = load_spending(l, data, unit, budget->noise, &sp, e);
    r = r < 0 ? r : check_spending(&sp, budget, event, e);
    fl_free(sp.events);
    return r;
}

int fl_ledger_spent(struct fl_ledger *l, const struct fl_digest *data, enum fl_unit unit,
                    enum fl_noise_place trust, double delta, double *ret_epsilon,
                    enum fl_bound *ret_bound, bool *ret_placeless, struct fl_err *e)
{
    struct spending sp = {0};
    int r = load_spending(l, data, unit, trust, &sp, e);

    if (r < 0) {
        return r;
    }
    if (sp.foreign || sp.bare || (unit == FL_UNIT_NONE && sp.count)) {
        *ret_epsilon = INFINITY;
        *ret_bound = FL_BOUND_RDP;
    } else {
        r = fl_epsilon(sp.events, sp.count, delta, ret_epsilon, ret_bound, e);
    }
    if (r == 0) {
        *ret_placeless = sp.placed == 0;
    }
    fl_free(sp.events);
    return r;
}
