/*
 * What an attacker's guesses prove about epsilon: auditing in one run (Steinke, Nasr, Jagielski
 * 2023, arXiv 2305.08846, theorem 5.2). m canaries are put in or left out by independent coins; the
 * attacker sees what was released and guesses about r of them. If the mechanism is (epsilon,
 * delta)-DP, then the number of right guesses is hardly larger than that of r coins which fall
 * right with probability e^epsilon / (1 + e^epsilon).
 */
#ifndef FL_PRIVACY_AUDIT_H
#define FL_PRIVACY_AUDIT_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* The probability of v or more right guesses of r, about m canaries, is at most this under
 * (epsilon, delta)-DP. v <= r <= m. */
double fl_audit_p(uint32_t m, uint32_t r, uint32_t v, double epsilon, double delta);
/* The largest epsilon that v right guesses refute with that confidence (0.95: p = 0.05); 0 when
 * they refute none. */
double fl_audit_lower(uint32_t m, uint32_t r, uint32_t v, double delta, double confidence);

struct fl_audit {
    double lower; /* epsilon is above this, with 95 % confidence */
    uint32_t guesses, right;
};
/* The best of a few ways to guess, with the confidence shared among them: the k highest scores were
 * in, the k lowest out. -FL_R_NOMEM; -FL_R_ARG: fewer than 32 canaries. */
int fl_audit_scores(const double *score, const bool *in, uint32_t m, double delta,
                    struct fl_audit *ret, struct fl_err *e);

#endif
