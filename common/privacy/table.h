/*
 * Many questions at once: a CSV text with a header, one question a line, one answer a line.
 *
 * Columns read (others are ignored): id, kind, event, relation, q, sigma, steps, delta, target_eps,
 * alpha. `kind` says what is asked:
 *
 *   subsampled_gaussian, full_batch_gaussian, composition, mixed_events, wor_gaussian
 *                    epsilon of `event` (event.h) at `delta`, under `relation`
 *   analytic_eps     epsilon of one Gaussian of `sigma` at `delta`
 *   analytic_sigma   sigma of one Gaussian for (target_eps, delta)
 *   analytic_delta   delta of one Gaussian of `sigma` at target_eps
 *   inverse_sigma    sigma of `steps` Gaussians on samples of rate `q` for (target_eps, delta)
 *   rdp_order        Renyi DP of one Gaussian of `sigma` on a sample of rate `q` at order `alpha`
 *
 * Answers: id,kind,value,lower,upper,bound. `value` is what may be promised: never below the truth
 * (for sigma: never too little noise), and equal to `upper`; the truth is not below `lower`. Every
 * list is taken as fixed before its first event. A question that cannot be answered has an empty
 * value and, in quotes, the reason in place of the bound.
 */
#ifndef FL_PRIVACY_TABLE_H
#define FL_PRIVACY_TABLE_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

/* Calls `line` (one line without its end) for the answers' header and for each question. `file` is
 * for messages. *ret_refused: questions without an answer. -FL_R_DATA_FORMAT: no CSV with the
 * columns id and kind; -FL_R_NOMEM. */
int fl_privacy_table(const char *file, const char *text, size_t size,
                     void (*line)(void *arg, const char *text), void *arg, uint64_t *ret_refused,
                     struct fl_err *e);

#endif
