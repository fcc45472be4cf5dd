#include "common/privacy/accountant.h"

#include "common/privacy/gauss.h"
#include "common/privacy/pld.h"
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
    case FL_BOUND_PLD:
        return "pld";
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
    case FL_MECHANISM_WITHOUT_REPLACEMENT:
        if (event->a < 1 || event->b > event->a) {
            return fl_fail(e, FL_R_ACCOUNTING, "%g of %g drawn without replacement", event->b,
                           event->a);
        }
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

/* Every `stride`-th order from number `first` on, `count` of them at most. */
static void total_init(struct total *t, uint32_t first, uint32_t stride, uint32_t count)
{
    double all[FL_RDP_ORDERS_MAX];
    uint32_t n = fl_rdp_orders(all);

    t->orders = 0;
    for (uint32_t i = first; i < n && t->orders < count; i += stride) {
        t->alpha[t->orders] = all[i];
        t->rdp[t->orders++] = 0;
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
        if (v->mechanism == FL_MECHANISM_TREE) {
            t->mu2 += ceil(log2(v->a + 1)) * (double)v->count / (v->sigma * v->sigma);
        } else if (v->mechanism == FL_MECHANISM_GAUSSIAN && v->q == 1) {
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

/* *ret_best: the index of the order that gave it. */
static double epsilon_of(const struct total *t, double delta, enum fl_bound *ret_bound,
                         uint32_t *ret_best)
{
    double rest = rest_of_delta(t, delta), rdp, exact;

    *ret_bound = FL_BOUND_RDP;
    *ret_best = 0;
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
    rdp = fl_rdp_epsilon(t->alpha, t->rdp, t->orders, rest, ret_best);
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

/* The orders' best is sought in two passes, some orders all over the grid and then all between the
 * neighbours of the best: valid wherever it ends, and four times as fast. */
static double best_epsilon(const struct fl_event *events, uint32_t count, double delta,
                           enum fl_bound *ret_bound)
{
    enum { STRIDE = 6 };
    struct total t;
    enum fl_bound bound;
    uint32_t best, first;
    double coarse, fine;

    total_init(&t, 0, STRIDE, FL_RDP_ORDERS_MAX);
    total_add(&t, events, count);
    coarse = epsilon_of(&t, delta, ret_bound, &best);
    if (coarse == 0 || *ret_bound == FL_BOUND_EXACT_GAUSSIAN) {
        return coarse;
    }
    first = best * STRIDE;
    total_init(&t, first < STRIDE ? 0 : first - STRIDE + 1, 1, 2 * STRIDE - 1);
    total_add(&t, events, count);
    fine = epsilon_of(&t, delta, &bound, &best);
    return fmin(coarse, fine);
}

int fl_epsilon(const struct fl_event *events, uint32_t count, double delta, double *ret_epsilon,
               enum fl_bound *ret_bound, struct fl_err *e)
{
    int r = check_delta(delta, e);

    if (r < 0 || (r = check_all(events, count, e)) < 0) {
        return r;
    }
    *ret_epsilon = best_epsilon(events, count, delta, ret_bound);
    return 0;
}

int fl_epsilon_frozen(const struct fl_event *events, uint32_t count, double delta,
                      double *ret_epsilon, double *ret_lower, enum fl_bound *ret_bound,
                      struct fl_err *e)
{
    double epsilon = NAN, lower = 0, pld = INFINITY;
    enum fl_bound bound = FL_BOUND_RDP;
    bool possible = delta > 0;
    int r = fl_epsilon(events, count, delta, &epsilon, &bound, e);

    if (r < 0) {
        return r;
    }
    for (uint32_t i = 0; i < count; i++) {
        possible = possible && (fl_event_is_void(&events[i]) || fl_pld_has(&events[i]));
    }
    if (bound == FL_BOUND_EXACT_GAUSSIAN || epsilon == 0) {
        lower = epsilon * (1 - 1e-12);
    } else if (possible) {
        r = fl_pld_epsilon(events, count, delta, ret_lower ? &lower : NULL, &pld, e);
        if (r < 0) {
            return r;
        }
        if (pld < epsilon) {
            epsilon = pld;
            bound = FL_BOUND_PLD;
        }
    }
    *ret_epsilon = epsilon;
    *ret_bound = bound;
    if (ret_lower) {
        *ret_lower = fmin(lower, epsilon);
    }
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

    return best_epsilon(event, 1, delta, &bound) <= epsilon;
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

/* ln epsilon is nearly linear in ln sigma: false position, with a step towards the safe end when
 * one side stays (Illinois). */
static int sigma_by_pld(double epsilon, double delta, struct fl_event *event, double safe,
                        double *ret_sigma, struct fl_err *e)
{
    double low = safe, high = safe, at_low = 0, at_high = 0, got = NAN;
    enum fl_bound bound;
    int r = 0, stays = 0;

    for (int i = 0; i < 60 && at_low <= 0; i++) { /* downwards to where it is too little */
        high = low;
        at_high = at_low;
        low *= 0.9;
        event->sigma = low;
        r = fl_epsilon_frozen(event, 1, delta, &got, NULL, &bound, e);
        if (r < 0) {
            return r;
        }
        at_low = log(got / epsilon);
        at_high = i == 0 ? -1e-3 : at_high;
    }
    for (int i = 0; i < 40 && high > low * (1 + 2e-5); i++) {
        double part = fmin(fmax(at_low / (at_low - at_high), 0.02), 0.98);
        event->sigma = low * pow(high / low, part) * (1 + 4e-6);
        r = fl_epsilon_frozen(event, 1, delta, &got, NULL, &bound, e);
        if (r < 0) {
            return r;
        }
        if (got <= epsilon) {
            high = event->sigma;
            at_high = got > 0 ? log(got / epsilon) : -1;
            at_low = stays == 1 ? at_low / 2 : at_low;
            stays = 1;
        } else {
            low = event->sigma;
            at_low = log(got / epsilon);
            at_high = stays == -1 ? at_high / 2 : at_high;
            stays = -1;
        }
    }
    *ret_sigma = high;
    return 0;
}

int fl_sigma_for_frozen(double epsilon, double delta, double q, uint64_t count, double *ret_sigma,
                        enum fl_bound *ret_bound, struct fl_err *e)
{
    struct fl_event event = {.q = q, .sigma = 1, .count = count};
    double safe = NAN, sigma = NAN;
    int r = fl_sigma_for(epsilon, delta, q, count, &safe, e);

    if (r < 0) {
        return r;
    }
    *ret_bound = q == 1 ? FL_BOUND_EXACT_GAUSSIAN : FL_BOUND_RDP;
    *ret_sigma = safe;
    if (q == 1 || fl_event_is_void(&event)) {
        return 0;
    }
    r = sigma_by_pld(epsilon, delta, &event, safe, &sigma, e);
    if (r == 0 && sigma < safe) {
        *ret_sigma = sigma;
        *ret_bound = FL_BOUND_PLD;
    }
    return r;
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

/* From what Renyi allows upwards: by an eighth until it is too many, then by halves. */
int fl_rounds_for_frozen(double epsilon, double delta, const struct fl_event *event,
                         uint64_t *ret_count, enum fl_bound *ret_bound, struct fl_err *e)
{
    const uint64_t most = (uint64_t)1 << 40;
    struct fl_event v = *event;
    uint64_t low = 0, high = 0;
    double got = NAN;
    enum fl_bound bound = FL_BOUND_RDP, ignored;
    int r = fl_rounds_for(epsilon, delta, event, &low, e);

    if (r < 0) {
        return r;
    }
    if (low < most && !fl_event_is_void(&(struct fl_event){.q = v.q, .count = 1})) {
        v.count = low ? low : 1;
        r = fl_epsilon(&v, 1, delta, &got, &bound, e);
    }
    if (r < 0 || low == most || bound == FL_BOUND_EXACT_GAUSSIAN || !fl_pld_has(event)) {
        *ret_count = low;
        *ret_bound = bound;
        return r;
    }
    bound = FL_BOUND_RDP;
    while (high == 0 || high - low > 1) {
        v.count = high ? low + (high - low) / 2 : low + low / 8 + 1;
        if (v.count >= most) {
            break;
        }
        r = fl_epsilon_frozen(&v, 1, delta, &got, NULL, &ignored, e);
        if (r < 0) {
            return r;
        }
        if (got <= epsilon) {
            low = v.count;
            bound = ignored;
        } else {
            high = v.count;
        }
    }
    *ret_count = low;
    *ret_bound = bound;
    return 0;
}

int fl_delta_check(double delta, double units, struct fl_err *e)
{
    if (!(delta > 0 && delta < 1)) {
        return fl_fail(e, FL_R_ACCOUNTING, "delta %g; must be above 0 and below 1", delta);
    }
    if (!(units >= 1) || delta * units >= 1) {
        return fl_fail(
            e, FL_R_ACCOUNTING,
            "delta %g does not protect %.0f units: it must be below 1/%.0f, or publishing "
            "one of them at random would pass",
            delta, units, units);
    }
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
    total_init(&t, 0, 1, FL_RDP_ORDERS_MAX);
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
