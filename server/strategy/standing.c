#include "server/strategy/standing.h"

#include "common/base/le.h"
#include "common/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where theta begins and what it fades to; how far it may go; and when it is not worth keeping. */
static const double start = -2, lowest = -5, highest = 6, forgotten = 0.01;

void fl_standings_fini(struct fl_standings *s)
{
    fl_free(s->at);
    *s = (struct fl_standings){0};
}

int fl_standings_copy(const struct fl_standings *s, struct fl_standings *ret, struct fl_err *e)
{
    struct fl_standing *at = fl_try(s->count + 1, sizeof *at);

    if (!at) {
        return fl_fail(e, FL_R_NOMEM, "%u standings", s->count);
    }
    if (s->count) {
        memcpy(at, s->at, s->count * sizeof *at);
    }
    *ret = (struct fl_standings){s->count, at};
    return 0;
}

static int by_agent(const void *x, const void *y)
{
    const struct fl_standing *a = x, *b = y;

    return (a->agent > b->agent) - (a->agent < b->agent);
}

const struct fl_standing *fl_standings_find(const struct fl_standings *s, uint64_t agent)
{
    const struct fl_standing key = {.agent = agent};

    return s->count ? bsearch(&key, s->at, s->count, sizeof key, by_agent) : NULL;
}

/* ---- bytes: records, then how many there are ---- */

size_t fl_standings_size(const struct fl_standings *s, uint32_t more)
{
    return ((size_t)s->count + more) * FL_STANDING_SIZE + 4;
}

void fl_standings_put(const struct fl_standings *s, uint8_t *to, size_t size)
{
    memset(to, 0, size);
    for (uint32_t i = 0; i < s->count; i++, to += FL_STANDING_SIZE) {
        const struct fl_standing *a = &s->at[i];
        fl_put_u64(to, a->agent);
        fl_put_u64(to + 8, a->round);
        fl_put_float(to + 16, a->theta);
        fl_put_float(to + 20, a->last.norm);
        fl_put_float(to + 24, a->last.cosine);
        fl_put_float(to + 28, a->last.distance);
        fl_put_u32(to + 32, a->flags);
    }
    size_t places = (size - 4) / FL_STANDING_SIZE;
    fl_put_u32(to + (places - s->count) * FL_STANDING_SIZE, (uint32_t)places);
}

static bool get_one(const uint8_t *from, struct fl_standing *ret)
{
    *ret = (struct fl_standing){
        .agent = fl_get_u64(from),
        .round = fl_get_u64(from + 8),
        .theta = fl_get_float(from + 16),
        .last = {fl_get_float(from + 20), fl_get_float(from + 24), fl_get_float(from + 28)},
        .flags = fl_get_u32(from + 32)};
    return isfinite(ret->theta) && isfinite(ret->last.norm) && isfinite(ret->last.cosine) &&
           isfinite(ret->last.distance) && ret->flags < 2 * FL_STANDING_QUARANTINE;
}

int fl_standings_get(const uint8_t *state, size_t size, struct fl_standings *ret, size_t *ret_size,
                     struct fl_err *e)
{
    size_t places = size >= 4 ? fl_get_u32(state + size - 4) : SIZE_MAX;
    struct fl_standings s = {0};

    if (places > FL_STANDINGS_MAX + FL_PLAN_ROBUST_MAX || places * FL_STANDING_SIZE > size - 4) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "strategy state of %zu bytes has no standings",
                       size);
    }
    s.at = fl_try(places + 1, sizeof *s.at);
    if (!s.at) {
        return fl_fail(e, FL_R_NOMEM, "%zu standings", places);
    }
    const uint8_t *from = state + size - 4 - places * FL_STANDING_SIZE;
    for (size_t i = 0; i < places && fl_get_u64(from) != 0; i++, from += FL_STANDING_SIZE) {
        if (!get_one(from, &s.at[i]) || (i > 0 && s.at[i].agent <= s.at[i - 1].agent)) {
            fl_standings_fini(&s);
            return fl_fail(e, FL_R_STORE_MISMATCH, "standing %zu of the strategy state cannot be",
                           i);
        }
        s.count++;
    }
    *ret = s;
    *ret_size = places * FL_STANDING_SIZE + 4;
    return 0;
}

/* ---- judging ---- */

double fl_standing_faded(const struct fl_gates_conf *conf, double theta, uint64_t rounds)
{
    double off = theta - start;

    for (uint64_t i = 0; i < rounds && fabs(off) >= forgotten; i++) {
        off *= conf->decay;
    }
    return start + off;
}

double fl_standing_sigma(double theta)
{
    return 1 / (1 + exp(-theta));
}

bool fl_standing_quarantined(const struct fl_gates_conf *conf, const struct fl_standings *s,
                             uint64_t agent, uint64_t round)
{
    const struct fl_standing *a = fl_standings_find(s, agent);

    return a && (a->flags & FL_STANDING_QUARANTINE) &&
           fl_standing_faded(conf, (double)a->theta, round > a->round ? round - a->round : 0) >= 0;
}

/* How far an update is beyond the nearest gate: -1 well inside, 0 at it. Sets flags. */
static double excess(const struct fl_gates_conf *c, const struct fl_measure *m, uint32_t *flags)
{
    double most = -1;

    if (c->norm > 0) {
        most = fmax(most, (double)m->norm / c->norm - 1);
        *flags |= (double)m->norm > c->norm ? FL_STANDING_NORM : 0;
    }
    if (c->distance > 0) {
        most = fmax(most, (double)m->distance / c->distance - 1);
        *flags |= (double)m->distance > c->distance ? FL_STANDING_DISTANCE : 0;
    }
    if (c->cosine > -1) {
        most = fmax(most, (c->cosine - (double)m->cosine) / (1 - c->cosine));
        *flags |= (double)m->cosine < c->cosine ? FL_STANDING_COSINE : 0;
    }
    return fmin(most, 2);
}

static void judge(struct fl_standing *a, const struct fl_gates_conf *c, uint64_t round,
                  const struct fl_measure *m)
{
    bool held = a->flags & FL_STANDING_QUARANTINE;
    double theta = fl_standing_faded(c, (double)a->theta, round > a->round ? round - a->round : 0);

    a->flags = 0;
    theta = fmin(fmax(theta + excess(c, m, &a->flags), lowest), highest);
    if (fl_standing_sigma(theta) >= c->quarantine || (held && theta >= 0)) {
        a->flags |= FL_STANDING_QUARANTINE;
    }
    if (a->flags) {
        a->flags |= FL_STANDING_OUT;
    }
    a->theta = (float)theta;
    a->last = *m;
    a->round = round;
}

/* At most the smaller half sits out: the least suspicious of the others are let in again. */
static void let_in(struct fl_standing *const *at, uint32_t count)
{
    uint32_t out = 0, most = (count - 1) / 2;

    for (uint32_t i = 0; i < count; i++) {
        out += (at[i]->flags & FL_STANDING_OUT) != 0;
    }
    for (; out > most; out--) {
        struct fl_standing *best = NULL;
        for (uint32_t i = 0; i < count; i++) {
            if ((at[i]->flags & FL_STANDING_OUT) && (!best || at[i]->theta < best->theta)) {
                best = at[i];
            }
        }
        best->flags &= ~(uint32_t)FL_STANDING_OUT;
    }
}

/* Those about whom there is something to remember in `round`. */
static uint32_t keep(struct fl_standing *at, uint32_t count, const struct fl_gates_conf *c,
                     uint64_t round)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < count; i++) {
        uint64_t away = round > at[i].round ? round - at[i].round : 0;
        if (away == 0 ||
            fabs(fl_standing_faded(c, (double)at[i].theta, away) - start) >= forgotten) {
            at[kept++] = at[i];
        }
    }
    return kept;
}

int fl_standings_judge(struct fl_standings *s, const struct fl_gates_conf *conf, uint64_t round,
                       const uint64_t *agents, const struct fl_measure *measures, uint32_t count,
                       double *trust, struct fl_err *e)
{
    struct fl_standing *at = fl_try((size_t)s->count + count, sizeof *at);
    struct fl_standing **judged = fl_try(count, sizeof *judged);
    uint32_t total = 0, old = 0;

    if (!at || !judged || s->count > FL_STANDINGS_MAX) {
        fl_free(at);
        fl_free(judged);
        return fl_fail(e, FL_R_NOMEM, "standings of %u agents", s->count + count);
    }
    for (uint32_t i = 0; i < count; i++) {
        while (old < s->count && s->at[old].agent < agents[i]) {
            at[total++] = s->at[old++];
        }
        bool known = old < s->count && s->at[old].agent == agents[i];
        at[total] =
            known ? s->at[old++]
                  : (struct fl_standing){.agent = agents[i], .round = round, .theta = (float)start};
        judge(&at[total], conf, round, &measures[i]);
        judged[i] = &at[total++];
    }
    while (old < s->count) {
        at[total++] = s->at[old++];
    }
    if (count > 0) {
        let_in(judged, count);
    }
    for (uint32_t i = 0; i < count; i++) {
        trust[i] = judged[i]->flags & FL_STANDING_OUT
                       ? 0
                       : 1 - fl_standing_sigma((double)judged[i]->theta);
    }
    fl_free(judged);
    fl_free(s->at);
    *s = (struct fl_standings){keep(at, total, conf, round), at};
    return 0;
}

/* ---- for people ---- */

static void say(char *to, size_t size, const char *what, float value, const char *side, double gate,
                bool failed)
{
    size_t at = strlen(to);

    if (at < size && failed) {
        snprintf(to + at, size - at, "; %s %.3g %s %.3g", what, (double)value, side, gate);
    } else if (at < size) {
        snprintf(to + at, size - at, "; %s %.3g", what, (double)value);
    }
}

void fl_standing_text(const struct fl_gates_conf *conf, const struct fl_standing *s, char *to,
                      size_t size)
{
    uint32_t f = s->flags;

    snprintf(to, size, "%s (round %llu, score %.2f)",
             f & FL_STANDING_QUARANTINE ? "quarantine"
             : f & FL_STANDING_OUT      ? "left out"
                                        : "trusted",
             (unsigned long long)s->round, fl_standing_sigma((double)s->theta));
    say(to, size, "norm", s->last.norm, ">", conf->norm, f & FL_STANDING_NORM);
    say(to, size, "distance", s->last.distance, ">", conf->distance, f & FL_STANDING_DISTANCE);
    say(to, size, "cosine", s->last.cosine, "<", conf->cosine, f & FL_STANDING_COSINE);
}
