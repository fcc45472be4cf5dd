/* The coordinator's work off the loop: one lane for the disk, one for the sums. An operation ends
 * at one moment and its answer arrives at a later one; a crash may fall between. */
#include "tests/sim/world.h"

#include <string.h>

void lane_submit(struct world *w, uint32_t n, enum op_type type, const struct fl_round_item *it)
{
    struct lane *l = &w->c.lane[n];

    if (l->count == LANE_MAX) {
        sim_fail(w, "lane %u is full", n);
    }
    struct op *op = &l->op[(l->first + l->count++) % LANE_MAX];
    *op = (struct op){.type = type, .item = *it};
    if (it->members) {
        memcpy(op->list, it->members, it->count * sizeof *it->members);
    }
    if (l->count == 1) {
        struct sim_event *ev = sim_at(w, sim_delay(w, 20), EV_LANE);
        ev->number = n;
        ev->epoch = w->c.epoch;
    }
}

static int fold(struct world *w, const struct fl_round_item *it)
{
    const struct disk_update *u = disk_find(&w->disk, it->round, it->exchange, it->agent);

    if (!u || !fl_digest_equal(&u->digest, &it->digest)) {
        sim_fail(w, "agent %d is folded and not committed", (int)it->agent);
    }
    int r = sums_fold(w, &w->c.sums, u);
    /* A failure may leave anything behind: here, the whole update. */
    return r == 0 && sim_chance(w, w->conf.fold_fails) ? -FL_R_STORE_IO : r;
}

static int finish(struct world *w, const struct fl_round_item *it, struct fl_digest *ret)
{
    struct disk *d = &w->disk;
    struct sim_made made;
    struct fl_hash h;

    if (!d->closed[it->exchange]) {
        sim_fail(w, "computed before the close was durable");
    }
    if (sim_chance(w, w->conf.disk_full)) {
        return -FL_R_DISK_FULL;
    }
    if (it->exchange + 1 < w->rules.exchange_count) {
        return sums_between(w, &w->c.sums, it->exchange);
    }
    int r = sums_finish(w, &w->c.sums, it->exchange, &made);
    if (r != 0) {
        return r;
    }
    d->next = made;
    fl_hash_init(&h);
    fl_hash_add(&h, made.model, made.models * sizeof made.model[0]);
    fl_hash_add(&h, made.state, made.state_size);
    fl_hash_end(&h, &d->checkpoint);
    d->has_checkpoint = true;
    *ret = d->checkpoint;
    return 0;
}

void lane_perform(struct world *w, const struct op *op, struct fl_round_event *answer)
{
    static const enum fl_round_ev answers[] = {
        [OP_OPEN] = FL_ROUND_EV_OPENED,       [OP_ENLIST] = FL_ROUND_EV_ENLISTED,
        [OP_COMMIT] = FL_ROUND_EV_COMMITTED,  [OP_CLOSE] = FL_ROUND_EV_CLOSED,
        [OP_PUBLISH] = FL_ROUND_EV_PUBLISHED, [OP_SEAL] = FL_ROUND_EV_SPOOLED,
        [OP_FOLD] = FL_ROUND_EV_FOLDED,       [OP_REFOLD] = FL_ROUND_EV_TICK,
        [OP_FINISH] = FL_ROUND_EV_FINISHED,
    };

    *answer = (struct fl_round_event){.type = answers[op->type],
                                      .round = op->item.round,
                                      .base = op->item.base,
                                      .exchange = op->item.exchange,
                                      .agent = op->item.agent,
                                      .size = op->item.size,
                                      .weight = op->item.weight,
                                      .digest = op->item.digest};
    if (op->type == OP_FOLD) {
        answer->status = fold(w, &op->item);
    } else if (op->type == OP_REFOLD) {
        sums_reset(w, &w->c.sums);
    } else if (op->type == OP_FINISH) {
        answer->status = finish(w, &op->item, &answer->digest);
    } else {
        disk_perform(w, op, answer);
    }
}

/* The first operation of a lane is done; its answer is on its way, and may be lost in a crash. */
void lane_next(struct world *w, uint32_t n)
{
    struct lane *l = &w->c.lane[n];
    struct fl_round_event answer;

    if (sim_chance(w, w->conf.coordinator_crashes)) {
        coordinator_crash(w);
        return;
    }
    lane_perform(w, &l->op[l->first], &answer);
    l->first = (l->first + 1) % LANE_MAX;
    if (--l->count > 0) {
        struct sim_event *next = sim_at(w, sim_delay(w, 20), EV_LANE);
        next->number = n;
        next->epoch = w->c.epoch;
    }
    struct sim_event *ev = sim_at(w, w->conf.steady ? 0 : sim_delay(w, 3), EV_ANSWER);
    ev->epoch = w->c.epoch;
    ev->answer = answer;
}
