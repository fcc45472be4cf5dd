#include "common/privacy/event.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARGUMENTS = 3 };

/* A mechanism's name and its arguments in order. `field` says where each goes: s(igma), a, b, q,
 * 1 = divides sigma (a sensitivity), m = a mechanism in parentheses. */
static const struct form {
    const char *name;
    enum fl_mechanism mechanism;
    const char *arguments[ARGUMENTS];
    const char *fields;
} forms[] = {
    {"Gauss", FL_MECHANISM_GAUSSIAN, {"sigma"}, "s"},
    {"Poisson", FL_MECHANISM_GAUSSIAN, {"q", NULL}, "qm"},
    {"DiscreteGauss", FL_MECHANISM_DISCRETE_GAUSSIAN, {"sens", "sigma"}, "1s"},
    {"Laplace", FL_MECHANISM_LAPLACE, {"b"}, "s"},
    {"Skellam", FL_MECHANISM_SKELLAM, {"mu", "l2", "l1"}, "sab"},
    {"TreeAggregation", FL_MECHANISM_TREE, {"sigma", "steps"}, "sa"},
    {"EpsDelta", FL_MECHANISM_EPS_DELTA, {"epsilon", "delta"}, "ab"},
    {"zCDP", FL_MECHANISM_ZCDP, {"rho"}, "a"},
    {"WOR", FL_MECHANISM_WITHOUT_REPLACEMENT, {"N", "m", NULL}, "abm"},
    {"RandomizedResponse", FL_MECHANISM_RANDOMIZED_RESPONSE, {"p", "k"}, "ab"},
};

struct scan {
    const char *start, *at;
    enum fl_relation relation;
    struct fl_err *e;
};

static int refuse(const struct scan *s, const char *what)
{
    return fl_fail(s->e, FL_R_ACCOUNTING, "events: %s at \"%.40s\" (character %zu)", what, s->at,
                   (size_t)(s->at - s->start) + 1);
}

static void skip_spaces(struct scan *s)
{
    s->at += strspn(s->at, " \t");
}

static bool take(struct scan *s, char c)
{
    skip_spaces(s);
    if (*s->at != c) {
        return false;
    }
    s->at++;
    return true;
}

static size_t name_length(const char *at)
{
    return strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
}

static int number(struct scan *s, double *ret)
{
    char *end;
    double v;

    skip_spaces(s);
    if (!strchr("0123456789.", *s->at) || !*s->at) {
        return refuse(s, "a number is expected");
    }
    v = strtod(s->at, &end);
    if (!isfinite(v)) {
        return refuse(s, "a number that is not finite");
    }
    s->at = end;
    *ret = v;
    return 0;
}

static const struct form *find_form(struct scan *s)
{
    size_t n;

    skip_spaces(s);
    n = name_length(s->at);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (strlen(forms[i].name) == n && memcmp(forms[i].name, s->at, n) == 0) {
            s->at += n;
            return &forms[i];
        }
    }
    return NULL;
}

/* An optional "name=" that must be the argument's own. */
static int argument_name(struct scan *s, const char *name)
{
    size_t n;

    skip_spaces(s);
    n = name_length(s->at);
    if (s->at[n] != '=') {
        return 0;
    }
    /* "eps" and "epsilon" are both common. */
    if (n == 0 || n > strlen(name) || memcmp(s->at, name, n) != 0) {
        return refuse(s, "an argument this mechanism does not have");
    }
    s->at += n + 1;
    return 0;
}

static int mechanism(struct scan *s, bool inside, struct fl_event *ret)
{
    const struct form *form = find_form(s);
    double v = 0, divide = 1, q = 1;
    int r;

    if (!form || (inside && strcmp(form->name, "Gauss") != 0)) {
        return refuse(s, inside ? "Gauss is expected" : "a mechanism is expected");
    }
    if (!take(s, '(')) {
        return refuse(s, "'(' is expected");
    }
    *ret = (struct fl_event){.q = 1, .count = 1, .mechanism = form->mechanism};
    for (const char *field = form->fields; *field; field++) {
        if (field != form->fields && !take(s, ';') && !take(s, ',')) {
            return refuse(s, "another argument is expected");
        }
        if (*field == 'm') {
            struct fl_event gauss;
            r = mechanism(s, true, &gauss); /* at most once: `inside` allows Gauss alone */
            ret->sigma = r < 0 ? 0 : gauss.sigma;
        } else {
            r = argument_name(s, form->arguments[field - form->fields]);
            r = r < 0 ? r : number(s, &v);
        }
        if (r < 0) {
            return r;
        }
        double *to = *field == 's'   ? &ret->sigma
                     : *field == 'a' ? &ret->a
                     : *field == 'b' ? &ret->b
                     : *field == 'q' ? &q
                                     : &divide;
        if (*field != 'm') {
            *to = v;
        }
    }
    if (!take(s, ')')) {
        return refuse(s, "')' is expected");
    }
    ret->q = q;
    if (divide != 1) {
        ret->sigma /= divide;
    }
    return 0;
}

static int term(struct scan *s, struct fl_event *ret)
{
    char *end;
    int r = mechanism(s, false, ret);

    if (r < 0) {
        return r;
    }
    if (take(s, 'x')) {
        skip_spaces(s);
        if (*s->at < '0' || *s->at > '9') {
            return refuse(s, "a count is expected");
        }
        unsigned long long count = strtoull(s->at, &end, 10);
        if (count > (1ULL << 53)) {
            return refuse(s, "a count above 2^53");
        }
        s->at = end;
        ret->count = count;
    }
    if (s->relation == FL_RELATION_REPLACE) {
        switch (ret->mechanism) {
        case FL_MECHANISM_GAUSSIAN:
            if (ret->q > 0 && ret->q < 1) {
                return refuse(s, "a Poisson sample has no replaced unit, before");
            }
            ret->sigma /= 2;
            break;
        case FL_MECHANISM_DISCRETE_GAUSSIAN:
        case FL_MECHANISM_LAPLACE:
            ret->sigma /= 2;
            break;
        case FL_MECHANISM_SKELLAM:
            ret->a *= 2;
            ret->b *= 2;
            break;
        case FL_MECHANISM_TREE:
            ret->sigma /= 2;
            break;
        case FL_MECHANISM_EPS_DELTA:
        case FL_MECHANISM_ZCDP:
        case FL_MECHANISM_RANDOMIZED_RESPONSE:
        case FL_MECHANISM_WITHOUT_REPLACEMENT:
            break;
        }
    }
    return fl_event_check(ret, s->e);
}

int fl_events_parse(const char *text, enum fl_relation relation, struct fl_event *ret, uint32_t max,
                    uint32_t *ret_count, struct fl_err *e)
{
    struct scan s = {text, text, relation, e};
    uint32_t n = 0;

    do {
        if (n == max) {
            return refuse(&s, "too many terms");
        }
        int r = term(&s, &ret[n++]);
        if (r < 0) {
            return r;
        }
    } while (take(&s, '+'));
    skip_spaces(&s);
    if (*s.at) {
        return refuse(&s, "the end is expected");
    }
    *ret_count = n;
    return 0;
}

const char *fl_event_text(const struct fl_event *event, char *ret, size_t size)
{
    const unsigned long long count = event->count;
    const double sigma = event->sigma, a = event->a, b = event->b;

    switch (event->mechanism) {
    case FL_MECHANISM_GAUSSIAN:
        if (event->q == 1) {
            snprintf(ret, size, "Gauss(sigma=%.10g)x%llu", sigma, count);
        } else {
            snprintf(ret, size, "Poisson(q=%.10g;Gauss(sigma=%.10g))x%llu", event->q, sigma, count);
        }
        break;
    case FL_MECHANISM_DISCRETE_GAUSSIAN:
        snprintf(ret, size, "DiscreteGauss(sens=1;sigma=%.10g)x%llu", sigma, count);
        break;
    case FL_MECHANISM_LAPLACE:
        snprintf(ret, size, "Laplace(b=%.10g)x%llu", sigma, count);
        break;
    case FL_MECHANISM_SKELLAM:
        snprintf(ret, size, "Skellam(mu=%.10g;l2=%.10g;l1=%.10g)x%llu", sigma, a, b, count);
        break;
    case FL_MECHANISM_TREE:
        snprintf(ret, size, "TreeAggregation(sigma=%.10g;steps=%.10g)x%llu", sigma, a, count);
        break;
    case FL_MECHANISM_EPS_DELTA:
        snprintf(ret, size, "EpsDelta(%.10g;%.10g)x%llu", a, b, count);
        break;
    case FL_MECHANISM_ZCDP:
        snprintf(ret, size, "zCDP(rho=%.10g)x%llu", a, count);
        break;
    case FL_MECHANISM_WITHOUT_REPLACEMENT:
        snprintf(ret, size, "WOR(N=%.10g;m=%.10g;Gauss(sigma=%.10g))x%llu", a, b, sigma, count);
        break;
    case FL_MECHANISM_RANDOMIZED_RESPONSE:
        snprintf(ret, size, "RandomizedResponse(p=%.10g;k=%.10g)x%llu", a, b, count);
        break;
    default:
        snprintf(ret, size, "mechanism %d", (int)event->mechanism);
        break;
    }
    return ret;
}
