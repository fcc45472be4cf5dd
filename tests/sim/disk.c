/* The coordinator's disk, with the answers that server/store/store.h promises. */
#include "tests/sim/world.h"

#include <string.h>

const struct disk_update *disk_find(const struct disk *d, uint64_t round, uint32_t exchange,
                                    uint64_t agent)
{
    for (uint32_t i = 0; i < d->updates; i++) {
        if (d->update[i].round == round && d->update[i].exchange == exchange &&
            d->update[i].agent == agent) {
            return &d->update[i];
        }
    }
    return NULL;
}

const struct disk_update *disk_made(const struct disk *d, uint64_t base, uint32_t exchange,
                                    uint64_t agent)
{
    for (uint32_t i = 0; i < d->updates; i++) {
        if (d->update[i].base == base && d->update[i].exchange == exchange &&
            d->update[i].agent == agent) {
            return &d->update[i];
        }
    }
    return NULL;
}

static uint64_t *base_of(struct disk *d, uint32_t exchange, uint64_t agent)
{
    for (uint32_t i = 0; i < d->members[exchange]; i++) {
        if (d->member[exchange][i] == agent) {
            return &d->base[exchange][i];
        }
    }
    return NULL;
}

static int open_round(struct world *w, const struct op *op)
{
    struct disk *d = &w->disk;

    if (op->item.round != d->published + 1) {
        sim_fail(w, "round %d opens after %d", (int)op->item.round, (int)d->published);
    }
    if (!d->open) {
        d->open = true;
        uint64_t plan = w->conf.buffer ? 0 : op->item.round; /* buffers are of one plan */
        fl_digest_of(&plan, sizeof plan, &d->plan);
    }
    return 0;
}

static int enlist(struct world *w, const struct op *op)
{
    struct disk *d = &w->disk;
    uint32_t x = op->item.exchange;

    uint64_t *base = base_of(d, x, op->item.agent);
    if (!base) {
        if (d->members[x] == RECORDS_MAX) {
            sim_fail(w, "too many members");
        }
        base = &d->base[x][d->members[x]];
        d->member[x][d->members[x]++] = op->item.agent;
    } else if (*base != op->item.base && disk_find(d, op->item.round, x, op->item.agent)) {
        sim_fail(w, "agent %d is committed, and gets another task", (int)op->item.agent);
    }
    *base = op->item.base;
    return 0;
}

static int commit(struct world *w, const struct op *op)
{
    struct disk *d = &w->disk;
    const struct fl_round_item *it = &op->item;
    const struct disk_update *u = disk_find(d, it->round, it->exchange, it->agent);
    const struct disk_spool *s = &d->spool[it->agent - 1];

    if (u) {
        if (!fl_digest_equal(&u->digest, &it->digest)) {
            sim_fail(w, "agent %d brought a second update", (int)it->agent);
        }
        return 0;
    }
    if (!d->open || it->round != d->published + 1 || d->closed[it->exchange]) {
        sim_fail(w, "a record for an exchange that is closed");
    }
    if (!s->used || !s->sealed || !fl_digest_equal(&s->digest, &it->digest) ||
        s->round != it->round || s->exchange != it->exchange) {
        sim_fail(w, "a record without its bytes");
    }
    const uint64_t *base = base_of(d, it->exchange, it->agent);
    if (!base || *base != it->base) {
        sim_fail(w, "agent %d is recorded and no member", (int)it->agent);
    }
    if (it->round - it->base > w->rules.staleness ||
        disk_made(d, it->base, it->exchange, it->agent)) {
        sim_fail(w, "an update of agent %d is too old, or counts twice", (int)it->agent);
    }
    w->stale += it->round > it->base;
    if (d->updates == RECORDS_MAX) { /* what is too old to be asked for */
        uint32_t kept = 0;
        for (uint32_t i = 0; i < d->updates; i++) {
            if (d->update[i].round + LATE_ROUNDS > d->published) {
                d->update[kept++] = d->update[i];
            }
        }
        d->updates = kept;
    }
    struct disk_update *made = &d->update[d->updates++];
    *made = (struct disk_update){.round = it->round,
                                 .base = it->base,
                                 .agent = it->agent,
                                 .size = it->size,
                                 .exchange = it->exchange,
                                 .weight = it->weight,
                                 .digest = it->digest};
    memcpy(made->bytes, s->bytes, sizeof made->bytes);
    return 0;
}

static int seal(struct world *w, const struct op *op)
{
    struct disk_spool *s = &w->disk.spool[op->item.agent - 1];
    struct fl_digest digest;

    if (!s->used || !fl_digest_equal(&s->digest, &op->item.digest)) {
        return -FL_R_CANCELLED;
    }
    if (s->sealed) {
        return 0;
    }
    if (s->received != s->size) {
        return -FL_R_CANCELLED;
    }
    /* An agent gives an update up that arrives damaged FL_AGENT_DAMAGED_MAX times: not here. */
    if (s->damaged + 1 < FL_AGENT_DAMAGED_MAX && sim_chance(w, w->conf.damage)) {
        s->damaged++;
        s->bytes[0] ^= 1;
    }
    fl_digest_of(s->bytes, s->size, &digest);
    if (!fl_digest_equal(&digest, &s->digest)) {
        s->received = s->durable = 0;
        return -FL_R_UPDATE_DIGEST;
    }
    s->durable = s->size;
    s->sealed = true;
    return 0;
}

static int close_exchange(struct world *w, const struct op *op)
{
    struct disk *d = &w->disk;
    uint32_t x = op->item.exchange;

    law_closed(w, x, op->list, op->item.count);
    d->closed[x] = true;
    d->listed[x] = op->item.count;
    memcpy(d->list[x], op->list, op->item.count * sizeof *op->list);
    return 0;
}

static int publish(struct world *w, const struct op *op)
{
    struct disk *d = &w->disk;

    if (op->item.round != d->published + 1 || !d->has_checkpoint ||
        !fl_digest_equal(&op->item.digest, &d->checkpoint)) {
        sim_fail(w, "round %d is published out of order or with another checkpoint",
                 (int)op->item.round);
    }
    law_published(w);
    d->models = d->next.models;
    memcpy(d->model, d->next.model, sizeof d->model);
    memcpy(d->state, d->next.state, sizeof d->state);
    d->state_size = d->next.state_size;
    d->published++;
    d->history[d->published % 64] = d->checkpoint;
    d->open = d->has_checkpoint = false;
    memset(d->members, 0, sizeof d->members);
    memset(d->closed, 0, sizeof d->closed);
    return 0;
}

void disk_perform(struct world *w, const struct op *op, struct fl_round_event *answer)
{
    bool record = op->type != OP_SEAL;

    if (record && sim_chance(w, w->conf.disk_full)) {
        answer->status = -FL_R_DISK_FULL;
        return;
    }
    switch (op->type) {
    case OP_OPEN:
        answer->status = open_round(w, op);
        break;
    case OP_ENLIST:
        answer->status = enlist(w, op);
        break;
    case OP_COMMIT:
        answer->status = commit(w, op);
        break;
    case OP_CLOSE:
        answer->status = close_exchange(w, op);
        break;
    case OP_PUBLISH:
        answer->status = publish(w, op);
        break;
    case OP_SEAL:
        answer->status = seal(w, op);
        break;
    default:
        sim_fail(w, "operation %d is not for the disk", op->type);
    }
}

void disk_crash(struct world *w)
{
    for (uint32_t i = 0; i < SITES_MAX; i++) {
        struct disk_spool *s = &w->disk.spool[i];
        s->received = s->durable;
        if (!s->sealed) { /* what lies behind the watermark may be anything */
            memset(s->bytes + s->durable, 0xa5, sizeof s->bytes - s->durable);
        }
    }
}
