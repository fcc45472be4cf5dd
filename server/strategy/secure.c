/* The stages of the secure sums of a round. */
#include "server/strategy/secure_in.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int fl_secure_check(const struct fl_plan *plan, const struct fl_strategy *strategy,
                    struct fl_err *e)
{
    if (!plan->secure.on) {
        return 0;
    }
    if (!(strategy->needs & FL_STRATEGY_SUM_ONLY)) {
        return fl_fail(e, FL_R_PLAN_STRATEGY,
                       "strategy %s looks at single updates (to compare, mix or vote), which "
                       "secure_aggregation hides from the coordinator: choose one of them",
                       strategy->name);
    }
    if (fl_plan_secure_groups(plan) != FL_SECURE_ONE ? !strategy->groups
                                                     : strategy->next_slots != NULL) {
        return fl_fail(e, FL_R_PLAN_STRATEGY,
                       "strategy %s has several models and does not say whose sum each is of: "
                       "secure_aggregation is for one model",
                       strategy->name);
    }
    return 0;
}

/* ---- life ---- */

int fl_secure_new(const struct fl_plan *plan, const struct fl_strategy *strategy,
                  const uint8_t incarnation[16], uint64_t round,
                  const struct fl_secagg_identity *identity, struct fl_secure **ret,
                  struct fl_err *e)
{
    struct fl_secure *s = fl_try(1, sizeof *s);

    if (!s) {
        return fl_fail(e, FL_R_NOMEM, "a secure sum");
    }
    s->plan = plan;
    s->strategy = strategy;
    s->round = round;
    s->part_count = fl_plan_secure_parts(plan, s->part);
    int r = fl_secure_check(plan, strategy, e);
    for (uint32_t p = 0; r == 0 && p < s->part_count; p++) {
        struct fl_secagg_setup setup;
        r = fl_plan_secure_setup(plan, incarnation, round, p, &setup, e);
        r = r < 0 ? r : fl_secagg_server_new(&setup, identity, &s->gate[p], e);
    }
    if (r < 0) {
        fl_secure_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

static void drop_groups(struct fl_secure *s)
{
    for (uint32_t p = 0; p < s->part_count; p++) {
        for (uint32_t i = 0; i < s->sums[p].count; i++) {
            fl_secagg_server_free(s->sums[p].at[i].server);
            fl_free(s->sums[p].at[i].q);
        }
        fl_free(s->sums[p].at);
        s->sums[p] = (struct fl_secure_sums){0};
    }
    fl_free(s->agent);
    fl_free(s->group);
    s->agent = NULL;
    s->group = NULL;
    s->agent_count = 0;
}

void fl_secure_free(struct fl_secure *s)
{
    if (s) {
        fl_secure_undeal(s);
        drop_groups(s);
        for (uint32_t p = 0; p < s->part_count; p++) {
            fl_secagg_server_free(s->gate[p]);
        }
        fl_free(s);
    }
}

enum fl_secagg_stage fl_secure_stage_of(const struct fl_exchange_terms *terms)
{
    return fl_plan_secure_stage(terms->name);
}

enum fl_secagg_stage fl_secure_stage(const struct fl_secure *s)
{
    return s->stage;
}

/* ---- who is in which sum ---- */

static int ascending(const void *x, const void *y)
{
    const uint64_t *a = x, *b = y;

    return (*a > *b) - (*a < *b);
}

uint32_t fl_secure_group_of(const struct fl_secure *s, uint64_t agent)
{
    const uint64_t *found =
        s->agent ? bsearch(&agent, s->agent, s->agent_count, sizeof agent, ascending) : NULL;

    return found ? s->group[found - s->agent] : FL_STRATEGY_NO_GROUP;
}

static bool has_groups(const struct fl_secure *s, uint32_t part)
{
    return part + 1 == s->part_count && fl_plan_secure_groups(s->plan) != FL_SECURE_ONE;
}

/* The sum of a part that an agent is in, or would be; NULL: it is in none, or that was given up. */
static struct fl_secagg_server *server_of(const struct fl_secure *s, uint32_t part, uint64_t agent)
{
    const struct fl_secure_sums *sums = &s->sums[part];

    if (s->stage == FL_SECAGG_ADVERTISE) {
        return s->gate[part];
    }
    uint32_t g = has_groups(s, part) ? fl_secure_group_of(s, agent) : 0;
    return g < sums->count && !sums->at[g].lost ? sums->at[g].server : NULL;
}

/* The sums of one part, with the keys of their members: s->group says who they are, or all are in
 * one. */
static int make_sums(struct fl_secure *s, uint32_t part, uint32_t count, bool all, struct fl_err *e)
{
    struct fl_secure_sums *sums = &s->sums[part];
    uint64_t *list = fl_try(s->agent_count ? s->agent_count : 1, sizeof *list);
    int r = 0;

    sums->at = fl_try(count ? count : 1, sizeof *sums->at);
    if (!list || !sums->at) {
        r = fl_fail(e, FL_R_NOMEM, "%u secure sums", count);
    }
    while (r == 0 && sums->count < count) {
        uint32_t members = 0;
        for (uint32_t i = 0; i < s->agent_count; i++) {
            if (all || s->group[i] == sums->count) {
                list[members++] = s->agent[i];
            }
        }
        r = fl_secagg_server_part(s->gate[part], list, members, &sums->at[sums->count].server, e);
        sums->count += r == 0;
    }
    fl_free(list);
    return r;
}

/* Everybody's keys are here: groups are made. */
static int make_groups(struct fl_secure *s, const void *shared, const struct fl_seed *secret,
                       struct fl_err *e)
{
    const struct fl_groups_terms terms = {fl_plan_secure_least(s->plan), s->round, secret};
    uint32_t n = fl_secagg_server_taken(s->gate[0], NULL, 0), count = 1;
    bool one = fl_plan_secure_groups(s->plan) == FL_SECURE_ONE;
    int r = 0;

    drop_groups(s);
    s->agent = fl_try(n ? n : 1, sizeof *s->agent);
    s->group = fl_try(n ? n : 1, sizeof *s->group);
    if (!s->agent || !s->group) {
        return fl_fail(e, FL_R_NOMEM, "groups of %u agents", n);
    }
    s->agent_count = fl_secagg_server_taken(s->gate[0], s->agent, n);
    if (!one) {
        r = s->strategy->groups(shared, &terms, s->agent, n, s->group, e);
        count = 0;
        for (uint32_t i = 0; r == 0 && i < n; i++) {
            count = s->group[i] != FL_STRATEGY_NO_GROUP && s->group[i] >= count ? s->group[i] + 1
                                                                                : count;
        }
    }
    for (uint32_t p = 0; r == 0 && p < s->part_count; p++) {
        r = has_groups(s, p) ? make_sums(s, p, count, false, e) : make_sums(s, p, 1, true, e);
    }
    return r;
}

/* ---- payloads ---- */

/* What of a payload is for which sum. */
struct piece {
    struct fl_secagg_server *server; /* NULL: it has none, and there is nothing */
    struct fl_secagg_source from;
    const struct fl_update *u;
    uint64_t offset;
};

static int piece_read(void *arg, uint64_t offset, uint8_t *to, size_t size, struct fl_err *e)
{
    const struct piece *p = arg;

    return p->u->read(p->u->arg, p->offset + offset, to, size, e);
}

static int check_payload(const struct fl_secure *s, enum fl_secagg_stage stage,
                         const struct fl_update *u, struct fl_err *e)
{
    struct fl_exchange_terms terms;

    if (stage >= FL_SECAGG_STAGES) {
        return fl_fail(e, FL_R_MSG_ORDER, "a secure sum has no such stage");
    }
    fl_plan_secure_exchange(s->plan, stage, &terms);
    if (u->size == 0 || u->size > terms.size || u->weight != 1) {
        return fl_fail(e, u->weight != 1 ? FL_R_UPDATE_RANGE : FL_R_UPDATE_LENGTH,
                       "%llu bytes of weight %u; %s takes 1 to %llu of weight 1",
                       (unsigned long long)u->size, u->weight, terms.name,
                       (unsigned long long)terms.size);
    }
    return 0;
}

/* A payload in its parts: each for the sum that its sender is in, and nothing for one that it is
 * not in. */
static int pieces_of(const struct fl_secure *s, const struct fl_update *u,
                     struct piece ret[FL_SECURE_PARTS_MAX], struct fl_err *e)
{
    uint8_t head[FL_SECURE_JOIN_HEAD];
    size_t size[FL_SECURE_PARTS_MAX] = {(size_t)u->size, 0};
    uint64_t offset = 0;
    int r = 0;

    if (s->part_count > 1) {
        if (u->size < sizeof head) {
            return fl_fail(e, FL_R_SECAGG_OBJECT, "a payload of two parts has %llu bytes",
                           (unsigned long long)u->size);
        }
        r = u->read(u->arg, 0, head, sizeof head, e);
        r = r < 0 ? r : fl_plan_secure_split(head, (size_t)u->size, size, e);
        offset = sizeof head;
    }
    for (uint32_t p = 0; r == 0 && p < s->part_count; p++) {
        struct fl_secagg_server *server = server_of(s, p, u->agent);
        ret[p] = (struct piece){
            .server = server, .from = {size[p], piece_read, &ret[p]}, .u = u, .offset = offset};
        offset += size[p];
        if (!server && p == 0) {
            r = fl_fail(e, FL_R_NOT_MEMBER, "the agent is in no secure sum of this round");
        } else if ((server == NULL) != (size[p] == 0)) {
            r = fl_fail(e, FL_R_SECAGG_OBJECT, "a part for a sum that its sender is %s",
                        server ? "in is missing" : "not in");
        }
    }
    return r;
}

/* A small object, whole; freed by fl_free. */
static int object_read(const struct fl_secagg_source *from, uint8_t **ret, struct fl_err *e)
{
    uint8_t *bytes = fl_try((size_t)from->size, 1);

    if (!bytes) {
        return fl_fail(e, FL_R_NOMEM, "%llu bytes of a secure sum", (unsigned long long)from->size);
    }
    int r = from->read(from->arg, 0, bytes, (size_t)from->size, e);
    if (r < 0) {
        fl_free(bytes);
        return r;
    }
    *ret = bytes;
    return 0;
}

static int judge_piece(const struct piece *p, enum fl_secagg_stage stage,
                       const uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE], struct fl_err *e)
{
    uint8_t *bytes = NULL;

    if (stage == FL_SECAGG_MASK) {
        return fl_secagg_server_judge_masked(p->server, p->u->agent, &p->from, e);
    }
    int r = object_read(&p->from, &bytes, e);
    if (r == 0) {
        r = fl_secagg_server_judge(p->server, stage, p->u->agent, bytes, (size_t)p->from.size,
                                   principal, e);
    }
    fl_free(bytes);
    return r;
}

static int fold_piece(const struct piece *p, enum fl_secagg_stage stage, struct fl_err *e)
{
    uint8_t *bytes = NULL;

    if (stage == FL_SECAGG_MASK) {
        return fl_secagg_server_masked(p->server, p->u->agent, &p->from, e);
    }
    int r = object_read(&p->from, &bytes, e);
    if (r == 0) {
        r = fl_secagg_server_take(p->server, stage, p->u->agent, bytes, (size_t)p->from.size, e);
    }
    fl_free(bytes);
    return r;
}

int fl_secure_judge(const struct fl_secure *s, enum fl_secagg_stage stage,
                    const struct fl_update *u, const uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE],
                    struct fl_err *e)
{
    struct piece piece[FL_SECURE_PARTS_MAX];
    int r = check_payload(s, stage, u, e);

    r = r < 0 ? r : pieces_of(s, u, piece, e);
    for (uint32_t p = 0; r == 0 && p < s->part_count; p++) {
        r = piece[p].server ? judge_piece(&piece[p], stage, principal, e) : 0;
    }
    return r;
}

int fl_secure_fold(struct fl_secure *s, enum fl_secagg_stage stage, const struct fl_update *u,
                   struct fl_err *e)
{
    struct piece piece[FL_SECURE_PARTS_MAX];
    int r = check_payload(s, stage, u, e);

    r = r < 0 ? r : pieces_of(s, u, piece, e);
    for (uint32_t p = 0; r == 0 && p < s->part_count; p++) {
        r = piece[p].server ? fold_piece(&piece[p], stage, e) : 0;
    }
    return r;
}

void fl_secure_reset(struct fl_secure *s, enum fl_secagg_stage stage)
{
    for (uint32_t p = 0; stage == s->stage && p < s->part_count; p++) {
        if (stage == FL_SECAGG_ADVERTISE) {
            fl_secagg_server_reset(s->gate[p]);
        }
        for (uint32_t i = 0; stage > FL_SECAGG_ADVERTISE && i < s->sums[p].count; i++) {
            fl_secagg_server_reset(s->sums[p].at[i].server);
        }
    }
}

/* ---- from stage to stage ---- */

bool fl_secure_is_lost(int status)
{
    return status == -FL_R_SECAGG_FEW || status == -FL_R_SECAGG_SHARE ||
           status == -FL_R_SECAGG_KEYS || status == -FL_R_UPDATE_RANGE ||
           status == -FL_R_CONF_RANGE; /* no graph for so many as came */
}

/* Closes the stage of each sum of a part that is not given up; one that cannot go on is from now
 * on. Fails when none is left. May be repeated. */
static int close_sums(struct fl_secure *s, uint32_t part, struct fl_err *e)
{
    struct fl_secure_sums *sums = &s->sums[part];
    uint32_t left = 0;
    int why = 0;

    for (uint32_t i = 0; i < sums->count; i++) {
        struct fl_secure_sum *sum = &sums->at[i];
        if (!sum->lost && fl_secagg_server_stage(sum->server) == s->stage) {
            int r = fl_secagg_server_close(sum->server, why ? NULL : e);
            if (r < 0 && !fl_secure_is_lost(r)) {
                return why ? fl_fail(e, (enum fl_reason) - r, "a secure sum") : r;
            }
            why = why ? why : r;
            sum->lost = r < 0;
        }
        left += !sum->lost;
    }
    if (left == 0 && why == 0) {
        why = fl_fail(e, FL_R_SECAGG_FEW, "no sum of at least %u members came of %u",
                      fl_plan_secure_least(s->plan), s->agent_count);
    }
    if (left == 0 && sums->count == 1) {
        sums->at[0].lost = false; /* the only one: the round is lost, and may be told so again */
    }
    return left > 0 ? 0 : why;
}

int fl_secure_between(struct fl_secure *s, const void *shared, const struct fl_seed *secret,
                      struct fl_err *e)
{
    int r = 0;

    if (s->stage == FL_SECAGG_STAGES) {
        return fl_fail(e, FL_R_MSG_ORDER, "the secure sum is closed");
    }
    if (s->stage == FL_SECAGG_ADVERTISE) {
        r = make_groups(s, shared, secret, e);
    }
    for (uint32_t p = 0; r == 0 && p < s->part_count; p++) {
        struct fl_err unused;
        bool needed = p == 0; /* a common part goes on without groups */
        r = close_sums(s, p, needed ? e : &unused);
        r = needed || !fl_secure_is_lost(r) ? r : 0;
    }
    if (r == 0) {
        s->stage++;
        for (uint32_t p = 0; p < s->part_count; p++) { /* the sums have everybody's keys */
            fl_secagg_server_free(s->gate[p]);
            s->gate[p] = NULL;
        }
    }
    return r;
}

int fl_secure_input(const struct fl_secure *s, enum fl_secagg_stage stage, uint64_t agent,
                    uint8_t **ret, size_t *ret_size, struct fl_err *e)
{
    struct fl_secagg_bytes part[FL_SECURE_PARTS_MAX] = {{NULL, 0}}, all = {NULL, 0};
    int r = 0;

    if (stage == FL_SECAGG_ADVERTISE || stage != s->stage) {
        return fl_fail(e, FL_R_MSG_ORDER, "nothing to begin stage %s with",
                       fl_secagg_stage_name(stage));
    }
    for (uint32_t p = 0; r == 0 && p < s->part_count; p++) {
        const struct fl_secagg_server *server = server_of(s, p, agent);
        if (server) {
            r = fl_secagg_server_reply(server, (enum fl_secagg_stage)(stage - 1), agent, &part[p],
                                       e);
        } else if (p == 0) {
            r = fl_fail(e, FL_R_NOT_MEMBER,
                        "left out of secure sums in this round: there are fewer than %u members to "
                        "hide it among, or too many of them left",
                        fl_plan_secure_least(s->plan));
        }
    }
    if (r == 0 && s->part_count > 1) {
        r = fl_plan_secure_join(part, &all, e);
    } else if (r == 0) {
        all = part[0];
        part[0] = (struct fl_secagg_bytes){NULL, 0};
    }
    fl_secagg_bytes_free(&part[0]);
    fl_secagg_bytes_free(&part[1]);
    if (r == 0) {
        *ret = all.bytes;
        *ret_size = all.size;
    }
    return r;
}

uint32_t fl_secure_complaints(const struct fl_secure *s, struct fl_secagg_complaint *ret,
                              uint32_t max)
{
    uint32_t count = 0;

    for (uint32_t p = 0; p < s->part_count; p++) {
        for (uint32_t i = 0; i < s->sums[p].count; i++) {
            uint32_t at = count < max ? count : max;
            count += fl_secagg_server_complaints(s->sums[p].at[i].server,
                                                 max > at ? ret + at : NULL, max - at);
        }
    }
    return count;
}

void fl_secure_note(const struct fl_secure *s, char *to, size_t size)
{
    const struct fl_secure_sums *sums = &s->sums[s->part_count - 1];
    uint32_t alive = 0, lost = 0, fewest = UINT32_MAX, most = 0, out = 0;

    to[0] = 0;
    if (fl_plan_secure_groups(s->plan) == FL_SECURE_ONE) {
        return;
    }
    for (uint32_t i = 0; i < sums->count; i++) {
        uint32_t n = 0;
        for (uint32_t a = 0; a < s->agent_count; a++) {
            n += s->group[a] == i;
        }
        alive += !sums->at[i].lost;
        lost += sums->at[i].lost;
        if (!sums->at[i].lost) {
            fewest = n < fewest ? n : fewest;
            most = n > most ? n : most;
        }
    }
    for (uint32_t a = 0; a < s->agent_count; a++) {
        out += s->group[a] == FL_STRATEGY_NO_GROUP;
    }
    snprintf(to, size,
             "%u secure sums of %u to %u members; %u given up; %u members in none, for want of %u "
             "to be hidden among",
             alive, alive ? fewest : 0, most, lost, out, fl_plan_secure_least(s->plan));
}
