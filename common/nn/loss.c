#include "common/nn/loss.h"

#include "common/nn/layers.h"

#include <assert.h>
#include <math.h>

/* ---- classes ---- */

static void add_class(struct fl_score *score, int32_t label, bool right)
{
    score->correct += right;
    if (label >= 0 && label < FL_SCORE_CLASSES_MAX) {
        score->seen[label]++;
        score->hit[label] += right;
    }
}

static void cross_entropy(const struct fl_loss *l, const float *out, size_t classes, int32_t label,
                          float weight, float *d, struct fl_score *score)
{
    size_t best = 0;
    double mean = 0;

    for (size_t c = 0; c < classes; c++) {
        best = out[c] > out[best] ? c : best;
        mean += (double)out[c] / (double)classes;
    }
    add_class(score, label, best == (size_t)label);
    /* With p = softmax: loss = log sum exp - sum_c t_c out_c, gradient p - t. */
    double at_label = (double)out[label];
    score->loss += fl_softmax_loss(out, classes, label, weight, d);
    if (l->smoothing > 0) {
        score->loss += (double)l->smoothing * (at_label - mean);
    }
    if (d && l->smoothing > 0) {
        d[label] += weight * l->smoothing;
        for (size_t c = 0; c < classes; c++) {
            d[c] -= weight * l->smoothing / (float)classes;
        }
    }
}

/* log(1 + exp(-s z)) with s = +1 for class 1, -1 for class 0. */
static void binary(const float *out, int32_t label, float weight, float *d, struct fl_score *score)
{
    double z = (double)out[0], s = label ? 1 : -1, m = -s * z;

    add_class(score, label, (z > 0) == (label == 1));
    score->loss += m > 0 ? m + log1p(exp(-m)) : log1p(exp(m));
    if (d) {
        d[0] = weight * (float)(1 / (1 + exp(-z)) - (label == 1));
    }
}

/* ---- numbers ---- */

static void measure(float y, float p, struct fl_score *score)
{
    double far = fabs((double)y - (double)p);

    score->square += far * far;
    score->absolute += far;
    if (y != 0) {
        score->percent += far / fabs((double)y);
        score->percent_count++;
    }
    score->target += (double)y;
    score->target_square += (double)y * (double)y;
    score->targets++;
}

static void square_or_huber(const struct fl_loss *l, const float *out, const float *y, size_t count,
                            float weight, float *d, struct fl_score *score)
{
    double delta = (double)l->delta, sum = 0;

    for (size_t i = 0; i < count; i++) {
        double e = (double)out[i] - (double)y[i], slope = 2 * e;
        measure(y[i], out[i], score);
        if (l->kind == FL_LOSS_MSE) {
            sum += e * e;
        } else if (fabs(e) <= delta) {
            sum += e * e / 2;
            slope = e;
        } else {
            sum += delta * (fabs(e) - delta / 2);
            slope = e > 0 ? delta : -delta;
        }
        if (d) {
            d[i] = weight * (float)(slope / (double)count);
        }
    }
    score->loss += sum / (double)count;
}

static uint32_t median_of(const struct fl_loss *l)
{
    uint32_t best = 0;

    for (uint32_t q = 1; q < l->quantile_count; q++) {
        best = fabsf(l->quantiles[q] - 0.5f) < fabsf(l->quantiles[best] - 0.5f) ? q : best;
    }
    return best;
}

/* Outputs are [targets, quantiles]. Where out = y the slope is that of e >= 0. */
static void pinball(const struct fl_loss *l, const float *out, const float *y, size_t targets,
                    float weight, float *d, struct fl_score *score)
{
    size_t all = targets * l->quantile_count, median = median_of(l);
    double sum = 0;

    for (size_t t = 0; t < targets; t++) {
        measure(y[t], out[t * l->quantile_count + median], score);
    }
    for (size_t i = 0; i < all; i++) {
        double q = (double)l->quantiles[i % l->quantile_count];
        double e = (double)y[i / l->quantile_count] - (double)out[i];
        sum += e >= 0 ? q * e : (q - 1) * e;
        if (d) {
            d[i] = weight * (float)((e >= 0 ? -q : 1 - q) / (double)all);
        }
    }
    score->loss += sum / (double)all;
}

void fl_loss_add(const struct fl_loss *l, const float *out, size_t outputs, const int32_t *label,
                 const float *target, size_t targets, float weight, float *d,
                 struct fl_score *score)
{
    switch (l->kind) {
    case FL_LOSS_CROSS_ENTROPY:
        assert(*label >= 0 && (size_t)*label < outputs);
        cross_entropy(l, out, outputs, *label, weight, d, score);
        break;
    case FL_LOSS_BINARY:
        binary(out, *label, weight, d, score);
        break;
    case FL_LOSS_MSE:
    case FL_LOSS_HUBER:
        assert(outputs == targets);
        square_or_huber(l, out, target, targets, weight, d, score);
        break;
    case FL_LOSS_PINBALL:
        assert(outputs == targets * l->quantile_count);
        pinball(l, out, target, targets, weight, d, score);
        break;
    }
}
