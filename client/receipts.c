#include "client/receipts.h"

#include "client/runner_in.h"
#include "client/talk.h"
#include "client/vault.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

struct query {
    struct fl_runner_query q;
    struct fl_receipts *of;
};

struct fl_receipts {
    struct fl_runner *runner;
    bool given; /* by this connection's coordinator */
    uint8_t coordinator[16];
    /* claiming: they are read from the ledger, then sent */
    struct query claim;
    bool claiming;
    uint8_t asked[16];
    struct fl_wanted updates[FL_WIRE_CLAIMS_MAX];
    uint32_t update_count;
    /* keeping: `in` gathers while `kept` is judged and written */
    struct query keep;
    bool keeping;
    struct fl_tls_conf *tls;
    struct fl_receipt_proof *in, *kept; /* FL_WIRE_CLAIMS_MAX each; in: NULL until one comes */
    uint32_t in_count, kept_count, refused;
    struct fl_err err, why; /* of the write; of the last that was refused */
};

struct fl_receipts *fl_receipts_new(struct fl_runner *r)
{
    struct fl_receipts *x = fl_new(1, sizeof *x);

    x->runner = r;
    x->claim.of = x->keep.of = x;
    return x;
}

void fl_receipts_free(struct fl_receipts *x)
{
    if (x) {
        fl_free(x->in);
        fl_free(x->kept);
        fl_free(x);
    }
}

void fl_receipts_welcome(struct fl_receipts *x, const Cohort__Welcome *w)
{
    x->given = false;
    for (size_t i = 0; i < w->n_capabilities; i++) {
        x->given = x->given || strcmp(w->capabilities[i], "receipts") == 0;
    }
    memcpy(x->coordinator, w->coordinator.data, sizeof x->coordinator);
}

/* ---- claiming ---- */

static void claim_run(struct fl_runner_query *q)
{
    struct fl_receipts *x = ((struct query *)q)->of;
    struct fl_err e;

    if (fl_ledger_receipts_wanted(q->vault->ledger, x->asked, x->updates, FL_WIRE_CLAIMS_MAX,
                                  &x->update_count, &e)) {
        x->update_count = 0; /* whatever is wrong with the ledger will be said where it matters */
    }
}

static void claim_done(struct fl_runner_query *q)
{
    struct fl_receipts *x = ((struct query *)q)->of;
    struct fl_talk t;

    x->claiming = false;
    if (q->job.cancelled || x->update_count == 0 || !x->given ||
        memcmp(x->asked, x->coordinator, sizeof x->asked) != 0) {
        return; /* nothing is missing, or the connection is another one now */
    }
    fl_talk_claim(&t, x->updates, x->update_count);
    fl_runner_send(x->runner, &t.frame);
}

void fl_receipts_claim(struct fl_receipts *x)
{
    if (!x->given || x->claiming) {
        return;
    }
    x->claim.q.run = claim_run;
    x->claim.q.done = claim_done;
    x->update_count = 0;
    memcpy(x->asked, x->coordinator, sizeof x->asked);
    x->claiming = fl_runner_ask(x->runner, &x->claim.q) == 0;
}

/* ---- keeping ---- */

/* Fills what the ledger knows and compares; 0, or why not. */
static int judge(struct fl_receipts *x, struct fl_vault *v, struct fl_receipt_proof *p,
                 struct fl_err *e)
{
    struct fl_release release;
    struct fl_receipt *r = &p->receipt;
    int code = fl_ledger_find(v->ledger, &r->key, &release, e);

    if (code <= 0) {
        return code ? code : fl_fail(e, FL_R_RECEIPT, "a receipt of what was never released");
    }
    memcpy(r->job, release.job, sizeof r->job);
    memcpy(r->agent, fl_tls_conf_identity(x->tls)->key, sizeof r->agent);
    if (p->reason) {
        return 0;
    }
    if (!fl_digest_equal(&r->update, &release.update) || r->size != release.size ||
        r->round < r->key.round) {
        return fl_fail(e, FL_R_RECEIPT,
                       "a receipt of round %llu of %s names another update than the one released",
                       (unsigned long long)r->key.round, r->job);
    }
    char text[FL_RECEIPT_TEXT_MAX];
    struct fl_identity who;
    size_t size = fl_receipt_text(r, text);
    code = fl_tls_verify_coordinator(x->tls, x->runner->site->config->coordinator.name, true,
                                     p->certificate, p->certificate_size, (const uint8_t *)text,
                                     size, p->signature, p->signature_size, &who, e);
    return code == 0 ? 0
                     : fl_wrap(e, -FL_R_RECEIPT, "a receipt of round %llu of %s",
                               (unsigned long long)r->key.round, r->job);
}

static void keep_run(struct fl_runner_query *q)
{
    struct fl_receipts *x = ((struct query *)q)->of;
    uint32_t good = 0;

    x->refused = 0;
    for (uint32_t i = 0; i < x->kept_count; i++) {
        if (judge(x, q->vault, &x->kept[i], &x->why) == 0) {
            x->kept[good++] = x->kept[i];
        } else {
            x->refused++;
        }
    }
    memset(&x->err, 0, sizeof x->err);
    if (good) {
        fl_ledger_receipts_keep(q->vault->ledger, x->kept, good, fl_vault_wall_ms(), &x->err);
    }
}

static void begin_keeping(struct fl_receipts *x);

static void keep_done(struct fl_runner_query *q)
{
    struct fl_receipts *x = ((struct query *)q)->of;

    x->keeping = false;
    fl_tls_conf_unref(x->tls);
    if (q->job.cancelled) {
        return;
    }
    if (x->refused) {
        fl_log_err(FL_LOG_WARN, x->runner->area, &x->why, "refused");
    }
    if (x->err.code) {
        fl_log_err(FL_LOG_WARN, x->runner->area, &x->err, "keep receipts");
    }
    begin_keeping(x);
}

static void begin_keeping(struct fl_receipts *x)
{
    struct fl_receipt_proof *swap = x->kept;

    if (x->keeping || x->in_count == 0) {
        return;
    }
    x->kept = x->in;
    x->in = swap;
    x->kept_count = x->in_count;
    x->in_count = 0;
    x->tls = fl_tls_conf_ref(x->runner->tls);
    x->keep.q.run = keep_run;
    x->keep.q.done = keep_done;
    x->keeping = fl_runner_ask(x->runner, &x->keep.q) == 0;
    if (!x->keeping) {
        fl_tls_conf_unref(x->tls); /* they are claimed again */
    }
}

static void take_inclusion(const Cohort__Inclusion *m, struct fl_receipt_proof *p)
{
    memcpy(p->receipt.update.bytes, m->update.data, FL_DIGEST_SIZE);
    memcpy(p->receipt.record.bytes, m->record.data, FL_DIGEST_SIZE);
    memcpy(p->receipt.model.bytes, m->model.data, FL_DIGEST_SIZE);
    p->receipt.weight = m->weight;
    p->receipt.size = m->size;
    p->receipt.round = m->round;
    memcpy(p->certificate, m->certificate.data, m->certificate.len); /* msg_rules.c: they fit */
    p->certificate_size = m->certificate.len;
    memcpy(p->signature, m->signature.data, m->signature.len);
    p->signature_size = m->signature.len;
}

void fl_receipts_take(struct fl_receipts *x, const Cohort__Receipt *m)
{
    if (!x->in) {
        x->in = fl_try(FL_WIRE_CLAIMS_MAX, sizeof *x->in);
    }
    if (!x->in || x->in_count == FL_WIRE_CLAIMS_MAX || (!m->inclusion && m->reason == 0)) {
        return; /* more than was claimed, or says nothing */
    }
    struct fl_receipt_proof *p = &x->in[x->in_count++];
    memset(p, 0, sizeof *p);
    fl_key_from_msg(m->key, &p->receipt.key);
    if (m->inclusion) {
        take_inclusion(m->inclusion, p);
    } else {
        p->reason = (int)m->reason;
    }
    begin_keeping(x);
}
