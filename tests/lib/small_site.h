/* A plan and a data set that train in milliseconds: 8x8 images of 3 classes, each a bar somewhere.
 */
#ifndef TESTS_LIB_SMALL_SITE_H
#define TESTS_LIB_SMALL_SITE_H

#include "client/data/dataset.h"
#include "common/base/mem.h"
#include "common/plan/plan.h"
#include "tests/lib/check_main.h"

struct small_site {
    struct fl_plan *plan;
    struct fl_dataset data;
    struct fl_seed job, agent;
    float *shared, *private_; /* initial values */
};

static inline void small_examples(struct fl_examples *x, uint32_t count, struct fl_rng *r)
{
    x->count = count;
    x->x = fl_new((size_t)count * 64, sizeof *x->x);
    x->y = fl_new(count, sizeof *x->y);
    for (uint32_t n = 0; n < count; n++) {
        uint32_t c = (uint32_t)fl_rng_below(r, 3), at = 1 + (uint32_t)fl_rng_below(r, 6);
        x->y[n] = (int32_t)c;
        for (uint32_t i = 0; i < 64; i++) {
            bool on = c == 0 ? i / 8 == at : c == 1 ? i % 8 == at : i / 8 == i % 8;
            x->x[(size_t)n * 64 + i] = (float)((on ? 0.8 : 0.1) + 0.1 * fl_rng_unit(r));
        }
    }
}

static inline void small_site_init(struct small_site *s, enum fl_visibility v,
                                   const struct fl_generator_conf *g)
{
    struct fl_spec spec = {
        .input = {1, 8, 8},
        .classes = 3,
        .head = 1,
        .layer_count = 7,
        .layers = {{.kind = FL_LAYER_CONV2D, .out = 4, .kernel = 3, .stride = 1},
                   {.kind = FL_LAYER_LEAKY_RELU, .slope = 0.01f},
                   {.kind = FL_LAYER_MAX_POOL, .kernel = 2},
                   {.kind = FL_LAYER_FLATTEN},
                   {.kind = FL_LAYER_LINEAR, .out = 12},
                   {.kind = FL_LAYER_LEAKY_RELU, .slope = 0.01f},
                   {.kind = FL_LAYER_LINEAR, .out = 3}},
    };
    struct fl_err e = {0};
    struct fl_rng r;

    *s = (struct small_site){.plan = fl_new(1, sizeof *s->plan)};
    ck_assert_msg(fl_spec_check(&spec, &e) == 0, "%s", e.msg);
    ck_assert_msg(fl_layout_init(&s->plan->layout, &spec, v, g, &e) == 0, "%s", e.msg);
    s->plan->train.batch = 10;
    s->plan->train.epochs = 3;
    s->plan->train.body = s->plan->train.head = (struct fl_sgd){.lr = 0.05f, .momentum = 0.5f};
    s->plan->data = (struct fl_data_conf){.channels = 1, .mean = {0.25f}, .std = {0.3f}};
    fl_seed_from_u64(1, &s->job);
    fl_seed_from_u64(2, &s->agent);
    fl_rng_init(&r, &s->agent, 5);
    s->data.shape[0] = 1;
    s->data.shape[1] = s->data.shape[2] = 8;
    s->data.classes = 3;
    small_examples(&s->data.train, 43, &r);
    small_examples(&s->data.test, 90, &r);
    s->shared = fl_new(s->plan->layout.shared.elements, sizeof *s->shared);
    s->private_ = fl_new(s->plan->layout.private_.elements, sizeof *s->private_);
    fl_layout_init_shared(&s->plan->layout, &s->job, s->shared);
    fl_layout_init_private(&s->plan->layout, &s->job, &s->agent, s->private_);
}

static inline void small_site_fini(struct small_site *s)
{
    fl_free(s->plan);
    fl_free(s->data.train.x);
    fl_free(s->data.train.y);
    fl_free(s->data.test.x);
    fl_free(s->data.test.y);
    fl_free(s->shared);
    fl_free(s->private_);
}

#endif
