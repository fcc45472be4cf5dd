/*
 * The producer of `choice` (IFCA): which of the models that the coordinator offers has the least
 * mean loss on this site's training examples. Only its number leaves; it has no noise, so it is
 * refused under every privacy unit.
 */
#include "client/produce_in.h"

#include "client/trainer/trainer.h"
#include "common/base/mem.h"
#include "common/nn/tensors.h"

#include <math.h>
#include <string.h>

static int event(const struct fl_plan *plan, const struct fl_exchange_terms *terms,
                 struct fl_event *ret, struct fl_err *e)
{
    (void)terms;
    *ret = (struct fl_event){.q = 1};
    return plan->privacy.unit == FL_UNIT_NONE
               ? 0
               : fl_fail(e, FL_R_PLAN_PRIVACY, "a choice by loss has no noise");
}

/* Of one model, whose bytes may be hostile. INFINITY for one that is of no use here. */
static int loss_of(const struct fl_produce *in, const struct fl_dataset *train,
                   const uint8_t *bytes, size_t size, float *x, double *ret, struct fl_err *e)
{
    const struct fl_tensors *table = &in->plan->layout.shared;
    double accuracy, loss;
    int r = fl_tensors_read(bytes, size, table, x, e);

    for (size_t i = 0; r == 0 && i < table->elements; i++) {
        if (!isfinite(x[i])) {
            r = fl_fail(e, FL_R_TENSORS, "value %zu of an offered model is not finite", i);
        }
    }
    r = r ? r : fl_train_evaluate(in->plan, train, x, NULL, &accuracy, &loss, e);
    if (r == 0) {
        *ret = isfinite(loss) ? loss : (double)INFINITY;
    }
    return r;
}

static int make(const struct fl_produce *in, struct fl_produced *ret, struct fl_err *e)
{
    uint32_t models = in->plan->setting.bubble.most;
    size_t size = in->input_size / models;
    struct fl_dataset train = *in->data; /* scored on what it trains on */
    double best = 0, loss = 0;
    float *x = fl_try_aligned(in->plan->layout.shared.elements + 1, sizeof *x);

    memset(ret, 0, sizeof *ret);
    train.test = train.train;
    int64_t *q = fl_try_aligned(1, sizeof *q);
    int r = x && q ? 0 : fl_fail(e, FL_R_NOMEM, "a model to choose");
    if (r == 0 && in->input_size % models) {
        r = fl_fail(e, FL_R_UPDATE_SHAPE, "%zu bytes are not %u models", in->input_size, models);
    }
    for (uint32_t k = 0; r == 0 && k < models; k++) {
        r = atomic_load_explicit(in->cancel, memory_order_relaxed)
                ? fl_fail(e, FL_R_CANCELLED, "stopped while choosing")
                : loss_of(in, &train, in->input + k * size, size, x, &loss, e);
        if (r == 0 && (k == 0 || loss < best)) {
            best = loss;
            q[0] = k;
        }
    }
    fl_free(x);
    if (r) {
        fl_free(q);
        return r;
    }
    ret->q = q;
    return 0;
}

const struct fl_producer fl_produce_choice = {.exchange = "choice", .event = event, .make = make};
