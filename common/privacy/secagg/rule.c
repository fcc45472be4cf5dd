/*
 * Why the sample is enough. Before an agent reveals a share it must know that the agents it trusts
 * were shown the same survivors; otherwise a coordinator could tell half of someone's neighbours
 * that it dropped out, the other half that it did not, and hold both of its secrets. Each honest
 * agent signs one view. Two views together cannot have more than n + c signers, so "more than
 * (n + c) / 2 signed what I saw" excludes a second view; but a thousand signatures cost a second.
 *
 * So each agent draws m others at random, *after* it has signed, and wants `sample_min` of their
 * signatures. Let B be the honest agents of the smaller view, b of them, b <= (n - c) / 2. Each of
 * them needs sample_min of its m draws inside B and the colluders: at most b - 1 + c of n - 1. The
 * coordinator may choose B after seeing every draw, so all sets count:
 *
 *     P <= sum over b of  C(n - c, b) * P[Hypergeometric(n - 1, b - 1 + c, m) >= sample_min] ^ b
 *
 * which must be at most 2^-40. sample_min lies half-way between what honest rounds give,
 * (1 - dropout) m, and what half of the honest and all colluders give. Where no m up to 512 does
 * it, or there are not more agents than that, everybody is asked and the majority is counted.
 */
#include "common/privacy/secagg/rule.h"

#include "common/base/rng.h"
#include "common/base/u128.h"

#include <math.h>
#include <stdlib.h>

#define LOG_CORRUPT (-40 * M_LN2)
#define LOG_ALIVE   (-30 * M_LN2)
/* Both ends compute this; a difference of the last digits between two libraries must not decide. */
#define SLACK 1e-9

enum {
    SAMPLE_MIN = 64,
    SAMPLE_MAX = 512,
    /* A graph of so few is complete: it costs little and stands more dropouts than were assumed. */
    COMPLETE_MAX = 32,
};

static double log_factorial(uint32_t n)
{
    int sign;

    return lgamma_r((double)n + 1, &sign);
}

static double log_choose(uint32_t n, uint32_t k)
{
    return log_factorial(n) - log_factorial(k) - log_factorial(n - k);
}

double fl_secagg_log_tail(uint32_t population, uint32_t marked, uint32_t draws, uint32_t at_least)
{
    uint32_t unmarked = population - marked;
    uint32_t from = draws > unmarked ? draws - unmarked : 0;
    uint32_t to = draws < marked ? draws : marked;
    double largest = -INFINITY, sum = 0;

    if (at_least <= from) {
        return 0;
    }
    double all = log_choose(population, draws);
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t x = at_least; x <= to; x++) {
            double term = log_choose(marked, x) + log_choose(unmarked, draws - x) - all;
            if (pass == 0) {
                largest = fmax(largest, term);
            } else {
                sum += exp(term - largest);
            }
        }
        if (isinf(largest)) {
            return -INFINITY;
        }
    }
    return fmin(0, largest + log(sum));
}

static bool degree_holds(uint32_t n, uint32_t corrupt, uint32_t dropped, uint32_t k, uint32_t t)
{
    double log_n = log((double)n);

    /* The last: nobody honest has only colluders and dropouts around it. */
    return log_n + fl_secagg_log_tail(n - 1, corrupt, k, t) <= LOG_CORRUPT + SLACK &&
           log_n + fl_secagg_log_tail(n - 1, dropped, k, k - t + 1) <= LOG_ALIVE + SLACK &&
           log_n + fl_secagg_log_tail(n - 1, corrupt + dropped, k, k) <= LOG_CORRUPT + SLACK;
}

static bool degree_find(uint32_t n, uint32_t corrupt, uint32_t dropped, uint32_t k, uint32_t *ret)
{
    for (uint32_t t = k / 2 + 1; t <= k; t++) {
        if (degree_holds(n, corrupt, dropped, k, t)) {
            *ret = t;
            return true;
        }
        /* A larger threshold only makes too few alive more likely. */
        if (log((double)n) + fl_secagg_log_tail(n - 1, dropped, k, k - t + 1) > LOG_ALIVE + SLACK) {
            return false;
        }
    }
    return false;
}

/* The bound of the essay; the largest sets are most of it. */
static bool sample_holds(uint32_t n, uint32_t c, uint32_t m, uint32_t least)
{
    double sum = 0;

    for (uint32_t b = (n - c) / 2; b >= 1 && sum <= 0x1p-40; b--) {
        double one = fl_secagg_log_tail(n - 1, b - 1 + c, m, least);
        sum += exp(fmin(0, log_choose(n - c, b) + b * one));
    }
    return sum <= 0x1p-40;
}

static void sample_find(struct fl_secagg_rule *r, uint32_t dropout_permille)
{
    uint32_t n = r->members, c = r->corrupt;
    double honest = 1 - dropout_permille / 1000.0, most = (n + c) / (2.0 * n);

    r->majority = (n + c) / 2 + 1;
    for (uint32_t m = SAMPLE_MIN; m <= SAMPLE_MAX && m < n - 1; m += m / 2) {
        uint32_t least = (uint32_t)ceil(m * (honest + most) / 2);
        if (least > m * most && sample_holds(n, c, m, least)) {
            r->sample = m;
            r->sample_min = least;
            return;
        }
    }
    r->sample = n - 1;
    r->sample_min = r->majority - 1; /* and its own */
}

int fl_secagg_rule(uint32_t members, uint32_t corrupt_permille, uint32_t dropout_permille,
                   struct fl_secagg_rule *ret, struct fl_err *e)
{
    struct fl_secagg_rule r = {.members = members};
    uint32_t n = members;

    if (n < 2 || n > FL_SECAGG_MEMBERS_MAX) {
        return fl_fail(e, FL_R_CONF_RANGE, "secure aggregation of %u agents: 2 to %d are possible",
                       n, FL_SECAGG_MEMBERS_MAX);
    }
    if (corrupt_permille + dropout_permille >= 1000) {
        return fl_fail(e, FL_R_CONF_RANGE, "nobody is left between colluders and dropouts");
    }
    r.corrupt = (uint32_t)((uint64_t)n * corrupt_permille / 1000);
    uint32_t dropped = (uint32_t)((uint64_t)n * dropout_permille / 1000);
    for (uint32_t k = 3; n > COMPLETE_MAX && k < n - 1 && k <= FL_SECAGG_NEIGHBOURS_MAX - 1;
         k += 2) {
        /* A regular graph of odd degree needs an even number of agents. */
        uint32_t degree = n % 2 == 0 ? k : k + 1;
        if (degree < n - 1 && degree_find(n, r.corrupt, dropped, degree, &r.threshold)) {
            r.neighbours = degree;
            break;
        }
    }
    if (r.neighbours == 0) {
        uint32_t k = n - 1, t = k / 2 + 1;
        t = t > r.corrupt ? t : r.corrupt + 1;
        if (k > FL_SECAGG_NEIGHBOURS_MAX || t > k || dropped > k + 1 - t) {
            return fl_fail(e, FL_R_CONF_RANGE,
                           "no graph of %u agents withstands %u colluders and %u dropouts", n,
                           r.corrupt, dropped);
        }
        r.neighbours = k;
        r.threshold = t;
    }
    sample_find(&r, dropout_permille);
    if (dropped > n - r.majority) {
        return fl_fail(e, FL_R_CONF_RANGE,
                       "of %u agents %u must agree on who is left: %u dropouts are too many", n,
                       r.majority, dropped);
    }
    *ret = r;
    return 0;
}

void fl_secagg_graph(const struct fl_digest *seed, uint32_t members, uint32_t *order,
                     uint32_t *place)
{
    struct fl_rng rng;
    struct fl_seed s;

    _Static_assert(sizeof s.bytes == sizeof seed->bytes, "a digest is a seed");
    for (uint32_t i = 0; i < FL_SEED_SIZE; i++) {
        s.bytes[i] = seed->bytes[i];
    }
    for (uint32_t i = 0; i < members; i++) {
        order[i] = i;
    }
    fl_rng_init(&rng, &s, 0);
    fl_rng_shuffle(&rng, order, members);
    fl_rng_fini(&rng);
    for (uint32_t i = 0; i < members; i++) {
        place[order[i]] = i;
    }
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

void fl_secagg_neighbours(const uint32_t *order, const uint32_t *place, uint32_t members,
                          uint32_t neighbours, uint32_t index, uint32_t *ret)
{
    uint32_t at = place[index], count = 0;

    if (neighbours == members - 1) {
        for (uint32_t i = 0; i < members; i++) {
            if (i != index) {
                ret[count++] = i;
            }
        }
        return;
    }
    for (uint32_t step = 1; step <= neighbours / 2; step++) {
        ret[count++] = order[(at + step) % members];
        ret[count++] = order[(at + members - step) % members];
    }
    if (neighbours % 2 == 1) {
        ret[count++] = order[(at + members / 2) % members];
    }
    qsort(ret, count, sizeof *ret, ascending);
}

uint32_t fl_secagg_bits(uint32_t members, int64_t max)
{
    return fl_u128_bits((fl_u128)max * members) + 1;
}

int fl_secagg_ring_check(uint32_t bits, uint32_t members, int64_t max, struct fl_err *e)
{
    if (bits < FL_SECAGG_BITS_MIN || bits > FL_SECAGG_BITS_MAX) {
        return fl_fail(e, FL_R_CONF_RANGE, "a ring of %u bits: %d to %d are possible", bits,
                       FL_SECAGG_BITS_MIN, FL_SECAGG_BITS_MAX);
    }
    if (max < 1 || fl_secagg_bits(members, max) > bits) {
        return fl_fail(e, FL_R_PLAN_OVERFLOW,
                       "the sum of %u values up to %lld needs %u bits, the ring has %u", members,
                       (long long)max, fl_secagg_bits(members, max), bits);
    }
    return 0;
}
