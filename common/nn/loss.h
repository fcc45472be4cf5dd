/*
 * Losses: what the outputs of a network are compared with. Each is a mean over the outputs of one
 * example, as PyTorch's functions of the same name have it.
 */
#ifndef FL_NN_LOSS_H
#define FL_NN_LOSS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FL_LOSS_QUANTILES_MAX = 9, FL_SCORE_CLASSES_MAX = 32 };

enum fl_loss_kind {
    FL_LOSS_CROSS_ENTROPY, /* softmax; smoothing: (1 - s) onehot + s / classes */
    FL_LOSS_BINARY,        /* one output, its logit; classes 0 and 1 */
    FL_LOSS_MSE,
    FL_LOSS_HUBER,   /* delta: quadratic within, linear beyond (PyTorch's HuberLoss) */
    FL_LOSS_PINBALL, /* an output for each quantile of each target: max(q e, (q - 1) e), e = y - out
                      */
};

struct fl_loss {
    enum fl_loss_kind kind;
    float smoothing, delta;
    uint32_t quantile_count;
    float quantiles[FL_LOSS_QUANTILES_MAX]; /* rising */
};

/* Targets are numbers, not classes. */
static inline bool fl_loss_is_regression(const struct fl_loss *l)
{
    return l->kind >= FL_LOSS_MSE;
}

/* Sums over examples (and targets), not means. */
struct fl_score {
    double loss;
    size_t correct; /* classes: the largest output is the label; the first one counts among equals.
                       Binary: the logit is above 0 */
    /* Numbers: of every target and its prediction (of a pinball: the quantile nearest to 0.5). */
    double square, absolute; /* (y - p)^2, |y - p| */
    double percent;          /* |y - p| / |y| where y is not 0; their number: percent_count */
    size_t percent_count;
    double target, target_square; /* y, y^2 */
    size_t targets;
    /* Examples of each of the first classes, and how many of them were right. */
    uint32_t seen[FL_SCORE_CLASSES_MAX], hit[FL_SCORE_CLASSES_MAX];
};

/* One example's loss, with `outputs` outputs; adds to *score. `y`: its class number (int32_t), or
 * its targets (float, `targets` of them). d (may be NULL) = weight * gradient; it may be `out`. */
void fl_loss_add(const struct fl_loss *l, const float *out, size_t outputs, const int32_t *label,
                 const float *target, size_t targets, float weight, float *d,
                 struct fl_score *score);

#endif
