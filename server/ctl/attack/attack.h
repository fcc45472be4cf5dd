/*
 * Attacks on what a job's sites would release. The site is made up: pictures (or rows) of its own,
 * in the job's shape; the network, the steps, clip, grid and noise are the job's. The attacker
 * knows the job, the model before the round and everything that leaves, and is given more than a
 * real one has where that makes the attack stronger (the hypernetwork's hidden values).
 */
#ifndef SERVER_CTL_ATTACK_ATTACK_H
#define SERVER_CTL_ATTACK_ATTACK_H

#include "common/base/err.h"
#include "common/base/rng.h"
#include "common/nn/model.h"
#include "common/plan/plan.h"
#include "common/plan/releases.h"
#include "common/privacy/audit.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fl_attack {
    const struct fl_plan *plan;
    const struct fl_layout *l;
    struct fl_model *model;
    size_t features, goal_size; /* values of an input; bytes of what its output is compared with */
    float *shared, *private_;   /* the site as the job begins */
    float *after, *own;         /* and after a step */
    float *theta, *grad, *one;
    int64_t *q;
    uint8_t *packed;
    struct fl_rng rng, noise; /* of what is made up; of the job's noise */
};

/* -FL_R_PLAN_MODEL: a network that only a program knows; -FL_R_NOMEM, -FL_R_ENTROPY. seed 0: other
 * pictures each time. */
int fl_attack_new(const struct fl_plan *plan, uint64_t seed, struct fl_attack **ret,
                  struct fl_err *e);
void fl_attack_free(struct fl_attack *a);

/* An input of the network, normalised as the job's data are, with something that its class has in
 * common; and what the output is compared with. */
void fl_attack_picture(struct fl_attack *a, uint32_t class_, float *x);
void fl_attack_goal(struct fl_attack *a, uint32_t class_, void *goal);
/* How many classes a drill can use: 1 where the network predicts numbers. */
uint32_t fl_attack_classes(const struct fl_attack *a);

struct fl_attack_batch {
    const float *x;
    const void *y;
    size_t count;
};
/* One step of training at these vectors, with the unit's clip and noise where they belong into the
 * step; `factor` times the noise. */
int fl_attack_step(struct fl_attack *a, float *shared, float *private_,
                   const struct fl_attack_batch *b, double factor, struct fl_err *e);

/* Its parts, for drills that take their own steps. An example's gradient to the clip; noise of unit
 * example on a sum of gradients; a step from a->grad at a->theta, noised before. */
void fl_attack_clip(const struct fl_attack *a, float *g);
int fl_attack_noise(struct fl_attack *a, double factor, float *sum, struct fl_err *e);
int fl_attack_move(struct fl_attack *a, float *shared, float *private_, struct fl_err *e);
/* Unit client: an update (NULL: nothing) or, without clip, a sum of them, on the grid and noised.
 */
int fl_attack_send(struct fl_attack *a, const float *delta, bool clip, double factor, float *seen,
                   struct fl_err *e);

/* g [n, n], of which the lower half is read, becomes L with L L^T = g; x becomes the solution of
 * L L^T x. */
void fl_attack_factorize(double *g, size_t n);
void fl_attack_solve(const double *l, size_t n, double *x);

/* A piece of the shared vector. */
struct fl_attack_range {
    size_t first, count;
};
/* What leaves after one step from the job's beginning on this batch: the pieces asked for, one
 * after the other. The whole update is clipped; noise is drawn for these pieces only, which is what
 * somebody sees who looks at nothing else. */
int fl_attack_release(struct fl_attack *a, const struct fl_attack_batch *b, double factor,
                      const struct fl_attack_range *ranges, size_t count, double *seen,
                      struct fl_err *e);

/* ---- the layer that is attacked ---- */

/* The first dense layer: its rows' gradients are multiples of its input. */
struct fl_attack_dense {
    uint32_t layer;
    bool direct;    /* its input is the network's; else features of it */
    bool generated; /* by an affine hypernetwork; else stored as it is */
    size_t in, out;
    const struct fl_tensor *weight, *bias; /* in theta */
    struct fl_attack_range range[4];       /* weight, bias; weight.w, bias.w of a hypernetwork */
    size_t range_count, seen;              /* values of all ranges */
    size_t hidden;
    const char *name;
};
/* False with a reason in *ret_why when what leaves of that layer is not its gradient: it stays at
 * the site, or is made by a rule or another generator. */
bool fl_attack_find_dense(const struct fl_attack *a, struct fl_attack_dense *ret,
                          const char **ret_why);
/* The gradient at the layer, up to one factor, from what was seen: weight [out, in] and bias. For a
 * hypernetwork by a matched filter over its hidden values. */
int fl_attack_gather(const struct fl_attack *a, const struct fl_attack_dense *d, const double *seen,
                     double *weight, double *bias, struct fl_err *e);
/* The layer's input for one example at a->theta, d->in values: what is to be found; and the
 * gradient of its output, d->out values (NULL: not wanted). */
int fl_attack_truth(struct fl_attack *a, const struct fl_attack_dense *d, const float *x,
                    const void *y, float *ret, double *ret_flow, struct fl_err *e);

/* Values in [0, 1]: of a picture by the job's mean and std, of features by their range. */
struct fl_attack_scale {
    const struct fl_attack *a;
    bool direct;
    double least, most; /* of features */
};
void fl_attack_scale_of(const struct fl_attack *a, bool direct, const float *truth, size_t count,
                        struct fl_attack_scale *ret);
double fl_attack_scaled(const struct fl_attack_scale *s, size_t i, double value);
/* 10 log10(1 / mean square error) of values cut to [0, 1]; at most 400. guess NULL: flat grey of
 * the truth's mean. */
double fl_attack_psnr(const struct fl_attack_scale *s, const float *truth, const double *guess,
                      size_t count);

/* ---- drills ---- */

struct fl_inversion {
    uint32_t pictures;
    double psnr, grey; /* means over pictures, dB */
    double gain;       /* the most that one of them is above its own flat grey */
    double limit;      /* mean of what somebody finds who knows the output's gradient: what the grid
                          allows */
};
int fl_attack_invert(struct fl_attack *a, const struct fl_attack_dense *d, uint32_t pictures,
                     double factor, struct fl_inversion *ret, struct fl_err *e);

struct fl_imprint {
    uint32_t pictures, found; /* found: above 30 dB */
    double best, grey;        /* dB: of the best one, and of its flat grey */
    bool refused;             /* agents see the trap (common/nn/trap.h) */
};
/* False with a reason where the layers in front cannot be made to let a picture through. */
bool fl_attack_can_imprint(const struct fl_attack *a, const struct fl_attack_dense *d,
                           const char **ret_why);
int fl_attack_imprint(struct fl_attack *a, const struct fl_attack_dense *d, uint32_t pictures,
                      double factor, struct fl_imprint *ret, struct fl_err *e);

struct fl_membership {
    uint32_t trials, others; /* pictures in the batch beside the one that is asked about */
    double auc;              /* 0.5: guessing */
    struct fl_audit audit;   /* what the guesses prove of epsilon */
};
int fl_attack_membership(struct fl_attack *a, uint32_t trials, double factor,
                         struct fl_membership *ret, struct fl_err *e);

/* Data canaries through the whole job, with `factor` times its noise: what guesses prove. False of
 * can: releases that this attacker does not look at. work: about how many numbers it takes. */
bool fl_attack_can_audit(enum fl_release_kind kind);
uint64_t fl_attack_canary_work(const struct fl_plan *plan, enum fl_release_kind kind,
                               uint32_t canaries);
int fl_attack_canaries(struct fl_attack *a, enum fl_release_kind kind, uint32_t count,
                       double factor, struct fl_audit *ret, struct fl_err *e);

/* What one member of a few can do to a mean: accuracies in [0, 1] after some rounds. */
struct fl_poisoning {
    uint32_t members, rounds;
    double clean;   /* nobody attacks */
    double flip;    /* one member's labels are all the next class's */
    double scaling; /* one member sends the opposite of its update, as large as the grid lets it */
    double backdoor_clean, backdoor; /* pictures with a mark that are taken for class 0: without and
                                        with a member that trains it, boosted */
};
int fl_attack_poison(struct fl_attack *a, struct fl_poisoning *ret, struct fl_err *e);

#endif
