/*
 * Sampling without replacement. For integer alpha, with w = e^L - 1 as in rdp.c,
 *
 *   A(alpha) <= 1 + C(alpha, 2) q^2 min(4 E[w^2], 2 e^(2 / (2 sigma^2)))
 *                 + sum_{j >= 3} C(alpha, j) q^j min(4 sqrt(E[w^j'] E[w^j\"]), 2 e^(j (j-1) / (2
 * sigma^2)))
 *
 * where j' and j\" are j rounded down and up to even numbers, for which E[w^j] is positive and its
 * integrand, too: the trapezoidal rule gives it to full accuracy where the alternating sum of
 * exponentials would lose everything. E[w^2] = e^(1 / sigma^2) - 1. Other orders by the chord.
 */
#include "common/privacy/rdp.h"

#include <assert.h>
#include <math.h>

/* Beyond this the second term of the minimum does. */
static const double moments_max = 256;

/* ln E_{x ~ N(0, sigma^2)}[w^j] for even j >= 2. */
static double log_even_moment(double sigma, double j)
{
    const double half = 0.5 / (sigma * sigma), h = 0.2 * sigma;
    const double points = ceil((j + 24 * sigma) / h);
    double largest = -INFINITY, sum = 0;

    for (double i = 0; i <= points; i++) {
        double x = -12 * sigma + i * h, l = (2 * x - 1) * half;
        double log_w = l > 40 ? l : log(fabs(expm1(l)));
        double v = j * log_w - x * x * half;
        if (v > largest) {
            sum = sum * exp(largest - v) + 1;
            largest = v;
        } else {
            sum += exp(v - largest);
        }
    }
    return largest + log(sum) + log(h / sigma) - 0.91893853320467274;
}

static double log_add(double a, double b)
{
    double high = fmax(a, b);

    return high == -INFINITY ? high : high + log1p(exp(fmin(a, b) - high));
}

/* ln A for an integer order. */
static double log_moment(double q, double sigma, double alpha)
{
    const double half = 0.5 / (sigma * sigma);
    double binomial = log(alpha), excess = -INFINITY, below = 0, above = 0;

    for (double j = 2; j <= alpha; j++) {
        double term = log(2) + j * (j - 1) * half;
        binomial += log((alpha - j + 1) / j);
        if (j == 2) {
            above = log_even_moment(sigma, 2);
            term = fmin(log(4) + above, log(2) + 2 * half);
        } else if (j <= moments_max) {
            if (fmod(j, 2) == 1) {
                below = above;
                above = log_even_moment(sigma, j + 1);
                term = fmin(term, log(4) + 0.5 * (below + above));
            } else {
                term = fmin(term, log(4) + above);
            }
        }
        excess = log_add(excess, binomial + j * log(q) + term);
    }
    return excess > 40 ? excess : log1p(exp(excess));
}

double fl_rdp_without_replacement(double q, double sigma, double alpha)
{
    double below = floor(alpha), part = alpha - below, low, high;

    assert(alpha > 1 && q >= 0 && q <= 1 && sigma >= 0);
    if (q == 0 || sigma == 0) {
        return q == 0 ? 0 : INFINITY;
    }
    low = below > 1 ? log_moment(q, sigma, below) : 0;
    high = part > 0 ? log_moment(q, sigma, below + 1) : 0;
    return fmin(((1 - part) * low + part * high) / (alpha - 1), alpha / (2 * sigma * sigma));
}
