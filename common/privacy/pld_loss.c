/*
 * UPPER: each bin [i h, (i+1) h) of losses has a mass m under P and n under Q. Both are kept when
 * it is dealt to the bin's two ends:  a + b = m,  a e^(-i h) + b e^(-(i+1) h) = n. The resulting
 * delta(epsilon) equals the true one at every grid point and is the chord between them (as a
 * function of e^epsilon, in which the true one is convex): never below, and off by O(h^2).
 *
 * LOWER: the outcomes of a bin are declared one outcome. That is post-processing, so the pair (m,
 * n) belongs to a mechanism that leaks less; its loss ln(m/n) lies within the bin and is rounded
 * down to the grid. With bins around grid points, [(i - 1/2) h + c, (i + 1/2) h + c), hardly
 * anything is lost when c is the smallest shift for which ln(m/n) >= i h wherever it matters.
 *
 * Differences of the normal distribution function are taken in the tail where they are accurate,
 * and by the density at the middle where they are small.
 */
#include "common/privacy/pld_loss.h"

#include "common/base/mem.h"

#include <math.h>
#include <stdbool.h>

/* Phi(b) - Phi(a), a <= b, accurate relative to itself. */
static double normal_mass(double a, double b)
{
    const double root = 0.70710678118654752440, density = 0.39894228040143267794;
    double d = b - a, m = 0.5 * (a + b);

    if (d * (1 + fabs(m)) < 1e-3) {
        double m2 = m * m;
        return density * exp(-0.5 * m2) * d * (1 + d * d * (m2 - 1) / 24);
    }
    return a + b > 0 ? 0.5 * (erfc(a * root) - erfc(b * root))
                     : 0.5 * (erfc(-b * root) - erfc(-a * root));
}

/* ln((1-q) + q e^((2x-1) / (2 sigma^2))) and its inverse. */
static double loss_at(const struct fl_loss *l, double x)
{
    double exponent = (2 * x - 1) / (2 * l->sigma * l->sigma);

    if (l->q == 1) {
        return exponent;
    }
    return exponent > 600 ? log(l->q) + exponent : log1p(l->q * expm1(exponent));
}

static double place_of(const struct fl_loss *l, double loss)
{
    double s2 = l->sigma * l->sigma, inside;

    if (l->q == 1) {
        return s2 * loss + 0.5;
    }
    if (loss > 600) {
        return s2 * (loss - log(l->q)) + 0.5;
    }
    inside = expm1(loss) / l->q;
    return inside <= -1 ? -INFINITY : s2 * log1p(inside) + 0.5;
}

/* Where an outcome has this loss; a coordinate in which masses are easy to take. Rises with the
 * loss, or (ADD) falls. */
static double boundary(const struct fl_loss *l, enum fl_loss_direction direction, double loss)
{
    if (l->kind == FL_LOSS_LAPLACE) {
        return fmin(fmax((1 - l->sigma * loss) / 2, 0), 1);
    }
    return place_of(l, direction == FL_LOSS_ADD ? -loss : loss);
}

/* Masses under P and Q of the outcomes between the boundaries of two losses, from < to. */
static void masses_between(const struct fl_loss *l, enum fl_loss_direction direction, double from,
                           double to, double *ret_p, double *ret_q)
{
    if (l->kind == FL_LOSS_LAPLACE) {
        /* Between the centres 0 and 1 the loss is (1 - 2x) / b; beyond are the atoms. */
        double b = l->sigma, part = from > to ? -expm1(-(from - to) / b) / 2 : 0;
        *ret_p = part * exp(-to / b);
        *ret_q = part * exp(-(1 - from) / b);
        return;
    }
    bool add = direction == FL_LOSS_ADD;
    double a = add ? to : from, b = add ? from : to;
    double without = normal_mass(a / l->sigma, b / l->sigma);
    double with = normal_mass((a - 1) / l->sigma, (b - 1) / l->sigma);
    double mixed = l->q == 1 ? with : (1 - l->q) * without + l->q * with;
    *ret_p = add ? without : mixed;
    *ret_q = add ? mixed : without;
}

void fl_loss_range(const struct fl_loss *l, enum fl_loss_direction direction, double tail,
                   double *ret_low, double *ret_high)
{
    double low = INFINITY, high = -INFINITY;

    if (l->kind == FL_LOSS_GAUSSIAN) {
        /* Phi(-z) <= e^(-z^2/2) / 2; the shifted part of a mixture has only the weight q. */
        double z = sqrt(-2 * log(tail)), shifted = sqrt(fmax(-2 * log(tail / l->q), 0));
        double below = loss_at(l, -z * l->sigma);
        double above = loss_at(l, fmax(z * l->sigma, 1 + shifted * l->sigma));
        if (direction == FL_LOSS_ADD) {
            above = loss_at(l, z * l->sigma);
        }
        *ret_low = direction == FL_LOSS_ADD ? -above : below;
        *ret_high = direction == FL_LOSS_ADD ? -below : above;
        return;
    }
    if (l->kind == FL_LOSS_LAPLACE) {
        low = -1 / l->sigma;
        high = 1 / l->sigma;
    }
    for (uint32_t i = 0; i < l->atoms; i++) {
        low = fmin(low, l->at[i]);
        high = fmax(high, l->at[i]);
    }
    *ret_low = low;
    *ret_high = high;
}

/* ---- UPPER ---- */

static void deal(struct fl_masses *m, int64_t i, double p, double share)
{
    double b = fmin(fmax(share, 0), 1) * p;

    m->p[i - m->first] += p - b;
    m->p[i + 1 - m->first] += b;
}

static void fill_upper(const struct fl_loss *l, enum fl_loss_direction direction,
                       struct fl_masses *m)
{
    const double h = m->h, whole = -expm1(-h);
    const int64_t last = m->first + (int64_t)m->count - 1;

    for (uint32_t i = 0; i < l->atoms; i++) {
        int64_t bin = (int64_t)floor(l->at[i] / h);
        if (bin < m->first) { /* below what is looked at: up to its edge */
            m->p[0] += l->mass[i];
        } else {
            deal(m, bin, l->mass[i], -expm1((double)bin * h - l->at[i]) / whole);
        }
    }
    m->infinite += l->infinite;
    if (l->kind == FL_LOSS_ATOMS) {
        return;
    }
    double from = boundary(l, direction, (double)m->first * h), p, q;
    for (int64_t i = m->first; i < last; i++) {
        double to = boundary(l, direction, (double)(i + 1) * h);
        masses_between(l, direction, from, to, &p, &q);
        if (p > 0) {
            deal(m, i, p, (1 - q / p * exp((double)i * h)) / whole);
        }
        from = to;
    }
    masses_between(l, direction, boundary(l, direction, -INFINITY),
                   boundary(l, direction, (double)m->first * h), &p, &q);
    m->p[0] += p;
    masses_between(l, direction, from, boundary(l, direction, INFINITY), &p, &q);
    m->infinite += p;
}

/* ---- LOWER ---- */

/* How much ln(p/q) of a bin falls short of its grid point, at worst among the bins that matter;
 * looked at in some thousands of places, since it changes slowly. */
static double shortfall(const struct fl_loss *l, enum fl_loss_direction direction,
                        const struct fl_masses *m, double shift, double tilt)
{
    const int64_t last = m->first + (int64_t)m->count - 1, stride = (int64_t)(m->count / 4096) + 1;
    double worst = 0, heaviest = 0;

    for (int64_t i = m->first + 1; i < last; i += stride) {
        double at = (double)i * m->h, p, q;
        masses_between(l, direction, boundary(l, direction, at - m->h / 2 + shift),
                       boundary(l, direction, at + m->h / 2 + shift), &p, &q);
        double weight = p * exp(tilt * (at - (double)last * m->h));
        if (p > 0 && weight > heaviest * 1e-3) {
            worst = fmax(worst, at - log(p / q));
        }
        heaviest = fmax(heaviest, weight);
    }
    return fmin(worst, m->h / 2);
}

static void fill_lower(const struct fl_loss *l, enum fl_loss_direction direction, double tilt,
                       struct fl_masses *m)
{
    for (uint32_t i = 0; i < l->atoms; i++) {
        int64_t bin = (int64_t)floor(l->at[i] / m->h);
        if (bin >= m->first) {
            m->p[bin - m->first] += l->mass[i];
        }
    }
    m->infinite += l->infinite;
    if (l->kind == FL_LOSS_ATOMS) {
        return;
    }
    double shift = shortfall(l, direction, m, 0, tilt);
    shift += 1.01 * shortfall(l, direction, m, shift, tilt);
    double from = boundary(l, direction, ((double)m->first + 0.5) * m->h + shift), p, q;
    for (int64_t i = m->first + 1; i + 1 < m->first + (int64_t)m->count; i++) {
        double to = boundary(l, direction, ((double)i + 0.5) * m->h + shift);
        masses_between(l, direction, from, to, &p, &q);
        if (p > 0) {
            m->p[i - m->first - (log(p / q) < (double)i * m->h)] += p;
        }
        from = to;
    }
}

int fl_loss_masses(const struct fl_loss *l, enum fl_loss_direction direction,
                   enum fl_loss_side side, double h, double low, double high, double tilt,
                   struct fl_masses *ret, struct fl_err *e)
{
    double first = floor(low / h) - 1, last = ceil(high / h) + 1;
    struct fl_masses m = {.h = h, .first = (int64_t)first};

    if (!(last - first < 0x1p26) || !(fabs(first) < 0x1p50)) {
        return fl_fail(e, FL_R_LIMIT, "privacy loss on a grid of %g", h);
    }
    m.count = (size_t)(last - first) + 1;
    m.p = fl_try(m.count, sizeof *m.p);
    if (!m.p) {
        return fl_fail(e, FL_R_NOMEM, "privacy loss on %zu points", m.count);
    }
    if (side == FL_LOSS_UPPER) {
        fill_upper(l, direction, &m);
    } else {
        fill_lower(l, direction, tilt, &m);
    }
    *ret = m;
    return 0;
}
