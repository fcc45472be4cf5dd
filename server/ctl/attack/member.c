/*
 * Membership inference: the attacker has a picture, knows what it alone would have done to the
 * model (t, a step without noise), and asks how much of that is in what left. What stands in the
 * way is the noise and the other pictures of the batch; of these it has seen others like them
 * (references). So it looks along the best linear direction for both,
 *
 *     w = (S + lambda 1)^-1 t      S: second moments of the others' sum; lambda: the noise's
 * variance = (t - R^T (lambda n / k 1 + R R^T)^-1 R t) / lambda      R: n references
 *
 * Guesses over many small batches give the area under the curve, and what they prove of epsilon.
 */
#include "server/ctl/attack/attack.h"

#include "common/base/mem.h"

#include <math.h>
#include <string.h>

enum { OTHERS = 7, REFERENCES = 24 };
static const size_t most_seen =
    1 << 20; /* values: of a larger vector the attacker looks at parts */

/* All that leaves; of a large hypernetwork its biases, which are the network's gradient. */
static size_t choose_ranges(const struct fl_attack *a, struct fl_attack_range *ranges,
                            size_t *ret_seen)
{
    const struct fl_tensors *t = &a->l->shared;
    size_t count = 0, seen = 0;

    for (uint32_t i = 0; i < t->count; i++) {
        const struct fl_tensor *x = &t->at[i];
        bool fits = t->elements <= most_seen || x->rank == 1;
        if (fits && seen + x->count <= most_seen) {
            ranges[count++] = (struct fl_attack_range){x->offset, x->count};
            seen += x->count;
        }
    }
    *ret_seen = seen;
    return count;
}

/* Part of the pairs (in, out) that the scores order rightly; ties count half. */
static double area(const double *score, const bool *in, uint32_t n)
{
    double right = 0;
    uint64_t pairs = 0;

    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; in[i] && k < n; k++) {
            if (!in[k]) {
                pairs++;
                right += score[i] > score[k] ? 1 : score[i] == score[k] ? 0.5 : 0;
            }
        }
    }
    return pairs ? right / (double)pairs : 0.5;
}

struct room {
    struct fl_attack_range *ranges;
    size_t range_count, seen_count;
    double *seen, *alone, *score;
    double *reference;                    /* REFERENCES rows */
    double gram[REFERENCES * REFERENCES]; /* lambda n / k 1 + R R^T, as its Cholesky factor */
    bool *in;
    float *x;
    uint8_t *y;
};

static void make_pictures(struct fl_attack *a, struct room *m, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t class_ = (uint32_t)fl_rng_below(&a->rng, fl_attack_classes(a));
        fl_attack_picture(a, class_, m->x + i * a->features);
        fl_attack_goal(a, class_, m->y + i * a->goal_size);
    }
}

static double dot(const double *x, const double *y, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

/* Variance of what is random in one value that leaves: measured, and at least the grid's. */
static int measure_noise(struct fl_attack *a, struct room *m, double factor, double *ret,
                         struct fl_err *e)
{
    const struct fl_attack_batch batch = {m->x, m->y, OTHERS};
    double grid = ldexp(1, a->plan->grid.step), sum = 0;
    int r;

    make_pictures(a, m, OTHERS);
    r = fl_attack_release(a, &batch, 0, m->ranges, m->range_count, m->alone, e);
    r = r ? r : fl_attack_release(a, &batch, factor, m->ranges, m->range_count, m->seen, e);
    for (size_t i = 0; r == 0 && i < m->seen_count; i++) {
        double d = m->seen[i] - m->alone[i];
        sum += d * d / (double)m->seen_count;
    }
    *ret = fmax(sum, grid * grid / 12);
    return r;
}

static int make_references(struct fl_attack *a, struct room *m, double factor, struct fl_err *e)
{
    const struct fl_attack_batch one = {m->x, m->y, 1};
    double lambda = 0, share = a->plan->privacy.unit == FL_UNIT_EXAMPLE ? 1 : OTHERS;
    size_t n = m->seen_count;
    int r = measure_noise(a, m, factor, &lambda, e);

    for (size_t k = 0; r == 0 && k < REFERENCES; k++) {
        make_pictures(a, m, 1);
        r = fl_attack_release(a, &one, 0, m->ranges, m->range_count, m->reference + k * n, e);
    }
    for (size_t i = 0; r == 0 && i < REFERENCES * n; i++) {
        m->reference[i] /= share;
    }
    for (size_t i = 0; r == 0 && i < REFERENCES; i++) {
        for (size_t k = 0; k <= i; k++) {
            m->gram[i * REFERENCES + k] = dot(m->reference + i * n, m->reference + k * n, n) +
                                          (i == k ? lambda * REFERENCES / OTHERS : 0);
        }
    }
    fl_attack_factorize(m->gram, REFERENCES);
    return r;
}

/* m->alone becomes w, of length 1. */
static void look_past_others(struct room *m)
{
    double along[REFERENCES], length;
    size_t n = m->seen_count;

    for (size_t k = 0; k < REFERENCES; k++) {
        along[k] = dot(m->reference + k * n, m->alone, n);
    }
    fl_attack_solve(m->gram, REFERENCES, along);
    for (size_t k = 0; k < REFERENCES; k++) {
        for (size_t i = 0; i < n; i++) {
            m->alone[i] -= along[k] * m->reference[k * n + i];
        }
    }
    length = sqrt(dot(m->alone, m->alone, n));
    for (size_t i = 0; length > 0 && i < n; i++) {
        m->alone[i] /= length;
    }
}

/* One batch: others, and perhaps the one that is asked about, at its end. The score is how much of
 * it there is, beyond what others like it leave. */
static int one_trial(struct fl_attack *a, struct room *m, uint32_t trial, double factor,
                     struct fl_err *e)
{
    const struct fl_attack_batch target = {m->x + OTHERS * a->features,
                                           m->y + OTHERS * a->goal_size, 1};

    make_pictures(a, m, OTHERS + 1);
    m->in[trial] = fl_rng_below(&a->rng, 2) != 0;
    const struct fl_attack_batch batch = {m->x, m->y, OTHERS + (size_t)m->in[trial]};
    int r = fl_attack_release(a, &target, 0, m->ranges, m->range_count, m->alone, e);
    r = r ? r : fl_attack_release(a, &batch, factor, m->ranges, m->range_count, m->seen, e);
    if (r == 0) {
        look_past_others(m);
        m->score[trial] = dot(m->seen, m->alone, m->seen_count);
    }
    return r;
}

int fl_attack_membership(struct fl_attack *a, uint32_t trials, double factor,
                         struct fl_membership *ret, struct fl_err *e)
{
    struct fl_membership out = {.trials = trials, .others = OTHERS};
    struct room m = {.ranges = fl_try(a->l->shared.count, sizeof *m.ranges),
                     .score = fl_try(trials, sizeof *m.score),
                     .in = fl_try(trials, sizeof *m.in),
                     .x = fl_try((OTHERS + 1) * a->features, sizeof *m.x),
                     .y = fl_try(OTHERS + 1, a->goal_size)};
    int r = m.ranges && m.score && m.in && m.x && m.y ? 0 : fl_fail(e, FL_R_NOMEM, "trials");

    if (r == 0) {
        m.range_count = choose_ranges(a, m.ranges, &m.seen_count);
        m.seen = fl_try(m.seen_count, sizeof *m.seen);
        m.alone = fl_try(m.seen_count, sizeof *m.alone);
        m.reference = fl_try(REFERENCES * m.seen_count, sizeof *m.reference);
        r = m.seen && m.alone && m.reference ? 0
                                             : fl_fail(e, FL_R_NOMEM, "%zu values", m.seen_count);
    }
    r = r ? r : make_references(a, &m, factor, e);
    for (uint32_t i = 0; r == 0 && i < trials; i++) {
        r = one_trial(a, &m, i, factor, e);
    }
    if (r == 0) {
        out.auc = area(m.score, m.in, trials);
        r = fl_audit_scores(m.score, m.in, trials, a->plan->privacy.delta, &out.audit, e);
    }
    fl_free(m.ranges);
    fl_free(m.seen);
    fl_free(m.alone);
    fl_free(m.reference);
    fl_free(m.score);
    fl_free(m.in);
    fl_free(m.x);
    fl_free(m.y);
    if (r == 0) {
        *ret = out;
    }
    return r;
}
