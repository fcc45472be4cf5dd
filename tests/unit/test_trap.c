/* Models made to give away single examples: the published ones are told from all others. */
#include "common/base/mem.h"
#include "common/nn/param/param.h"
#include "common/nn/trap.h"
#include "common/plan/plan.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>

static struct fl_plan *plan;
static float *theta;
static struct fl_err err;

static void parse(const char *strategy, const char *layers)
{
    char text[2048];
    int n = snprintf(text, sizeof text,
                     "name: trap\nstrategy: %s\nrounds: 1\nseed: 3\n"
                     "model: {input: [1, 12, 12], classes: 10, head: 1, layers: [%s]}\n"
                     "train: {lr: 0.1}\nround: {members: 1}\n",
                     strategy, layers);
    struct fl_seed job, agent;

    fl_free(theta);
    plan = plan ? plan : fl_new(1, sizeof *plan);
    ck_assert_msg(fl_plan_parse(plan, "job", text, (size_t)n, &err) == 0, "%s", err.msg);
    const struct fl_layout *l = &plan->layout;
    float *shared = fl_new(l->shared.elements + 1, sizeof *shared);
    float *own = fl_new(l->private_.elements + 1, sizeof *own);
    theta = fl_new(l->theta.elements, sizeof *theta);
    fl_seed_from_u64(3, &job);
    fl_seed_from_u64(4, &agent);
    fl_layout_init_shared(l, &job, shared);
    fl_layout_init_private(l, &job, &agent, own);
    ck_assert_int_eq(fl_param_make(l, shared, own, theta, &err), 0);
    fl_free(shared);
    fl_free(own);
}

static const struct fl_tensor *tensor(const char *name)
{
    const struct fl_tensor *t = fl_tensors_find(&plan->layout.theta, name);
    ck_assert_ptr_nonnull(t);
    return t;
}

static void expect(int status, const char *part)
{
    memset(&err, 0, sizeof err);
    int r = fl_trap_check(&plan->layout, theta, &err);
    ck_assert_msg(r == status, "%d, not %d: %s", r, status, err.msg);
    ck_assert_msg(strstr(err.msg, part) != NULL, "\"%s\" lacks \"%s\"", err.msg, part);
}

#define CONVS                                                                                      \
    "{conv2d: {out: 8, kernel: 3}}, {leaky_relu: }, {max_pool: {size: 2}}, {flatten: }, "          \
    "{linear: {out: 32}}, {leaky_relu: }, {linear: {out: 10}}"

#define MLP                                                                                        \
    "{flatten: }, {linear: {out: 64}}, {leaky_relu: }, {linear: {out: 16}}, {leaky_relu: }, "      \
    "{linear: {out: 10}}"

START_TEST(test_what_jobs_begin_with_is_no_trap)
{
    const char *layers[] = {
        CONVS,
        "{flatten: }, {linear: {out: 10}}",
        MLP,
        "{conv2d: {out: 4, kernel: 1}}, {flatten: }, {linear: {out: 10}}",
    };
    const char *strategies[] = {"fedavg", "fedrep", "hyperfl"};

    for (size_t i = 0; i < FL_COUNT(layers); i++) {
        for (size_t k = 0; k < FL_COUNT(strategies); k++) {
            if (i == 1 && k > 0) {
                continue; /* a head alone */
            }
            parse(strategies[k], layers[i]);
            expect(0, "");
        }
    }
    memset(theta, 0, plan->layout.theta.elements * sizeof *theta); /* says nothing */
    expect(0, "");
}
END_TEST

/* All rows one direction; with thresholds, with scales, and with a tenth of something else. */
START_TEST(test_rows_that_are_one_direction)
{
    parse("fedavg", CONVS);
    const struct fl_tensor *w = tensor("fc1.weight");
    size_t columns = w->count / 32;
    float *row = fl_new(columns, sizeof *row), *start = fl_new(w->count, sizeof *start);

    memcpy(row, theta + w->offset, columns * sizeof *row);
    memcpy(start, theta + w->offset, w->count * sizeof *start);
    for (size_t i = 0; i < w->count; i++) {
        theta[w->offset + i] = row[i % columns] * (1 + 0.1f * (float)(i / columns));
    }
    expect(-FL_R_TRAP, "the 32 rows of layer fc1 are one direction");
    for (size_t i = 0; i < w->count; i++) {
        theta[w->offset + i] = row[i % columns] + 0.1f * start[i];
    }
    expect(-FL_R_TRAP, "layer fc1");
    /* Half of it a network's own: no trap by this file's word. */
    for (size_t i = 0; i < w->count; i++) {
        theta[w->offset + i] = row[i % columns] + start[i];
    }
    expect(0, "");
    fl_free(row);
    fl_free(start);
}
END_TEST

START_TEST(test_filters_that_only_pass_on)
{
    parse("fedavg", CONVS);
    const struct fl_tensor *w = tensor("conv1.weight");
    for (size_t i = 0; i < w->count; i++) {
        theta[w->offset + i] *= 0.01f;
    }
    for (size_t c = 0; c < 3; c++) {
        theta[w->offset + 9 * c + 4] = 1;
    }
    expect(0, ""); /* three of eight */
    theta[w->offset + 27 + 4] = 1;
    expect(-FL_R_TRAP, "the filters of layer conv1 only pass their input on");
    /* What stays at the site is not the coordinator's to choose. */
    parse("local", CONVS);
    w = tensor("conv1.weight");
    memset(theta + w->offset, 0, w->count * sizeof *theta);
    for (size_t c = 0; c < 8; c++) {
        theta[w->offset + 9 * c + 4] = 1;
    }
    expect(0, "");
}
END_TEST

START_TEST(test_a_block_in_front)
{
    parse("fedavg", "{flatten: }, {linear: {out: 64}}, {leaky_relu: }, {linear: {out: 144}}, "
                    "{leaky_relu: }, {linear: {out: 10}}");
    expect(-FL_R_TRAP, "layers fc1 and fc2 are a dense block in front of a network on pictures");
    ck_assert_int_eq(fl_trap_spec(&plan->layout.spec, &err), -FL_R_TRAP);
    parse("fedavg", CONVS);
    ck_assert_int_eq(fl_trap_spec(&plan->layout.spec, &err), 0);
    fl_free(theta);
    fl_free(plan);
}
END_TEST

TESTS_MAIN("trap", test_what_jobs_begin_with_is_no_trap, test_rows_that_are_one_direction,
           test_filters_that_only_pass_on, test_a_block_in_front)
