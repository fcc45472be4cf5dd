/*
 * Is it worth joining? What noise does to a mean, before anything is spent. Deliberately simple and
 * stated in full, so that nobody takes it for more than it is.
 *
 * Model. Every unit (an example, or a site's update) pulls the same D-dimensional optimum about
 * with an independent error of squared length at most C^2, C being the clip; a site has n units.
 * All sites look for the same optimum. K releases carry independent noise of standard deviation
 * sigma C in each of D coordinates on a sum of q n units, and learning averages over releases. In
 * units of C^2 the squared error is then
 *
 *   alone    1 / n
 *   joined   1 / (m n)  +  D sigma^2 / (m (q n)^2 K)          noise at each of m sites
 *            1 / (m n)  +  D sigma^2 / (m^2 n^2 q^2 K)        noise once, on the sum of all
 *
 * What it leaves out: sites that differ (joining is then worth less), directions that the loss does
 * not feel (noise there is harmless, so the D that counts is smaller: `break_even` is the D at
 * which both are equal), the bias of clipping, and that a network is not a mean.
 */
#ifndef FL_PRIVACY_WORTH_H
#define FL_PRIVACY_WORTH_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct fl_worth_question {
    double dimensions; /* D: coordinates that are noised */
    double units;      /* n at a site; 1 where the site is the unit */
    double q, sigma;
    uint64_t releases;     /* K, over the whole job */
    uint64_t in_an_upload; /* of these, how many make one upload */
    uint32_t members;      /* m */
    bool central;          /* noise once, on the sum of all members */
};

struct fl_worth {
    double upload;     /* noise norm / largest signal norm in one site's upload */
    double mean;       /* the same in the mean of one round's members */
    double job;        /* the same in the mean over all members and releases */
    double ratio;      /* squared error joined / alone: above 1 alone is predicted to win */
    double break_even; /* with fewer effective dimensions than this joining is predicted to win */
};

/* -FL_R_ACCOUNTING: a number that is not finite and above 0 (sigma may be 0). */
int fl_worth(const struct fl_worth_question *q, struct fl_worth *ret, struct fl_err *e);

#endif
