/*
 * The plan: one job's description, as both ends read it.
 *
 * A job is a YAML text. The coordinator checks it at submission, freezes it (text and digest) in
 * the record of every round, and sends that very text; the agent parses it again with the same code
 * and judges it by the site's own policy. So there is one grammar, one set of limits, and what a
 * site's administrator can read is what runs. `job set KEY=VALUE` appends to a trailing `set:`
 * mapping of dotted keys, applied after the rest.
 *
 * Every key with type, unit, range and default: deploy/docs/JOB.md.
 */
#ifndef FL_PLAN_PLAN_H
#define FL_PLAN_PLAN_H

#include "common/base/hash.h"
#include "common/nn/optim.h"
#include "common/nn/spec.h"
#include "common/plan/schema.h"

enum {
    FL_PLAN_TEXT_MAX = 64 * 1024,
    FL_PLAN_NAME_MAX = 64, /* of a job: letters, digits, '-', '_', '.'; first a letter or digit */
    FL_PLAN_EXCHANGES_MAX = 8,
    FL_PLAN_CHANNELS_MAX = 4,
    FL_PLAN_ROBUST_MAX = 1024, /* members of a job with an `aggregate` rule */
    FL_COUNTS_BITS = 32,       /* grid of the exchange `counts`: sixteenths, up to 2^27 */
    FL_COUNTS_STEP = -4,
    FL_PLAN_BUBBLES_MAX = 64,
    FL_CHOICE_BITS = 8,        /* of the exchange `choice`: the number of a model */
    FL_DESCRIPTOR_MAX = 16384, /* numbers of a descriptor */
    FL_SCORE_BITS = 32,        /* grid of the exchange `score`: up to 2048 */
    FL_SCORE_STEP = -20,
};

enum fl_unit {
    FL_UNIT_NONE,    /* no noise: no epsilon is ever printed */
    FL_UNIT_EXAMPLE, /* one example added or removed at a site; DP-SGD */
    FL_UNIT_CLIENT,  /* the whole site: its released update is clipped and noised */
};

/* Who adds the noise, unit `client` only. */
enum fl_noise_place {
    FL_NOISE_LOCAL,   /* each site, before its update leaves */
    FL_NOISE_CENTRAL, /* the coordinator, once, to the sum of all: it is trusted with the updates */
    FL_NOISE_DISTRIBUTED, /* each site a part of it, under masks: of the other members, no more than
                             the job assumes may give theirs away (common/plan/secure.h) */
};

/* Whether a site that trusts as `site` says takes part where the noise is at `asked`. */
const char *fl_noise_place_name(enum fl_noise_place place); /* "local", ... */

static inline bool fl_noise_trusts(enum fl_noise_place site, enum fl_noise_place asked)
{
    return asked == FL_NOISE_LOCAL || asked == site;
}

enum fl_weighting {
    FL_WEIGHT_EQUAL,
    FL_WEIGHT_EXAMPLES, /* by the site's declared number of examples, at most max_weight; not with a
                           unit */
};

struct fl_sgd {
    float lr, momentum, weight_decay;
    float
        clip; /* L2 clip on the gradient of a step, 0 = none (the published HyperFL clips at 50) */
};

enum fl_solver {
    FL_SOLVER_SGD,   /* steps, by the optimizer */
    FL_SOLVER_RIDGE, /* the last layer in closed form (common/nn/ridge.h) */
    FL_SOLVER_LOGISTIC,
};

struct fl_train_conf {
    enum fl_solver solver;
    float lambda;                 /* of the closed form */
    enum fl_optim_kind optimizer; /* of body and head; momentum is Adam's beta1 */
    float beta2;
    struct fl_schedule schedule; /* of all learning rates, over rounds */
    uint32_t batch;
    uint32_t epochs; /* local epochs of the body (or of everything) */
    uint32_t steps;  /* instead of epochs when > 0; under unit `example` always this many Poisson
                        batches */
    struct fl_sgd body;
    uint32_t head_epochs; /* two-stage (FedRep, HyperFL): head first, 0 = joint */
    struct fl_sgd head;
    uint32_t
        serve_epochs; /* tuning of the serving copy's head, which nothing released ever reads */
    float serve_lr;
};

/* How an example's gradient is clipped to C: as one vector, or each layer to C / sqrt(layers). */
enum fl_clipping { FL_CLIPPING_FLAT, FL_CLIPPING_PER_LAYER };

/* `privacy.adaptive` (common/plan/adaptive.h). */
struct fl_adaptive_conf {
    bool on;
    double quantile, rate;
    double noise_multiplier; /* noise std of the number of members within the clip */
    double min, max;         /* of the clip */
    double first;            /* clip of the first round: what the description says */
};

struct fl_privacy_conf {
    enum fl_unit unit;
    double clip; /* C, L2; adaptive: of one round, at first its first one's */
    struct fl_adaptive_conf adaptive;
    double noise_multiplier; /* sigma: noise std / C, per released sum (client) or per step
                                (example) */
    double epsilon, delta;   /* what the job aims at: noise_multiplier is resolved from it at
                                submission when absent */
    double sampling_rate;    /* q of the Poisson batches (example) */
    enum fl_noise_place noise;
    uint32_t tree; /* > 0: noise on the sums over rounds, in trees of so many rounds (DP-FTRL); a
                      site takes part once in a tree */
    enum fl_clipping clipping; /* (example) */
    uint32_t examples; /* the public constant by which sums are divided: q * examples (example) */
};

struct fl_grid_conf {
    uint32_t bits;   /* 8..32: width of a packed value */
    int32_t step;    /* log2 of the grid's step, e.g. -14 */
    uint32_t narrow; /* least bits a site may send updates in, 4 or 6 (common/math/narrow.h); 0: as
                        `bits` says */
};

struct fl_round_conf {
    uint32_t members;     /* how many updates are wanted */
    uint32_t quorum;      /* at least this many at the deadline */
    uint32_t over_select; /* invited beyond `members` */
    uint64_t deadline_ms; /* of collecting, from the first invitation */
    uint64_t fill_ms;     /* wait for candidates before inviting fewer than members + over_select */
    uint32_t attempts;    /* abandon and retry this often, then the job pauses */
    uint32_t late_rounds; /* a late offer of a committed update is acknowledged this many rounds */
};

/* How the coordinator steps along the mean update. */
enum fl_server_optimizer {
    FL_SERVER_AVERAGE, /* with momentum: FedAvgM */
    FL_SERVER_ADAGRAD,
    FL_SERVER_ADAM,
    FL_SERVER_YOGI,
    FL_SERVER_DYNAMIC, /* FedDyn's: m' = m + momentum mean, x' = x + mean + m' */
};

struct fl_server_opt_conf {
    enum fl_server_optimizer optimizer;
    float lr, momentum; /* 1, 0 = plain averaging; of the adaptive ones momentum is beta1, of the
                           dynamic one the part of all sites that a round has */
    float beta2, tau;   /* adaptive */
};

/* `aggregate`: what a slot's updates become instead of their mean (server/strategy/robust.h). */
enum fl_aggregate_rule {
    FL_AGGREGATE_MEAN,
    FL_AGGREGATE_MEDIAN,       /* of every coordinate */
    FL_AGGREGATE_TRIMMED_MEAN, /* of every coordinate, without the f lowest and f highest */
    FL_AGGREGATE_KRUM,
    FL_AGGREGATE_MULTI_KRUM,
    FL_AGGREGATE_GEOMETRIC_MEDIAN,
    FL_AGGREGATE_CENTERED_CLIPPING,
    FL_AGGREGATE_PCB, /* no robust rule: a merge of models (common/math/pcb.h) */
};

enum fl_aggregate_before {
    FL_AGGREGATE_AS_IS,
    FL_AGGREGATE_BUCKETING, /* means of `bucket` updates at random */
    FL_AGGREGATE_NEAREST,   /* each update becomes the mean of its n - f nearest */
};

enum fl_aggregate_start {
    FL_AGGREGATE_START_CLIPPED, /* the mean of the points clipped to their median norm */
    FL_AGGREGATE_START_ZERO,
};

/* What the coordinator holds against updates and agents (server/strategy/standing.h). */
struct fl_gates_conf {
    bool on;
    double norm, distance; /* at most so many times the middle member's; 0 = no such gate */
    double cosine;         /* at least, to the coordinate-wise median; -1 = no such gate */
    double decay;          /* of an agent's score, each round */
    double quarantine;     /* sigma from which an agent sits out */
};

struct fl_aggregate_conf {
    bool on;
    enum fl_aggregate_rule rule;
    enum fl_aggregate_before before;
    uint32_t byzantine; /* f: updates that may be anything */
    uint32_t bucket;
    uint32_t iterations; /* of the geometric median and centered clipping */
    double clip;         /* of each update, L2; 0 = none */
    double radius;       /* centered clipping: of each update's distance from the center */
    double smoothing;    /* geometric median: least distance */
    enum fl_aggregate_start start; /* geometric median */
    double keep, scale; /* pcb: what part of an update's values stays in the running; what
                           the merged ones are multiplied by */
    struct fl_gates_conf gates;
    double momentum; /* centered clipping: part of the last aggregate the center begins at */
};

struct fl_data_conf {
    uint32_t channels; /* length of mean and std: 0 = none, 1, or the input's channels */
    float mean[FL_PLAN_CHANNELS_MAX], std[FL_PLAN_CHANNELS_MAX];
    uint32_t crop;           /* training images: moved by up to so many pixels, edges 0; 0 = off */
    bool flip;               /* half of them mirrored left to right */
    struct fl_schema schema; /* of tables; count 0 = none */
};

/* The exchange `counts`: how many training examples of each class a site has, noised. */
struct fl_counts_conf {
    double noise_multiplier; /* noise std: of one example (unit example) or of `bound` (client); 0:
                                there is no such exchange */
    uint32_t bound; /* client: L2 norm of a site's counts, clipped; example: of each count */
    uint32_t every; /* again each so many rounds; 0: in the first round only */
};

/* The exchange `descriptor` (common/plan/descriptor.h), for strategies that tell sites apart. */
struct fl_descriptor_conf {
    bool on;                 /* the strategy's word */
    double noise_multiplier; /* noise std over the sensitivity; 0: not resolved yet */
    double share;            /* of privacy.epsilon, from which it is resolved when absent */
    double bound;            /* of a feature, and of a target that is a number */
    uint32_t features;       /* more are projected on so many directions */
    uint32_t every;          /* again each so many rounds; 0: in the first round only */
    uint32_t members;        /* sites that send one at a time at most; 0: as many as updates */
};

/* The exchange `score`, in a job's last round: what the model that a site would be served is worth
 * to it, by its validation examples; accuracy, or R2 cut to [0, 1]. */
struct fl_score_conf {
    bool on;
    double noise_multiplier; /* noise std of each site's score; 0: none (unit none only) */
};

/* Secure aggregation: the coordinator sees sums of updates only (common/plan/secure.h). */
struct fl_secure_conf {
    bool on;
    double corrupt, dropout; /* parts of the members: assumed to collude, to vanish in a round */
    uint32_t survivors;      /* a sum of fewer is never opened */
};

/* What sites do beside training the model they received (common/plan/beside.h). */
enum fl_local {
    FL_LOCAL_NOTHING,
    FL_LOCAL_DITTO,    /* train a model of their own, pulled to it */
    FL_LOCAL_APFL,     /* train a model of their own, mixed with it */
    FL_LOCAL_FEDALA,   /* mix it with their own of the round before, and train that */
    FL_LOCAL_SCAFFOLD, /* correct each step by control variates, and send theirs */
    FL_LOCAL_FEDDYN,   /* pull, and correct each step by what the rounds before left */
    FL_LOCAL_FEDDBE,   /* a mean of their own before the head; features pulled to the mean of all */
    FL_LOCAL_FEDPROTO, /* train alone, features pulled to the classes' means over sites */
};

/* fedka (common/plan/fedka.h). */
enum fl_fedka_variant { FL_FEDKA_BETTER, FL_FEDKA_PUBLISHED };
enum fl_fedka_target {
    FL_FEDKA_COORDINATOR, /* has examples of the target itself */
    FL_FEDKA_SITE,        /* the target is one of the sites, and sends a mean embedding only */
    FL_FEDKA_NONE,        /* domain generalisation: sites are matched to the mean of all of them */
};
struct fl_fedka_conf {
    enum fl_fedka_variant variant;
    enum fl_fedka_target target;
    char site[FL_PLAN_NAME_MAX]; /* the target's name, FL_FEDKA_SITE */
    float matching, disentangle; /* weights beside the loss; 0 = off */
    uint32_t frequencies;        /* of a mean embedding */
    bool voting;
    float confidence, agreement; /* below them an example gets no label: of the vote, and the part
                                    of the models that say the same */
    uint32_t examples, epochs;   /* voted on in a round at most; trained on the votes */
    uint32_t voters;             /* models that vote at most */
    bool guard;                  /* an aggregate that hurts is not published */
    double noise_multiplier;     /* of embeddings that sites send */
};
enum { FL_BUBBLE_MODEL_WORD = 16 };
/* By what sites come together (common/plan/plan_bubbles.c). */
enum fl_bubble_by {
    FL_BUBBLE_NONE,
    FL_BUBBLE_DESCRIPTOR, /* pacfl */
    FL_BUBBLE_CHOICE,     /* ifca: each site picks the model with the least loss on its data */
    FL_BUBBLE_SPLIT,      /* cfl: a bubble parts when its updates pull apart */
    FL_BUBBLE_ONCE,       /* flhc: one clustering of updates after some rounds */
    FL_BUBBLE_WEIGHTS,    /* fesem: to the model that is nearest to what a site trained */
};
enum fl_bubble_variant { FL_BUBBLE_BETTER, FL_BUBBLE_PUBLISHED };
struct fl_bubble_conf {
    enum fl_bubble_by by;
    enum fl_bubble_variant variant; /* pacfl */
    double laplace; /* pacfl, published: what the paper calls epsilon; 0: no noise */
    uint32_t rows;  /* likewise: left out one by one to see how far importances move; 0: all */
    char model[FL_BUBBLE_MODEL_WORD]; /* the strategy inside each bubble; empty: there are none */
    unsigned body;                    /* enum fl_bubble_body */
    uint32_t most;                    /* bubbles at most; ifca: of them */
    uint32_t minimum;                 /* sites of a bubble at least */
    uint32_t quorum;                  /* with fewer updates in a round it learns with its parent */
    uint32_t after;                   /* rounds before updates are compared (cfl: of a bubble) */
    double still;                     /* cfl: of the largest update, where the mean stands still */
    double silhouette, stability, hysteresis; /* server/strategy/bubbles.h */
};
enum fl_bubble_body { FL_BODY_OWN, FL_BODY_SHARED };

/* fedbuff: a round publishes when `size` updates are there, however many are still at work, and
 * theirs count in the next `staleness` ones. Weights are integers: one made for the round before
 * the last counts FL_BUFFER_FRESH / sqrt(1 + s), s = 1. */
struct fl_buffer_conf {
    uint32_t size; /* 0: there is no buffer */
    uint32_t staleness;
};
enum { FL_BUFFER_FRESH = 1024, FL_BUFFER_STALENESS_MAX = 64 };

/* Settings of single strategies; each has its own (plan_strategy.c), the others are 0. */
enum fl_personal_variant { FL_PERSONAL_BETTER, FL_PERSONAL_PUBLISHED };
struct fl_fedamp_conf {
    enum fl_personal_variant variant;
    double sigma; /* how fast weights fall with distance; better: in units of the mean distance */
    double self;  /* better: part of an agent's own model */
    double alpha; /* published: part of the others */
};
struct fl_pfedhn_conf {
    enum fl_personal_variant variant;
    uint32_t embedding, hidden;
    double lr, embedding_lr;
};
struct fl_fedcac_conf {
    enum fl_personal_variant variant;
    double tau;        /* part of each tensor that is critical */
    uint32_t beta;     /* published: rounds until critical weights stay with their agent */
    uint32_t partners; /* better: others that critical weights come from, at least */
    double decay;      /* better: of one who did not take part, each round */
};

struct fl_strategy_conf {
    enum fl_local local;
    float mu;       /* fedamp, fedprox: local training minimises loss + mu/2 |theta - received|^2 */
    uint32_t steps; /* fednova: an update is scaled to so many local steps; 0 = as it is */
    float lambda;   /* ditto: the same for the personal model; fedproto: weight of the pull */
    uint32_t epochs; /* ditto: of the personal model */
    float alpha; /* apfl: part of the own model in the mix, at first; feddyn: weight of the pull */
    bool learn;  /* apfl: alpha follows its gradient, one step a round */
    uint32_t layers; /* fedala: how many of the last layers are mixed by learned weights */
    float share;     /* fedala: part of the training examples that the weights learn from */
    float eta;       /* fedala: their learning rate */
    float kappa;     /* feddbe: weight of the pull of the mean features */
    float momentum;  /* feddbe: part of a batch in the running mean of features */
    uint32_t sites;  /* scaffold, feddyn: how many there are in all; 0: as many as a round has */
    struct fl_fedka_conf fedka;
    uint32_t homes; /* fedamp, fedcac, pfedhn: models of single agents at most */
    struct fl_fedamp_conf fedamp;
    struct fl_fedcac_conf fedcac;
    struct fl_pfedhn_conf pfedhn;
    struct fl_bubble_conf bubble;
    struct fl_buffer_conf buffer;
};

enum fl_trainer {
    FL_TRAINER_BUILTIN,
    FL_TRAINER_EXEC, /* the site's own program; which one is never in a job */
};

struct fl_plan {
    char name[FL_PLAN_NAME_MAX];
    char strategy[FL_PLAN_NAME_MAX];
    struct fl_strategy_conf setting;
    uint64_t rounds;
    uint64_t seed;
    enum fl_trainer trainer;
    struct fl_layout layout; /* model, visibility (from the strategy) and generator */
    struct fl_train_conf train;
    struct fl_privacy_conf privacy;
    struct fl_grid_conf grid;
    enum fl_weighting weighting;
    uint32_t max_weight;
    struct fl_round_conf round;
    struct fl_server_opt_conf server;
    struct fl_data_conf data;
    struct fl_counts_conf counts;
    struct fl_descriptor_conf descriptor;
    struct fl_score_conf score;
    struct fl_secure_conf secure;
    struct fl_aggregate_conf aggregate;
    struct fl_digest model_base; /* of a file that frozen tensors come from; zero = none */
    struct fl_digest digest;     /* of the text */
};

/* Parses and checks `text` (size <= FL_PLAN_TEXT_MAX, not terminated), which may be hostile. `file`
 * is for messages: "job.yaml:12:3: ...". A plan with a privacy unit but no noise multiplier yet is
 * accepted (see fl_plan_resolved). Errors: FL_R_CONF_*, FL_R_PLAN_*, FL_R_LIMIT. The struct is
 * large: keep it on the heap. */
int fl_plan_parse(struct fl_plan *ret, const char *file, const char *text, size_t size,
                  struct fl_err *e);

/* A new text with `key` (dotted, "round.deadline") set to `value` (YAML on one line) in the
 * trailing set: mapping, replacing an earlier one. The result parses, or nothing is returned.
 * *ret_text is terminated and freed by fl_free. fl_plan_set is for running jobs and refuses keys
 * that are fixed at submission (-FL_R_CONF_CONFLICT); fl_plan_override takes any key, before
 * submission. */
int fl_plan_set(const char *text, size_t size, const char *key, const char *value, char **ret_text,
                size_t *ret_size, struct fl_err *e);
int fl_plan_override(const char *text, size_t size, const char *key, const char *value,
                     char **ret_text, size_t *ret_size, struct fl_err *e);

/* True when the next round can take another value of this key. */
bool fl_plan_key_is_free(const char *key);

/* False while a plan with a unit has no noise multiplier: nothing may be released under it. */
bool fl_plan_resolved(const struct fl_plan *plan);

/* At submission: the text with privacy.noise_multiplier computed from epsilon and delta (unit
 * client: `rounds` releases with q = 1; unit example: rounds * steps events at sampling_rate) and
 * written by fl_plan_override; a copy when there is nothing to resolve. Errors of fl_plan_parse,
 * and -FL_R_ACCOUNTING. */
int fl_plan_resolve(const char *text, size_t size, char **ret_text, size_t *ret_size,
                    struct fl_err *e);

/* What serves a site is a model of its own, made from the received one and its private tensors. */
static inline bool fl_plan_personal(const struct fl_plan *plan)
{
    enum fl_local local = plan->setting.local;

    return local == FL_LOCAL_DITTO || local == FL_LOCAL_APFL || local == FL_LOCAL_FEDALA ||
           local == FL_LOCAL_FEDDBE;
}
/* The part of all sites that a round is meant to have: 0 to 1. */
static inline float fl_plan_part(const struct fl_plan *plan)
{
    uint32_t sites = plan->setting.sites, members = plan->round.members;

    return sites > members ? (float)members / (float)sites : 1;
}
/* The i-th word that `strategy` may be, NULL behind the last. */
const char *fl_plan_strategy_at(size_t i);

/* The i-th setting of the plan's strategy: a word, or NULL and a number (truth values: 0, 1).
 * False: there are no more. */
struct fl_setting {
    const char *name, *word;
    double number;
};
bool fl_plan_setting(const struct fl_plan *plan, uint32_t i, struct fl_setting *ret);
/* What an update may weigh in a sum at most; what a site may claim is its exchange's word. */
static inline uint32_t fl_plan_weight_max(const struct fl_plan *plan)
{
    return plan->weighting == FL_WEIGHT_EXAMPLES || plan->setting.buffer.size > 0 ? plan->max_weight
                                                                                  : 1;
}

/* The strategy that says what of the model travels and how it trains: the one inside the bubbles
 * where there are any, else the job's. */
static inline const char *fl_plan_model(const struct fl_plan *plan)
{
    return plan->setting.bubble.model[0] ? plan->setting.bubble.model : plan->strategy;
}

/* Where the head begins among the network's parameters; their number when there is no head. */
size_t fl_plan_head_offset(const struct fl_plan *plan);

/* Bytes of one update: ceil(shared.elements * bits / 8). */
size_t fl_plan_update_size(const struct fl_plan *plan);

#endif
