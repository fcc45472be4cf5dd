/*
 * Privacy-loss distributions: the tightest epsilon for many releases whose losses can be put on a
 * grid. Two valid answers: an upper bound on epsilon (everything rounded against us) and a lower
 * one (everything rounded the other way), which bracket the truth; usually to a thousandth.
 *
 * Such a figure holds for a list of events that was fixed before the first of them happened. Where
 * events are chosen as one goes, fl_filter_allows decides.
 *
 * Sources: connect-the-dots discretization, Doroshenko, Ghazi, Kamath, Kumar, Manurangsi 2022;
 * composition by Fourier transform, Koskela, Jalko, Honkela 2020; dominating pairs of the
 * Poisson-subsampled Gaussian, Zhu, Dong, Wang 2022.
 */
#ifndef FL_PRIVACY_PLD_H
#define FL_PRIVACY_PLD_H

#include "common/base/err.h"
#include "common/privacy/accountant.h"

#include <stdbool.h>
#include <stdint.h>

/* Gaussian (sampled or not), tree, Laplace, epsilon-delta, randomized response. */
bool fl_pld_has(const struct fl_event *event);

/* *ret_lower <= epsilon(delta) <= *ret_upper; ret_lower may be NULL (half the work). 0 < delta < 1.
 * -FL_R_ACCOUNTING: an event that has no distribution here, or out of range. -FL_R_NOMEM (some 50
 * MB for a million steps). */
int fl_pld_epsilon(const struct fl_event *events, uint32_t count, double delta, double *ret_lower,
                   double *ret_upper, struct fl_err *e);

#endif
