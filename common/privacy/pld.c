/*
 * Composition of losses by Fourier transform, tilted.
 *
 * The loss of all releases is a sum of independent losses, so its law is a convolution. delta is a
 * tail of it, perhaps 1e-12, and a transform has an absolute error of 1e-16 times what is largest:
 * to keep relative accuracy the masses are tilted first, p(l) e^(t l) / M(t), with t the Chernoff
 * (Renyi) optimum for this delta. Tilting commutes with convolution, and the tilted sum is
 * concentrated just where epsilon lies. With K(t) the sum of all ln M(t),
 *
 *   delta(x) = e^(K - t x) sum_{l > x} p~(l) e^(-t (l - x)) (1 - e^(-(l - x))).
 *
 * Steps, for each direction of the neighbour relation; the worse one counts:
 *
 *   1. coarse masses (some 500 per kind of release) give K, the tilt t, and by Chernoff bounds the
 *      window outside of which the tilted sum has less than e^-32;
 *   2. that window and a number of points give the grid's step;
 *   3. fine masses, transformed, raised to their counts, multiplied, transformed back;
 *   4. what may have wrapped around the window is bounded again with the fine masses and added;
 *   5. delta at the grid points from above, until it exceeds the target; between two points it is
 *      linear in e^epsilon, so the crossing is exact;
 *   6. again with four times as many points, until epsilon moves by less than 2e-4 of itself.
 *
 * Gaussians without sampling (and trees, which are such) are one Gaussian before all this. If there
 * are more than 128 kinds of sampled Gaussians, neighbours are joined under their larger q and
 * smaller sigma (the other way for the lower bound), which only rounds in the same direction.
 */
#include "common/privacy/pld.h"

#include "common/base/mem.h"
#include "common/privacy/fft.h"
#include "common/privacy/pld_loss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { KINDS_MAX = 128, COARSE = 512, POINTS_MIN = 1 << 14, POINTS_MAX = 1 << 20, WINDOWS = 5 };
#define WORK_MAX ((size_t)1 << 24) /* points times kinds */

static const double quiet = 32; /* nats: what is left outside the window */

struct composition {
    struct fl_loss *losses; /* by fl_try, `kinds` of them */
    struct fl_masses *masses;
    uint32_t kinds;
    double steps; /* of sampled releases, how many in all */
    double delta; /* the target */
    enum fl_loss_direction direction;
    enum fl_loss_side side;
};

/* ---- events to losses ---- */

bool fl_pld_has(const struct fl_event *event)
{
    switch (event->mechanism) {
    case FL_MECHANISM_GAUSSIAN:
    case FL_MECHANISM_TREE:
    case FL_MECHANISM_LAPLACE:
    case FL_MECHANISM_EPS_DELTA:
    case FL_MECHANISM_RANDOMIZED_RESPONSE:
        return true;
    case FL_MECHANISM_DISCRETE_GAUSSIAN:
    case FL_MECHANISM_SKELLAM:
    case FL_MECHANISM_ZCDP:
    case FL_MECHANISM_WITHOUT_REPLACEMENT:
        break;
    }
    return false;
}

static void loss_of(const struct fl_event *v, struct fl_loss *ret)
{
    struct fl_loss l = {.kind = FL_LOSS_ATOMS, .q = 1, .sigma = v->sigma, .count = v->count};
    double grow, a = v->a, b = v->b;

    switch (v->mechanism) {
    case FL_MECHANISM_LAPLACE:
        l.kind = FL_LOSS_LAPLACE;
        l.atoms = 2;
        l.at[0] = 1 / v->sigma;
        l.mass[0] = 0.5;
        l.at[1] = -1 / v->sigma;
        l.mass[1] = 0.5 * exp(-1 / v->sigma);
        break;
    case FL_MECHANISM_EPS_DELTA:
        grow = 1 / (1 + exp(-a));
        l.atoms = 2;
        l.at[0] = a;
        l.mass[0] = (1 - b) * grow;
        l.at[1] = -a;
        l.mass[1] = (1 - b) * (1 - grow);
        l.infinite = b;
        break;
    case FL_MECHANISM_RANDOMIZED_RESPONSE:
        l.atoms = 3;
        l.mass[0] = 1 - a + a / b;
        l.mass[1] = a / b;
        l.mass[2] = (b - 2) * a / b;
        l.at[0] = log(l.mass[0] / l.mass[1]);
        l.at[1] = -l.at[0];
        break;
    default:
        l.kind = FL_LOSS_GAUSSIAN;
        l.q = v->q;
        break;
    }
    *ret = l;
}

static int by_parameters(const void *a, const void *b)
{
    const struct fl_loss *x = a, *y = b;
    const double keys[][2] = {{x->kind, y->kind},         {x->q, y->q},
                              {x->sigma, y->sigma},       {x->atoms, y->atoms},
                              {x->at[0], y->at[0]},       {x->mass[0], y->mass[0]},
                              {x->infinite, y->infinite}, {x->mass[2], y->mass[2]}};

    for (size_t i = 0; i < FL_COUNT(keys); i++) {
        if (keys[i][0] != keys[i][1]) {
            return keys[i][0] < keys[i][1] ? -1 : 1;
        }
    }
    return 0;
}

/* Sorted, equal ones joined. */
static uint32_t join_equal(struct fl_loss *l, uint32_t n)
{
    uint32_t kinds = 0;

    qsort(l, n, sizeof *l, by_parameters);
    for (uint32_t i = 0; i < n; i++) {
        if (kinds && by_parameters(&l[kinds - 1], &l[i]) == 0) {
            l[kinds - 1].count += l[i].count;
        } else {
            l[kinds++] = l[i];
        }
    }
    return kinds;
}

/* On a logarithmic grid of this width, away from the truth as the side asks. */
static double snap(double x, double width, bool up)
{
    double steps = log(x) / width;

    return exp((up ? ceil(steps - 1e-9) : floor(steps + 1e-9)) * width);
}

/* At most KINDS_MAX kinds, on the finest grid that does it. False when memory ends. */
static bool join_near(struct fl_loss *l, uint32_t *n, enum fl_loss_side side)
{
    const bool upper = side == FL_LOSS_UPPER;
    uint32_t left = *n;
    struct fl_loss *exact;

    if (*n <= KINDS_MAX) {
        return true;
    }
    exact = fl_try(*n, sizeof *exact);
    if (!exact) {
        return false;
    }
    memcpy(exact, l, *n * sizeof *exact);
    for (double width = 1e-3; left > KINDS_MAX && width < 20; width *= 1.25) {
        for (uint32_t i = 0; i < *n; i++) {
            l[i] = exact[i];
            if (l[i].kind == FL_LOSS_GAUSSIAN && l[i].q < 1) {
                double q = snap(l[i].q, width, upper), sigma = snap(l[i].sigma, width / 2, !upper);
                q = upper ? fmax(q, l[i].q) : fmin(q, l[i].q);
                l[i].q = fmin(q, 1);
                l[i].sigma = upper ? fmin(sigma, l[i].sigma) : fmax(sigma, l[i].sigma);
            }
        }
        left = join_equal(l, *n);
    }
    fl_free(exact);
    *n = left;
    return true;
}

/* *ret_hopeless: an event that hides nothing. */
static int compose(const struct fl_event *events, uint32_t count, enum fl_loss_side side,
                   struct composition *ret, bool *ret_hopeless, struct fl_err *e)
{
    struct composition c = {.side = side};
    double mu2 = 0;
    uint32_t n = 0;

    c.losses = fl_try((size_t)count + 1, sizeof *c.losses);
    if (!c.losses) {
        return fl_fail(e, FL_R_NOMEM, "privacy loss of %u events", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct fl_event *v = &events[i];
        bool tree = v->mechanism == FL_MECHANISM_TREE;
        bool noisy =
            v->mechanism == FL_MECHANISM_GAUSSIAN || tree || v->mechanism == FL_MECHANISM_LAPLACE;
        if (fl_event_is_void(v)) {
            continue;
        }
        if (noisy && v->sigma == 0) {
            *ret_hopeless = true;
        } else if (tree || (v->mechanism == FL_MECHANISM_GAUSSIAN && v->q == 1)) {
            double nodes = tree ? ceil(log2(v->a + 1)) : 1;
            mu2 += nodes * (double)v->count / (v->sigma * v->sigma);
        } else if (v->mechanism == FL_MECHANISM_RANDOMIZED_RESPONSE && v->a == 0) {
            *ret_hopeless = true;
        } else {
            loss_of(v, &c.losses[n]);
            c.steps += (double)v->count;
            n++;
        }
    }
    n = join_equal(c.losses, n);
    if (!join_near(c.losses, &n, side)) {
        fl_free(c.losses);
        return fl_fail(e, FL_R_NOMEM, "privacy loss of %u events", count);
    }
    if (mu2 > 0) {
        c.losses[n++] =
            (struct fl_loss){.kind = FL_LOSS_GAUSSIAN, .q = 1, .sigma = 1 / sqrt(mu2), .count = 1};
        c.steps += 1;
    }
    c.kinds = n;
    *ret = c;
    return 0;
}

/* ---- cumulants ---- */

static void free_masses(struct composition *c)
{
    for (uint32_t i = 0; c->masses && i < c->kinds; i++) {
        fl_free(c->masses[i].p);
    }
    fl_free(c->masses);
    c->masses = NULL;
}

/* ln sum p e^(t l). Powers of e^(t h) from the outermost mass on the heavier end, set afresh every
 * 64 points. */
static double log_moment(const struct fl_masses *m, double t)
{
    const double ratio = exp(-fabs(t) * m->h);
    const bool top = t > 0;
    double sum = 0, weight = 0;
    size_t skip = 0;

    while (skip + 1 < m->count && m->p[top ? m->count - 1 - skip : skip] == 0) {
        skip++;
    }
    for (size_t i = 0; i < m->count - skip; i++) {
        weight = i % 64 ? weight * ratio : exp(-fabs(t) * m->h * (double)i);
        sum += weight * m->p[top ? m->count - 1 - skip - i : skip + i];
    }
    int64_t anchor = m->first + (int64_t)(top ? m->count - 1 - skip : skip);
    return log(sum) + t * (double)anchor * m->h;
}

static double cumulant(const struct composition *c, double t)
{
    double k = 0;

    for (uint32_t i = 0; i < c->kinds; i++) {
        k += (double)c->losses[i].count * log_moment(&c->masses[i], t);
    }
    return k;
}

/* Masses of every kind: on the common grid of step h, of which a window has `points`, or (h = 0) on
 * coarse ones of their own. */
static int make_masses(struct composition *c, double h, size_t points, double tilt,
                       struct fl_err *e)
{
    const double tail = 1e-7 * c->delta / fmax(c->steps, 1);

    free_masses(c);
    c->masses = fl_try(c->kinds, sizeof *c->masses);
    for (uint32_t i = 0; c->masses && i < c->kinds; i++) {
        double low, high;
        fl_loss_range(&c->losses[i], c->direction, tail, &low, &high);
        if (h > 0) { /* so low a loss takes any sum out of the window */
            low = fmin(fmax(low, -2 * h * (double)points), high);
        }
        double own = h > 0 ? h : fmax(high - low, 1e-300) / COARSE;
        int r = fl_loss_masses(&c->losses[i], c->direction, h > 0 ? c->side : FL_LOSS_UPPER, own,
                               low, high, tilt, &c->masses[i], e);
        if (r < 0) {
            return r;
        }
    }
    return c->masses ? 0 : fl_fail(e, FL_R_NOMEM, "privacy loss");
}

/* What the releases lose entirely. */
static double infinite_mass(const struct composition *c)
{
    double sound = 0;

    for (uint32_t i = 0; i < c->kinds; i++) {
        sound += (double)c->losses[i].count * log1p(-c->masses[i].infinite);
    }
    return -expm1(sound);
}

/* (K(t) + ln(1/delta)) / t: the Chernoff bound on epsilon. */
static double chernoff(const struct composition *c, double t, double delta)
{
    return (cumulant(c, t) - log(delta)) / t;
}

/* t > 0 that minimizes it: golden section in ln t. A bounded loss has its best t at infinity; then
 * any t that is nearly as good does, and leaves a window that can be seen. */
static double best_tilt(const struct composition *c, double delta)
{
    const double golden = 0.61803398874989485;
    double low = log(1e-3), high = log(1e8), t;

    for (int i = 0; i < 40; i++) {
        double x = high - golden * (high - low), y = low + golden * (high - low);
        if (chernoff(c, exp(x), delta) < chernoff(c, exp(y), delta)) {
            high = y;
        } else {
            low = x;
        }
    }
    t = exp(0.5 * (low + high));
    for (double best = chernoff(c, t, delta);
         best > 0 && chernoff(c, t / 2, delta) < 1.05 * best;) {
        t /= 2;
    }
    return t;
}

struct window {
    double tilt, low, high;    /* of the loss */
    double step_up, step_down; /* the Chernoff parameters that gave its ends */
};

static void find_window(const struct composition *c, double tilt, struct window *ret)
{
    struct window w = {.tilt = tilt, .low = -INFINITY, .high = INFINITY};
    const double k = cumulant(c, tilt);

    for (double s = 1e-4; s < 1e9; s *= 1.6) {
        double high = (cumulant(c, tilt + s) - k + quiet) / s;
        double low = (k - cumulant(c, tilt - s) - quiet) / s;
        if (high < w.high) {
            w.high = high;
            w.step_up = s;
        }
        if (low > w.low) {
            w.low = low;
            w.step_down = s;
        }
    }
    *ret = w;
}

/* The tilted mass outside the window, bounded. */
static double outside(const struct composition *c, const struct window *w, double low, double high)
{
    const double k = cumulant(c, w->tilt), up = w->step_up, down = w->step_down;

    return exp(cumulant(c, w->tilt + up) - k - up * high) +
           exp(cumulant(c, w->tilt - down) - k + down * low);
}

/* ---- the transform ---- */

struct spectrum {
    struct fl_fft *fft;
    size_t points;
    double *re, *im;           /* the product so far */
    double *part_re, *part_im; /* one kind */
};

static void spectrum_fini(struct spectrum *s)
{
    fl_fft_free(s->fft);
    fl_free(s->re);
    fl_free(s->im);
    fl_free(s->part_re);
    fl_free(s->part_im);
}

static int spectrum_init(struct spectrum *s, size_t points, struct fl_err *e)
{
    *s = (struct spectrum){.fft = fl_fft_new(points), .points = points};
    s->re = fl_try_aligned(points, sizeof *s->re);
    s->im = fl_try_aligned(points, sizeof *s->im);
    s->part_re = fl_try_aligned(points, sizeof *s->part_re);
    s->part_im = fl_try_aligned(points, sizeof *s->part_im);
    if (!s->fft || !s->re || !s->im || !s->part_re || !s->part_im) {
        spectrum_fini(s);
        return fl_fail(e, FL_R_NOMEM, "privacy loss on %zu points", points);
    }
    for (size_t i = 0; i < points; i++) {
        s->re[i] = 1;
    }
    return 0;
}

/* Multiplies by the transform of the tilted masses, `times` times. */
static void spectrum_multiply(struct spectrum *s, const struct fl_masses *m, double tilt,
                              uint64_t times)
{
    const double norm = log_moment(m, tilt);

    memset(s->part_re, 0, s->points * sizeof *s->part_re);
    memset(s->part_im, 0, s->points * sizeof *s->part_im);
    for (size_t i = 0; i < m->count; i++) {
        int64_t at = m->first + (int64_t)i;
        if (m->p[i] > 0) {
            s->part_re[(uint64_t)at & (s->points - 1)] +=
                m->p[i] * exp(tilt * (double)at * m->h - norm);
        }
    }
    fl_fft_forward(s->fft, s->part_re, s->part_im);
    for (uint64_t left = times; left; left >>= 1) {
        for (size_t i = 0; i < s->points; i++) {
            double a = s->part_re[i], b = s->part_im[i], x = s->re[i], y = s->im[i];
            if (left & 1) {
                s->re[i] = x * a - y * b;
                s->im[i] = x * b + y * a;
            }
            s->part_re[i] = a * a - b * b;
            s->part_im[i] = 2 * a * b;
        }
    }
}

/* ---- reading epsilon ---- */

/* Tilted masses p[i] at the loss (first + i) h, with i counted around the circle. */
struct curve {
    const double *p;
    size_t points;
    int64_t first;
    double h, tilt, k; /* ln of the tilt's normalization */
    double error;      /* absolute, of sums of p */
    double infinite;
};

static double epsilon_from(const struct curve *v, double delta, enum fl_loss_side side)
{
    const double fade = exp(-v->tilt * v->h), faster = exp(-(v->tilt + 1) * v->h);
    double a = 0, b = 0, above = 0;

    for (size_t i = v->points; i-- > 0;) {
        int64_t at = v->first + (int64_t)i;
        double loss = (double)at * v->h, scale = exp(v->k - v->tilt * loss);
        double here = scale * (a - b), error = scale * v->error;
        double target =
            side == FL_LOSS_UPPER ? delta - v->infinite - error : delta - v->infinite + error;
        if (here > target) {
            if (i + 1 == v->points) {
                return INFINITY; /* the window is too low */
            }
            if (!(target > 0)) {
                return side == FL_LOSS_UPPER ? loss + v->h : INFINITY;
            }
            /* Linear in e^epsilon between this point and the one above. */
            double part = (here - target) / (here - above);
            return loss + log1p(fmin(fmax(part, 0), 1) * expm1(v->h));
        }
        if (loss <= 0) {
            return 0;
        }
        double p = fmax(v->p[(uint64_t)at & (v->points - 1)], 0);
        above = here;
        a = (a + p) * fade;
        b = (b + p) * faster;
    }
    return side == FL_LOSS_UPPER ? fmax((double)v->first * v->h, 0) : 0;
}

/* One attempt with a window; *ret_epsilon infinite when it did not hold epsilon or was not quiet.
 */
static int attempt(struct composition *c, const struct window *w, double wider, size_t points,
                   double *ret_epsilon, struct fl_err *e)
{
    const double middle = 0.5 * (w->low + w->high), half = 0.5 * wider * (w->high - w->low);
    const double h = 2 * half / (double)(points - 8);
    struct spectrum s;
    int r = make_masses(c, h, points, w->tilt, e);

    r = r < 0 ? r : spectrum_init(&s, points, e);
    if (r < 0) {
        return r;
    }
    for (uint32_t i = 0; i < c->kinds; i++) {
        spectrum_multiply(&s, &c->masses[i], w->tilt, c->losses[i].count);
    }
    fl_fft_inverse(s.fft, s.re, s.im);
    struct curve v = {.p = s.re,
                      .points = points,
                      .first = (int64_t)floor((middle - half) / h),
                      .h = h,
                      .tilt = w->tilt,
                      .k = cumulant(c, w->tilt),
                      .infinite = infinite_mass(c)};
    double quietness =
        outside(c, w, (double)v.first * h, (double)(v.first + (int64_t)points - 1) * h);
    v.error = quietness + 1e-14 + 4e-16 * c->steps;
    *ret_epsilon = quietness < 1e-9 ? epsilon_from(&v, c->delta, c->side) : INFINITY;
    spectrum_fini(&s);
    return 0;
}

static size_t points_for(double steps)
{
    size_t points = POINTS_MIN;

    while (points < POINTS_MAX && (double)points < 200 * sqrt(steps)) {
        points *= 2;
    }
    return points;
}

/* An upper bound that is at most `enough` need not be refined. */
static int one_direction(struct composition *c, double enough, double *ret_epsilon,
                         struct fl_err *e)
{
    struct window w;
    double spent, wider = 1;
    size_t points = points_for(c->steps);
    int r = make_masses(c, 0, 0, 0, e);

    if (r < 0) {
        return r;
    }
    spent = infinite_mass(c);
    *ret_epsilon = INFINITY;
    if (spent >= c->delta) {
        return 0;
    }
    find_window(c, best_tilt(c, c->delta - spent), &w);
    for (int i = 0; r == 0 && i < WINDOWS && isinf(*ret_epsilon); i++) {
        r = attempt(c, &w, wider, points, ret_epsilon, e);
        if (r == 0 && isinf(*ret_epsilon)) { /* the coarse masses misjudged it */
            find_window(c, w.tilt, &w);
            wider *= 1.4;
        }
    }
    /* Finer, until it no longer matters. */
    for (bool moves = isfinite(*ret_epsilon); r == 0 && moves && points < POINTS_MAX;) {
        bool sure = c->side == FL_LOSS_UPPER && *ret_epsilon <= enough;
        if (sure || points * 4 * c->kinds > WORK_MAX) {
            break;
        }
        double before = *ret_epsilon, finer = before;
        points *= 4;
        r = attempt(c, &w, wider, points, &finer, e);
        if (r < 0 || isinf(finer)) {
            break;
        }
        moves = finer == 0 || fabs(finer - before) > 2e-4 * before;
        *ret_epsilon = c->side == FL_LOSS_UPPER ? fmin(before, finer) : fmax(before, finer);
    }
    if (isinf(*ret_epsilon) && c->side == FL_LOSS_LOWER) {
        *ret_epsilon = 0; /* nothing was shown */
    }
    return r == -FL_R_LIMIT ? 0 : r; /* as fine as it goes */
}

static int one_side(const struct fl_event *events, uint32_t count, double delta,
                    enum fl_loss_side side, double *ret, struct fl_err *e)
{
    struct composition c = {0};
    bool hopeless = false, sampled = false, both;
    double worst = 0, epsilon = 0;
    int r = compose(events, count, side, &c, &hopeless, e);

    if (r < 0) {
        return r;
    }
    c.delta = delta;
    for (uint32_t i = 0; i < c.kinds; i++) {
        sampled |= c.losses[i].kind == FL_LOSS_GAUSSIAN && c.losses[i].q < 1;
    }
    /* A lower bound of either direction is one of epsilon; the first is nearly always the larger.
     */
    both = sampled && side == FL_LOSS_UPPER;
    for (int d = FL_LOSS_REMOVE; !hopeless && c.kinds && d <= (both ? FL_LOSS_ADD : 0); d++) {
        c.direction = (enum fl_loss_direction)d;
        r = one_direction(&c, worst, &epsilon, e);
        if (r < 0) {
            break;
        }
        worst = fmax(worst, epsilon);
    }
    free_masses(&c);
    fl_free(c.losses);
    if (r == 0) {
        *ret = hopeless ? INFINITY : worst;
    }
    return r;
}

int fl_pld_epsilon(const struct fl_event *events, uint32_t count, double delta, double *ret_lower,
                   double *ret_upper, struct fl_err *e)
{
    double lower = 0, upper = INFINITY;
    int r = 0;

    if (!(delta > 0 && delta < 1)) {
        return fl_fail(e, FL_R_ACCOUNTING, "delta %g; must be above 0 and below 1", delta);
    }
    for (uint32_t i = 0; i < count; i++) {
        r = fl_event_check(&events[i], e);
        if (r < 0) {
            return r;
        }
        if (!fl_pld_has(&events[i])) {
            return fl_fail(e, FL_R_ACCOUNTING, "event %u has no privacy-loss distribution here", i);
        }
    }
    r = one_side(events, count, delta, FL_LOSS_UPPER, &upper, e);
    if (r == 0 && ret_lower) {
        r = one_side(events, count, delta, FL_LOSS_LOWER, &lower, e);
    }
    if (r < 0) {
        return r;
    }
    if (ret_lower) {
        *ret_lower = fmin(lower, upper);
    }
    *ret_upper = upper;
    return 0;
}
