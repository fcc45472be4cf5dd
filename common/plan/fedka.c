#include "common/plan/fedka.h"

#include "common/base/le.h"
#include "common/base/mem.h"

#include <math.h>
#include <string.h>

enum { HEAD = 28, IS_TARGET = 1, KNOWN = 2 };

bool fl_fedka_is(const struct fl_plan *plan)
{
    return strcmp(plan->strategy, "fedka") == 0;
}

size_t fl_fedka_width(const struct fl_plan *plan)
{
    const struct fl_spec *s = &plan->layout.spec;
    uint32_t at = fl_spec_head(s);
    const struct fl_layer *l = &s->layers[at];

    if (s->head == 0 || s->head >= fl_spec_weighted(s) || at >= s->layer_count ||
        l->kind != FL_LAYER_LINEAR || l->in_shape[1] != 1 || l->in_shape[2] != 1) {
        return 0;
    }
    return l->in_shape[0];
}

void fl_fedka_seed(const struct fl_plan *plan, struct fl_seed *ret)
{
    struct fl_seed job;

    fl_seed_from_u64(plan->seed, &job);
    fl_seed_derive(&job, "fedka frequencies", 0, ret);
}

bool fl_fedka_collects(const struct fl_plan *plan)
{
    return fl_fedka_is(plan) && plan->setting.fedka.target != FL_FEDKA_COORDINATOR &&
           plan->setting.fedka.matching > 0;
}

bool fl_fedka_gives(const struct fl_plan *plan)
{
    return fl_fedka_is(plan) &&
           (plan->setting.fedka.matching > 0 || plan->setting.fedka.disentangle > 0);
}

float fl_fedka_ramp(uint64_t round, uint64_t rounds, double part)
{
    double p = ((double)(round ? round - 1 : 0) + part) / (double)(rounds ? rounds : 1);

    return (float)(2 / (1 + exp(-5 * (p < 1 ? p : 1))) - 1);
}

/* ---- what an exchange begins with ---- */

static size_t numbers_of(const struct fl_fedka_input *in)
{
    return (in->known ? in->length : 0) + in->features * in->width;
}

size_t fl_fedka_input_size(const struct fl_fedka_input *in)
{
    return HEAD + 4 * numbers_of(in);
}

void fl_fedka_input_put(const struct fl_fedka_input *in, uint8_t *to)
{
    fl_put_u32(to, 1); /* the layout's version */
    fl_put_u32(to + 4, (in->is_target ? IS_TARGET : 0u) | (in->known ? KNOWN : 0u));
    fl_put_u32(to + 8, (uint32_t)in->width);
    fl_put_u32(to + 12, (uint32_t)in->length);
    fl_put_u32(to + 16, (uint32_t)in->features);
    fl_put_double(to + 20, in->bandwidth);
    to += HEAD;
    for (size_t i = 0; in->known && i < in->length; i++, to += 4) {
        fl_put_float(to, in->mean[i]);
    }
    for (size_t i = 0; i < in->features * in->width; i++, to += 4) {
        fl_put_float(to, in->z[i]);
    }
}

int fl_fedka_input_get(const struct fl_plan *plan, const uint8_t *from, size_t size,
                       struct fl_fedka_input *ret, float **ret_numbers, struct fl_err *e)
{
    struct fl_fedka_input in = {.width = fl_fedka_width(plan), .length = fl_fedka_embedding(plan)};

    if (size < HEAD || fl_get_u32(from) != 1 || fl_get_u32(from + 8) != in.width ||
        fl_get_u32(from + 12) != in.length || fl_get_u32(from + 16) > FL_FEDKA_FEATURES) {
        return fl_fail(e, FL_R_UPDATE_SHAPE, "%zu bytes are no embedding of %zu numbers", size,
                       in.length);
    }
    in.is_target = fl_get_u32(from + 4) & IS_TARGET;
    in.known = fl_get_u32(from + 4) & KNOWN;
    in.features = fl_get_u32(from + 16);
    in.bandwidth = fl_get_double(from + 20);
    size_t count = numbers_of(&in);
    if (size != fl_fedka_input_size(&in)) {
        return fl_fail(e, FL_R_UPDATE_SHAPE, "an embedding of %zu bytes; %zu are expected", size,
                       fl_fedka_input_size(&in));
    }
    if (!(in.bandwidth > 0) || !isfinite(in.bandwidth)) {
        return fl_fail(e, FL_R_NOT_FINITE, "an embedding's bandwidth is %g", in.bandwidth);
    }
    float *x = fl_try_aligned(count + 1, sizeof *x);
    if (!x) {
        return fl_fail(e, FL_R_NOMEM, "an embedding of %zu numbers", count);
    }
    for (size_t i = 0; i < count; i++) {
        x[i] = fl_get_float(from + HEAD + 4 * i);
        if (!isfinite(x[i])) {
            fl_free(x);
            return fl_fail(e, FL_R_NOT_FINITE, "number %zu of an embedding is not finite", i);
        }
    }
    in.mean = in.known ? x : NULL;
    in.z = x + (in.known ? in.length : 0);
    *ret = in;
    *ret_numbers = x;
    return 0;
}

/* ---- a round's score ---- */

void fl_fedka_score_put(const struct fl_fedka_score *s, uint8_t *to)
{
    const uint32_t words[] = {s->models, s->examples, s->agreed,           s->labelled,
                              s->harm,   s->kept,     (uint32_t)s->choice, 0};

    fl_put_u64(to, s->round);
    for (size_t i = 0; i < FL_COUNT(words); i++) {
        fl_put_u32(to + 8 + 4 * i, words[i]);
    }
    fl_put_double(to + 40, s->previous);
    fl_put_double(to + 48, s->members);
    fl_put_double(to + 56, s->aggregate);
    fl_put_double(to + 64, s->tuned);
}

void fl_fedka_score_get(const uint8_t *from, struct fl_fedka_score *ret)
{
    uint32_t choice = fl_get_u32(from + 32);

    *ret = (struct fl_fedka_score){
        .round = fl_get_u64(from),
        .models = fl_get_u32(from + 8),
        .examples = fl_get_u32(from + 12),
        .agreed = fl_get_u32(from + 16),
        .labelled = fl_get_u32(from + 20),
        .harm = fl_get_u32(from + 24),
        .kept = fl_get_u32(from + 28),
        .choice = choice < FL_FEDKA_CHOICES ? (enum fl_fedka_choice)choice : FL_FEDKA_AGGREGATE,
        .previous = fl_get_double(from + 40),
        .members = fl_get_double(from + 48),
        .aggregate = fl_get_double(from + 56),
        .tuned = fl_get_double(from + 64)};
}
