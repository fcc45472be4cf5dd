#include "common/privacy/gauss.h"

#include <math.h>

/* ln Phi(x). Below -100, where erfc leaves the range of long doubles, the first terms of its
 * asymptotic series (error 1e-17 there). */
static long double log_phi(long double x)
{
    const long double half_log_2pi = 0.918938533204672741780329736406L;

    if (x > -100) {
        return logl(0.5L * erfcl(-x / sqrtl(2)));
    }
    long double y = 1 / (x * x);
    return -x * x / 2 - logl(-x) - half_log_2pi +
           log1pl(-y * (1 - 3 * y * (1 - 5 * y * (1 - 7 * y))));
}

static long double log_delta(long double mu, long double epsilon)
{
    long double first = log_phi(mu / 2 - epsilon / mu);
    long double second = epsilon + log_phi(-mu / 2 - epsilon / mu);

    /* second < first for every mu > 0; where the difference is lost, delta is (nearly) nothing. */
    return second < first ? first + logl(-expm1l(second - first)) : -INFINITY;
}

double fl_gauss_log_delta(double mu, double epsilon)
{
    return (double)log_delta(mu, epsilon);
}

double fl_gauss_epsilon(double mu, double delta)
{
    const long double target = logl(delta);
    long double low = 0, high;

    if (mu == 0 || log_delta(mu, 0) <= target) {
        return 0;
    }
    high = (long double)mu * mu / 2 + mu * sqrtl(-2 * target); /* of zero-concentrated DP */
    while (log_delta(mu, high) > target) {
        high *= 2;
    }
    while (high - low > 1e-14L * high) {
        long double middle = (low + high) / 2;
        if (log_delta(mu, middle) > target) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (double)high * (1 + 1e-15);
}

double fl_gauss_sigma(double epsilon, double delta)
{
    const long double target = logl(delta);
    long double low = 1, high = 1;

    while (log_delta(1 / low, epsilon) <= target) {
        low /= 2;
    }
    while (log_delta(1 / high, epsilon) > target) {
        high *= 2;
    }
    while (high - low > 1e-14L * high) {
        long double middle = (low + high) / 2;
        if (log_delta(1 / middle, epsilon) > target) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (double)high * (1 + 1e-15);
}
