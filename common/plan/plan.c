/*
 * A job's text becomes a plan: tables for every key (deploy/docs/JOB.md is their description for
 * people), the layers (plan_layers.c), then the rules between keys (plan_check.c).
 *
 * The one word `strategy` decides which tensors travel; the rest of the file means the same under
 * all of them, so that a federation can be compared with its neighbours by changing that word.
 * What a strategy does not use is still checked and then ignored: the generator without hyperfl,
 * the head's own stage without a private head.
 */
#include "common/plan/plan.h"

#include "common/base/conf.h"
#include "common/base/mem.h"
#include "common/math/grid.h"
#include "common/nn/param/param.h"
#include "common/plan/plan_check.h"
#include "common/plan/secure.h"

#include <stdio.h>
#include <string.h>

struct generator_raw {
    unsigned kind; /* index into generator_words: one less than the enum, which begins with none */
    uint32_t embedding, hidden, chunk;
    bool scaled;
};

struct model_raw {
    const struct fl_conf_node *input;
    uint32_t classes, targets, head;
    const struct fl_conf_node *loss;
    const struct fl_conf_node *layers, *tensors, *parameters;
    char base[FL_DIGEST_HEX];
};

/* What the tables fill. */
struct raw {
    struct fl_plan plan;
    struct model_raw model;
    const struct fl_conf_node *strategy, *generator, *table, *server, *aggregate;
    uint32_t std_count;
};

static const char *const clipping_words[] = {"flat", "per_layer", NULL};
static const char *const noise_words[] = {"local", "central", "distributed", NULL};
static const char *const unit_words[] = {"none", "example", "client", NULL};
static const char *const trainer_words[] = {"builtin", "exec", NULL};
static const char *const optimizer_words[] = {"sgd", "nesterov", "adam", "adamw", NULL};
static const char *const solver_words[] = {"sgd", "ridge", "logistic", NULL};
static const char *const schedule_words[] = {"constant", "cosine", "step", NULL};
static const char *const weight_words[] = {"equal", "examples", NULL};
static const char *const generator_words[] = {"affine", "chunked", "kronecker", NULL};

const char *fl_noise_place_name(enum fl_noise_place place)
{
    return noise_words[place];
}

/* ---- tables ---- */

#define TYPED(key, kind, m) .name = key, .type = FL_CONF_##kind, .offset = offsetof(struct OF, m)

#define OF fl_train_conf
#define SGD_KEYS(part)                                                                             \
    {TYPED("momentum", FLOAT, part.momentum), .max = 1, .flags = FL_CONF_BELOW_MAX,                \
     .fallback = "0"},                                                                             \
        {TYPED("weight_decay", FLOAT, part.weight_decay), .max = 1, .fallback = "0"},              \
    {                                                                                              \
        TYPED("clip", FLOAT, part.clip), .max = 1e6, .fallback = "0"                               \
    }

static const struct fl_conf_field head_keys[] = {
    {TYPED("epochs", UINT32, head_epochs), .max = 1000, .fallback = "0"},
    {TYPED("lr", FLOAT, head.lr), .max = 100, .flags = FL_CONF_ABOVE_MIN},
    SGD_KEYS(head),
    {.name = NULL},
};
static const struct fl_conf_field serve_keys[] = {
    {TYPED("epochs", UINT32, serve_epochs), .max = 1000, .fallback = "0"},
    {TYPED("lr", FLOAT, serve_lr), .max = 100, .flags = FL_CONF_ABOVE_MIN},
    {.name = NULL},
};
static const struct fl_conf_field schedule_keys[] = {
    {TYPED("kind", ENUM, schedule.kind), .words = schedule_words, .fallback = "constant"},
    {TYPED("warmup", UINT32, schedule.warmup), .max = 1e6, .fallback = "0"},
    {TYPED("every", UINT32, schedule.every), .min = 1, .max = 1e6, .fallback = "10"},
    {TYPED("gamma", FLOAT, schedule.gamma), .max = 1, .fallback = "0.1"},
    {.name = NULL},
};
static const struct fl_conf_field train_keys[] = {
    {TYPED("batch", UINT32, batch), .min = 1, .max = 65536, .fallback = "32"},
    {TYPED("epochs", UINT32, epochs), .max = 1000, .fallback = "1"},
    {TYPED("steps", UINT32, steps), .max = 1e6, .fallback = "0"},
    {TYPED("lr", FLOAT, body.lr), .max = 100, .flags = FL_CONF_ABOVE_MIN},
    SGD_KEYS(body),
    {TYPED("solver", ENUM, solver), .words = solver_words, .fallback = "sgd"},
    {TYPED("lambda", FLOAT, lambda), .max = 1e6, .flags = FL_CONF_ABOVE_MIN, .fallback = "0.001"},
    {TYPED("optimizer", ENUM, optimizer), .words = optimizer_words, .fallback = "sgd"},
    {TYPED("beta2", FLOAT, beta2), .max = 1, .flags = FL_CONF_BELOW_MAX, .fallback = "0.999"},
    {.name = "schedule", .type = FL_CONF_MAP, .fields = schedule_keys},
    {.name = "head", .type = FL_CONF_MAP, .fields = head_keys},
    {.name = "serve", .type = FL_CONF_MAP, .fields = serve_keys},
    {.name = NULL},
};
#undef OF

#define OF fl_round_conf
static const struct fl_conf_field round_keys[] = {
    {TYPED("members", UINT32, members), .min = 1, .max = 100000, .flags = FL_CONF_REQUIRED},
    {TYPED("quorum", UINT32, quorum), .min = 1, .max = 100000},
    {TYPED("over_select", UINT32, over_select), .max = 100000, .fallback = "0"},
    {TYPED("deadline", DURATION, deadline_ms), .min = 100, .max = 30 * 86400e3, .fallback = "10m"},
    {TYPED("fill", DURATION, fill_ms), .max = 7 * 86400e3, .fallback = "10s"},
    {TYPED("attempts", UINT32, attempts), .min = 1, .max = 1000, .fallback = "5"},
    {TYPED("late_rounds", UINT32, late_rounds), .max = 1000, .fallback = "3"},
    {.name = NULL},
};
#undef OF

#define OF fl_privacy_conf
static const struct fl_conf_field adaptive_keys[] = {
    {TYPED("quantile", DOUBLE, adaptive.quantile), .max = 1,
     .flags = FL_CONF_ABOVE_MIN | FL_CONF_BELOW_MAX, .fallback = "0.5"},
    {TYPED("rate", DOUBLE, adaptive.rate), .max = 1, .flags = FL_CONF_ABOVE_MIN, .fallback = "0.2"},
    {TYPED("noise_multiplier", DOUBLE, adaptive.noise_multiplier), .max = 1e6,
     .flags = FL_CONF_ABOVE_MIN},
    {TYPED("min", DOUBLE, adaptive.min), .max = 1e6, .flags = FL_CONF_ABOVE_MIN},
    {TYPED("max", DOUBLE, adaptive.max), .max = 1e6, .flags = FL_CONF_ABOVE_MIN},
    {.name = NULL},
};
static const struct fl_conf_field privacy_keys[] = {
    {.name = "adaptive", .type = FL_CONF_MAP, .fields = adaptive_keys},
    {TYPED("unit", ENUM, unit), .words = unit_words, .fallback = "none"},
    {TYPED("clip", DOUBLE, clip), .max = 1e6, .fallback = "0"},
    {TYPED("clipping", ENUM, clipping), .words = clipping_words, .fallback = "flat"},
    {TYPED("noise_multiplier", DOUBLE, noise_multiplier), .max = 1e4, .flags = FL_CONF_ABOVE_MIN},
    {TYPED("epsilon", DOUBLE, epsilon), .max = 1000, .flags = FL_CONF_ABOVE_MIN},
    {TYPED("delta", DOUBLE, delta), .max = 1, .flags = FL_CONF_ABOVE_MIN | FL_CONF_BELOW_MAX},
    {TYPED("sampling_rate", DOUBLE, sampling_rate), .max = 1, .flags = FL_CONF_ABOVE_MIN},
    {TYPED("examples", UINT32, examples), .min = 1, .max = 1e9},
    {TYPED("noise", ENUM, noise), .words = noise_words, .fallback = "local"},
    {TYPED("tree", UINT32, tree), .max = 1 << 20, .fallback = "0"},
    {.name = NULL},
};
#undef OF

#define OF fl_grid_conf
static const struct fl_conf_field grid_keys[] = {
    {TYPED("bits", UINT32, bits), .min = 8, .max = 32, .fallback = "16"},
    {TYPED("step", INT32, step), .min = -40, .max = 10, .fallback = "-14"},
    {TYPED("narrow", UINT32, narrow), .max = 6, .fallback = "0"},
    {.name = NULL},
};
#undef OF

#define OF fl_counts_conf
static const struct fl_conf_field counts_keys[] = {
    {TYPED("noise_multiplier", DOUBLE, noise_multiplier), .max = 1e4, .fallback = "0"},
    {TYPED("bound", UINT32, bound), .min = 1, .max = 100000, .fallback = "10000"},
    {TYPED("every", UINT32, every), .max = 1e6, .fallback = "0"},
    {.name = NULL},
};
#undef OF

#define OF fl_secure_conf
static const struct fl_conf_field secure_keys[] = {
    {TYPED("corrupt", DOUBLE, corrupt), .max = 0.49, .fallback = "0.1"},
    {TYPED("dropout", DOUBLE, dropout), .max = 0.49, .fallback = "0.1"},
    {TYPED("survivors", UINT32, survivors), .min = 3, .max = 100000},
    {.name = NULL},
};
#undef OF

#define OF fl_score_conf
static const struct fl_conf_field score_keys[] = {
    {TYPED("noise_multiplier", DOUBLE, noise_multiplier), .max = 100, .fallback = "0"},
    {.name = NULL},
};
#undef OF

#define OF raw
static const struct fl_conf_field data_keys[] = {
    {TYPED("mean", FLOATS, plan.data.mean), .min = -1e6, .max = 1e6,
     .items_max = FL_PLAN_CHANNELS_MAX, .count_offset = offsetof(struct raw, plan.data.channels)},
    {TYPED("std", FLOATS, plan.data.std), .max = 1e6, .flags = FL_CONF_ABOVE_MIN,
     .items_max = FL_PLAN_CHANNELS_MAX, .count_offset = offsetof(struct raw, std_count)},
    {TYPED("crop", UINT32, plan.data.crop), .max = 64, .fallback = "0"},
    {TYPED("flip", BOOL, plan.data.flip), .fallback = "false"},
    {TYPED("table", NODE, table)},
    {.name = NULL},
};
static const struct fl_conf_field model_keys[] = {
    {TYPED("input", NODE, model.input), .flags = FL_CONF_REQUIRED},
    {TYPED("classes", UINT32, model.classes), .min = 2, .max = 100000},
    {TYPED("targets", UINT32, model.targets), .min = 1, .max = 100000},
    {TYPED("loss", NODE, model.loss)},
    {TYPED("head", UINT32, model.head), .min = 1, .max = FL_SPEC_LAYERS_MAX, .fallback = "1"},
    {TYPED("layers", NODE, model.layers)},
    {TYPED("tensors", NODE, model.tensors)},
    {TYPED("parameters", NODE, model.parameters)},
    {TYPED("base", STRING, model.base), .size = FL_DIGEST_HEX},
    {.name = NULL},
};
static const struct fl_conf_field plan_keys[] = {
    {TYPED("name", STRING, plan.name), .size = FL_PLAN_NAME_MAX, .flags = FL_CONF_REQUIRED},
    {TYPED("strategy", NODE, strategy), .flags = FL_CONF_REQUIRED},
    {TYPED("rounds", UINT64, plan.rounds), .min = 1, .max = 1e6, .flags = FL_CONF_REQUIRED},
    {TYPED("seed", UINT64, plan.seed), .fallback = "1"},
    {TYPED("trainer", ENUM, plan.trainer), .words = trainer_words, .fallback = "builtin"},
    {.name = "model", .type = FL_CONF_MAP, .fields = model_keys, .flags = FL_CONF_REQUIRED},
    {TYPED("hypernetwork", NODE, generator)},
    {TYPED("train", MAP, plan.train), .fields = train_keys, .flags = FL_CONF_REQUIRED},
    {TYPED("round", MAP, plan.round), .fields = round_keys, .flags = FL_CONF_REQUIRED},
    {TYPED("grid", MAP, plan.grid), .fields = grid_keys},
    {TYPED("weights", ENUM, plan.weighting), .words = weight_words, .fallback = "equal"},
    {TYPED("max_weight", UINT32, plan.max_weight), .min = 1, .max = 1e6, .fallback = "10000"},
    {TYPED("privacy", MAP, plan.privacy), .fields = privacy_keys},
    {TYPED("server", NODE, server)},
    {.name = "data", .type = FL_CONF_MAP, .fields = data_keys},
    {TYPED("counts", MAP, plan.counts), .fields = counts_keys},
    {TYPED("aggregate", NODE, aggregate)},
    {TYPED("descriptor", MAP, plan.descriptor), .fields = fl_plan_descriptor_keys},
    {TYPED("score", MAP, plan.score), .fields = score_keys},
    {TYPED("secure_aggregation", MAP, plan.secure), .fields = secure_keys},
    {.name = NULL},
};
#undef OF

#define OF generator_raw
static const struct fl_conf_field generator_keys[] = {
    {TYPED("kind", ENUM, kind), .words = generator_words, .fallback = "affine"},
    {TYPED("embedding", UINT32, embedding), .min = 1, .max = 65536, .fallback = "64"},
    {TYPED("hidden", UINT32, hidden), .min = 1, .max = 65536, .fallback = "3"},
    {TYPED("chunk", UINT32, chunk), .min = 1, .max = 1 << 26, .fallback = "1024"},
    {TYPED("scaled", BOOL, scaled), .fallback = "true"},
    {.name = NULL},
};
static const struct fl_conf_field generator_word[] = {
    {TYPED("hypernetwork", ENUM, kind), .words = generator_words},
    {.name = NULL},
};
#undef OF

/* ---- sections that are not tables ---- */

/* Absent: the small scaled one. One word: `affine` is the published one, the others their
 * defaults. */
static int get_generator(const struct fl_conf_node *n, const struct fl_conf_node *root,
                         struct fl_generator_conf *ret, struct fl_err *e)
{
    struct generator_raw g = {0};
    struct fl_conf_node map = {
        .kind = FL_CONF_KIND_MAP, .line = root->line, .column = root->column, .conf = root->conf};
    struct fl_conf_node only;
    bool word = n && n->kind == FL_CONF_KIND_SCALAR && !fl_conf_is_map(n);

    int r = fl_conf_decode(n && !word ? n : &map, generator_keys, &g, e);
    if (r == 0 && word) {
        only = *n;
        only.next = NULL;
        map.first = map.last = &only;
        map.count = 1;
        r = fl_conf_decode(&map, generator_word, &g, e);
    }
    if (r) {
        return r;
    }
    if (word && g.kind == 0) {
        g.hidden = 128;
        g.scaled = false;
    }
    *ret = (struct fl_generator_conf){.kind = (enum fl_generator_kind)(g.kind + 1),
                                      .embedding = g.embedding,
                                      .hidden = g.hidden,
                                      .chunk = g.chunk,
                                      .scaled = g.scaled};
    return 0;
}

/* Layers are computed here; a list of tensors only a program can train. */
static int check_kind(const struct raw *raw, const struct fl_conf_node *root, struct fl_err *e)
{
    const struct model_raw *m = &raw->model;

    if (!m->layers == !m->tensors) {
        return fl_conf_fail(e, fl_plan_at(root, "model"),
                            m->layers ? FL_R_CONF_CONFLICT : FL_R_CONF_MISSING,
                            "a model has either layers or tensors");
    }
    if (m->tensors && raw->plan.trainer != FL_TRAINER_EXEC) {
        return fl_conf_fail(e, m->tensors, FL_R_CONF_CONFLICT,
                            "a list of tensors can only be trained by programs: trainer: exec");
    }
    if (m->parameters && raw->plan.trainer == FL_TRAINER_EXEC) {
        return fl_conf_fail(
            e, m->parameters, FL_R_CONF_CONFLICT,
            "rules are for the builtin trainer: a program makes its weights itself");
    }
    return 0;
}

static int get_listed(struct raw *raw, const struct fl_spec *spec, enum fl_visibility visibility,
                      const char *file, struct fl_err *e)
{
    struct fl_tensors *list = fl_try(1, sizeof *list);

    int r = list ? fl_plan_tensors(raw->model.tensors, list, e)
                 : fl_fail(e, FL_R_NOMEM, "out of memory");
    if (r == 0) {
        r = fl_layout_listed(&raw->plan.layout, spec, visibility, list, e);
        r = r ? fl_wrap(e, r, "%s: model", file) : 0;
    }
    fl_free(list);
    return r;
}

/* model.base names a file by its digest: some tensors must come from it. */
static int get_base(struct raw *raw, const struct fl_conf_node *root, struct fl_err *e)
{
    if (!raw->model.base[0]) {
        return 0;
    }
    if (!fl_digest_from_hex(raw->model.base, &raw->plan.model_base)) {
        return fl_conf_fail(e, fl_plan_at(root, "model.base"), FL_R_CONF_TYPE,
                            "64 hexadecimal digits are wanted: the BLAKE2b-256 of a file");
    }
    return fl_param_frozen(&raw->plan.layout)
               ? 0
               : fl_conf_fail(e, fl_plan_at(root, "model.base"), FL_R_CONF_CONFLICT,
                              "no rule of model.parameters freezes anything: nothing would be "
                              "taken from it");
}

static int get_model(struct raw *raw, const struct fl_conf_node *root, const char *file,
                     struct fl_err *e)
{
    const struct fl_train_conf *t = &raw->plan.train;
    struct fl_spec spec = {.seed = raw->plan.seed,
                           .ridge = t->solver != FL_SOLVER_SGD ? t->lambda : 0,
                           .logistic = t->solver == FL_SOLVER_LOGISTIC,
                           .classes = raw->model.classes,
                           .targets = raw->model.targets,
                           .head = raw->model.head};
    struct fl_generator_conf generator;
    enum fl_visibility visibility = FL_VISIBILITY_ALL_PRIVATE;

    int r = fl_plan_strategy(raw->strategy, &raw->plan, &visibility, e);
    if (r == 0) {
        r = fl_plan_loss(raw->model.loss, fl_plan_at(root, "model"), &spec, e);
    }
    if (r == 0) {
        r = get_generator(raw->generator, root, &generator, e);
    }
    if (r == 0) {
        r = check_kind(raw, root, e);
    }
    if (r == 0) {
        r = fl_plan_input(raw->model.input, &raw->plan.data.schema, root, &spec, e);
    }
    if (r == 0 && raw->model.layers) {
        r = fl_plan_layers(raw->model.layers, &spec, e);
    }
    if (r) {
        return r;
    }
    if (raw->model.tensors) {
        return get_listed(raw, &spec, visibility, file, e);
    }
    r = fl_spec_check(&spec, e);
    if (r == 0 && raw->model.parameters) {
        r = fl_plan_parameters(raw->model.parameters, &spec, e);
        if (r) {
            return r;
        }
    }
    if (r == 0) {
        bool generated = visibility == FL_VISIBILITY_BODY_GENERATED;
        r = fl_layout_init(&raw->plan.layout, &spec, visibility, generated ? &generator : NULL, e);
    }
    return r ? fl_wrap(e, r, "%s: model", file) : 0;
}

/* What is left out follows what is there: the head trains as the body does, unless told. */
static void fill_in(struct raw *raw, const struct fl_conf_node *root)
{
    struct fl_train_conf *t = &raw->plan.train;
    enum fl_visibility v = raw->plan.layout.visibility;

    if (t->head.lr == 0) {
        t->head.lr = t->body.lr;
    }
    if (t->optimizer >= FL_OPTIM_ADAM && !fl_conf_find(root, "train.momentum")) {
        t->body.momentum = 0.9f;
    }
    if (!fl_conf_find(root, "train.head.momentum")) {
        t->head.momentum = t->body.momentum;
    }
    if (!fl_conf_find(root, "train.head.weight_decay")) {
        t->head.weight_decay = t->body.weight_decay;
    }
    if (t->serve_lr == 0) {
        t->serve_lr = t->head.lr;
    }
    if (v == FL_VISIBILITY_ALL_SHARED || v == FL_VISIBILITY_ALL_PRIVATE ||
        v == FL_VISIBILITY_NORMS_PRIVATE || strcmp(fl_plan_model(&raw->plan), "fedper") == 0) {
        t->head_epochs = 0; /* no head apart from the body, or one that trains with it */
    }
    fl_plan_buffer_defaults(&raw->plan);
    if (raw->plan.round.quorum == 0) {
        raw->plan.round.quorum = raw->plan.round.members;
    }
    if (raw->plan.weighting == FL_WEIGHT_EQUAL && raw->plan.setting.buffer.size == 0) {
        raw->plan.max_weight = 1;
    }
    raw->plan.score.on = fl_conf_find(root, "score") != NULL;
    raw->plan.secure.on = fl_conf_find(root, "secure_aggregation") != NULL;
    if (raw->plan.secure.survivors == 0) {
        raw->plan.secure.survivors = fl_plan_secure_survivors(&raw->plan);
    }
}

static int parse(struct raw *raw, const char *file, struct fl_conf *c, struct fl_err *e)
{
    const struct fl_conf_node *root = fl_conf_root(c);

    int r = fl_conf_overlay(c, "set", e);
    if (r == 0) {
        r = fl_conf_decode(root, plan_keys, raw, e);
    }
    if (r == 0 && raw->table) {
        r = fl_schema_parse(raw->table, &raw->plan.data.schema, e);
    }
    if (r == 0) {
        r = get_model(raw, root, file, e);
    }
    if (r == 0) {
        r = get_base(raw, root, e);
    }
    if (r == 0) {
        r = fl_plan_server(raw->server, &raw->plan, e);
    }
    if (r == 0) {
        r = fl_plan_beside(&raw->plan, root, e);
    }
    if (r == 0 && raw->aggregate) {
        r = fl_plan_aggregate(raw->aggregate, &raw->plan.aggregate, e);
    }
    if (r == 0) { /* behind all other tensors */
        r = fl_plan_adaptive(&raw->plan, root, e);
    }
    if (r) {
        return r;
    }
    if (raw->std_count != raw->plan.data.channels) {
        return fl_conf_fail(e, fl_plan_at(root, "data"), FL_R_CONF_CONFLICT,
                            "mean has %u numbers and std %u", raw->plan.data.channels,
                            raw->std_count);
    }
    fill_in(raw, root);
    r = fl_plan_check_fedka(&raw->plan, root, e);
    return r ? r : fl_plan_check(&raw->plan, root, e);
}

/* ---- the door ---- */

int fl_plan_parse(struct fl_plan *ret, const char *file, const char *text, size_t size,
                  struct fl_err *e)
{
    struct fl_conf *c = NULL;

    if (size > FL_PLAN_TEXT_MAX) {
        return fl_fail(e, FL_R_LIMIT, "%s: a job's text is at most %d bytes", file,
                       FL_PLAN_TEXT_MAX);
    }
    struct raw *raw = fl_try(1, sizeof *raw);
    if (!raw) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    int r = fl_conf_parse(file, text, size, &c, e);
    if (r == 0) {
        r = parse(raw, file, c, e);
    }
    if (r == 0) {
        fl_digest_of(text, size, &raw->plan.digest);
        *ret = raw->plan;
    }
    fl_conf_free(c);
    fl_free(raw);
    return r;
}

bool fl_plan_resolved(const struct fl_plan *plan)
{
    const struct fl_descriptor_conf *d = &plan->descriptor;

    return plan->privacy.unit == FL_UNIT_NONE ||
           (plan->privacy.noise_multiplier > 0 && (!d->on || d->noise_multiplier > 0));
}

size_t fl_plan_update_size(const struct fl_plan *plan)
{
    const struct fl_grid g = {plan->grid.bits, plan->grid.step};
    size_t size = 0;

    fl_grid_bytes(&g, plan->layout.shared.elements, &size); /* at most 2^31 values of 32 bits */
    return size;
}
