/*
 * SCAFFOLD (Karimireddy et al. 2020, arXiv 1910.06378, algorithm 1, option II): each step's
 * gradient gets c - c_i; after K steps of rate lr from x to y
 *
 *     c_i' = c_i - c + (x - y) / (K lr)         c' = c + (members / sites) mean(c_i' - c_i)
 *
 * c travels behind the model, and the update of it is what a mean makes c' of: (members / sites)
 * (c_i' - c_i).
 *
 * FedDyn (Acar et al. 2021, arXiv 2111.04263, algorithm 1): each step's gradient gets
 * alpha (theta - x) - h_i; then h_i' = h_i - alpha (y - x). The coordinator's side is a server
 * optimizer (server/strategy/serveropt.h).
 *
 * FedNova (Wang et al. 2020, arXiv 2007.07481, section 4.2): a site that takes more steps pulls no
 * harder. What a site sends is its update divided by what its steps count together,
 *     a(K) = (K - m (1 - m^K) / (1 - m)) / (1 - m)        with momentum m
 * and multiplied by a(`steps`), the same for all: so the sum is FedAvg's, and a site of just so
 * many steps sends what it would send there.
 *
 * None of them looks at an example: what it adds to a step, keeps and sends is a function of
 * received models and of the weights that training came to. Under the unit `example` it comes after
 * the noise.
 */
#include "client/trainer/drift.h"

#include "common/base/mem.h"
#include "common/math/vec.h"

#include <math.h>

/* What K steps from zero momentum count together. */
static double counts(double m, double steps)
{
    return (steps - m * (1 - pow(m, steps)) / (1 - m)) / (1 - m);
}

int fl_drift_begin(struct fl_moves *m, const struct fl_train_task *task, struct fl_err *e)
{
    const struct fl_strategy_conf *c = &task->plan->setting;
    size_t elements = task->plan->layout.theta.elements;

    if (c->local != FL_LOCAL_SCAFFOLD && c->local != FL_LOCAL_FEDDYN) {
        return 0;
    }
    m->shift = fl_try_aligned(elements, sizeof *m->shift);
    if (!m->shift) {
        return fl_fail(e, FL_R_NOMEM, "a correction of %zu elements", elements);
    }
    if (c->local == FL_LOCAL_SCAFFOLD) {
        fl_vec_sub(task->base + elements, task->private_in, m->shift, elements);
        return 0;
    }
    for (size_t i = 0; i < elements; i++) {
        m->shift[i] = -task->private_in[i];
    }
    return fl_moves_pull(m, c->alpha, e);
}

void fl_drift_end(const struct fl_moves *m, const struct fl_train_task *task, float *shared,
                  float *private_)
{
    const struct fl_strategy_conf *c = &task->plan->setting;
    size_t elements = task->plan->layout.theta.elements;
    const float *x = task->base;

    if (c->steps > 0 && m->steps > 0) {
        double momentum = (double)m->body_optim.momentum;
        double factor = counts(momentum, c->steps) / counts(momentum, (double)m->steps);
        for (size_t i = 0; i < elements; i++) {
            shared[i] = (float)((double)x[i] + factor * ((double)shared[i] - (double)x[i]));
        }
    }
    if (c->local == FL_LOCAL_FEDDYN) {
        for (size_t i = 0; i < elements; i++) {
            private_[i] -= c->alpha * (shared[i] - x[i]);
        }
    } else if (c->local == FL_LOCAL_SCAFFOLD) {
        double way = (double)m->steps * (double)m->body_optim.lr;
        float part = fl_plan_part(task->plan);
        for (size_t i = 0; way > 0 && i < elements; i++) { /* a schedule may end at 0 */
            double now = ((double)x[i] - (double)shared[i]) / way - (double)x[elements + i];
            private_[i] += (float)now;
            shared[elements + i] += part * (float)now;
        }
    }
}
