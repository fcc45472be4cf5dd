/* `model show`: what a job description means, without any daemon. `model export`: a round's model.
 */
#include "common/base/mem.h"
#include "common/nn/param/param.h"
#include "common/plan/plan.h"
#include "server/ctl/cli.h"
#include "server/ctl/table.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- show ---- */

static const char *const group_names[] = {[FL_GROUP_SHARED] = "shared",
                                          [FL_GROUP_GENERATED] = "generated",
                                          [FL_GROUP_PRIVATE] = "private"};
static const char *const unit_names[] = {
    [FL_UNIT_NONE] = "none", [FL_UNIT_EXAMPLE] = "example", [FL_UNIT_CLIENT] = "client"};

static json_t *shape_json(const uint32_t *shape, uint32_t rank)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < rank; i++) {
        json_array_append_new(list, json_integer(shape[i]));
    }
    return list;
}

static const char *shape_text(const json_t *shape, char ret[FL_TEXT_MAX])
{
    size_t n = 0;

    ret[0] = 0;
    for (size_t i = 0; i < json_array_size(shape) && n < FL_TEXT_MAX; i++) {
        n += (size_t)snprintf(ret + n, FL_TEXT_MAX - n, "%s%" JSON_INTEGER_FORMAT, i ? "x" : "",
                              json_integer_value(json_array_get(shape, i)));
    }
    return ret;
}

/* What un-noised private state would reach: an upload, or only this site (local training). */
static const char *feeds(const struct fl_layout *l, const struct fl_tensor *t)
{
    if (t->group != FL_GROUP_PRIVATE) {
        return "release";
    }
    if (t->fixed) {
        return "fixed"; /* never trained: no example of a site is in it */
    }
    return t->serving || l->shared.elements == 0 ? "serving" : "release";
}

static void add_tensors(json_t *list, const struct fl_layout *l, const struct fl_tensors *tensors,
                        bool only_generated)
{
    for (uint32_t i = 0; i < tensors->count; i++) {
        const struct fl_tensor *t = &tensors->at[i];
        if (only_generated && t->group != FL_GROUP_GENERATED) {
            continue;
        }
        json_array_append_new(list, json_pack("{ss so ss ss sI}", "name", t->name, "shape",
                                              shape_json(t->shape, t->rank), "group",
                                              group_names[t->group], "feeds", feeds(l, t),
                                              "elements", (json_int_t)t->count));
    }
}

/* What each kind releases. Noise has as many dimensions as the gradient at theta (unit example), or
 * as what is released (unit client). */
static json_t *releases_json(const struct fl_plan *p)
{
    struct fl_param_row row[FL_PARAM_ROWS_MAX];
    uint32_t count = fl_param_rows(&p->layout, row);
    json_t *list = json_array();

    for (uint32_t i = 0; i < count; i++) {
        size_t noise = p->privacy.unit == FL_UNIT_EXAMPLE  ? row[i].theta
                       : p->privacy.unit == FL_UNIT_CLIENT ? row[i].released
                                                           : 0;
        json_array_append_new(
            list, json_pack("{ss si sI sI sI sI sI}", "kind", row[i].kind, "tensors",
                            (int)row[i].tensors, "theta", (json_int_t)row[i].theta, "released",
                            (json_int_t)row[i].released, "noise", (json_int_t)noise, "private",
                            (json_int_t)row[i].private_, "frozen", (json_int_t)row[i].fixed));
    }
    return list;
}

/* Between layers flow channels, rows and columns, or a vector, which is one number. */
static uint32_t flow_rank(const uint32_t *shape)
{
    return shape[1] == 1 && shape[2] == 1 ? 1 : 3;
}

static json_t *layers_json(const struct fl_spec *s)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < s->layer_count; i++) {
        const struct fl_layer *y = &s->layers[i];
        json_array_append_new(
            list, json_pack("{ss ss so so}", "name", y->name, "kind", fl_layer_word(y->kind), "in",
                            shape_json(y->in_shape, flow_rank(y->in_shape)), "out",
                            shape_json(y->out_shape, flow_rank(y->out_shape))));
    }
    return list;
}

/* "huber, delta 0.5" */
static void loss_text(const struct fl_loss *l, char ret[FL_TEXT_MAX])
{
    static const char *const words[] = {[FL_LOSS_CROSS_ENTROPY] = "cross_entropy",
                                        [FL_LOSS_BINARY] = "binary",
                                        [FL_LOSS_MSE] = "mse",
                                        [FL_LOSS_HUBER] = "huber",
                                        [FL_LOSS_PINBALL] = "pinball"};
    int n = snprintf(ret, FL_TEXT_MAX, "%s", words[l->kind]);

    if (l->kind == FL_LOSS_CROSS_ENTROPY && l->smoothing != 0) {
        snprintf(ret + n, FL_TEXT_MAX - (size_t)n, ", smoothing %g", (double)l->smoothing);
    } else if (l->kind == FL_LOSS_HUBER) {
        snprintf(ret + n, FL_TEXT_MAX - (size_t)n, ", delta %g", (double)l->delta);
    }
    for (uint32_t i = 0; l->kind == FL_LOSS_PINBALL && i < l->quantile_count && n < FL_TEXT_MAX;
         i++) {
        n += snprintf(ret + n, FL_TEXT_MAX - (size_t)n, "%s%g", i ? ", " : ", quantiles ",
                      (double)l->quantiles[i]);
    }
}

static json_t *sgd_json(const struct fl_sgd *s)
{
    return json_pack("{sf sf sf sf}", "lr", (double)s->lr, "momentum", (double)s->momentum,
                     "weight_decay", (double)s->weight_decay, "clip", (double)s->clip);
}

/* How the builtin trainer trains; a program trains as it likes. */
static json_t *train_json(const struct fl_plan *p)
{
    static const char *const optimizers[] = {[FL_OPTIM_SGD] = "sgd",
                                             [FL_OPTIM_NESTEROV] = "nesterov",
                                             [FL_OPTIM_ADAM] = "adam",
                                             [FL_OPTIM_ADAMW] = "adamw"};
    const struct fl_train_conf *t = &p->train;
    char loss[FL_TEXT_MAX];

    if (p->trainer == FL_TRAINER_EXEC) {
        return json_pack("{ss}", "trainer", "exec");
    }
    loss_text(&p->layout.spec.loss, loss);
    if (t->solver != FL_SOLVER_SGD) {
        return json_pack("{ss ss ss sf}", "trainer", "builtin", "loss", loss, "solver",
                         t->solver == FL_SOLVER_RIDGE ? "ridge" : "logistic", "lambda",
                         (double)t->lambda);
    }
    json_t *o = json_pack("{ss ss ss si si si so}", "trainer", "builtin", "loss", loss, "optimizer",
                          optimizers[t->optimizer], "batch", (int)t->batch, "epochs",
                          (int)t->epochs, "steps", (int)t->steps, "body", sgd_json(&t->body));
    if (o && p->privacy.unit == FL_UNIT_EXAMPLE) { /* no batch size: Poisson batches have a rate */
        json_object_del(o, "batch");
        json_object_del(o, "epochs");
        json_object_set_new(o, "sampling_rate", json_real(p->privacy.sampling_rate));
        json_object_set_new(o, "batch_expected",
                            json_real(p->privacy.sampling_rate * p->privacy.examples));
        json_object_set_new(o, "examples", json_integer(p->privacy.examples));
    }
    if (o && t->head_epochs) {
        json_object_set_new(o, "head_epochs", json_integer(t->head_epochs));
        json_object_set_new(o, "head", sgd_json(&t->head));
    }
    return o;
}

static json_t *privacy_json(const struct fl_privacy_conf *p)
{
    if (p->unit == FL_UNIT_NONE) {
        return json_pack("{ss}", "unit", "none");
    }
    json_t *o = json_pack("{ss sf sf sf}", "unit", unit_names[p->unit], "clip", p->clip,
                          "noise_multiplier", p->noise_multiplier, "delta", p->delta);
    if (o && p->epsilon > 0) {
        json_object_set_new(o, "epsilon", json_real(p->epsilon));
    }
    if (o && p->unit == FL_UNIT_EXAMPLE) {
        json_object_set_new(o, "sampling_rate", json_real(p->sampling_rate));
    }
    return o;
}

static json_t *plan_json(const struct fl_plan *p)
{
    const struct fl_layout *l = &p->layout;
    json_t *tensors = json_array();
    size_t update = fl_plan_update_size(p), plain = l->theta.elements * sizeof(float);
    char digest[FL_DIGEST_HEX];

    fl_digest_hex(&p->digest, digest);
    add_tensors(tensors, l, &l->shared, false);
    add_tensors(tensors, l, &l->theta, true);
    add_tensors(tensors, l, &l->private_, false);
    return json_pack(
        "{ss ss sI si si ss so so so so s{sI sI sI sI} s{si sf sf} sI sI so}", "job", p->name,
        "strategy", p->strategy, "rounds", (json_int_t)p->rounds, "members", (int)p->round.members,
        "quorum", (int)p->round.quorum, "digest", digest, "layers", layers_json(&l->spec),
        "training", train_json(p), "tensors", tensors, "parameters", releases_json(p), "elements",
        "model", (json_int_t)l->theta.elements, "shared", (json_int_t)l->shared.elements,
        "generated", (json_int_t)l->generated, "private", (json_int_t)l->private_.elements, "grid",
        "bits", (int)p->grid.bits, "step", ldexp(1, p->grid.step), "range",
        ldexp(1, p->grid.step + (int)p->grid.bits - 1), "update_bytes", (json_int_t)update,
        "model_bytes", (json_int_t)plain, "privacy", privacy_json(&p->privacy));
}

static void print_layers(const json_t *list)
{
    static const char *const heads[] = {"LAYER", "KIND", ">IN", ">OUT", NULL};
    struct fl_table *table = fl_table_new(heads);
    char a[FL_TEXT_MAX], b[FL_TEXT_MAX];

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        fl_table_add(table, "%s", fl_cli_text(o, "name"));
        fl_table_add(table, "%s", fl_cli_text(o, "kind"));
        fl_table_add(table, "%s", shape_text(json_object_get(o, "in"), a));
        fl_table_add(table, "%s", shape_text(json_object_get(o, "out"), b));
    }
    fl_table_print(table, stdout, NULL);
}

static void print_tensors(const json_t *list)
{
    static const char *const heads[] = {"TENSOR", "GROUP", "FEEDS", ">SHAPE", ">ELEMENTS", NULL};
    struct fl_table *table = fl_table_new(heads);
    char a[FL_TEXT_MAX];

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        fl_table_add(table, "%s", fl_cli_text(o, "name"));
        fl_table_add(table, "%s", fl_cli_text(o, "group"));
        fl_table_add(table, "%s", fl_cli_text(o, "feeds"));
        fl_table_add(table, "%s", shape_text(json_object_get(o, "shape"), a));
        fl_table_add(table, "%" PRId64, fl_cli_int(o, "elements"));
    }
    fl_table_print(table, stdout, NULL);
}

static void print_releases(const json_t *list)
{
    static const char *const heads[] = {
        "MADE",    ">TENSORS", ">THETA", ">TRAVELS", ">NOISE DIMENSION", ">PRIVATE, FEEDS RELEASE",
        ">FROZEN", NULL};
    static const char *const keys[] = {"tensors", "theta",   "released",
                                       "noise",   "private", "frozen"};
    struct fl_table *table = fl_table_new(heads);

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        fl_table_add(table, "%s", fl_cli_text(o, "kind"));
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
            fl_table_add(table, "%" PRId64, fl_cli_int(o, keys[k]));
        }
    }
    fl_table_print(table, stdout, NULL);
}

static void print_training(const json_t *t)
{
    const json_t *body = json_object_get(t, "body"), *head = json_object_get(t, "head");
    int64_t steps = fl_cli_int(t, "steps");

    if (strcmp(fl_cli_text(t, "trainer"), "exec") == 0) {
        fl_cli_row("training", "by each site's own program");
        return;
    }
    fl_cli_row("loss", "%s", fl_cli_text(t, "loss"));
    if (!body) {
        fl_cli_row("training", "the last layer in closed form: %s, lambda %g",
                   fl_cli_text(t, "solver"), json_number_value(json_object_get(t, "lambda")));
        return;
    }
    char batches[160];
    const json_t *rate = json_object_get(t, "sampling_rate");
    if (rate) {
        snprintf(
            batches, sizeof batches,
            "%" PRId64 " steps of Poisson batches: each example by chance %g, about %g of %" PRId64
            " (privacy.examples)",
            steps, json_number_value(rate), json_number_value(json_object_get(t, "batch_expected")),
            fl_cli_int(t, "examples"));
    } else {
        snprintf(batches, sizeof batches, "%" PRId64 " %s of batches of %" PRId64,
                 steps ? steps : fl_cli_int(t, "epochs"), steps ? "steps" : "epochs",
                 fl_cli_int(t, "batch"));
    }
    fl_cli_row("training", "%s, lr %g, momentum %g, weight decay %g; %s",
               fl_cli_text(t, "optimizer"), json_number_value(json_object_get(body, "lr")),
               json_number_value(json_object_get(body, "momentum")),
               json_number_value(json_object_get(body, "weight_decay")), batches);
    if (head) {
        fl_cli_row("head", "first, for %" PRId64 " epochs: lr %g, momentum %g",
                   fl_cli_int(t, "head_epochs"), json_number_value(json_object_get(head, "lr")),
                   json_number_value(json_object_get(head, "momentum")));
    }
}

static void print_plan(const json_t *o)
{
    const json_t *n = json_object_get(o, "elements"), *g = json_object_get(o, "grid"),
                 *p = json_object_get(o, "privacy");
    int64_t update = fl_cli_int(o, "update_bytes"), plain = fl_cli_int(o, "model_bytes");
    char a[FL_TEXT_MAX], b[FL_TEXT_MAX];

    fl_cli_row("job", "%s: %s, %" PRId64 " rounds, %" PRId64 " members, quorum %" PRId64,
               fl_cli_text(o, "job"), fl_cli_text(o, "strategy"), fl_cli_int(o, "rounds"),
               fl_cli_int(o, "members"), fl_cli_int(o, "quorum"));
    fl_cli_row("elements",
               "%" PRId64 " in the model (%" PRId64 " generated); %" PRId64 " travel, %" PRId64
               " stay",
               fl_cli_int(n, "model"), fl_cli_int(n, "generated"), fl_cli_int(n, "shared"),
               fl_cli_int(n, "private"));
    print_training(json_object_get(o, "training"));
    fl_cli_row("grid", "%" PRId64 " bits, step 2^%d, range +-%g", fl_cli_int(g, "bits"),
               ilogb(json_number_value(json_object_get(g, "step"))),
               json_number_value(json_object_get(g, "range")));
    fl_cli_row("update", "%s (%" PRId64 " bytes), %.2f times the float32 model of %s",
               fl_text_bytes((uint64_t)update, a), update,
               plain ? (double)update / (double)plain : 0, fl_text_bytes((uint64_t)plain, b));
    if (strcmp(fl_cli_text(p, "unit"), "none") == 0) {
        fl_cli_row("privacy", "none: no epsilon is ever printed");
    } else {
        fl_cli_row("privacy", "unit %s, clip %g, noise multiplier %g, delta %g",
                   fl_cli_text(p, "unit"), json_number_value(json_object_get(p, "clip")),
                   json_number_value(json_object_get(p, "noise_multiplier")),
                   json_number_value(json_object_get(p, "delta")));
    }
    printf("\n");
    print_layers(json_object_get(o, "layers"));
    printf("\n");
    print_tensors(json_object_get(o, "tensors"));
    printf("\n");
    print_releases(json_object_get(o, "parameters"));
}

int fl_cli_model_show(struct fl_cli *c)
{
    struct fl_plan *plan = NULL;
    int status = fl_cli_job_plan(c, &plan);

    if (status == 0) {
        json_t *o = plan_json(plan);
        if (!o) {
            status = fl_fail(&c->err, FL_R_NOMEM, "no memory");
        } else if (c->json) {
            fl_cli_print_json(o);
        } else {
            print_plan(o);
        }
        json_decref(o);
    }
    fl_free(plan);
    return status;
}

/* ---- export ---- */

/* The model's bytes are the model's? */
static int check_export(struct fl_cli *c, const struct fl_download *x)
{
    char hex[FL_DIGEST_HEX];

    fl_digest_hex(&x->digest, hex);
    if (strcmp(hex, fl_cli_text(x->about, "model")) != 0) {
        return fl_fail(&c->err, FL_R_STORE_MISMATCH,
                       "the model's bytes do not match its digest; nothing was kept");
    }
    return 0;
}

int fl_cli_model_export(struct fl_cli *c)
{
    struct fl_ctl_request q = {.verb = "model export"};
    struct fl_download x;

    fl_cli_argument(&q, "job", c->words[0]);
    fl_cli_argument(&q, "round", fl_cli_option(c, "round", 0));
    fl_cli_argument(&q, "slot", fl_cli_option(c, "slot", 0));
    fl_cli_argument(&q, "agent", fl_cli_option(c, "agent", 0));
    int status = fl_cli_download(c, &q, check_export, &x);
    if (status == 0 && x.to_file && c->json) {
        fl_cli_print_json(x.about);
    } else if (status == 0 && x.to_file) {
        printf("round %" PRId64 " of %s, %" PRIu64 " bytes, %s\n", fl_cli_int(x.about, "round"),
               fl_cli_text(x.about, "job"), x.bytes, fl_cli_text(x.about, "model"));
    }
    json_decref(x.about);
    return status;
}
