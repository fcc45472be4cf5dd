/*
 * The verbs that only look at a site's own data: check-data and preview.
 *
 * A preview answers "is it worth joining?" before anybody is asked: a model that the coordinator
 * published is compared, on this site's validation examples, with what the site reaches alone
 * (guard.h). Where a part of the model is private, that part is fitted first, by rounds at home
 * that train as a member would and put the published part back after each. Nothing leaves the site,
 * and nothing is spent.
 */
#include "client/commands_in.h"

#include "client/fit.h"
#include "client/guard.h"
#include "client/report.h"
#include "client/rows.h"
#include "client/site_model.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/nn/tensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIT_ROUNDS = 5 };

static const char *json_text(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

/* The job's text, as the coordinator would send it. */
static int read_job(const char *path, struct fl_plan **ret, struct fl_err *e)
{
    struct fl_plan *plan = fl_try(1, sizeof *plan);
    uint8_t *text = NULL;
    size_t size = 0;

    int r = plan ? fl_file_read(path, FL_PLAN_TEXT_MAX, &text, &size, e)
                 : fl_fail(e, FL_R_NOMEM, "out of memory");
    if (r == 0) {
        r = fl_plan_parse(plan, path, (const char *)text, size, e);
    }
    fl_free(text);
    if (r) {
        fl_free(plan);
        return r;
    }
    *ret = plan;
    return 0;
}

int fl_command_check_data(const struct fl_config *config, const struct fl_config_agent *agent,
                          const struct fl_command *c, struct fl_err *e)
{
    struct fl_data_source source;
    struct fl_dataset d = {0};
    struct fl_plan *plan = NULL;
    json_t *o = json_object();
    int r = fl_rows_settle(config, agent, c->export ? FL_ROWS_EXACT : FL_ROWS_LOOK, &source, e);

    r = r || !c->job ? r : read_job(c->job, &plan, e);
    source.schema = plan ? &plan->data.schema : NULL;
    if (r == 0) {
        r = fl_dataset_load(&source, &d, e);
    }
    if (r == 0 && plan) {
        r = fl_fit(plan, &d, e);
    }
    if (r == 0 && c->export) {
        r = fl_command_export_data(agent, &d, c->export, e);
    }
    if (r == 0 && c->initial) {
        r = plan ? fl_command_export_initial(config, agent, plan, c->initial, e)
                 : fl_fail(e, FL_R_CONF_MISSING, "--initial needs --job");
    }
    if (r == 0) {
        fl_report_text(o, "agent", agent->name);
        r = fl_fit_describe(&source, &d, o, e);
    }
    if (r == 0 && c->json) {
        fl_command_print_json(o);
    } else if (r == 0) {
        char *first = json_dumps(json_object_get(o, "first"), JSON_REAL_PRECISION(6));
        printf("%s: %s\n  partition: %s\n  deal: %s\n  neighbours under unit example: %s\n  kept: "
               "%s\n  first: %s\n",
               agent->name, json_text(o, "description"), json_text(o, "partition"),
               json_text(o, "deal"), json_text(o, "neighbours"), json_text(o, "kept"),
               first ? first : "");
        free(first);
    }
    json_decref(o);
    fl_dataset_fini(&d);
    fl_free(plan);
    return r ? fl_wrap(e, r, "agent %s", agent->name) : 0;
}

/* ---- preview ---- */

struct preview {
    struct fl_plan *plan;
    struct fl_dataset data;
    float *shared, *private_, *theta;
};

static int read_model(const char *path, const struct fl_plan *plan, float *shared, struct fl_err *e)
{
    struct fl_tensor_file *f = fl_try(1, sizeof *f);
    int r = f ? fl_tensor_file_open(path, (size_t)1 << 34, f, e)
              : fl_fail(e, FL_R_NOMEM, "out of memory");

    if (r == 0) {
        r = fl_tensor_file_take(f, &plan->layout.shared, shared, e);
        fl_tensor_file_close(f);
        r = r ? fl_wrap(e, r, "%s", path) : 0;
    }
    fl_free(f);
    return r;
}

/* The private part, as rounds with this very model would make it. */
static int fit_private(struct preview *p, uint64_t rounds, const struct fl_seed *root,
                       struct fl_err *e)
{
    const struct fl_layout *l = &p->plan->layout;
    struct fl_train_task task = {.plan = p->plan, .data = &p->data, .base = p->shared};
    struct fl_train_result made = {.delta = fl_try_aligned(l->shared.elements + 1, sizeof(float)),
                                   .private_out =
                                       fl_try_aligned(l->private_.elements + 1, sizeof(float))};
    int r = made.delta && made.private_out ? 0 : fl_fail(e, FL_R_NOMEM, "out of memory");

    for (uint64_t i = 1; r == 0 && l->private_.elements && i <= rounds; i++) {
        fl_seed_derive(root, "preview", i, &task.seed);
        task.round = i;
        task.private_in = p->private_;
        r = fl_train(&task, &made, e);
        if (r == 0) {
            memcpy(p->private_, made.private_out, l->private_.elements * sizeof(float));
        }
    }
    fl_free(made.delta);
    fl_free(made.private_out);
    return r;
}

/* Everything that is trained here stays here: noise would protect nobody. */
static int load(struct preview *p, const struct fl_config *config,
                const struct fl_config_agent *agent, const struct fl_command *c, struct fl_err *e)
{
    struct fl_data_source source;
    struct fl_seed job, own;
    int r = fl_rows_settle(config, agent, FL_ROWS_LOOK, &source, e);

    r = r ? r : read_job(c->job, &p->plan, e);
    if (r < 0) {
        return r;
    }
    source.schema = &p->plan->data.schema;
    const struct fl_layout *l = &p->plan->layout;
    r = fl_dataset_load(&source, &p->data, e);
    r = r ? r : fl_fit(p->plan, &p->data, e);
    p->plan->privacy = (struct fl_privacy_conf){.unit = FL_UNIT_NONE};
    p->shared = fl_try_aligned(l->shared.elements + 1, sizeof *p->shared);
    p->private_ = fl_try_aligned(l->private_.elements + 1, sizeof *p->private_);
    p->theta = fl_try_aligned(l->theta.elements + 1, sizeof *p->theta);
    if (r == 0 && (!p->shared || !p->private_ || !p->theta)) {
        r = fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    if (r == 0) {
        fl_seed_from_u64(p->plan->seed, &job);
        fl_seed_from_u64(c->seed, &own);
        fl_layout_init_private(l, &job, &own, p->private_);
        r = fl_site_model(agent, p->plan, p->private_, e);
    }
    return r ? r : read_model(c->model, p->plan, p->shared, e);
}

static void print_value(const json_t *one, const char *name)
{
    const json_t *v = json_object_get(one, name);

    if (json_is_number(v)) {
        printf("  %10.4g", json_number_value(v));
    } else {
        printf("  %10s", "-");
    }
}

static void print_preview(const char *agent, const struct fl_guard_report *x, json_t *guard)
{
    static const char *const columns[] = {"validation_loss", "accuracy", "loss", "rmse_test"};

    printf("%s: %s\n", agent,
           x->choice == FL_GUARD_ALONE
               ? "alone is better: joining as it is now would not help this site"
               : "worth joining: the published model helps this site");
    printf("  %-8s  %10s  %10s  %10s  %10s\n", "MODEL", "VALIDATION", "ACCURACY", "LOSS", "RMSE");
    for (int m = 0; m < FL_GUARD_MODELS; m++) {
        const char *word = fl_guard_word((enum fl_guard_model)m);
        const json_t *one = json_object_get(guard, word);
        if (!one) {
            continue;
        }
        printf("  %-8s", word);
        for (size_t i = 0; i < FL_COUNT(columns); i++) {
            print_value(one, columns[i]);
        }
        printf("%s\n", x->choice == (enum fl_guard_model)m ? "  serves" : "");
    }
}

int fl_command_preview(const struct fl_config *config, const struct fl_config_agent *agent,
                       const struct fl_command *c, struct fl_err *e)
{
    struct fl_guard_report report = {0};
    struct preview p = {0};
    struct fl_seed root;
    json_t *o = json_object();

    fl_seed_from_u64(c->seed, &root);
    int r = load(&p, config, agent, c, e);
    r = r ? r : fit_private(&p, c->rounds ? c->rounds : FIT_ROUNDS, &root, e);
    if (r == 0) {
        const struct fl_train_task task = {.plan = p.plan,
                                           .data = &p.data,
                                           .base = p.shared,
                                           .private_in = p.private_,
                                           .seed = root};
        r = fl_guard_choose(&task, p.theta, &report, e);
    }
    if (r == 0) {
        fl_report_text(o, "agent", agent->name);
        fl_report_text(o, "job", p.plan->name);
        json_object_set_new(o, "join", json_boolean(report.choice != FL_GUARD_ALONE));
        fl_report_count(o, "validation_examples", p.data.validation.count);
        fl_report_count(o, "test_examples", p.data.test.count);
        fl_report_guard(o, &report);
        c->json ? fl_command_print_json(o)
                : print_preview(agent->name, &report, json_object_get(o, "guard"));
    }
    json_decref(o);
    fl_dataset_fini(&p.data);
    fl_free(p.shared);
    fl_free(p.private_);
    fl_free(p.theta);
    fl_free(p.plan);
    return r ? fl_wrap(e, r, "agent %s", agent->name) : 0;
}
