/*
 * Renyi differential privacy of one mechanism at an order alpha > 1: the larger of both directions
 * (unit added, unit removed), in nats, for one release.
 */
#ifndef FL_PRIVACY_RDP_H
#define FL_PRIVACY_RDP_H

#include "common/privacy/accountant.h"

#include <stdint.h>

enum { FL_RDP_ORDERS_MAX = 256 };

/* The grid of orders that is tracked: 1.02 .. 4096; returns how many. A superset of the grids of
 * the common libraries, denser between them. */
uint32_t fl_rdp_orders(double ret[FL_RDP_ORDERS_MAX]);

/* RDP of the event (its count included; delta of EPS_DELTA aside) at alpha > 1, up to infinity.
 * Never too low; relative excess of the subsampled Gaussian below 1e-9. The event has passed
 * fl_event_check. */
double fl_rdp(const struct fl_event *event, double alpha);

/* The Poisson-subsampled Gaussian alone (Mironov, Talwar, Zhang 2019). */
double fl_rdp_subsampled(double q, double sigma, double alpha);

/* The Gaussian on a share q drawn without replacement, one unit replaced (Wang, Balle,
 * Kasiviswanathan 2019, theorem 9, with the Gaussian's own moments). */
double fl_rdp_without_replacement(double q, double sigma, double alpha);

/* The smallest epsilon at delta, 0 < delta < 1, over orders: min rdp + ln(1 - 1/alpha) - (ln delta
 * + ln alpha) / (alpha - 1) (Canonne, Kamath, Steinke 2020, proposition 12), and 0 where the KL
 * bound already gives delta. *ret_best (may be NULL) is the order's index. */
double fl_rdp_epsilon(const double *alpha, const double *rdp, uint32_t count, double delta,
                      uint32_t *ret_best);
/* How much RDP an order may have for (epsilon, delta): the inverse of that rule; negative = none.
 */
double fl_rdp_budget(double alpha, double epsilon, double delta);

#endif
