/* What the parts of the builtin trainer share: one training session. For this folder only. */
#ifndef CLIENT_TRAINER_SESSION_H
#define CLIENT_TRAINER_SESSION_H

#include "client/trainer/trainer.h"
#include "common/nn/model.h"
#include "common/nn/optim.h"
#include "common/nn/param/param.h"

struct fl_session {
    const struct fl_plan *plan;
    const struct fl_layout *layout;
    const struct fl_dataset *data;
    const atomic_bool *cancel; /* NULL = never */
    struct fl_spec *parts; /* [0] fixed layers at the front, [1] the rest; NULL = none is fixed */
    const struct fl_spec *spec;    /* what trains: the rest, or all of it */
    struct fl_model *front;        /* of parts[0] */
    struct fl_features *kept, own; /* what it made: the caller's, or the session's */
    size_t raw, features;          /* elements of one example, and of what trains sees of it */
    size_t body;            /* elements of theta before the head; all when there is no head */
    struct fl_spec *half;   /* [0] body, [1] head; NULL when the model has no head of its own */
    struct fl_model *model; /* of spec */
    float *theta, *grad;
    float *example;   /* one batch, normalised; x itself when nothing is fixed */
    float *x;         /* what trains sees of it */
    int32_t *y;       /* its labels, or */
    float *target;    /* its targets */
    const void *goal; /* one of them: what the model's functions take */
    size_t goal_size; /* bytes of one example's */
    size_t batch, shard;
    float rate;                    /* of this round: what learning rates are multiplied by */
    const struct fl_seed *augment; /* NULL = examples as they are; else `turn` counts batches */
    uint64_t turn;
    struct fl_represent *represent; /* what the loss has at the features; NULL: nothing */
    float *room;                    /* for that: one channel */
    struct fl_err failed;           /* an example could not be read; told by fl_session_cancelled */
};

/* batch: examples that fit into x and y. Data are checked against the model: -FL_R_DATA_SHAPE,
 * -FL_R_DATA_VALUE, -FL_R_NOMEM. kept: as in the task; features of fixed layers are made here. */
int fl_session_init(struct fl_session *s, const struct fl_plan *plan, const struct fl_dataset *data,
                    struct fl_features *kept, const atomic_bool *cancel, struct fl_err *e);
void fl_session_fini(struct fl_session *s);

/* -FL_R_CANCELLED when the task is to stop; or why an example could not be read since. */
int fl_session_cancelled(const struct fl_session *s, struct fl_err *e);
/* Features of all examples, unless they are kept already or there is no room (kept.c). */
int fl_session_features(struct fl_session *s, struct fl_err *e);
/* x = the examples numbered by `order` (NULL: first, first + 1, ...), normalised, and augmented
 * when the session says so; y likewise. One that cannot be read is 0 and ends the training at the
 * next fl_session_cancelled: every loop asks before each batch, and fl_session_evaluate at its end.
 */
void fl_session_load(struct fl_session *s, const struct fl_examples *from, const uint32_t *order,
                     size_t first, size_t count);
/* Test accuracy and mean loss at s->theta; NAN without test examples. */
int fl_session_evaluate(struct fl_session *s, double *ret_accuracy, double *ret_loss,
                        struct fl_errors *ret_errors, struct fl_err *e);
/* The n-th goal of the batch = that of example i. */
void fl_session_goal(struct fl_session *s, size_t n, const struct fl_examples *from, size_t i);

/* ---- how theta moves: parameter groups ---- */

/* A group of network tensors stored as they are, and the generator if there is one. */
struct fl_moves {
    struct fl_session *s;
    struct fl_optim body_optim, head_optim;
    float body_clip, head_clip;
    bool body, head;    /* which of them move */
    float *momentum;    /* theta.elements or NULL */
    float *square;      /* of Adam; theta.elements or NULL */
    uint64_t steps;     /* taken */
    float mu;           /* FedProx, Ditto: each step's gradient gets mu (theta - anchor) */
    float *anchor;      /* NULL when mu is 0 */
    float *shift;       /* SCAFFOLD, FedDyn: added to each gradient; NULL: nothing */
    struct fl_mix *mix; /* APFL: what trains beside each step; NULL: nothing */
    struct fl_generator *generator;
    struct fl_rules *rules;   /* NULL when theta is stored as it is, or all generated */
    float *shared, *private_; /* where generator and parts live */
};
/* The optimizer of the plan with these settings, at this round's rate. */
struct fl_optim fl_moves_optim(const struct fl_session *s, const struct fl_sgd *sgd);
/* Momentum starts at zero. steps: about how many. clip: whether the plan's step clips apply. */
int fl_moves_init(struct fl_moves *m, struct fl_session *s, bool body, bool head, bool clip,
                  float *shared, float *private_, uint64_t steps, struct fl_err *e);
void fl_moves_fini(struct fl_moves *m);
/* From here on each step is pulled to what s->theta is now. mu above 0. -FL_R_NOMEM. */
int fl_moves_pull(struct fl_moves *m, float mu, struct fl_err *e);
/* One step of s->theta from s->grad. */
void fl_moves_step(struct fl_moves *m);
/* Writes what moved back to shared and private_. */
void fl_moves_end(struct fl_moves *m);

/* ---- batches ---- */

/* The training examples in an order that is shuffled each time all of it was used. */
struct fl_order {
    struct fl_rng rng;
    uint32_t *at;
    size_t count, next; /* next is 0: a new epoch begins */
};
int fl_order_init(struct fl_order *o, const struct fl_seed *seed, const char *label, size_t count,
                  struct fl_err *e);
void fl_order_fini(struct fl_order *o); /* a zeroed one is fine */
/* Loads the next batch of the plan's size; how many that are. */
size_t fl_order_load(struct fl_order *o, struct fl_session *s);
/* Batches of so many epochs. */
uint64_t fl_session_batches(const struct fl_session *s, uint32_t epochs);

/* ---- the ways to train ---- */

struct fl_progress {
    double loss; /* mean of the last epoch */
    uint64_t steps;
};
/* Epochs over shuffled batches at s->theta (plain.c). */
int fl_train_head(struct fl_session *s, const struct fl_seed *seed, const char *label,
                  uint32_t epochs, const struct fl_sgd *sgd, struct fl_progress *p,
                  struct fl_err *e);
int fl_train_batches(struct fl_session *s, struct fl_moves *moves, const struct fl_seed *seed,
                     uint64_t steps, struct fl_progress *p, struct fl_err *e);
/* The last layer in closed form (solve.c). Shared or private_ and s->theta follow. */
int fl_train_solved(struct fl_session *s, float *shared, float *private_, struct fl_progress *p,
                    struct fl_err *e);
/* DP-SGD (example.c). */
int fl_train_noised(struct fl_session *s, struct fl_moves *moves, const struct fl_seed *seed,
                    struct fl_progress *p, struct fl_err *e);

#endif
