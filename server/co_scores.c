/* `job scores`: what sites say of the model they would be served, out of the last checkpoint. */
#include "server/co.h"

#include "common/base/mem.h"
#include "server/strategy/collect.h"

#include <stdio.h>

struct scores_op {
    struct co_op op;
    uint64_t ticket, round;
    uint8_t incarnation[FL_INCARNATION_SIZE];
    struct fl_digest checkpoint;
    struct fl_section section; /* bytes NULL: there are none */
};

static void scores_run(struct co_op *op)
{
    struct scores_op *q = (struct scores_op *)op;
    char path[FL_STORE_PATH_MAX];
    struct fl_checkpoint *c;

    fl_store_checkpoint_path(op->co->store, q->incarnation, q->round, &q->checkpoint, path);
    op->status = fl_checkpoint_open(path, q->round, &c, &op->err);
    if (op->status == 0) {
        int r = fl_checkpoint_section(c, "score", &q->section, &op->err);
        op->status = r < 0 ? r : 0;
        fl_checkpoint_close(c);
    }
}

static void scores_done(struct co_op *op)
{
    struct scores_op *q = (struct scores_op *)op;
    struct co *co = op->co;
    struct fl_scores all = {0};

    if (op->status == 0 && q->section.bytes) {
        op->status = fl_scores_view(q->section.bytes, q->section.size, &all, &op->err);
    }
    for (uint32_t i = 0; op->status == 0 && i < all.sites; i++) {
        struct fl_control_score row = {.round = q->round, .noise_std = all.noise_std};
        uint64_t id;
        fl_scores_at(&all, i, &id, &row.score);
        const struct fl_roster_agent *a = fl_roster_by_id(co->roster, id);
        row.agent = a ? a->name : "?";
        fl_control_score_row(co->control, q->ticket, &row);
    }
    fl_free(q->section.bytes);
    fl_control_done(co->control, q->ticket, op->status, &op->err, NULL);
}

void co_scores(void *arg, uint64_t ticket, const char *job)
{
    struct co *co = arg;
    struct co_job *j = co_job_asked(co, ticket, job);

    if (!j) {
        return;
    }
    struct scores_op *q = co_op_new(co, sizeof *q, scores_run, scores_done);
    q->op.job_id = j->id;
    q->ticket = ticket;
    q->round = j->published;
    q->checkpoint = j->checkpoint;
    memcpy(q->incarnation, j->incarnation, sizeof q->incarnation);
    co_submit(co, co->store_lane, &q->op);
}
