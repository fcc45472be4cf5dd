/* Inside this room only: the layers of a model, and the rules between keys, after every key by
 * itself is right. */
#ifndef FL_PLAN_PLAN_CHECK_H
#define FL_PLAN_PLAN_CHECK_H

#include "common/base/conf.h"
#include "common/plan/plan.h"
#include "common/privacy/accountant.h"

/* The node of a dotted path, or the nearest there is above it: where a message points. */
const struct fl_conf_node *fl_plan_at(const struct fl_conf_node *root, const char *path);

/* `model.tensors` (plan_tensors.c). *ret is zeroed by the caller. */
int fl_plan_tensors(const struct fl_conf_node *list, struct fl_tensors *ret, struct fl_err *e);
/* Appends the layers of a list: one a node, or several (a residual block, an encoder). */
int fl_plan_layers(const struct fl_conf_node *n, struct fl_spec *spec, struct fl_err *e);

/* `model.input` into spec->input; a table's columns make the first layer too (plan_input.c). `s`:
 * data.table, without columns when there is none. And whether the table's columns are what the
 * model embeds. */
int fl_plan_input(const struct fl_conf_node *n, const struct fl_schema *s,
                  const struct fl_conf_node *root, struct fl_spec *spec, struct fl_err *e);
int fl_plan_check_input(const struct fl_plan *p, const struct fl_conf_node *root, struct fl_err *e);

/* `strategy`: its word and settings into the plan, and which part of the model travels. */
int fl_plan_strategy(const struct fl_conf_node *n, struct fl_plan *plan, enum fl_visibility *ret,
                     struct fl_err *e);

/* Strategies with a model for each agent (plan_personal.c): their settings, and what does not go
 * with them. */
extern const struct fl_conf_field fl_plan_fedamp_keys[], fl_plan_fedcac_keys[],
    fl_plan_pfedhn_keys[];
int fl_plan_check_personal(const struct fl_plan *plan, const struct fl_conf_node *root,
                           struct fl_err *e);

/* `server` (NULL: absent) into the plan, whose strategy is already there: its word may name the
 * optimizer. */
int fl_plan_server(const struct fl_conf_node *n, struct fl_plan *plan, struct fl_err *e);

/* What the strategy keeps at sites or sends beside the network, into the layout (beside.c). */
int fl_plan_beside(struct fl_plan *plan, const struct fl_conf_node *root, struct fl_err *e);
/* `privacy.adaptive` (adaptive.c): what follows from it, its rules, and its tensor. */
int fl_plan_adaptive(struct fl_plan *plan, const struct fl_conf_node *root, struct fl_err *e);
/* `aggregate` (plan_aggregate.c), and its rules. */
int fl_plan_aggregate(const struct fl_conf_node *n, struct fl_aggregate_conf *ret,
                      struct fl_err *e);
int fl_plan_check_aggregate(const struct fl_plan *plan, const struct fl_conf_node *root,
                            struct fl_err *e);

/* Settings of fedka: their table, what the plan has before it, and its rules, which also switch off
 * what there are no data for (plan_fedka.c). */
extern const struct fl_conf_field fl_plan_fedka_keys[];
void fl_plan_fedka_defaults(struct fl_plan *plan);
int fl_plan_check_fedka(struct fl_plan *plan, const struct fl_conf_node *root, struct fl_err *e);
/* `descriptor` (descriptor.c). */
extern const struct fl_conf_field fl_plan_descriptor_keys[];
int fl_plan_check_descriptor(const struct fl_plan *plan, const struct fl_conf_node *root,
                             struct fl_err *e);

/* Strategies with bubbles (plan_bubbles.c). */
extern const struct fl_conf_field fl_plan_cfl_keys[], fl_plan_flhc_keys[], fl_plan_ifca_keys[],
    fl_plan_pacfl_keys[];
/* By the word of the plan's strategy. */
void fl_plan_bubbles_begin(struct fl_plan *plan);
int fl_plan_check_bubbles(const struct fl_plan *plan, const struct fl_conf_node *root,
                          struct fl_err *e);

/* fedbuff (plan_buffer.c): settings, what follows from them, rules. */
extern const struct fl_conf_field fl_plan_fedbuff_keys[];
void fl_plan_buffer_defaults(struct fl_plan *plan);
int fl_plan_check_buffer(const struct fl_plan *plan, const struct fl_conf_node *root,
                         struct fl_err *e);

/* The rules of score (plan_score.c). */
int fl_plan_check_score(const struct fl_plan *plan, const struct fl_conf_node *root,
                        struct fl_err *e);

/* The rules of secure_aggregation (plan_secure.c). */
int fl_plan_check_secure(const struct fl_plan *plan, const struct fl_conf_node *root,
                         struct fl_err *e);

/* The rules of a step whose noise members share (shared_step.c). */
int fl_plan_check_shared_step(const struct fl_plan *plan, const struct fl_conf_node *root,
                              struct fl_err *e);

/* `model.loss` (NULL: cross-entropy, or the squared error of targets), and whether classes or
 * targets are there for it; `model` is where a message points that has no loss to point at. */
int fl_plan_loss(const struct fl_conf_node *n, const struct fl_conf_node *model,
                 struct fl_spec *spec, struct fl_err *e);

/* Gives layers of a checked spec the rules of model.parameters. */
int fl_plan_parameters(const struct fl_conf_node *n, struct fl_spec *spec, struct fl_err *e);

/* The rules of train.solver (plan_solver.c). */
int fl_plan_check_solver(const struct fl_plan *plan, const struct fl_conf_node *root,
                         struct fl_err *e);

int fl_plan_check(const struct fl_plan *plan, const struct fl_conf_node *root, struct fl_err *e);

#endif
