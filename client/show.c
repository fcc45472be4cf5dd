#include "client/show.h"

#include "client/report.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

json_t *fl_show_runner(const struct fl_runner_view *v)
{
    json_t *o = json_object();

    fl_report_text(o, "agent", v->name);
    fl_report_text(o, "state", v->state);
    fl_report_text(o, "link", v->link);
    fl_report_text(o, "coordinator", v->coordinator_address);
    fl_report_text(o, "job", v->job);
    fl_report_count(o, "round", v->round);
    fl_report_count(o, "settled", v->rounds_settled);
    fl_report_count(o, "declined", v->declined);
    fl_report_count(o, "bytes_down", v->bytes_in);
    fl_report_count(o, "bytes_up", v->bytes_out);
    fl_report_count(o, "data_bytes", v->data_bytes);
    fl_report_count(o, "certificate_expires", v->certificate_expires_s);
    json_object_set_new(o, "in_window", json_boolean(v->in_window));
    fl_report_count(o, "last_reason", (uint64_t)v->last_reason);
    fl_report_text(o, "last_error", v->last_error);
    return o;
}

/* ---- ledger -------------------------------------------------------------------------------------
 */

struct spent {
    struct fl_digest data;
    enum fl_unit unit;
    uint64_t releases, waiting;
};

struct reading {
    json_t *releases;
    uint32_t limit;
    struct spent *spent;
    size_t spent_count;
    bool no_memory;
};

static void put_hex(json_t *o, const char *name, const uint8_t *bytes, size_t size)
{
    char text[2 * 32 + 1];

    for (size_t i = 0; i < size && i < 32; i++) {
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
    fl_report_text(o, name, text);
}

static struct spent *spent_of(struct reading *g, const struct fl_release *r)
{
    size_t i = 0;

    while (i < g->spent_count &&
           !(fl_digest_equal(&g->spent[i].data, &r->data) && g->spent[i].unit == r->unit)) {
        i++;
    }
    if (i == g->spent_count) {
        if (!fl_try_grow((void **)&g->spent, i + 1, sizeof *g->spent)) {
            return NULL;
        }
        g->spent[i] = (struct spent){.data = r->data, .unit = r->unit};
        g->spent_count++;
    }
    return &g->spent[i];
}

static int add_release(void *arg, const struct fl_release *r, uint64_t wall_ms, bool acknowledged)
{
    struct reading *g = arg;
    struct spent *s = spent_of(g, r);

    if (!s) {
        g->no_memory = true;
        return -FL_R_NOMEM;
    }
    s->releases++;
    s->waiting += !acknowledged;
    if (g->limit == 0) {
        return 0;
    }
    json_t *o = json_object();
    fl_report_text(o, "job", r->job);
    fl_report_count(o, "round", r->key.round);
    put_hex(o, "incarnation", r->key.incarnation, FL_INCARNATION_SIZE);
    fl_report_text(o, "unit", fl_policy_unit_name(r->unit));
    fl_report_number(o, "q", r->event.q);
    fl_report_number(o, "sigma", r->event.sigma);
    fl_report_count(o, "count", r->event.count);
    fl_report_number(o, "norm_before", r->norm_before);
    fl_report_number(o, "clip", r->clip);
    fl_report_number(o, "noise_std", r->noise_std);
    fl_report_count(o, "saturated", r->saturated);
    put_hex(o, "update", r->update.bytes, FL_DIGEST_SIZE);
    fl_report_count(o, "size", r->size);
    put_hex(o, "data", r->data.bytes, FL_DIGEST_SIZE);
    fl_report_text(o, "neighbours", fl_report_neighbours(r->unit, r->noise, r->placeless));
    fl_report_count(o, "time_ms", wall_ms);
    json_object_set_new(o, "acknowledged", json_boolean(acknowledged));
    json_array_append_new(g->releases, o);
    if (json_array_size(g->releases) > g->limit) {
        json_array_remove(g->releases, 0);
    }
    return 0;
}

/* The site's budget for this unit: the one of the first job that has it. */
static const struct fl_budget *budget_for(const struct fl_config_agent *agent, enum fl_unit unit)
{
    for (uint32_t i = 0; i < agent->policy->job_count; i++) {
        if (agent->policy->jobs[i].budget.unit == unit) {
            return &agent->policy->jobs[i].budget;
        }
    }
    return NULL;
}

static json_t *show_spent(struct fl_ledger *l, const struct fl_config_agent *agent,
                          const struct spent *s)
{
    const struct fl_budget *budget = budget_for(agent, s->unit);
    json_t *o = json_object();
    enum fl_bound bound = FL_BOUND_RDP;
    bool placeless = false;
    double epsilon = 0;

    if (fl_digest_is_zero(&s->data)) {
        json_object_set_new(o, "data", json_null());
    } else {
        put_hex(o, "data", s->data.bytes, FL_DIGEST_SIZE);
    }
    fl_report_count(o, "releases", s->releases);
    fl_report_count(o, "waiting", s->waiting);
    if (s->unit == FL_UNIT_NONE || !budget ||
        fl_ledger_spent(l, &s->data, s->unit, budget->noise, budget->delta, &epsilon, &bound,
                        &placeless, NULL) != 0) {
        /* Without noise, or without a delta, no epsilon can be stated. */
        fl_report_text(o, "unit", fl_policy_unit_name(s->unit));
        json_object_set_new(o, "epsilon", json_null());
        return o;
    }
    fl_report_epsilon(o, s->unit, budget->noise, placeless, epsilon, budget->delta, bound);
    fl_report_number(o, "budget", budget->epsilon);
    return o;
}

static json_t *show_withdrawn(struct fl_ledger *l, const struct fl_config_agent *agent)
{
    json_t *list = json_array();
    bool withdrawn;

    for (uint32_t i = 0; i < agent->policy->job_count; i++) {
        const char *job = agent->policy->jobs[i].name;
        if (fl_ledger_withdrawn(l, job, &withdrawn, NULL) == 0 && withdrawn) {
            json_array_append_new(list, json_string(job));
        }
    }
    return list;
}

json_t *fl_show_ledger(struct fl_ledger *l, const struct fl_config_agent *agent, uint32_t limit,
                       struct fl_err *e)
{
    struct reading g = {.releases = json_array(),
                        .limit = limit < FL_SHOW_RELEASES_MAX ? limit : FL_SHOW_RELEASES_MAX};
    json_t *all = json_object(), *spent = json_array();
    struct fl_digest head;
    uint64_t entries;
    int r = fl_ledger_each(l, add_release, &g, e);

    if (r == 0) {
        r = fl_ledger_head(l, &entries, &head, e);
    }
    if (g.no_memory) {
        r = fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    if (r) {
        json_decref(all);
        json_decref(spent);
        json_decref(g.releases);
        fl_free(g.spent);
        return NULL;
    }
    fl_report_text(all, "agent", agent->name);
    fl_report_count(all, "entries", entries);
    put_hex(all, "head", head.bytes, FL_DIGEST_SIZE);
    for (size_t i = 0; i < g.spent_count; i++) {
        json_array_append_new(spent, show_spent(l, agent, &g.spent[i]));
    }
    fl_free(g.spent);
    json_object_set_new(all, "withdrawn", show_withdrawn(l, agent));
    json_object_set_new(all, "spent", spent);
    json_object_set_new(all, "releases", g.releases);
    return all;
}

/* ---- export and verification --------------------------------------------------------------------
 */

static int add_entry(void *arg, const struct fl_ledger_column *columns, int count)
{
    json_t *list = arg, *o = json_object();

    for (int i = 0; i < count; i++) {
        const struct fl_ledger_column *c = &columns[i];
        switch (c->type) {
        case FL_LEDGER_NONE:
            json_object_set_new(o, c->name, json_null());
            break;
        case FL_LEDGER_COUNT:
            json_object_set_new(o, c->name, json_integer(c->count));
            break;
        case FL_LEDGER_REAL:
            json_object_set_new(o, c->name, json_real(c->real));
            break;
        case FL_LEDGER_TEXT:
            json_object_set_new(o, c->name, json_stringn(c->data, c->size));
            break;
        case FL_LEDGER_BYTES:
            put_hex(o, c->name, c->data, c->size);
            break;
        }
    }
    json_array_append_new(list, o);
    return 0;
}

static json_t *ends_of_chain(struct fl_ledger *l, const struct fl_config_agent *agent,
                             struct fl_err *e)
{
    struct fl_digest genesis, head;
    uint64_t entries;

    if (fl_ledger_head(l, &entries, &head, e)) {
        return NULL;
    }
    json_t *o = json_object();
    fl_ledger_genesis(l, &genesis);
    fl_report_text(o, "agent", agent->name);
    fl_report_count(o, "entries", entries);
    put_hex(o, "genesis", genesis.bytes, FL_DIGEST_SIZE);
    put_hex(o, "head", head.bytes, FL_DIGEST_SIZE);
    return o;
}

json_t *fl_show_entries(struct fl_ledger *l, const struct fl_config_agent *agent, uint64_t after,
                        struct fl_err *e)
{
    json_t *list = json_array(), *o = NULL;

    if (fl_ledger_entries(l, after, FL_SHOW_PAGE, add_entry, list, e) == 0) {
        o = ends_of_chain(l, agent, e);
    }
    if (o) {
        json_object_set(o, "page", list);
    }
    json_decref(list);
    return o;
}

json_t *fl_show_verified(struct fl_ledger *l, const struct fl_config_agent *agent, struct fl_err *e)
{
    if (fl_ledger_verify(l, e)) {
        return NULL;
    }
    json_t *o = ends_of_chain(l, agent, e);
    if (o) {
        json_object_set_new(o, "verified", json_true());
    }
    return o;
}
