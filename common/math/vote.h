/*
 * Several models vote on the classes of examples without labels (FedKA's federated voting: Sun et
 * al. 2022, arXiv 2203.11635, section 3.3, which takes the majority of hard votes).
 *
 * Soft votes are robust: of each class's probability the median over the models counts, so that
 * fewer than half of them cannot move it beyond what the others say; and an example on which the
 * models are unsure or divided gets no label. Ties go to the lowest class: the result is a function
 * of the votes alone, whatever their order.
 */
#ifndef FL_MATH_VOTE_H
#define FL_MATH_VOTE_H

#include <stddef.h>
#include <stdint.h>

enum { FL_VOTE_NONE = -1, FL_VOTE_MODELS_MAX = 1000 };

/* p[models, examples, classes]: probabilities. label[examples]: the class with the largest median,
 * if that is `confidence` of the sum of all medians, and the first choice of at least `agreement`
 * of the models (a part of 1, rounded up); else FL_VOTE_NONE. models <= FL_VOTE_MODELS_MAX. */
void fl_vote_soft(const float *p, size_t models, size_t examples, size_t classes, float confidence,
                  float agreement, int32_t *label);

/* The first choice of most models; always a class. */
void fl_vote_hard(const float *p, size_t models, size_t examples, size_t classes, int32_t *label);

/* The largest of p[classes], the first one among equals. */
int32_t fl_vote_first(const float *p, size_t classes);

/* One-sided sign test of pairs: the probability of `worse` or more of better + worse fair coins.
 * 1 when there are none. */
double fl_vote_sign_test(uint32_t better, uint32_t worse);

#endif
