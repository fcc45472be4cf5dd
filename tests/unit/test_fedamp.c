/* FedAMP beside a naive twin, round after round, and where its weights end. */
#include "tests/lib/check_main.h"
#include "tests/lib/personal_rounds.h"

static struct fl_err e;

#define JOB(settings)                                                                              \
    "name: a\nstrategy: " settings "\nrounds: 6\nmodel: {input: [30], classes: 3, layers: "        \
    "[{linear: {out: 20}}, {linear: {out: 3}}]}\ntrain: {lr: 0.1}\nround: {members: 5}\n"          \
    "grid: {bits: 16, step: -10}\n"

enum { AGENTS = 5 };

static void make(struct fl_rng *rng, struct sent *sent, uint32_t count, size_t d)
{
    for (uint32_t i = 0; i < count; i++) {
        sent[i] = (struct sent){2 + i, 1, fl_new(d, sizeof *sent[i].q)};
        for (size_t k = 0; k < d; k++) { /* the last two are far from the others */
            sent[i].q[k] = (int64_t)fl_rng_below(rng, 41) - 20 + (i >= 3 ? 90 : 0);
        }
    }
}

static double distance(const float *x, const float *y, size_t d)
{
    double sum = 0;

    for (size_t k = 0; k < d; k++) {
        sum += ((double)x[k] - (double)y[k]) * ((double)x[k] - (double)y[k]);
    }
    return sum;
}

/* next[i] by the formulas of the header; w are the trained models. */
static void twin(const struct fl_fedamp_conf *c, uint32_t n, size_t d, float *const *w,
                 float *const *next)
{
    for (uint32_t i = 0; i < n; i++) {
        double xi[AGENTS] = {0}, sum = 0, mean = 0;
        for (uint32_t j = 0; j < n; j++) {
            mean += distance(w[i], w[j], d) / (n - 1);
        }
        for (uint32_t j = 0; j < n; j++) {
            double x = distance(w[i], w[j], d);
            if (i != j) {
                xi[j] = c->variant == FL_PERSONAL_PUBLISHED
                            ? c->alpha * exp(-x / c->sigma) / c->sigma
                            : exp(-x / c->sigma / mean);
                sum += xi[j];
            }
        }
        for (uint32_t j = 0; j < n; j++) {
            if (c->variant == FL_PERSONAL_BETTER) {
                xi[j] *= (1 - c->self) / sum;
            } else if (sum > 1) {
                xi[j] /= sum;
            }
        }
        xi[i] = c->variant == FL_PERSONAL_BETTER ? c->self : sum > 1 ? 0 : 1 - sum;
        for (size_t k = 0; k < d; k++) {
            double x = 0;
            for (uint32_t j = 0; j < n; j++) {
                x += xi[j] * (double)w[j][k];
            }
            next[i][k] = (float)x;
        }
    }
}

START_TEST(test_rounds_agree_with_the_naive_twin)
{
    static const char *const jobs[] = {
        JOB("fedamp"), JOB("{fedamp: {sigma: 0.2, self: 0.1}}"),
        JOB("{fedamp: {variant: published, sigma: 8, alpha: 1.5}}"),
        JOB("{fedamp: {variant: published, sigma: 100, alpha: 90}}")};

    for (size_t job = 0; job < FL_COUNT(jobs); job++) {
        struct rounds r;
        struct sent sent[AGENTS];
        float *w[AGENTS], *next[AGENTS];
        struct fl_seed seed;
        struct fl_rng rng;

        rounds_open(&r, jobs[job], NULL);
        fl_seed_from_u64(job, &seed);
        fl_rng_init(&rng, &seed, 0);
        for (int round = 0; round < 3; round++) {
            make(&rng, sent, AGENTS, r.d);
            for (uint32_t i = 0; i < AGENTS; i++) {
                w[i] = fl_new(r.d, sizeof(float));
                next[i] = fl_new(r.d, sizeof(float));
                for (size_t k = 0; k < r.d; k++) {
                    w[i][k] = (float)((double)rounds_model(&r, 2 + i)[k] +
                                      ldexp((double)sent[i].q[k], -10));
                }
            }
            twin(&r.plan->setting.fedamp, AGENTS, r.d, w, next);
            ck_assert_msg(rounds_do(&r, sent, AGENTS, &e) == 0, "%s", e.msg);
            for (uint32_t i = 0; i < AGENTS; i++) {
                for (size_t k = 0; k < r.d; k++) {
                    ck_assert_double_le(
                        fabs((double)rounds_model(&r, 2 + i)[k] - (double)next[i][k]),
                        1.2e-7 * fabs((double)next[i][k]) + 1e-9);
                }
                fl_free(w[i]);
                fl_free(next[i]);
                fl_free(sent[i].q);
            }
        }
        rounds_close(&r);
    }
}
END_TEST

START_TEST(test_alone_equal_and_away)
{
    struct rounds r;
    struct sent sent[AGENTS];
    struct fl_seed seed;
    struct fl_rng rng;

    rounds_open(&r, JOB("fedamp"), NULL);
    fl_seed_from_u64(77, &seed);
    fl_rng_init(&rng, &seed, 0);
    make(&rng, sent, AGENTS, r.d);
    float *before = fl_new(r.d, sizeof *before);
    memcpy(before, r.models, r.d * sizeof *before);
    ck_assert_int_eq(rounds_do(&r, sent, 1, &e), 0); /* alone: what it trained */
    for (size_t k = 0; k < r.d; k++) {
        float want = (float)((double)before[k] + ldexp((double)sent[0].q[k], -10));
        ck_assert_float_eq(rounds_model(&r, 2)[k], want);
        ck_assert_float_eq(r.models[k], want);
    }
    memcpy(before, rounds_model(&r, 2), r.d * sizeof *before);
    for (uint32_t i = 2; i < AGENTS; i++) { /* the same model and update: one result for them */
        memcpy(sent[i].q, sent[1].q, r.d * sizeof *sent[i].q);
    }
    ck_assert_int_eq(rounds_do(&r, sent + 1, AGENTS - 1, &e), 0);
    ck_assert_mem_eq(rounds_model(&r, 3), rounds_model(&r, 6), r.d * sizeof(float));
    ck_assert_mem_eq(rounds_model(&r, 2), before, r.d * sizeof *before); /* was away */
    for (uint32_t i = 0; i < AGENTS; i++) {
        fl_free(sent[i].q);
    }
    fl_free(before);
    rounds_close(&r);
}
END_TEST

TESTS_MAIN("fedamp", test_rounds_agree_with_the_naive_twin, test_alone_equal_and_away)
