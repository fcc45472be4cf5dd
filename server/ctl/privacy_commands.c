/* The accountant at hand, before any job exists. */
#include "common/privacy/accountant.h"
#include "server/ctl/cli.h"

#include <math.h>
#include <stdio.h>

static int common(struct fl_cli *c, double *q, uint64_t *steps, double *delta)
{
    int status = 0;

    *q = 1;
    if (fl_cli_option(c, "q", 0)) {
        status = fl_cli_number(c, "q", 0, 1, q);
    }
    if (status == 0) {
        status = fl_cli_count(c, "steps", 1, (uint64_t)1 << 40, 1, steps);
    }
    return status ? status : fl_cli_number(c, "delta", 0, 0.5, delta);
}

static void print(const struct fl_cli *c, double epsilon, double delta, double sigma, double q,
                  uint64_t steps, enum fl_bound bound)
{
    if (c->json) {
        json_t *o = json_pack("{sf sf sf sf sI ss ss}", "epsilon", epsilon, "delta", delta, "sigma",
                              sigma, "q", q, "steps", (json_int_t)steps, "accountant",
                              fl_bound_name(bound), "neighbours", "one unit added or removed");
        fl_cli_print_json(o);
        json_decref(o);
        return;
    }
    printf("epsilon     %.6g\ndelta       %.3g\nsigma       %.6g (standard deviation / clip norm)\n"
           "q           %.6g\nsteps       %llu\naccountant  %s\n"
           "neighbours  one unit added or removed\n",
           epsilon, delta, sigma, q, (unsigned long long)steps, fl_bound_name(bound));
    if (q < 1) {
        printf("\nq < 1 counts only when every batch is Poisson-sampled.\n");
    }
}

int fl_cli_privacy_epsilon(struct fl_cli *c)
{
    double q, delta, sigma, epsilon;
    uint64_t steps;
    enum fl_bound bound;
    int status = common(c, &q, &steps, &delta);

    if (status == 0) {
        status = fl_cli_number(c, "sigma", 0, 1e6, &sigma);
    }
    if (status) {
        return status;
    }
    struct fl_event event = {.q = q, .sigma = sigma, .count = steps};
    status = fl_epsilon(&event, 1, delta, &epsilon, &bound, &c->err);
    if (status == 0 && !isfinite(epsilon)) {
        status = fl_fail(&c->err, FL_R_ACCOUNTING, "no finite epsilon holds for this");
    }
    if (status == 0) {
        print(c, epsilon, delta, sigma, q, steps, bound);
    }
    return status;
}

int fl_cli_privacy_sigma(struct fl_cli *c)
{
    double q, delta, sigma, epsilon;
    uint64_t steps;
    enum fl_bound bound;
    int status = common(c, &q, &steps, &delta);

    if (status == 0) {
        status = fl_cli_number(c, "epsilon", 0, 1e4, &epsilon);
    }
    if (status == 0) {
        status = fl_sigma_for(epsilon, delta, q, steps, &sigma, &c->err);
    }
    if (status) {
        return status;
    }
    /* What this sigma really costs: at most what was asked for. */
    struct fl_event event = {.q = q, .sigma = sigma, .count = steps};
    status = fl_epsilon(&event, 1, delta, &epsilon, &bound, &c->err);
    if (status == 0) {
        print(c, epsilon, delta, sigma, q, steps, bound);
    }
    return status;
}
