#include "common/privacy/accountant.h"

#include "common/privacy/gauss.h"
#include "common/privacy/rdp.h"

#include <math.h>
#include <stddef.h>

const char *fl_bound_name(enum fl_bound b)
{
    switch (b) {
    case FL_BOUND_RDP:
        return "rdp";
    case FL_BOUND_EXACT_GAUSSIAN:
        return "exact-gaussian";
    }
    return "unknown";
}

static bool in_range(double x, double low, double high)
{
    return x >= low && x <= high && isfinite(x);
}

int fl_event_check(const struct fl_event *event, struct fl_err *e)
{
    if (!in_range(event->q, 0, 1)) {
        return fl_fail(e, FL_R_ACCOUNTING, "sampling rate %g; must be within 0 and 1", event->q);
    }
    if (!in_range(event->sigma, 0, INFINITY)) {
        return fl_fail(e, FL_R_ACCOUNTING, "noise multiplier %g; must be finite and not negative",
                       event->sigma);
    }
    if (!in_range(event->a, 0, INFINITY) || !in_range(event->b, 0, INFINITY)) {
        return fl_fail(e, FL_R_ACCOUNTING,
                       "mechanism with parameters %g and %g; must be finite and not negative",
                       event->a, event->b);
    }
    switch (event->mechanism) {
    case FL_MECHANISM_GAUSSIAN:
    case FL_MECHANISM_DISCRETE_GAUSSIAN:
    case FL_MECHANISM_LAPLACE:
    case FL_MECHANISM_SKELLAM:
    case FL_MECHANISM_TREE:
    case FL_MECHANISM_ZCDP:
        break;
    case FL_MECHANISM_EPS_DELTA:
        if (event->b >= 1) {
            return fl_fail(e, FL_R_ACCOUNTING, "a mechanism of delta %g", event->b);
        }
        break;
    case FL_MECHANISM_RANDOMIZED_RESPONSE:
        if (event->a > 1 || event->b < 2) {
            return fl_fail(e, FL_R_ACCOUNTING,
                           "randomized response with probability %g among %g answers", event->a,
                           event->b);
        }
        break;
    default:
        return fl_fail(e, FL_R_ACCOUNTING, "mechanism number %d", (int)event->mechanism);
    }
    if (event->mechanism != FL_MECHANISM_GAUSSIAN && event->q > 0 && event->q < 1) {
        return fl_fail(e, FL_R_ACCOUNTING, "sampling rate %g with a mechanism other than Gaussian",
                       event->q);
    }
    return 0;
}

bool fl_event_is_void(const struct fl_event *event)
{
    bool sampled = event->mechanism == FL_MECHANISM_GAUSSIAN;

    return event->count == 0 || (sampled && event->q == 0);
}

static int check_all(const struct fl_event *events, uint32_t count, struct fl_err *e)
{
    for (uint32_t i = 0; i < count; i++) {
        int r = fl_event_check(&events[i], e);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int check_delta(double delta, struct fl_err *e)
{
    if (!(delta >= 0 && delta < 1)) {
        return fl_fail(e, FL_R_ACCOUNTING, "delta %g; must be at least 0 and below 1", delta);
    }
    return 0;
}

/* What a list of events comes to. */
struct total {
    uint32_t orders;
    double alpha[FL_RDP_ORDERS_MAX], rdp[FL_RDP_ORDERS_MAX];
    double mu2;       /* sum of 1 / sigma^2 */
    double log_sound; /* ln of the probability that no delta of EPS_DELTA happens */
    bool gaussian;    /* all Gaussian with q = 1: mu2 says everything */
    bool empty;
};

static void total_init(struct total *t)
{
    t->orders = fl_rdp_orders(t->alpha);
    for (uint32_t i = 0; i < t->orders; i++) {
        t->rdp[i] = 0;
    }
    t->mu2 = 0;
    t->log_sound = 0;
    t->gaussian = t->empty = true;
}

static void total_add(struct total *t, const struct fl_event *events, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct fl_event *v = &events[i];
        if (fl_event_is_void(v)) {
            continue;
        }
        t->empty = false;
        if (v->mechanism == FL_MECHANISM_GAUSSIAN && v->q == 1) {
            t->mu2 += (double)v->count / (v->sigma * v->sigma);
        } else {
            t->gaussian = false;
        }
        if (v->mechanism == FL_MECHANISM_EPS_DELTA) {
            t->log_sound += (double)v->count * log1p(-v->b);
        }
        for (uint32_t k = 0; k < t->orders; k++) {
            t->rdp[k] += fl_rdp(v, t->alpha[k]);
        }
    }
}

/* What is left of delta for the rest once the mechanisms with a delta of their own have had theirs:
 * delta = d0 + (1 - d0) rest. 0 or less when nothing is. */
static double rest_of_delta(const struct total *t, double delta)
{
    return (delta + expm1(t->log_sound)) / exp(t->log_sound);
}

static double epsilon_of(const struct total *t, double delta, enum fl_bound *ret_bound)
{
    double rest = rest_of_delta(t, delta), rdp, exact;

    *ret_bound = FL_BOUND_RDP;
    if (t->empty) {
        return 0;
    }
    if (!(rest > 0)) {
        bool nothing = rest == 0;
        for (uint32_t i = 0; i < t->orders; i++) {
            nothing = nothing && t->rdp[i] == 0;
        }
        return nothing ? 0 : INFINITY;
    }
    rdp = fl_rdp_epsilon(t->alpha, t->rdp, t->orders, rest, NULL);
    if (!t->gaussian || !isfinite(t->mu2)) {
        return rdp;
    }
    exact = fl_gauss_epsilon(sqrt(t->mu2), delta);
    if (exact <= rdp) {
        *ret_bound = FL_BOUND_EXACT_GAUSSIAN;
        return exact;
    }
    return rdp;
}

int fl_epsilon(const struct fl_event *events, uint32_t count, double delta, double *ret_epsilon,
               enum fl_bound *ret_bound, struct fl_err *e)
{
    struct total t;
    int r = check_delta(delta, e);

    if (r < 0 || (r = check_all(events, count, e)) < 0) {
        return r;
    }
    total_init(&t);
    total_add(&t, events, count);
    *ret_epsilon = epsilon_of(&t, delta, ret_bound);
    return 0;
}

static int check_target(double epsilon, double delta, struct fl_err *e)
{
    if (!(epsilon > 0) || !isfinite(epsilon)) {
        return fl_fail(e, FL_R_ACCOUNTING, "epsilon %g; must be finite and above 0", epsilon);
    }
    if (!(delta > 0 && delta < 1)) {
        return fl_fail(e, FL_R_ACCOUNTING, "delta %g; must be above 0 and below 1", delta);
    }
    return 0;
}

static bool within(const struct fl_event *event, double epsilon, double delta)
{
    enum fl_bound bound;
    struct total t;

    total_init(&t);
    total_add(&t, event, 1);
    return epsilon_of(&t, delta, &bound) <= epsilon;
}

int fl_sigma_for(double epsilon, double delta, double q, uint64_t count, double *ret_sigma,
                 struct fl_err *e)
{
    struct fl_event event = {.q = q, .sigma = 1, .count = count};
    double low, high = 1;
    int r = check_target(epsilon, delta, e);

    if (r < 0 || (r = fl_event_check(&event, e)) < 0) {
        return r;
    }
    if (fl_event_is_void(&event)) {
        *ret_sigma = 0;
        return 0;
    }
    if (q == 1) {
        *ret_sigma = fl_gauss_sigma(epsilon, delta) * sqrt((double)count) * (1 + 1e-10);
        return 0;
    }
    /* epsilon falls with sigma. Between 2^-40 and 2^40 every target is met or absurd. */
    for (; high < 0x1p40 && (event.sigma = high, !within(&event, epsilon, delta)); high *= 2) {
    }
    for (low = high / 2; low > 0x1p-40 && (event.sigma = low, within(&event, epsilon, delta));
         low /= 2) {
        high = low;
    }
    if (event.sigma = high, !within(&event, epsilon, delta)) {
        return fl_fail(e, FL_R_ACCOUNTING, "no noise gives epsilon %g at delta %g for %llu steps",
                       epsilon, delta, (unsigned long long)count);
    }
    while (high > low * (1 + 1e-5)) {
        event.sigma = sqrt(low * high);
        if (within(&event, epsilon, delta)) {
            high = event.sigma;
        } else {
            low = event.sigma;
        }
    }
    *ret_sigma = high;
    return 0;
}

int fl_rounds_for(double epsilon, double delta, const struct fl_event *event, uint64_t *ret_count,
                  struct fl_err *e)
{
    struct fl_event v = *event;
    uint64_t low = 0, high = (uint64_t)1 << 40; /* low is within; high is not, or the ceiling */
    int r = check_target(epsilon, delta, e);

    if (r < 0 || (r = fl_event_check(event, e)) < 0) {
        return r;
    }
    v.count = high;
    if (within(&v, epsilon, delta)) {
        *ret_count = high;
        return 0;
    }
    while (high - low > 1) {
        v.count = low + (high - low) / 2;
        if (within(&v, epsilon, delta)) {
            low = v.count;
        } else {
            high = v.count;
        }
    }
    *ret_count = low;
    return 0;
}

int fl_filter_allows(const struct fl_event *spent, uint32_t spent_count,
                     const struct fl_event *more, uint32_t more_count, double epsilon, double delta,
                     bool *ret_allows, struct fl_err *e)
{
    struct total t;
    double rest;
    int r = check_target(epsilon, delta, e);

    if (r < 0 || (r = check_all(spent, spent_count, e)) < 0 ||
        (r = check_all(more, more_count, e)) < 0) {
        return r;
    }
    total_init(&t);
    total_add(&t, spent, spent_count);
    total_add(&t, more, more_count);
    *ret_allows = t.empty;
    if (t.empty || !((rest = rest_of_delta(&t, delta)) > 0)) {
        return 0;
    }
    if (t.gaussian && isfinite(t.mu2)) {
        double sigma = fl_gauss_sigma(epsilon, delta);
        *ret_allows = t.mu2 * sigma * sigma <= 1;
        return 0;
    }
    for (uint32_t i = 0; i < t.orders && !*ret_allows; i++) {
        *ret_allows = t.rdp[i] <= fl_rdp_budget(t.alpha[i], epsilon, rest);
    }
    return 0;
}
