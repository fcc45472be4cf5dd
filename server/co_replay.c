/*
 * `audit replay`: a published round once more, from what the store keeps of it, by the very calls
 * that made it: the same description, the checkpoint before it, the same updates (each compared
 * with its recorded digest), the same finish. Sums are integers and noise is keyed by them, so
 * whoever is honest gets the same bytes, and the digest that the chain of records has.
 *
 * The facts are read on the store's lane; the rest is one long job on a lane of its own, beside
 * whatever rounds are open. A file that goes meanwhile, since newer rounds are published, ends it.
 */
#include "server/co.h"

#include "common/base/mem.h"
#include "common/io/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TILE = 256 * 1024 };

struct replay_op {
    struct co_op op;
    uint64_t ticket, round;
    char job[FL_PLAN_NAME_MAX];
    uint8_t incarnation[FL_INCARNATION_SIZE];
    struct fl_seed secret;
    struct fl_server_target target;
    struct fl_tls_conf *tls;
    struct fl_store_replay from;
    struct fl_digest computed;
    bool given_up;
};

static int check_bytes(const char *path, const struct fl_store_update *u, struct fl_err *e)
{
    uint8_t *tile = fl_try(TILE, 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC), r = 0;
    struct fl_digest found;
    struct fl_hash h;

    if (fd < 0) {
        r = fl_fail(e, FL_R_NO_OBJECT, "an update of round %llu is not kept any more",
                    (unsigned long long)u->round);
    } else if (!tile) {
        r = fl_fail(e, FL_R_NOMEM, "a tile");
    }
    fl_hash_init(&h);
    for (uint64_t at = 0; r == 0 && at < u->size; at += TILE) {
        size_t n = u->size - at < TILE ? (size_t)(u->size - at) : TILE;
        r = fl_file_read_at(fd, at, tile, n, e);
        fl_hash_add(&h, tile, n);
    }
    fl_hash_end(&h, &found);
    if (r == 0 && !fl_digest_equal(&found, &u->digest)) {
        r = fl_fail(e, FL_R_STORE_MISMATCH, "%s is not the update that was accepted", path);
    }
    if (fd >= 0) {
        close(fd);
    }
    fl_free(tile);
    return r;
}

/* All exchanges of the round, in their order. */
static int replay(struct replay_op *p, struct co_sums *s, struct fl_err *e)
{
    char path[FL_STORE_PATH_MAX];
    uint32_t next = 0;
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < s->terms_count; i++) {
        for (; r == 0 && next < p->from.update_count && p->from.updates[next].exchange == i;
             next++) {
            const struct fl_store_update *u = &p->from.updates[next];
            fl_store_upload_path(s->store, p->incarnation, u, path);
            r = check_bytes(path, u, e);
            r = r ? r : co_sums_fold(s, u, path, e);
        }
        r = r ? r : co_recompute(s, i, false, &p->secret, &p->target, &p->computed, e);
        if (r && co_secure_is_lost(s, i, r)) {
            break; /* as in the round: what follows says whether it was given up */
        }
    }
    return r;
}

static void compute_run(struct co_op *op)
{
    struct replay_op *p = (struct replay_op *)op;
    struct co_sums_of of = {.name = p->job,
                            .text = p->from.text,
                            .size = p->from.text_size,
                            .round = p->round,
                            .checkpoint = p->from.before,
                            .tls = p->tls};
    struct co_sums *s = NULL;
    struct fl_digest unchanged;
    struct fl_err unused = {0};

    memcpy(of.incarnation, p->incarnation, sizeof of.incarnation);
    op->status = co_sums_new(op->co->store, &of, &s, &op->err);
    if (op->status) {
        return;
    }
    op->status = replay(p, s, &op->err);
    bool same = op->status == 0 && fl_digest_equal(&p->computed, &p->from.checkpoint);
    if (!same && s->terms_count > 0 &&
        co_recompute(s, s->terms_count - 1, true, &p->secret, &p->target, &unchanged, &unused) ==
            0 &&
        fl_digest_equal(&unchanged, &p->from.checkpoint)) {
        p->computed = unchanged;
        p->given_up = true;
        op->status = 0;
    }
    co_sums_free(s);
}

static void replay_free(struct replay_op *p)
{
    fl_store_replay_fini(&p->from);
    explicit_bzero(&p->secret, sizeof p->secret);
    if (p->tls) {
        fl_tls_conf_unref(p->tls);
        p->tls = NULL;
    }
}

static void compute_done(struct co_op *op)
{
    struct replay_op *p = (struct replay_op *)op;
    struct fl_control_replay row = {.job = p->job,
                                    .round = p->round,
                                    .updates = p->from.update_count,
                                    .recorded = p->from.checkpoint,
                                    .computed = p->computed,
                                    .given_up = p->given_up};

    if (op->status == 0) {
        fl_control_replay_row(op->co->control, p->ticket, &row);
    }
    fl_control_done(op->co->control, p->ticket, op->status, &op->err, NULL);
    replay_free(p);
}

static void gather_run(struct co_op *op)
{
    struct replay_op *p = (struct replay_op *)op;

    op->status = fl_store_replay(op->co->store, op->job_id, p->round, &p->from, &op->err);
}

static void gather_done(struct co_op *op)
{
    struct replay_op *p = (struct replay_op *)op;

    if (op->status) {
        fl_control_done(op->co->control, p->ticket, op->status, &op->err, NULL);
        replay_free(p);
        return;
    }
    struct replay_op *next = co_op_new(op->co, sizeof *next, compute_run, compute_done);
    struct co_op head = next->op;
    *next = *p; /* all that was found goes on */
    next->op = head;
    p->tls = NULL;
    memset(&p->from, 0, sizeof p->from);
    replay_free(p);
    co_submit(op->co, op->co->replay_lane, &next->op);
}

void co_replay(void *arg, uint64_t ticket, const char *job, uint64_t round)
{
    struct co *co = arg;
    struct co_job *j = co_job_asked(co, ticket, job);

    if (!j) {
        return;
    }
    struct replay_op *p = co_op_new(co, sizeof *p, gather_run, gather_done);
    p->op.job_id = j->id;
    p->ticket = ticket;
    p->round = round;
    snprintf(p->job, sizeof p->job, "%s", j->name);
    memcpy(p->incarnation, j->incarnation, sizeof p->incarnation);
    co_secret_of(co, p->incarnation, &p->secret);
    p->target = co->config.target;
    p->tls = fl_tls_conf_ref(co->tls);
    co_submit(co, co->store_lane, &p->op);
}
