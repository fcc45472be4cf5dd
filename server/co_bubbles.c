/* `job bubbles`: which model each site has and why, out of the last checkpoint. `agent explain`:
 * the same of one site, in every job that has something to say of it. */
#include "server/co.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

enum { WHY_MAX = 256 };

struct bubble_row {
    uint32_t job; /* which of those asked about */
    uint64_t agent;
    uint32_t slot;
    char why[WHY_MAX];
};

struct asked {
    uint64_t round;
    uint8_t incarnation[FL_INCARNATION_SIZE];
    struct fl_digest checkpoint;
    char name[FL_PLAN_NAME_MAX];
    char *text;
    size_t text_size;
};

struct bubbles_op {
    struct co_op op;
    uint64_t ticket;
    uint64_t only; /* this agent; 0: all of the job */
    struct asked *jobs;
    uint32_t job_count, job; /* job: at which the walk is */
    struct bubble_row *row;
    uint32_t count, room;
    bool short_of_memory;
};

static void add_row(void *arg, uint64_t agent, uint32_t slot, const char *why)
{
    struct bubbles_op *q = arg;

    if (q->only && (agent != q->only || !why[0])) {
        return;
    }
    if (q->count == q->room) {
        uint32_t room = q->room ? 2 * q->room : 64;
        if (room > 2 * FL_CHECKPOINT_PLACED_MAX ||
            !fl_try_grow((void **)&q->row, room, sizeof *q->row)) {
            q->short_of_memory = true;
            return;
        }
        q->room = room;
    }
    q->row[q->count] = (struct bubble_row){.job = q->job, .agent = agent, .slot = slot};
    snprintf(q->row[q->count++].why, WHY_MAX, "%s", why);
}

/* Among rows [low, high), of one job. */
static bool listed(const struct bubbles_op *q, uint32_t low, uint32_t high, uint64_t agent)
{
    const uint32_t end = high;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (q->row[middle].agent < agent) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < end && q->row[low].agent == agent;
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
    uint32_t first = q->count;
    r = strategy->explain ? strategy->explain(shared, add_row, q, e) : 0;
    uint32_t known = q->count;
    for (uint32_t i = 0; r == 0 && i < c->placed_count; i++) {
        if (!listed(q, first, known, c->placed[i].agent)) {
            add_row(q, c->placed[i].agent, c->placed[i].slot,
                    strategy->explain && strategy->next_slots
                        ? "provisional: not enough is known of it yet"
                        : "");
        }
    }
    strategy->fini(shared);
    fl_free(shared);
    return r == 0 && q->short_of_memory ? fl_fail(e, FL_R_NOMEM, "%u sites", q->count) : r;
}

static int one_job(struct bubbles_op *q, const struct asked *j, struct fl_plan *plan,
                   struct fl_err *e)
{
    struct fl_checkpoint *c = NULL;
    char path[FL_STORE_PATH_MAX];
    int r = fl_plan_parse(plan, j->name, j->text, j->text_size, e);

    if (r == 0) {
        fl_store_checkpoint_path(q->op.co->store, j->incarnation, j->round, &j->checkpoint, path);
        r = fl_checkpoint_open(path, j->round, &c, e);
    }
    if (r == 0) {
        r = list(q, plan, c, e);
    }
    fl_checkpoint_close(c);
    return r;
}

static void bubbles_run(struct co_op *op)
{
    struct bubbles_op *q = (struct bubbles_op *)op;
    struct fl_plan *plan = fl_try(1, sizeof *plan);

    op->status = plan ? 0 : fl_fail(&op->err, FL_R_NOMEM, "a plan");
    for (; op->status == 0 && q->job < q->job_count; q->job++) {
        op->status = one_job(q, &q->jobs[q->job], plan, &op->err);
    }
    fl_free(plan);
}

static void bubbles_done(struct co_op *op)
{
    struct bubbles_op *q = (struct bubbles_op *)op;
    struct co *co = op->co;

    for (uint32_t i = 0; op->status == 0 && i < q->count; i++) {
        const struct fl_roster_agent *a = fl_roster_by_id(co->roster, q->row[i].agent);
        const struct asked *j = &q->jobs[q->row[i].job];
        const struct fl_control_bubble row = {.job = q->only ? j->name : NULL,
                                              .agent = a ? a->name : "?",
                                              .round = j->round,
                                              .slot = q->row[i].slot,
                                              .why = q->row[i].why};
        fl_control_bubble_row(co->control, q->ticket, &row);
    }
    for (uint32_t i = 0; i < q->job_count; i++) {
        fl_free(q->jobs[i].text);
    }
    fl_free(q->jobs);
    fl_free(q->row);
    fl_control_done(co->control, q->ticket, op->status, &op->err, NULL);
}

static void ask(struct bubbles_op *q, const struct co_job *j)
{
    struct asked *a = &q->jobs[q->job_count++];

    a->round = j->published;
    a->checkpoint = j->checkpoint;
    memcpy(a->incarnation, j->incarnation, sizeof a->incarnation);
    memcpy(a->name, j->name, sizeof a->name);
    a->text = fl_new(j->text_size + 1, 1);
    memcpy(a->text, j->text, j->text_size);
    a->text_size = j->text_size;
}

void co_bubbles(void *arg, uint64_t ticket, const char *job)
{
    struct co *co = arg;
    struct co_job *j = co_job_asked(co, ticket, job);

    if (!j) {
        return;
    }
    struct bubbles_op *q = co_op_new(co, sizeof *q, bubbles_run, bubbles_done);
    q->op.job_id = j->id;
    q->ticket = ticket;
    q->jobs = fl_new(1, sizeof *q->jobs);
    ask(q, j);
    co_submit(co, co->store_lane, &q->op);
}

void co_agent_explain(void *arg, uint64_t ticket, const char *agent)
{
    struct co *co = arg;
    const struct fl_roster_agent *a = co_agent_asked(co, ticket, agent);

    if (!a) {
        return;
    }
    struct bubbles_op *q = co_op_new(co, sizeof *q, bubbles_run, bubbles_done);
    q->ticket = ticket;
    q->only = a->id;
    q->jobs = fl_new(HASH_COUNT(co->jobs) + 1, sizeof *q->jobs);
    for (const struct co_job *j = co->jobs; j; j = j->hh.next) {
        if (j->text && !j->unreadable) {
            ask(q, j);
        }
    }
    co_submit(co, co->store_lane, &q->op);
}
