/*
 * The sign-flip test of paired differences (Fisher's randomization): were there no difference, the
 * sign of each would be a fair coin.
 */
#ifndef SERVER_CTL_SIGNFLIP_H
#define SERVER_CTL_SIGNFLIP_H

#include <stdint.h>

/* One-sided p: the probability that signs alone make a sum as large as that of these. Exact up to
 * 20 differences; beyond from 200,000 draws, always the same ones. 1 for none. */
double fl_sign_flip(const double *difference, uint32_t count);

#endif
