/*
 * The producer of `descriptor`; what it is and why it is private: common/plan/descriptor.h. Under
 * the unit `example` each example's vector is rounded and clipped on the grid before it is added,
 * so that the sum of integers moves by at most `bound` steps when one is taken away, exactly.
 */
#include "client/produce_in.h"

#include "common/base/mem.h"
#include "common/plan/descriptor.h"
#include "common/privacy/clip.h"
#include "common/privacy/noise.h"

#include <math.h>
#include <string.h>

struct describing {
    const struct fl_plan *plan;
    const struct fl_examples *from;
    size_t inputs;
    uint32_t features,
        width; /* z has features + 1 numbers; y has `width` for numbers, 1 of a class */
    double norm;
    float *x, *v;  /* an example's features; its vector without the other classes' zeros */
    int8_t *signs; /* features x inputs; NULL: they are not projected */
    int64_t *one;
};

static int event(const struct fl_plan *plan, const struct fl_exchange_terms *terms,
                 struct fl_event *ret, struct fl_err *e)
{
    (void)terms;
    return fl_produce_event(plan, plan->descriptor.noise_multiplier, "a descriptor", ret, e);
}

static void fini(struct describing *d)
{
    if (d->x) {
        explicit_bzero(d->x, d->inputs * sizeof *d->x);
    }
    if (d->v) {
        explicit_bzero(d->v, (1 + (size_t)(d->features + 1) * d->width) * sizeof *d->v);
    }
    fl_free(d->x);
    fl_free(d->v);
    fl_free(d->signs);
    fl_free(d->one);
}

static int init(struct describing *d, const struct fl_produce *in, struct fl_err *e)
{
    const uint32_t *shape = in->data->shape;
    struct fl_seed seed;
    struct fl_rng rng;

    *d = (struct describing){.plan = in->plan,
                             .from = &in->data->train,
                             .inputs = (size_t)shape[0] * shape[1] * shape[2],
                             .features = fl_descriptor_features(in->plan),
                             .norm = fl_descriptor_norm(in->plan)};
    d->width = in->plan->layout.spec.classes ? 1 : fl_descriptor_targets(in->plan);
    size_t length = 1 + (size_t)(d->features + 1) * d->width;
    bool projected = fl_descriptor_projected(in->plan, &seed);
    d->x = fl_try(d->inputs, sizeof *d->x);
    d->v = fl_try(length, sizeof *d->v);
    d->one = fl_try_aligned(length, sizeof *d->one);
    d->signs = projected ? fl_try((size_t)d->features * d->inputs, 1) : NULL;
    if (!d->x || !d->v || !d->one || (projected && !d->signs)) {
        fini(d);
        return fl_fail(e, FL_R_NOMEM, "a descriptor of %zu features", d->inputs);
    }
    if (projected) {
        fl_rng_init(&rng, &seed, 0);
        fl_rng_bytes(&rng, d->signs, (size_t)d->features * d->inputs);
        fl_rng_fini(&rng);
    }
    return 0;
}

static double cut(double x, double bound)
{
    return x > bound ? 1 : x < -bound ? -1 : x / bound;
}

/* Number k of z: 1, then the features or their projections, cut. */
static double z_at(const struct describing *d, uint32_t k)
{
    const int8_t *sign = d->signs ? d->signs + (size_t)(k - (k > 0)) * d->inputs : NULL;
    double sum = 0;

    if (k == 0) {
        return 1;
    }
    if (!sign) {
        return cut((double)d->x[k - 1], d->plan->descriptor.bound);
    }
    for (size_t i = 0; i < d->inputs; i++) {
        sum += sign[i] < 0 ? -(double)d->x[i] : (double)d->x[i];
    }
    return cut(sum / sqrt((double)d->inputs), d->plan->descriptor.bound);
}

/* v of example i, for a class without the zeros of all others. */
static int look_at(struct describing *d, uint32_t i, struct fl_err *e)
{
    const struct fl_data_conf *c = &d->plan->data;
    size_t pixels = c->channels ? d->inputs / c->channels : d->inputs;
    int r = fl_examples_get(d->from, d->inputs, i, d->x, e);

    for (size_t k = 0; r == 0 && k < d->inputs; k++) {
        if (!isfinite(d->x[k])) {
            return fl_fail(e, FL_R_NOT_FINITE, "feature %zu of example %u", k, i);
        }
        d->x[k] = c->channels ? (d->x[k] - c->mean[k / pixels]) / c->std[k / pixels] : d->x[k];
    }
    d->v[0] = (float)(1 / d->norm);
    for (uint32_t k = 0; r == 0 && k <= d->features; k++) {
        double z = z_at(d, k) / d->norm;
        for (uint32_t t = 0; t < d->width; t++) {
            float y = d->from->y ? 1 : d->from->target[(size_t)i * d->width + t];
            if (!isfinite(y)) {
                return fl_fail(e, FL_R_NOT_FINITE, "the target of example %u", i);
            }
            d->v[1 + k * d->width + t] =
                (float)(z * (d->from->y ? 1 : cut((double)y, d->plan->descriptor.bound)));
        }
    }
    return r;
}

/* Where number k of v is in the whole vector: (1, z y_1, z y_2, ...) with z's numbers outside. */
static size_t place(const struct describing *d, uint32_t i, size_t k)
{
    uint32_t classes = d->plan->layout.spec.classes;

    return k == 0 || !classes ? k : 1 + (k - 1) * classes + (size_t)d->from->y[i];
}

/* Adds example i: as integers that are clipped to `bound`, or as it is. */
static int add(struct describing *d, uint32_t i, const struct fl_grid *g, int64_t bound, int64_t *q,
               double *sum, struct fl_err *e)
{
    size_t length = 1 + (size_t)(d->features + 1) * d->width;
    uint32_t classes = d->plan->layout.spec.classes;
    double norm;

    if (classes && (!d->from->y || d->from->y[i] < 0 || (uint32_t)d->from->y[i] >= classes)) {
        return fl_fail(e, FL_R_DATA_FORMAT, "example %u has no class of the job's %u", i, classes);
    }
    int r = look_at(d, i, e);
    if (r == 0 && q) {
        r = fl_clip_to_grid(g, d->v, length, bound, d->one, &norm, e);
    }
    for (size_t k = 0; r == 0 && k < length; k++) {
        size_t at = place(d, i, k);
        if (q) {
            q[at] += d->one[k];
        } else {
            sum[at] += (double)d->v[k];
        }
    }
    return r;
}

/* The mean, clipped as a whole. */
static int clip_mean(const struct fl_grid *g, const double *sum, size_t elements, uint32_t count,
                     int64_t bound, int64_t *q, double *ret_norm, struct fl_err *e)
{
    float *mean = fl_try_aligned(elements, sizeof *mean);

    if (!mean) {
        return fl_fail(e, FL_R_NOMEM, "a descriptor of %zu numbers", elements);
    }
    for (size_t i = 0; i < elements; i++) {
        mean[i] = (float)(count ? sum[i] / count : 0);
    }
    int r = fl_clip_to_grid(g, mean, elements, bound, q, ret_norm, e);
    explicit_bzero(mean, elements * sizeof *mean);
    fl_free(mean);
    return r;
}

static int describe(const struct fl_produce *in, const struct fl_grid *g, int64_t bound, int64_t *q,
                    double *ret_norm, struct fl_err *e)
{
    size_t elements = in->terms->elements;
    bool whole = in->plan->privacy.unit != FL_UNIT_EXAMPLE;
    double *sum = whole ? fl_try(elements, sizeof *sum) : NULL;
    struct describing d = {0};
    int r = whole && !sum ? fl_fail(e, FL_R_NOMEM, "a descriptor of %zu numbers", elements)
                          : init(&d, in, e);

    if (r == 0) {
        for (uint32_t i = 0; r == 0 && i < in->data->train.count; i++) {
            r = atomic_load_explicit(in->cancel, memory_order_relaxed)
                    ? fl_fail(e, FL_R_CANCELLED, "stopped while describing")
                    : add(&d, i, g, bound, whole ? NULL : q, sum, e);
        }
        fini(&d);
    }
    if (r == 0 && whole) {
        r = clip_mean(g, sum, elements, in->data->train.count, bound, q, ret_norm, e);
    }
    if (sum) {
        explicit_bzero(sum, elements * sizeof *sum);
    }
    fl_free(sum);
    return r;
}

static int make(const struct fl_produce *in, struct fl_produced *ret, struct fl_err *e)
{
    const struct fl_grid g = fl_descriptor_grid(in->plan);
    size_t count = in->terms->elements;
    int64_t *q = fl_try_aligned(count, sizeof *q), bound = 0;

    memset(ret, 0, sizeof *ret);
    int r = q ? fl_clip_bound(&g, 1, &bound, e)
              : fl_fail(e, FL_R_NOMEM, "a descriptor of %zu numbers", count);
    if (r == 0) {
        memset(q, 0, count * sizeof *q);
        r = describe(in, &g, bound, q, &ret->norm_before, e);
    }
    ret->norm_after = r ? 0 : fl_produce_norm(&g, q, count);
    ret->clip = 1;
    if (in->plan->privacy.unit == FL_UNIT_EXAMPLE) {
        ret->norm_before = ret->norm_after;
    }
    if (r == 0 && in->plan->privacy.unit != FL_UNIT_NONE) {
        r = fl_produce_noise(in, in->plan->descriptor.noise_multiplier, bound, q, count,
                             &ret->noise_std, e);
    }
    if (r) {
        fl_free(q);
        return r;
    }
    ret->q = q;
    return 0;
}

static int make_one(const struct fl_produce *in, struct fl_produced *ret, struct fl_err *e)
{
    bool published = in->plan->setting.bubble.variant == FL_BUBBLE_PUBLISHED;

    return published ? fl_produce_importances(in, ret, e) : make(in, ret, e);
}

const struct fl_producer fl_produce_descriptor = {
    .exchange = "descriptor", .event = event, .make = make_one};
