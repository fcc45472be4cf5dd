#include "server/strategy/distrust.h"

#include "common/base/le.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { HEAD = 4, PAIR = 28 };

void fl_distrust_fini(struct fl_distrust *d)
{
    fl_free(d->at);
    *d = (struct fl_distrust){0};
}

/* ---- bytes ---- */

int fl_distrust_put(const struct fl_distrust *d, uint8_t **ret, size_t *ret_size, struct fl_err *e)
{
    size_t size = HEAD + (size_t)d->count * PAIR;
    uint8_t *to = fl_try(size, 1);

    if (!to) {
        return fl_fail(e, FL_R_NOMEM, "%u complaints", d->count);
    }
    fl_put_u32(to, d->count);
    for (uint32_t i = 0; i < d->count; i++) {
        uint8_t *at = to + HEAD + (size_t)i * PAIR;
        fl_put_u64(at, d->at[i].one);
        fl_put_u64(at + 8, d->at[i].other);
        fl_put_u64(at + 16, d->at[i].round);
        fl_put_u32(at + 24, d->at[i].times);
    }
    *ret = to;
    *ret_size = size;
    return 0;
}

static int ascending(const void *x, const void *y)
{
    const struct fl_distrust_pair *a = x, *b = y;

    return a->one != b->one ? (a->one > b->one) - (a->one < b->one)
                            : (a->other > b->other) - (a->other < b->other);
}

int fl_distrust_get(const uint8_t *from, size_t size, struct fl_distrust *ret, struct fl_err *e)
{
    uint32_t count = size >= HEAD ? fl_get_u32(from) : 0;
    struct fl_distrust d = {0};

    if (size < HEAD || count > FL_DISTRUST_MAX || size != HEAD + (size_t)count * PAIR) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "complaints of %zu bytes", size);
    }
    d.at = fl_try(count ? count : 1, sizeof *d.at);
    if (!d.at) {
        return fl_fail(e, FL_R_NOMEM, "%u complaints", count);
    }
    for (; d.count < count; d.count++) {
        const uint8_t *at = from + HEAD + (size_t)d.count * PAIR;
        const struct fl_distrust_pair p = {fl_get_u64(at), fl_get_u64(at + 8), fl_get_u64(at + 16),
                                           fl_get_u32(at + 24)};
        if (p.one >= p.other || p.times == 0 ||
            (d.count > 0 && ascending(&d.at[d.count - 1], &p) >= 0)) {
            fl_distrust_fini(&d);
            return fl_fail(e, FL_R_STORE_MISMATCH, "a complaint that cannot be");
        }
        d.at[d.count] = p;
    }
    *ret = d;
    return 0;
}

/* ---- remembering ---- */

static bool holds(const struct fl_distrust_pair *p, uint64_t round)
{
    uint32_t doublings =
        p->times - 1 < FL_DISTRUST_DOUBLINGS ? p->times - 1 : FL_DISTRUST_DOUBLINGS;

    return round <= p->round || round - p->round <= (uint64_t)FL_DISTRUST_ROUNDS << doublings;
}

/* A pair that is remembered before what is new of it. */
static int in_time(const void *x, const void *y)
{
    const struct fl_distrust_pair *a = x, *b = y;
    int order = ascending(x, y);

    return order ? order : (a->round > b->round) - (a->round < b->round);
}

static int newest_first(const void *x, const void *y)
{
    const struct fl_distrust_pair *a = x, *b = y;

    return a->round != b->round ? (a->round < b->round) - (a->round > b->round) : ascending(x, y);
}

int fl_distrust_add(struct fl_distrust *d, uint64_t round,
                    const struct fl_secagg_complaint *complaints, uint32_t count, struct fl_err *e)
{
    size_t all = (size_t)d->count + count, n = 0, kept = 0;
    struct fl_distrust_pair *at = fl_try(all ? all : 1, sizeof *at);

    if (!at) {
        return fl_fail(e, FL_R_NOMEM, "%zu complaints", all);
    }
    for (uint32_t i = 0; i < d->count; i++) {
        if (holds(&d->at[i], round)) {
            at[n++] = d->at[i];
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct fl_secagg_complaint *c = &complaints[i];
        at[n++] = (struct fl_distrust_pair){.one = c->by < c->of ? c->by : c->of,
                                            .other = c->by < c->of ? c->of : c->by,
                                            .round = round,
                                            .times = 1};
    }
    qsort(at, n, sizeof *at, in_time);
    for (size_t i = 0; i < n; i++) { /* two who complain about each other complain once */
        struct fl_distrust_pair *last = kept ? &at[kept - 1] : NULL;
        if (last && ascending(last, &at[i]) == 0) {
            last->times = last->round == at[i].round ? last->times : last->times + 1;
            last->round = round;
        } else {
            at[kept++] = at[i];
        }
    }
    if (kept > FL_DISTRUST_MAX) {
        qsort(at, kept, sizeof *at, newest_first);
        kept = FL_DISTRUST_MAX;
        qsort(at, kept, sizeof *at, ascending);
    }
    fl_free(d->at);
    *d = (struct fl_distrust){(uint32_t)kept, at};
    return 0;
}

/* ---- who sits out ---- */

/* While it is being found: who stands in a pair of which nobody is out yet. */
struct cover {
    uint32_t count;
    struct fl_distrust_out *at; /* ascending; `pairs` that are left */
    bool *out;
};

static int by_agent(const void *x, const void *y)
{
    const struct fl_distrust_out *a = x, *b = y;

    return (a->agent > b->agent) - (a->agent < b->agent);
}

static uint32_t place_of(const struct cover *c, uint64_t agent)
{
    const struct fl_distrust_out key = {.agent = agent};
    const struct fl_distrust_out *found = bsearch(&key, c->at, c->count, sizeof key, by_agent);

    return (uint32_t)(found - c->at); /* all of them are there */
}

static void gather(struct cover *c, const struct fl_distrust *d, uint64_t round)
{
    uint32_t n = 0, kept = 0;

    for (uint32_t i = 0; i < d->count; i++) {
        if (holds(&d->at[i], round) && d->at[i].one) {
            c->at[n++] = (struct fl_distrust_out){.agent = d->at[i].one, .pairs = 1};
        }
        if (holds(&d->at[i], round)) {
            c->at[n++] = (struct fl_distrust_out){
                .agent = d->at[i].other, .pairs = d->at[i].one != 0, .proven = !d->at[i].one};
        }
    }
    qsort(c->at, n, sizeof *c->at, by_agent);
    for (uint32_t i = 0; i < n; i++) {
        if (kept && c->at[kept - 1].agent == c->at[i].agent) {
            c->at[kept - 1].pairs += c->at[i].pairs;
            c->at[kept - 1].proven |= c->at[i].proven;
        } else {
            c->at[kept++] = c->at[i];
        }
    }
    c->count = kept;
}

/* i sits out: its pairs are settled. */
static void leave(struct cover *c, const struct fl_distrust *d, uint64_t round, uint32_t i)
{
    c->out[i] = true;
    for (uint32_t p = 0; p < d->count; p++) {
        const struct fl_distrust_pair *pair = &d->at[p];
        uint64_t agent = c->at[i].agent;
        if (pair->one && holds(pair, round) && (pair->one == agent || pair->other == agent)) {
            uint32_t peer = place_of(c, pair->one == agent ? pair->other : pair->one);
            c->at[peer].pairs -= !c->out[peer];
        }
    }
}

/* Whoever stands in most pairs that are left; between equals the lowest and the highest number take
 * turns. c->count: there is none. */
static uint32_t worst(const struct cover *c, uint64_t round)
{
    uint32_t best = c->count;

    for (uint32_t i = 0; i < c->count; i++) {
        if (c->out[i] || c->at[i].pairs == 0) {
            continue;
        }
        if (best == c->count || c->at[i].pairs > c->at[best].pairs ||
            (c->at[i].pairs == c->at[best].pairs && round % 2 == 0)) {
            best = i;
        }
    }
    return best;
}

int fl_distrust_out(const struct fl_distrust *d, uint64_t round, struct fl_distrust_out **ret,
                    uint32_t *ret_count, struct fl_err *e)
{
    size_t room = 2 * (size_t)d->count + 1;
    struct cover c = {.at = fl_try(room, sizeof *c.at), .out = fl_try(room, sizeof *c.out)};
    struct fl_distrust_out *all = fl_try(room, sizeof *all);
    uint32_t n = 0, i;

    if (!c.at || !c.out || !all) {
        fl_free(c.at);
        fl_free(c.out);
        fl_free(all);
        return fl_fail(e, FL_R_NOMEM, "%u complaints", d->count);
    }
    gather(&c, d, round);
    memcpy(all, c.at, c.count * sizeof *all); /* as many pairs as each stands in, for people */
    for (i = 0; i < c.count; i++) {
        if (c.at[i].proven) {
            leave(&c, d, round, i);
        }
    }
    while ((i = worst(&c, round)) < c.count) {
        leave(&c, d, round, i);
    }
    for (i = 0; i < c.count; i++) {
        if (c.out[i]) {
            all[n++] = all[i];
        }
    }
    fl_free(c.at);
    fl_free(c.out);
    if (n == 0) {
        fl_free(all);
        all = NULL;
    }
    *ret = all;
    *ret_count = n;
    return 0;
}
