/* A coordinator's work on its own examples: votes, training on them, the Group Effect, the guard,
 * and the embedding for the next round. Two classes, told apart by columns 0 and 1. */
#include "client/trainer/tune.h"
#include "common/base/mem.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { IN = 4, UNLABELLED = 120, LABELLED = 60, MEMBERS = 5 };

static struct fl_plan plan;
static struct fl_dataset data;
static struct fl_err err;
static float *model[2 + MEMBERS];

static void examples(struct fl_examples *x, uint32_t count, uint64_t number)
{
    struct fl_seed seed;
    struct fl_rng r;

    *x = (struct fl_examples){.count = count,
                              .x = fl_new((size_t)count * IN, sizeof(float)),
                              .y = fl_new(count, sizeof(int32_t))};
    fl_seed_from_u64(number, &seed);
    fl_rng_init(&r, &seed, 0);
    for (uint32_t n = 0; n < count; n++) {
        x->y[n] = (int32_t)(n % 2);
        for (size_t i = 0; i < IN; i++) {
            float mean = i < 2 ? (n % 2 ? 0.6f : -0.6f) : 0;
            x->x[n * IN + i] = mean + 0.5f * (float)fl_rng_normal(&r);
        }
    }
}

/* A model that says class 1 where columns 0 and 1 add up to more than `bias`, as sure as `scale`;
 * below 0 it says the contrary. Its features are the columns. */
static void make(float *theta, float scale, float bias)
{
    memset(theta, 0, plan.layout.theta.elements * sizeof *theta);
    for (size_t i = 0; i < IN; i++) {
        theta[i * IN + i] = 1;
        theta[IN * IN + i] = 10; /* above the kink */
    }
    float *head = theta + IN * IN + IN;
    head[IN] = head[IN + 1] = scale;
    head[2 * IN + 1] = -scale * (20 + bias);
}

static int give(void *arg, uint32_t i, float *to, struct fl_err *e)
{
    (void)arg;
    (void)e;
    ck_assert_uint_lt(i, 2 + MEMBERS);
    memcpy(to, model[i], plan.layout.theta.elements * sizeof *to);
    return 0;
}

static void begin(const char *settings)
{
    char text[1024];

    snprintf(text, sizeof text,
             "name: j\nstrategy: {fedka: {%s}}\nrounds: 4\nmodel: {input: [%d], classes: 2, head: "
             "1, layers: [{linear: {out: %d}}, {leaky_relu: {}}, {linear: {out: 2}}]}\n"
             "train: {batch: 16, lr: 0.05, epochs: 2}\nround: {members: 2}\n",
             settings, IN, IN);
    ck_assert_msg(fl_plan_parse(&plan, "job.yaml", text, strlen(text), &err) == 0, "%s", err.msg);
    memset(&data, 0, sizeof data);
    data.shape[0] = IN;
    data.shape[1] = data.shape[2] = 1;
    data.classes = 2;
    examples(&data.train, UNLABELLED, 1);
    examples(&data.test, LABELLED, 2);
    for (size_t i = 0; i < 2 + MEMBERS; i++) {
        model[i] = fl_new(plan.layout.theta.elements, sizeof *model[i]);
        make(model[i], 4, i < 2 ? 0.5f : 0.1f * (float)i - 0.3f);
    }
}

static void end(void)
{
    for (size_t i = 0; i < 2 + MEMBERS; i++) {
        fl_free(model[i]);
    }
    fl_free(data.train.x);
    fl_free(data.train.y);
    fl_free(data.test.x);
    fl_free(data.test.y);
}

static int run(struct fl_fedka_score before, struct fl_tune_result *ret)
{
    struct fl_tune_task task = {.plan = &plan, .data = &data, .before = before, .model = give};

    task.before.round = task.before.round ? task.before.round : 4;
    task.before.models = MEMBERS;
    memset(&err, 0, sizeof err);
    return fl_tune_round(&task, ret, &err);
}

static struct fl_fedka_score scored(struct fl_fedka_score before)
{
    struct fl_tune_result result;
    struct fl_fedka_score score;

    ck_assert_msg(run(before, &result) == 0, "%s", err.msg);
    score = result.score;
    fl_tune_result_fini(&result);
    return score;
}

START_TEST(test_votes_are_trained_on_and_all_is_measured)
{
    uint8_t score[2][FL_FEDKA_SCORE_SIZE];
    struct fl_tune_result result, again;

    begin("confidence: 0.7, epochs: 10");
    ck_assert_int_eq(run((struct fl_fedka_score){0}, &result), 0);
    const struct fl_fedka_score *s = &result.score;
    ck_assert_uint_eq(s->round, 4);
    ck_assert_uint_eq(s->models, MEMBERS);
    ck_assert_uint_eq(s->labelled, LABELLED);
    ck_assert_uint_eq(s->examples, UNLABELLED);
    ck_assert_uint_gt(s->agreed, UNLABELLED / 2);
    ck_assert_uint_lt(s->agreed, UNLABELLED); /* some are near the border */
    ck_assert(s->members > s->aggregate);     /* theirs have less of a bias */
    ck_assert(s->previous == s->aggregate && s->tuned >= s->aggregate && s->harm == 1);
    ck_assert_int_eq(s->choice, FL_FEDKA_TUNED);
    ck_assert(memcmp(result.model, model[1], plan.layout.theta.elements * sizeof(float)) != 0);
    /* The embedding: features are the columns, moved by 10 and a training. */
    ck_assert(result.input.known && result.input.width == IN && result.input.bandwidth > 0);
    ck_assert_uint_eq(result.input.length, fl_fedka_embedding(&plan));
    ck_assert_uint_eq(result.input.features, UNLABELLED); /* the discriminator wants them */

    for (uint32_t n = 0; n < UNLABELLED; n++) { /* nobody looks at their labels */
        data.train.y[n] = 0;
    }
    ck_assert_int_eq(run((struct fl_fedka_score){0}, &again), 0);
    ck_assert_mem_eq(result.model, again.model, plan.layout.theta.elements * sizeof(float));
    ck_assert_mem_eq(result.mean, again.mean, result.input.length * sizeof(float));
    fl_fedka_score_put(&result.score, score[0]);
    fl_fedka_score_put(&again.score, score[1]);
    ck_assert_mem_eq(score[0], score[1], FL_FEDKA_SCORE_SIZE);
    fl_tune_result_fini(&result);
    fl_tune_result_fini(&again);
    end();
}
END_TEST

START_TEST(test_fewer_than_half_poisoners_change_no_label)
{
    struct fl_fedka_score clean, poisoned;

    begin("confidence: 0, agreement: 0.6, matching: 0, disentangle: 0, epochs: 10");
    clean = scored((struct fl_fedka_score){0});
    make(model[2], -100, 0); /* very sure of the contrary */
    make(model[3], -100, 0);
    poisoned = scored((struct fl_fedka_score){0});
    ck_assert(clean.tuned > 0.8 && poisoned.tuned > 0.8);
    ck_assert(poisoned.members < clean.members - 0.2);
    end();
    begin("agreement: 0.7"); /* three of five are too few */
    make(model[2], -100, 0);
    make(model[3], -100, 0);
    poisoned = scored((struct fl_fedka_score){0});
    ck_assert_uint_eq(poisoned.agreed, 0);
    ck_assert_int_eq(poisoned.choice, FL_FEDKA_AGGREGATE);
    end();
}
END_TEST

START_TEST(test_an_aggregate_that_hurts_is_not_published)
{
    struct fl_tune_result result;
    struct fl_fedka_score s;

    begin("voting: false");
    make(model[0], 4, 0);
    make(model[1], -4, 0);
    ck_assert_int_eq(run((struct fl_fedka_score){.kept = 3}, &result), 0);
    ck_assert_int_eq(result.score.choice, FL_FEDKA_PREVIOUS);
    ck_assert_uint_eq(result.score.kept, 4);
    ck_assert(result.score.aggregate < 0.2 && result.score.previous > 0.8);
    ck_assert_mem_eq(result.model, model[0], plan.layout.theta.elements * sizeof(float));
    fl_tune_result_fini(&result);
    data.test.count = 0; /* nothing to measure with: nothing is held back */
    s = scored((struct fl_fedka_score){0});
    ck_assert(s.choice == FL_FEDKA_AGGREGATE && isnan(s.aggregate) && s.harm == 0);
    data.test.count = LABELLED;
    end();
    begin("voting: false, guard: false");
    make(model[0], 4, 0);
    make(model[1], -4, 0);
    ck_assert_int_eq(scored((struct fl_fedka_score){0}).choice, FL_FEDKA_AGGREGATE);
    end();
}
END_TEST

/* A little worse is chance once; after two rounds whose Group Effect was below 0 it is not. */
START_TEST(test_harm_twice_in_a_row)
{
    struct fl_fedka_score s;

    begin("voting: false");
    make(model[0], 4, 0);
    make(model[1], 4, 0.35f);
    s = scored((struct fl_fedka_score){0});
    ck_assert(s.aggregate < s.previous && fl_fedka_effect(&s) < 0);
    ck_assert(s.choice == FL_FEDKA_AGGREGATE && s.harm == 1);
    s = scored((struct fl_fedka_score){.harm = 1});
    ck_assert(s.choice == FL_FEDKA_PREVIOUS && s.harm == 2);
    make(model[1], 4, 0);
    make(model[2], 4, 2);
    s = scored((struct fl_fedka_score){.harm = 5});
    ck_assert(fl_fedka_effect(&s) >= 0 && s.harm == 0 && s.choice == FL_FEDKA_AGGREGATE);
    end();
}
END_TEST

START_TEST(test_as_published_every_example_gets_a_label)
{
    struct fl_fedka_score s;

    begin("variant: published");
    s = scored((struct fl_fedka_score){0});
    ck_assert_uint_eq(s.agreed, UNLABELLED);
    ck_assert_int_eq(s.choice, FL_FEDKA_TUNED);
    end();
}
END_TEST

START_TEST(test_data_of_another_job)
{
    begin("");
    ck_assert_int_eq(fl_tune_check(&plan, &data, &err), 0);
    data.test.y[7] = 2;
    ck_assert_int_eq(fl_tune_check(&plan, &data, &err), -FL_R_DATA_VALUE);
    data.test.y[7] = 1;
    data.shape[0] = IN + 1;
    ck_assert_int_eq(fl_tune_check(&plan, &data, &err), -FL_R_DATA_SHAPE);
    data.shape[0] = IN;
    data.train.count = 0;
    ck_assert_int_eq(fl_tune_check(&plan, &data, &err), -FL_R_DATA_SHAPE);
    end();
}
END_TEST

START_TEST(test_no_memory_is_an_error_at_every_allocation)
{
    struct fl_tune_result result;
    int r = -1;

    begin("confidence: 0.6");
    for (uint64_t n = 1; r < 0; n++) {
        ck_assert_uint_lt(n, 1000);
        fl_mem_fail_at(n);
        r = run((struct fl_fedka_score){0}, &result);
        ck_assert_msg(r == 0 || (r == -FL_R_NOMEM && fl_mem_fail_hit()), "%d: %s", r, err.msg);
    }
    fl_mem_fail_at(0);
    fl_tune_result_fini(&result);
    end();
}
END_TEST

TESTS_MAIN("tune", test_votes_are_trained_on_and_all_is_measured,
           test_fewer_than_half_poisoners_change_no_label,
           test_an_aggregate_that_hurts_is_not_published, test_harm_twice_in_a_row,
           test_as_published_every_example_gets_a_label, test_data_of_another_job,
           test_no_memory_is_an_error_at_every_allocation)
