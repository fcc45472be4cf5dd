/*
 * The exact trade-off of one Gaussian release of noise multiplier sigma = 1 / mu (Balle, Wang
 * 2018):
 *
 *   delta(epsilon) = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)
 *
 * Many releases are one: mu^2 adds. Everything in logarithms, since delta may be 1e-86.
 */
#ifndef FL_PRIVACY_GAUSS_H
#define FL_PRIVACY_GAUSS_H

/* ln delta; mu > 0, epsilon >= 0. */
double fl_gauss_log_delta(double mu, double epsilon);
/* The smallest epsilon >= 0, to 1e-12 relative and never below; mu >= 0, 0 < delta < 1. */
double fl_gauss_epsilon(double mu, double delta);
/* The smallest sigma, likewise; epsilon >= 0, 0 < delta < 1. */
double fl_gauss_sigma(double epsilon, double delta);

#endif
