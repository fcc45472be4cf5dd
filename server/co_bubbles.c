/* `job bubbles`: which model each site has and why, out of the last checkpoint. */
#include "server/co.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

enum { WHY_MAX = 256 };

struct bubble_row {
    uint64_t agent;
    uint32_t slot;
    char why[WHY_MAX];
};

struct bubbles_op {
    struct co_op op;
    uint64_t ticket, round;
    uint8_t incarnation[FL_INCARNATION_SIZE];
    struct fl_digest checkpoint;
    char name[FL_PLAN_NAME_MAX];
    char *text;
    size_t text_size;
    struct bubble_row *row;
    uint32_t count, room;
    bool short_of_memory;
};

static void add_row(void *arg, uint64_t agent, uint32_t slot, const char *why)
{
    struct bubbles_op *q = arg;

    if (q->count == q->room) {
        uint32_t room = q->room ? 2 * q->room : 64;
        if (room > 2 * FL_CHECKPOINT_PLACED_MAX ||
            !fl_try_grow((void **)&q->row, room, sizeof *q->row)) {
            q->short_of_memory = true;
            return;
        }
        q->room = room;
    }
    q->row[q->count] = (struct bubble_row){.agent = agent, .slot = slot};
    snprintf(q->row[q->count++].why, WHY_MAX, "%s", why);
}

static bool listed(const struct bubbles_op *q, uint32_t count, uint64_t agent)
{
    uint32_t low = 0, high = count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (q->row[middle].agent < agent) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && q->row[low].agent == agent;
}

/* Those whom the strategy knows, then those who took part all the same. */
static int list(struct bubbles_op *q, const struct fl_plan *plan, const struct fl_checkpoint *c,
                struct fl_err *e)
{
    const struct fl_strategy *strategy;
    void *shared;
    int r = co_strategy_new(plan, c, &strategy, &shared, e);

    if (r) {
        return r;
    }
    r = strategy->explain ? strategy->explain(shared, add_row, q, e) : 0;
    uint32_t known = q->count;
    for (uint32_t i = 0; r == 0 && i < c->placed_count; i++) {
        if (!listed(q, known, c->placed[i].agent)) {
            add_row(q, c->placed[i].agent, c->placed[i].slot,
                    strategy->explain ? "provisional: not enough is known of it yet" : "");
        }
    }
    strategy->fini(shared);
    fl_free(shared);
    return r == 0 && q->short_of_memory ? fl_fail(e, FL_R_NOMEM, "%u sites", q->count) : r;
}

static void bubbles_run(struct co_op *op)
{
    struct bubbles_op *q = (struct bubbles_op *)op;
    struct fl_plan *plan = fl_try(1, sizeof *plan);
    struct fl_checkpoint *c = NULL;
    char path[FL_STORE_PATH_MAX];

    op->status = plan ? fl_plan_parse(plan, q->name, q->text, q->text_size, &op->err)
                      : fl_fail(&op->err, FL_R_NOMEM, "a plan");
    if (op->status == 0) {
        fl_store_checkpoint_path(op->co->store, q->incarnation, q->round, &q->checkpoint, path);
        op->status = fl_checkpoint_open(path, q->round, &c, &op->err);
    }
    if (op->status == 0) {
        op->status = list(q, plan, c, &op->err);
    }
    fl_checkpoint_close(c);
    fl_free(plan);
}

static void bubbles_done(struct co_op *op)
{
    struct bubbles_op *q = (struct bubbles_op *)op;
    struct co *co = op->co;

    for (uint32_t i = 0; op->status == 0 && i < q->count; i++) {
        const struct fl_roster_agent *a = fl_roster_by_id(co->roster, q->row[i].agent);
        const struct fl_control_bubble row = {.agent = a ? a->name : "?",
                                              .round = q->round,
                                              .slot = q->row[i].slot,
                                              .why = q->row[i].why};
        fl_control_bubble_row(co->control, q->ticket, &row);
    }
    fl_free(q->row);
    fl_free(q->text);
    fl_control_done(co->control, q->ticket, op->status, &op->err, NULL);
}

void co_bubbles(void *arg, uint64_t ticket, const char *job)
{
    struct co *co = arg;
    struct co_job *j = co_job_by_name(co, job);
    struct fl_err e = {0};

    if (!j) {
        fl_control_done(co->control, ticket, fl_fail(&e, FL_R_NO_JOB, "no job %s", job), &e, NULL);
        return;
    }
    struct bubbles_op *q = co_op_new(co, sizeof *q, bubbles_run, bubbles_done);
    q->op.job_id = j->id;
    q->ticket = ticket;
    q->round = j->published;
    q->checkpoint = j->checkpoint;
    memcpy(q->incarnation, j->incarnation, sizeof q->incarnation);
    memcpy(q->name, j->name, sizeof q->name);
    q->text = fl_new(j->text_size + 1, 1);
    memcpy(q->text, j->text, j->text_size);
    q->text_size = j->text_size;
    co_submit(co, co->store_lane, &q->op);
}
