/*
 * The subsampled Gaussian. With N0 = N(0, sigma^2) and L(x) = (2x - 1) / (2 sigma^2), order alpha
 * is
 *
 *   A(alpha) = E_{x ~ N0} [ (1 - q + q e^L)^alpha ],     rdp = ln A / (alpha - 1).
 *
 * For small q, A - 1 is as small as 1e-14, and a sum for A itself has lost every digit of it. So we
 * only ever compute A - 1. As E[e^L] = 1, a term linear in w = e^L - 1 may be taken away:
 *
 *   A - 1 = E[ (1 + q w)^alpha - 1 - alpha q w ],
 *
 * whose integrand is nowhere negative (Bernoulli's inequality): nothing cancels.
 *
 *   Integer alpha: the binomial sum over k >= 2 of C(alpha, k) q^k (1-q)^(alpha-k) (e^((k^2-k) / (2
 *   sigma^2)) - 1), all terms positive, summed in logarithms.
 *
 *   Other alpha: the trapezoidal rule over x. For analytic integrands with Gaussian tails its error
 *   falls exponentially with 1/step: e^(-2 pi y / h + y^2 / (2 sigma^2)) for a strip of half-width
 *   y without singularity; the nearest is where 1 + q w = 0, at Im x = pi sigma^2. The step below
 *   makes it e^-45. The signed binomial series of Mironov et al. says the same (the tests compare)
 *   but loses the digits that this keeps.
 *
 *   For very small sigma the strip is narrow and the rule expensive; there ln A at other alpha is
 *   bounded by the chord between the neighbouring integers: ln E[X^alpha] is convex in alpha.
 */
#include "common/privacy/rdp.h"

#include <assert.h>
#include <math.h>

static long double log_add(long double a, long double b)
{
    long double high = fmaxl(a, b), low = fminl(a, b);

    return low == -INFINITY ? high : high + log1pl(expl(low - high));
}

/* ln(e^x - 1), x > 0. */
static long double log_expm1(long double x)
{
    return x > 48 ? x : logl(expm1l(x));
}

/* A sum of positive numbers given by their logarithms: scaled by the largest so far. */
struct log_sum {
    long double largest, scaled;
};

static void log_sum_add(struct log_sum *s, long double v)
{
    if (v > s->largest) {
        s->scaled = s->scaled * expl(s->largest - v) + 1;
        s->largest = v;
    } else if (v > s->largest - 60) {
        s->scaled += expl(v - s->largest);
    }
}

/* ln(A - 1) for integer alpha >= 2. The logarithm of the binomial coefficient is carried along; a
 * thousand additions of long doubles lose 1e-16. */
static long double log_excess_integer(double q, double sigma, double alpha)
{
    const long double log_q = logl(q), log_p = log1pl(-(long double)q);
    const long double half = 0.5L / ((long double)sigma * sigma);
    struct log_sum sum = {-INFINITY, 0};
    long double binomial = logl(alpha);

    for (double k = 2; k <= alpha; k++) {
        long double exponent = (long double)(k * k - k) * half;
        binomial += logl((alpha - k + 1) / (long double)k);
        log_sum_add(&sum, binomial + k * log_q + (alpha - k) * log_p + log_expm1(exponent));
    }
    return sum.largest + logl(sum.scaled);
}

/* ln((1 + u)^alpha - 1 - alpha u), u > -1. */
static double log_above_tangent(double u, double alpha)
{
    if (fabs(u) * alpha < 0.02) {
        double term = alpha * (alpha - 1) / 2 * u * u, sum = term;
        for (int j = 3; j < 12; j++) {
            term *= (alpha - j + 1) / j * u;
            sum += term;
        }
        return log(sum);
    }
    double t = alpha * log1p(u);
    if (t > 1) {
        return t + log1p(-exp(-t) * (1 + alpha * u));
    }
    return log(expm1(t) - alpha * u);
}

static double step_of(double sigma)
{
    const double pi2 = 9.8696044010893586;

    return fmin(0.4 * sigma, 2 * pi2 / (45 / (sigma * sigma) + pi2 / 2));
}

static double points_of(double sigma, double alpha)
{
    return (alpha + 24 * sigma) / step_of(sigma);
}

static double log_excess_quadrature(double q, double sigma, double alpha)
{
    const double half = 0.5 / (sigma * sigma), h = step_of(sigma);
    const double points = ceil(points_of(sigma, alpha));
    struct log_sum sum = {-INFINITY, 0};

    for (double i = 0; i <= points; i++) {
        double x = -12 * sigma + i * h, l = (2 * x - 1) * half, log_f;
        /* ln(1 + q w) for w beyond the range of doubles: then only the power counts. */
        if (l > 600) {
            log_f = alpha * (log(q) + l + 1e-12);
        } else {
            log_f = log_above_tangent(q * expm1(l), alpha);
        }
        log_sum_add(&sum, log_f - x * x * half);
    }
    /* The sum times h / (sigma sqrt(2 pi)). */
    return (double)(sum.largest + logl(sum.scaled)) + log(h / sigma) - 0.91893853320467274;
}

/* ln A from ln(A - 1). */
static double log_of_excess(long double log_excess)
{
    return (double)(log_excess > 40 ? log_excess : log1pl(expl(log_excess)));
}

static double log_moment(double q, double sigma, double alpha)
{
    if (alpha == floor(alpha)) {
        return alpha < 2 ? 0 : log_of_excess(log_excess_integer(q, sigma, alpha)) * (1 + 1e-13);
    }
    if (points_of(sigma, alpha) <= 20000) {
        return log_of_excess(log_excess_quadrature(q, sigma, alpha)) * (1 + 1e-10);
    }
    double below = floor(alpha), part = alpha - below;
    return (1 - part) * log_moment(q, sigma, below) + part * log_moment(q, sigma, below + 1);
}

double fl_rdp_subsampled(double q, double sigma, double alpha)
{
    assert(alpha > 1 && q >= 0 && q <= 1 && sigma >= 0);
    if (q == 0) {
        return 0;
    }
    if (sigma == 0) {
        return INFINITY;
    }
    if (q == 1) {
        return alpha / (2 * sigma * sigma);
    }
    return log_moment(q, sigma, alpha) / (alpha - 1);
}

/* Laplace of scale b, sensitivity 1 (Mironov 2017, proposition 6). */
static double laplace(double b, double alpha)
{
    long double a = alpha;
    long double up = logl(a / (2 * a - 1)) + (a - 1) / b;
    long double down = logl((a - 1) / (2 * a - 1)) - a / b;

    return (double)(log_add(up, down) / (a - 1));
}

/* Agarwal, Kairouz, Liu 2021, theorem 3.5. */
static double skellam(double mu, double l2, double l1, double alpha)
{
    double first = alpha * l2 * l2 / (2 * mu);
    double tight = ((2 * alpha - 1) * l2 * l2 + 6 * l1) / (4 * mu * mu);

    return first + fmin(tight, 3 * l1 / (2 * mu));
}

/* Whatever is epsilon-DP costs at most what randomized response at epsilon costs (Kairouz, Oh,
 * Viswanath 2015). */
static double pure(double epsilon, double alpha)
{
    long double up = log_add((long double)alpha * epsilon, (1 - (long double)alpha) * epsilon);
    long double rdp = (up - log_add(0, epsilon)) / ((long double)alpha - 1);

    return (double)fminl(fmaxl(rdp, 0), epsilon);
}

/* k-ary randomized response, one value replaced: with probability p a uniform answer, else the true
 * one. */
static double randomized_response(double p, double k, double alpha)
{
    long double other = logl(p / k), own = logl(1 - p + p / k), a = alpha;
    long double sum = log_add(a * own + (1 - a) * other, a * other + (1 - a) * own);

    if (k > 2) {
        sum = log_add(sum, other + logl(k - 2));
    }
    return (double)fmaxl(sum / (a - 1), 0);
}

double fl_rdp(const struct fl_event *event, double alpha)
{
    const double sigma = event->sigma;
    double one = INFINITY;

    assert(alpha > 1);
    if (fl_event_is_void(event)) {
        return 0;
    }
    switch (event->mechanism) {
    case FL_MECHANISM_GAUSSIAN:
        one = fl_rdp_subsampled(event->q, sigma, alpha);
        break;
    case FL_MECHANISM_DISCRETE_GAUSSIAN:
        one = sigma > 0 ? alpha / (2 * sigma * sigma) : INFINITY;
        break;
    case FL_MECHANISM_LAPLACE:
        one = sigma > 0 ? laplace(sigma, alpha) : INFINITY;
        break;
    case FL_MECHANISM_SKELLAM:
        one = sigma > 0 ? skellam(sigma, event->a, event->b, alpha) : INFINITY;
        break;
    case FL_MECHANISM_TREE:
        one = sigma > 0 ? alpha * ceil(log2(event->a + 1)) / (2 * sigma * sigma) : INFINITY;
        break;
    case FL_MECHANISM_EPS_DELTA:
        one = pure(event->a, alpha);
        break;
    case FL_MECHANISM_ZCDP:
        one = alpha * event->a;
        break;
    case FL_MECHANISM_WITHOUT_REPLACEMENT:
        one = fl_rdp_without_replacement(event->b / event->a, sigma, alpha);
        break;
    case FL_MECHANISM_RANDOMIZED_RESPONSE:
        one = event->a > 0 ? randomized_response(event->a, event->b, alpha) : INFINITY;
        break;
    }
    return one * (double)event->count;
}

uint32_t fl_rdp_orders(double ret[FL_RDP_ORDERS_MAX])
{
    static const uint16_t large[] = {68,  72,  80,  88,  96,  112, 128,  160,  192,  224,
                                     256, 320, 384, 448, 512, 768, 1024, 1536, 2048, 4096};
    uint32_t n = 0;

    for (int i = 102; i < 110; i++) {
        ret[n++] = i / 100.0;
    }
    for (int i = 11; i < 110; i++) {
        ret[n++] = i / 10.0;
    }
    for (int i = 11; i <= 64; i++) {
        ret[n++] = i;
    }
    for (uint32_t i = 0; i < sizeof large / sizeof large[0]; i++) {
        ret[n++] = large[i];
    }
    assert(n <= FL_RDP_ORDERS_MAX);
    return n;
}

static double penalty(double alpha, double delta)
{
    return log1p(-1 / alpha) - (log(delta) + log(alpha)) / (alpha - 1);
}

double fl_rdp_epsilon(const double *alpha, const double *rdp, uint32_t count, double delta,
                      uint32_t *ret_best)
{
    double best = INFINITY;
    uint32_t at = 0;

    for (uint32_t i = 0; i < count; i++) {
        double epsilon = rdp[i] + penalty(alpha[i], delta);
        if (rdp[i] < -log1p(-delta * delta)) {
            epsilon = 0;
        }
        if (epsilon < best) {
            best = epsilon;
            at = i;
        }
    }
    if (ret_best) {
        *ret_best = at;
    }
    return best < 0 ? 0 : best;
}

double fl_rdp_budget(double alpha, double epsilon, double delta)
{
    return fmax(epsilon - penalty(alpha, delta), -log1p(-delta * delta));
}
