#include "common/privacy/audit.h"

#include "common/base/mem.h"

#include <math.h>
#include <stdlib.h>

/* ln of the probability of k of n coins that fall right with probability q. */
static double log_pmf(uint32_t n, uint32_t k, double log_q, double log_miss)
{
    int sign;

    return lgamma_r(n + 1.0, &sign) - lgamma_r(k + 1.0, &sign) - lgamma_r(n - k + 1.0, &sign) +
           k * log_q + (n - k) * log_miss;
}

double fl_audit_p(uint32_t m, uint32_t r, uint32_t v, double epsilon, double delta)
{
    double log_q = -log1p(exp(-epsilon)), log_miss = -epsilon + log_q;
    double tail = 0, below = 0, most = 0;

    for (uint32_t k = v; k <= r; k++) {
        tail += exp(log_pmf(r, k, log_q, log_miss));
    }
    /* delta may move that many right guesses up: at most `most` in probability for each. */
    for (uint32_t i = 1; i <= v; i++) {
        below += exp(log_pmf(r, v - i, log_q, log_miss));
        most = fmax(most, below / i);
    }
    return fmin(1, tail + 2 * (double)m * delta * most);
}

double fl_audit_lower(uint32_t m, uint32_t r, uint32_t v, double delta, double confidence)
{
    double low = 0, high = 50;

    if (fl_audit_p(m, r, v, 0, delta) > 1 - confidence) {
        return 0;
    }
    while (high - low > 1e-6) {
        double middle = (low + high) / 2;
        if (fl_audit_p(m, r, v, middle, delta) <= 1 - confidence) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

struct ranked {
    double score;
    bool in;
};

static int by_score(const void *a, const void *b)
{
    double x = ((const struct ranked *)a)->score, y = ((const struct ranked *)b)->score;

    return x < y ? 1 : x > y ? -1 : 0;
}

int fl_audit_scores(const double *score, const bool *in, uint32_t m, double delta,
                    struct fl_audit *ret, struct fl_err *e)
{
    /* k in parts of m. Less than half: how many are in is a coin's matter too. */
    static const double shares[] = {0.45, 0.12, 0.03, 0.008};
    struct fl_audit best = {0};

    if (m < 32) {
        return fl_fail(e, FL_R_ARG, "%u canaries; at least 32", m);
    }
    struct ranked *all = fl_try(m, sizeof *all);
    if (!all) {
        return fl_fail(e, FL_R_NOMEM, "%u canaries", m);
    }
    for (uint32_t i = 0; i < m; i++) {
        all[i] = (struct ranked){score[i], in[i]};
    }
    qsort(all, m, sizeof *all, by_score);
    for (size_t s = 0; s < FL_COUNT(shares); s++) {
        uint32_t k = (uint32_t)(shares[s] * m), right = 0;
        for (uint32_t i = 0; i < k; i++) {
            right += all[i].in;
            right += !all[m - 1 - i].in;
        }
        double lower =
            k ? fl_audit_lower(m, 2 * k, right, delta, 1 - 0.05 / (double)FL_COUNT(shares)) : 0;
        if (lower > best.lower || best.guesses == 0) {
            best = (struct fl_audit){.lower = lower, .guesses = 2 * k, .right = right};
        }
    }
    fl_free(all);
    *ret = best;
    return 0;
}
