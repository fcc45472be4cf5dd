/*
 * FedKA (Sun et al. 2022, arXiv 2203.11635): federated domain adaptation. Sites have labels, each
 * for its own domain; the model is wanted for another one, the target, of which there are only
 * unlabelled examples. Three parts, each with its switch:
 *
 *   matching     local training pulls the mean embedding of a batch of features to the target's
 *   disentangle  local training makes features that a discriminator cannot tell from the target's
 *   voting       the members' models vote on the target's examples; the coordinator trains the
 *                aggregate on what they agree upon
 *
 * What both ends and the coordinator's own worker agree on is here: sizes, and the bytes that an
 * exchange begins with. All numbers little-endian. The features are what the head's first layer
 * takes: `width` numbers an example. A mean embedding is the mean of phi (common/math/rff.h) of
 * their directions (lengths grow with training, and would be held back) at the bandwidth beside it,
 * with frequencies from the job's seed.
 */
#ifndef FL_PLAN_FEDKA_H
#define FL_PLAN_FEDKA_H

#include "common/base/rng.h"
#include "common/plan/plan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FL_FEDKA_FEATURES = 256,       /* of the target: that the coordinator gives to sites */
    FL_FEDKA_EMBEDDING_BITS = 32,  /* grid of the exchange `embedding` */
    FL_FEDKA_EMBEDDING_STEP = -22, /* values up to 2^9: room for the noise of any multiplier */
    FL_FEDKA_WIDTH_MAX = 8192,     /* of features: FL_FEDKA_FEATURES of them are 8 MiB */
    FL_FEDKA_BATCH_MAX = 1024,     /* a batch is matched as a whole */
};

bool fl_fedka_is(const struct fl_plan *plan);
/* Numbers of one example's features; 0: the head does not begin with a linear layer on a vector. */
size_t fl_fedka_width(const struct fl_plan *plan);
/* Length of a mean embedding. */
static inline size_t fl_fedka_embedding(const struct fl_plan *plan)
{
    return 2 * (size_t)plan->setting.fedka.frequencies;
}
/* The seed of the frequencies. */
void fl_fedka_seed(const struct fl_plan *plan, struct fl_seed *ret);
/* Sites send mean embeddings of their own examples: there is an exchange `embedding`. Its payload
 * is the embedding, and 1 behind it if it is the target's (the target is public: the job names it).
 */
bool fl_fedka_collects(const struct fl_plan *plan);
/* `update` begins with something. */
bool fl_fedka_gives(const struct fl_plan *plan);
/* Where training stands: 2 / (1 + exp(-5 p)) - 1, p from 0 to 1 over all steps of the job (Ganin
 * et al. 2016, arXiv 1505.07818, with FedKA's 5). `part` of this round's steps are done. */
float fl_fedka_ramp(uint64_t round, uint64_t rounds, double part);

/* ---- what `embedding` and `update` begin with ---- */

struct fl_fedka_input {
    bool is_target;   /* who gets this is the target: it does not train */
    bool known;       /* there is an embedding; in a job's first rounds there may be none */
    double bandwidth; /* above 0 */
    size_t width, length, features;
    const float *mean; /* length = fl_fedka_embedding; NULL when not known */
    const float *z;    /* features * width */
};
/* Bytes of it. */
size_t fl_fedka_input_size(const struct fl_fedka_input *in);
void fl_fedka_input_put(const struct fl_fedka_input *in, uint8_t *to);
/* Checks what a peer made against the plan: sizes, finite numbers. `*ret_numbers` is what mean and
 * z point into; fl_free. -FL_R_UPDATE_SHAPE, -FL_R_NOT_FINITE, -FL_R_NOMEM. */
int fl_fedka_input_get(const struct fl_plan *plan, const uint8_t *from, size_t size,
                       struct fl_fedka_input *ret, float **ret_numbers, struct fl_err *e);

/* ---- what the coordinator asks of its worker of target data, and what that answers ---- */

/* What was published in the end. */
enum fl_fedka_choice {
    FL_FEDKA_AGGREGATE, /* the mean of the members */
    FL_FEDKA_TUNED,     /* trained on votes */
    FL_FEDKA_PREVIOUS,  /* the model before: the aggregate hurts */
    FL_FEDKA_CHOICES
};

/* One round on the target. Accuracies are of the labelled part of the target's data, that nothing
 * is trained on; NAN without one. */
struct fl_fedka_score {
    uint64_t round;
    uint32_t models;           /* that voted, and whose accuracy was taken */
    uint32_t examples, agreed; /* unlabelled ones that were voted on, and that got a label */
    uint32_t labelled;         /* examples of the labelled part */
    double previous, members, aggregate, tuned; /* members: the mean of theirs */
    uint32_t harm; /* rounds in a row, up to this one, whose Group Effect is below 0 */
    uint32_t kept; /* rounds so far in which the previous model was published */
    enum fl_fedka_choice choice;
};
enum { FL_FEDKA_SCORE_SIZE = 72 };
void fl_fedka_score_put(const struct fl_fedka_score *s, uint8_t *to);
void fl_fedka_score_get(const uint8_t *from, struct fl_fedka_score *ret);
/* Group Effect: what averaging by itself brought on the target, aggregate - members. */
static inline double fl_fedka_effect(const struct fl_fedka_score *s)
{
    return s->aggregate - s->members;
}

/* The ask: the score of the round before (zeroed in the first), of which `round` and `models` are
 * this round's. The models follow in a file of their own: previous, aggregate, members. The answer:
 * the score, an input (fl_fedka_input_put) of FL_FEDKA_FEATURES features or as many as there are,
 * its length before it (8 bytes), then the model. */
enum { FL_FEDKA_ANSWER_HEAD = FL_FEDKA_SCORE_SIZE + 8 };

#endif
