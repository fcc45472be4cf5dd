/*
 * The front of a network whose first layers are fixed (scattering, random Fourier features):
 * nothing flows back to it and nothing in it moves, so the features of an example are computed once
 * and what trains sees them instead of the example. They are kept while the data set, its
 * normalisation and the fixed layers stay what they are. Training examples that are augmented are
 * others in every batch: theirs are computed each time, and so are all that the limit leaves no
 * room for.
 */
#include "client/trainer/kept.h"
#include "client/trainer/session.h"

#include "common/base/mem.h"

#include <string.h>

static void add_floats(struct fl_hash *h, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        fl_hash_add_u32(h, bits);
    }
}

static void key_of(const struct fl_session *s, struct fl_digest *ret)
{
    const struct fl_spec *front = &s->parts[0];
    const struct fl_data_conf *d = &s->plan->data;
    struct fl_hash h;

    fl_hash_init(&h);
    fl_hash_add(&h, s->data->digest.bytes, sizeof s->data->digest.bytes);
    fl_hash_add_u32(&h, d->crop || d->flip);
    fl_hash_add_u32(&h, d->channels);
    add_floats(&h, d->mean, d->channels);
    add_floats(&h, d->std, d->channels);
    for (uint32_t i = 0; i < front->layer_count; i++) {
        const struct fl_layer *l = &front->layers[i];
        const uint32_t numbers[] = {l->kind,        l->out,         l->kernel,      l->groups,
                                    l->scales,      l->angles,      l->order,       l->root,
                                    l->in_shape[0], l->in_shape[1], l->in_shape[2], l->sinusoidal};
        const float floats[] = {l->slope, l->bandwidth};
        fl_hash_add(&h, l->name, sizeof l->name);
        for (size_t k = 0; k < FL_COUNT(numbers); k++) {
            fl_hash_add_u32(&h, numbers[k]);
        }
        add_floats(&h, floats, FL_COUNT(floats));
        fl_hash_add_u64(&h, l->seed);
    }
    fl_hash_end(&h, ret);
}

static int make(struct fl_session *s, const struct fl_examples *from, float **ret, struct fl_err *e)
{
    float *all = fl_try_aligned((size_t)from->count * s->features + 1, sizeof *all);
    int r = 0;

    if (!all) {
        return fl_fail(e, FL_R_NOMEM, "%zu features of %u examples", s->features, from->count);
    }
    for (size_t at = 0, n; r == 0 && at < from->count; at += n) {
        n = from->count - at < s->batch ? from->count - at : s->batch;
        fl_session_load(s, from, NULL, at, n);
        memcpy(all + at * s->features, s->x, n * s->features * sizeof *all);
        r = fl_session_cancelled(s, e);
    }
    if (r < 0) {
        fl_free(all);
        return r;
    }
    *ret = all;
    return 0;
}

int fl_session_features(struct fl_session *s, struct fl_err *e)
{
    struct fl_features *f = s->kept;
    bool augmented = s->plan->data.crop || s->plan->data.flip;
    uint64_t examples = (uint64_t)s->data->test.count + (augmented ? 0 : s->data->train.count);
    struct fl_digest key;
    float *train = NULL, *test = NULL;
    int r;

    key_of(s, &key);
    if (f->bytes && fl_digest_equal(&key, &f->key)) {
        return 0;
    }
    fl_features_fini(f);
    if (f->most && examples > f->most / sizeof(float) / s->features) {
        return 0;
    }
    r = make(s, &s->data->test, &test, e);
    if (r == 0 && !augmented) {
        r = make(s, &s->data->train, &train, e);
    }
    if (r < 0) {
        fl_free(test);
        return r;
    }
    *f = (struct fl_features){.most = f->most,
                              .key = key,
                              .train = train,
                              .test = test,
                              .bytes = (size_t)examples * s->features * sizeof(float)};
    return 0;
}
