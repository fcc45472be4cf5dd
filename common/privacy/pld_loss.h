/*
 * The loss of one mechanism as masses on a grid; private to pld.c.
 *
 * A dominating pair (P, Q) and its loss l = ln dP/dQ. delta(epsilon) = E_P[(1 - e^(epsilon - l))+].
 */
#ifndef FL_PRIVACY_PLD_LOSS_H
#define FL_PRIVACY_PLD_LOSS_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

enum fl_loss_kind { FL_LOSS_GAUSSIAN, FL_LOSS_LAPLACE, FL_LOSS_ATOMS };

enum { FL_LOSS_ATOMS_MAX = 3 };

struct fl_loss {
    enum fl_loss_kind kind;
    double q, sigma; /* Gaussian; Laplace: sigma is the scale */
    uint32_t atoms;
    double at[FL_LOSS_ATOMS_MAX], mass[FL_LOSS_ATOMS_MAX], infinite;
    uint64_t count;
};

/* Which neighbour is which: with the unit against without (REMOVE), or the other way. Only a
 * sampled Gaussian has two. */
enum fl_loss_direction { FL_LOSS_REMOVE, FL_LOSS_ADD };
/* Rounded so that epsilon comes out too high, or too low. */
enum fl_loss_side { FL_LOSS_UPPER, FL_LOSS_LOWER };

struct fl_masses {
    double h;      /* step of the grid */
    int64_t first; /* p[j] sits at (first + j) h */
    size_t count;
    double *p;
    double infinite; /* mass at infinity (UPPER) */
};

/* The range of losses outside which P has at most `tail` on either end. */
void fl_loss_range(const struct fl_loss *l, enum fl_loss_direction direction, double tail,
                   double *ret_low, double *ret_high);
/* Masses on the grid of step h over [low, high]; p by fl_try, freed by the caller. False when
 * memory ends or the grid would have more than 2^26 points. tilt: where the masses that matter are
 * (only LOWER looks at it, to place its bins). */
int fl_loss_masses(const struct fl_loss *l, enum fl_loss_direction direction,
                   enum fl_loss_side side, double h, double low, double high, double tilt,
                   struct fl_masses *ret, struct fl_err *e);

#endif
