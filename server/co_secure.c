/*
 * Secure sums: how the stages of common/privacy/secagg run as exchanges of a round.
 *
 * An object that cannot be used must cost its sender the round and nobody else, also when the
 * coordinator dies between any two steps; but what is committed counts, and is folded again after a
 * restart. So every object is judged before it is committed, in the job's own lane, where the sum
 * stands still meanwhile: signatures, that the keys are of the very certificate the sender is
 * enrolled with (so nobody speaks for another, and no two members can be one), shares against what
 * their dealer published, the shape of a masked vector. Folding what passed cannot fail any more
 * but for the disk and memory, and taking the same objects in any order gives the same answers.
 *
 * Nothing of a secure sum is stored beside the agents' objects. A restarted coordinator takes them
 * again, closes the stages that were closed, and stands where it stood.
 */
#include "server/co.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/wire/tls_sign.h"

#include <string.h>
#include <unistd.h>

/* What is folded was verified when it was judged; a certificate that expired or was revoked since
 * then must not make a committed object another one. */
static int verify(void *arg, const uint8_t *cert, uint32_t cert_size, const uint8_t *message,
                  size_t size, const uint8_t *sig, uint32_t sig_size,
                  uint8_t ret_principal[FL_SECAGG_PRINCIPAL_SIZE], struct fl_err *e)
{
    const struct co_sums *s = arg;
    struct fl_identity who;
    int r = s->judged
                ? fl_tls_certificate_of(cert, cert_size, &who, e)
                : fl_tls_verify(s->tls, cert, cert_size, message, size, sig, sig_size, &who, e);

    if (r < 0) {
        return fl_wrap(e, -FL_R_SECAGG_KEYS, "a signature of a secure sum");
    }
    memcpy(ret_principal, who.key, FL_SECAGG_PRINCIPAL_SIZE);
    return 0;
}

int co_secure_open(struct co_sums *s, struct fl_tls_conf *tls, struct fl_err *e)
{
    for (uint32_t i = 0; i < s->terms_count; i++) {
        s->stage[i] = fl_secure_stage_of(&s->terms[i]);
    }
    if (!s->plan->secure.on) {
        return 0;
    }
    s->tls = fl_tls_conf_ref(tls);
    s->identity = (struct fl_secagg_identity){.arg = s, .verify = verify};
    return fl_secure_new(s->plan, s->strategy, s->incarnation, s->round, &s->identity, &s->secure,
                         e);
}

void co_secure_close(struct co_sums *s)
{
    fl_secure_free(s->secure);
    s->secure = NULL;
    fl_tls_conf_unref(s->tls);
    s->tls = NULL;
}

int co_sums_input(const struct co_sums *s, uint32_t exchange, uint64_t agent, uint8_t **ret,
                  size_t *ret_size, struct fl_err *e)
{
    if (s->stage[exchange] < FL_SECAGG_STAGES) {
        return fl_secure_input(s->secure, s->stage[exchange], agent, ret, ret_size, e);
    }
    if (!s->strategy->input) {
        return fl_fail(e, FL_R_INTERNAL, "strategy %s has nothing to begin %s with",
                       s->strategy->name, s->terms[exchange].name);
    }
    return s->strategy->input(s->shared, exchange, agent, ret, ret_size, e);
}

/* ---- before the commit ---- */

struct judge_op {
    struct co_op op;
    const struct co_sums *sums;
    struct fl_store_update u;
    uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE];
    char path[FL_STORE_PATH_MAX];
};

static void judge_run(struct co_op *op)
{
    struct judge_op *g = (struct judge_op *)op;
    struct co_update_file file;
    struct fl_update u;

    op->status =
        co_update_open(&g->sums->terms[g->u.exchange], &g->u, g->path, &file, &u, &op->err);
    if (op->status == 0) {
        op->status = fl_secure_judge(g->sums->secure, g->sums->stage[g->u.exchange], &u,
                                     g->principal, &op->err);
        close(file.fd);
    }
}

static void judge_done(struct co_op *op)
{
    const struct judge_op *g = (struct judge_op *)op;

    co_upload_judged(op->co, op->job_id, &g->u, op->status, &op->err);
}

bool co_secure_judge(struct co *co, struct co_job *j, const struct fl_store_update *u)
{
    const struct fl_roster_agent *a = fl_roster_by_id(co->roster, u->agent);

    if (!j || !j->sums || !a || u->round != j->sums->round || u->exchange >= j->sums->terms_count ||
        j->sums->stage[u->exchange] == FL_SECAGG_STAGES) {
        return false;
    }
    struct judge_op *g = co_op_new(co, sizeof *g, judge_run, judge_done);
    g->op.job_id = j->id;
    g->sums = j->sums;
    g->u = *u;
    memcpy(g->principal, a->key, sizeof g->principal);
    fl_store_upload_path(co->store, j->incarnation, u, g->path);
    co_submit(co, j->lane, &g->op);
    return true;
}

/* ---- behind the commit ---- */

int co_secure_fold(struct co_sums *s, const struct fl_update *u, struct fl_err *e)
{
    s->judged = true;
    int r = fl_secure_fold(s->secure, s->stage[u->exchange], u, e);
    s->judged = false;
    return r;
}

int co_secure_finish(struct co_sums *s, uint32_t exchange, const struct fl_seed *secret,
                     struct fl_updates *ret_updates, struct fl_err *e)
{
    bool last = exchange + 1 == s->terms_count;
    char note[CO_NOTE_MAX];
    int r = 0;

    if (fl_secure_stage(s->secure) == s->stage[exchange]) { /* else it was closed before */
        r = fl_secure_between(s->secure, s->shared, secret, e);
        if (s->stage[exchange] == FL_SECAGG_UNMASK && (r == 0 || fl_secure_is_lost(r))) {
            int remembered = co_distrust_add(s, r == 0 ? e : NULL);
            r = r ? r : remembered;
        }
    }
    if (r == 0 && last) {
        for (uint32_t i = 0; i < s->slot_count; i++) {
            s->strategy->slot_reset(s->shared, s->slots[i]);
        }
        r = fl_secure_finish(s->secure, s->shared, s->slots, ret_updates, e);
    }
    if (r == 0 && last) {
        fl_secure_note(s->secure, note, sizeof note);
        if (note[0]) {
            fl_log(FL_LOG_INFO, s->plan->name, "round %llu: %s", (unsigned long long)s->round,
                   note);
        }
    }
    return r;
}

bool co_secure_is_lost(const struct co_sums *s, uint32_t exchange, int status)
{
    return s->stage[exchange] < FL_SECAGG_STAGES && fl_secure_is_lost(status);
}
