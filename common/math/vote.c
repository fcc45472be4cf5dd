#include "common/math/vote.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

int32_t fl_vote_first(const float *p, size_t classes)
{
    size_t best = 0;

    for (size_t c = 1; c < classes; c++) {
        best = p[c] > p[best] ? c : best;
    }
    return (int32_t)best;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return x < y ? -1 : x > y;
}

/* Of the values p[0], p[stride], ...; of an even number the mean of the two in the middle. */
static float median(const float *p, size_t models, size_t stride)
{
    float all[FL_VOTE_MODELS_MAX];

    for (size_t m = 0; m < models; m++) {
        all[m] = p[m * stride];
    }
    qsort(all, models, sizeof all[0], by_value);
    return models % 2 ? all[models / 2] : (all[models / 2 - 1] + all[models / 2]) / 2;
}

/* How many of the models have this first choice. */
static size_t supporters(const float *p, size_t models, size_t stride, size_t classes,
                         int32_t label)
{
    size_t n = 0;

    for (size_t m = 0; m < models; m++) {
        n += fl_vote_first(p + m * stride, classes) == label;
    }
    return n;
}

void fl_vote_soft(const float *p, size_t models, size_t examples, size_t classes, float confidence,
                  float agreement, int32_t *label)
{
    size_t stride = examples * classes;
    double needed = ceil((double)agreement * (double)models - 1e-6);

    assert(models <= FL_VOTE_MODELS_MAX);
    for (size_t n = 0; n < examples; n++) {
        const float *at = p + n * classes;
        float best = -1;
        double sum = 0;
        label[n] = FL_VOTE_NONE;
        for (size_t c = 0; models > 0 && c < classes; c++) {
            float one = median(at + c, models, stride);
            sum += (double)one;
            if (one > best) {
                best = one;
                label[n] = (int32_t)c;
            }
        }
        if (label[n] != FL_VOTE_NONE &&
            (!((double)best >= (double)confidence * sum) || !(sum > 0) ||
             (double)supporters(at, models, stride, classes, label[n]) < needed)) {
            label[n] = FL_VOTE_NONE;
        }
    }
}

void fl_vote_hard(const float *p, size_t models, size_t examples, size_t classes, int32_t *label)
{
    size_t stride = examples * classes;

    for (size_t n = 0; n < examples; n++) {
        size_t most = 0;
        label[n] = 0;
        for (size_t c = 0; c < classes; c++) {
            size_t votes = supporters(p + n * classes, models, stride, classes, (int32_t)c);
            if (votes > most) {
                most = votes;
                label[n] = (int32_t)c;
            }
        }
    }
}

double fl_vote_sign_test(uint32_t better, uint32_t worse)
{
    double n = (double)better + (double)worse, p = 0;

    if (n == 0) {
        return 1;
    }
    for (uint32_t k = worse; k <= better + worse; k++) { /* binomial(n, k) 2^-n */
        double x = (double)k;
        p += exp(lgamma(n + 1) - lgamma(x + 1) - lgamma(n - x + 1) - n * log(2));
    }
    return p < 1 ? p : 1;
}
