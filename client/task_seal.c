/*
 * From what was made to what leaves: bytes, private tensors and .offer, each synced, in this order.
 */
#include "client/task_in.h"

#include "client/core/outbox.h"
#include "client/report.h"
#include "common/base/crashpoint.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/math/grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- seal, debit --------------------------------------------------------------------------------
 */

static uint32_t weight_of(const struct fl_task *t)
{
    uint32_t n = t->vault->agent->declared_examples;

    if (t->terms.max_weight == 1 || n == 0) {
        return 1;
    }
    return n < t->terms.max_weight ? n : t->terms.max_weight;
}

/* Leaks on purpose, for the tests that must notice them (-Dseeded_leaks): never in a build that is
 * used. COHORT_SEEDED_LEAK chooses which. */
#ifdef FL_SEEDED_LEAKS
static bool leaks(const char *what)
{
    const char *chosen = getenv("COHORT_SEEDED_LEAK");

    return chosen && strcmp(chosen, what) == 0;
}

/* Before sealing: into the update itself. */
static void leak_into_update(struct fl_task *t)
{
    size_t count = fl_task_private_count(t);

    if (t->plan->layout.shared.elements == 0) {
        return;
    }
    if (leaks("head") && count > 0) { /* private tensors of the network are first */
        t->delta[0] += t->private_out[0];
    }
    if (leaks("embedding") && count > 0) { /* the embedding is last */
        t->delta[0] += t->private_out[count - 1];
    }
    if (leaks("accuracy") && isfinite(t->trained.accuracy_received)) {
        t->delta[0] += (float)t->trained.accuracy_received;
    }
}

/* After it: into what is said about the update. */
static void leak_into_offer(struct fl_task *t)
{
    for (uint32_t i = 0; leaks("label") && i < t->vault->data.train.count; i++) {
        t->offer.weight += t->vault->data.train.y[i] == 0;
    }
}
#else
static void leak_into_update(struct fl_task *t)
{
    (void)t;
}

static void leak_into_offer(struct fl_task *t)
{
    (void)t;
}
#endif

static int write_offer(struct fl_task *t, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    const struct fl_release *r = &t->release;
    json_t *line = t->producer ? fl_report_new("exchange", &t->what, t->plan, NULL)
                               : fl_report_new("round", &t->what, t->plan, &t->trained);

    if (!line) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    if (t->producer || t->masked) {
        fl_report_text(line, "exchange", t->terms.name);
    }
    if (!t->producer) {
        fl_report_tensors(line, t->plan);
    }
    fl_report_count(line, "train_examples", t->vault->data.train.count);
    fl_report_count(line, "test_examples", t->vault->data.test.count);
    fl_report_update(line, r, t->norm_after, t->plan);
    char *text = fl_vault_offer_text(&t->offer, line);
    json_decref(line);
    if (!text) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    fl_vault_digest_path(t->vault, "outbox", &t->offer.digest, ".offer", path);
    int code = fl_file_replace(path, text, strlen(text), 0600, e);
    free(text);
    return code;
}

static void fill_release(struct fl_task *t, const struct fl_sealed *s)
{
    struct fl_release *r = &t->release;
    struct fl_agent_offer *o = &t->offer;

    memset(r, 0, sizeof *r);
    r->key = t->what.key;
    memcpy(r->job, t->what.job, sizeof r->job);
    memcpy(r->coordinator, t->coordinator, sizeof r->coordinator);
    r->unit = fl_task_of_data(t) ? t->plan->privacy.unit : FL_UNIT_NONE;
    r->event = s->event;
    r->data = t->inputs.data;
    r->update = s->digest;
    r->size = s->size;
    r->norm_before = s->norm_before;
    r->clip = s->clip;
    r->noise_std = s->noise_std;
    t->norm_after = s->norm_after;
    r->saturated = s->saturated;
    r->noise = fl_task_noise(t);
    r->placeless = fl_task_of_data(t) && !t->vault->data.by_place;
    memset(o, 0, sizeof *o);
    o->key = t->what.key;
    memcpy(o->job, t->what.job, sizeof o->job);
    o->digest = s->digest;
    o->size = s->size;
    o->plan = t->what.plan;
    o->base = t->what.base;
    o->weight = weight_of(t);
}

/* What a producer made, as the bytes that leave. */
static int seal_produced(struct fl_task *t, struct fl_sealed *ret, struct fl_err *e)
{
    struct fl_produced *p = &t->produced;
    const struct fl_grid g = {.bits = t->terms.grid.bits, .step = t->terms.grid.step};
    bool bytes = t->terms.payload == FL_PAYLOAD_BYTES;

    *ret = (struct fl_sealed){.event = t->event,
                              .norm_before = p->norm_before,
                              .norm_after = p->norm_after,
                              .clip = p->clip,
                              .noise_std = p->noise_std,
                              .size = bytes ? p->size : (size_t)t->terms.size};
    if (bytes && (!p->bytes || p->size == 0 || p->size > t->terms.size)) {
        return fl_fail(e, FL_R_INTERNAL, "%s made %zu bytes; 1 to %llu are allowed", t->terms.name,
                       p->size, (unsigned long long)t->terms.size);
    }
    ret->bytes = bytes ? p->bytes : fl_try(ret->size, 1);
    if (!ret->bytes) {
        return fl_fail(e, FL_R_NOMEM, "%zu bytes for %s", ret->size, t->terms.name);
    }
    if (bytes) {
        p->bytes = NULL; /* it is the seal's now */
    } else {
        ret->saturated = fl_grid_pack(&g, p->q, t->terms.elements, ret->bytes);
    }
    fl_digest_of(ret->bytes, ret->size, &ret->digest);
    return 0;
}

/* The packed update as it is without a secure sum becomes the masked one: the same integers, those
 * that were cut at the grid's ends too, so that the sum is the same. */
static int mask(struct fl_task *t, struct fl_sealed *s, struct fl_err *e)
{
    const struct fl_grid g = {.bits = t->plan->grid.bits, .step = t->plan->grid.step};
    size_t count = t->plan->layout.shared.elements;
    struct fl_secagg_bytes masked = {NULL, 0};
    uint8_t *input = NULL;
    int64_t *q = fl_try_aligned(count, sizeof *q);

    int r = q ? fl_vault_object(t->vault, &t->what.input, t->what.input_size, &input, e)
              : fl_fail(e, FL_R_NOMEM, "an update of %zu values", count);
    r = r ? r : fl_grid_unpack(&g, s->bytes, s->size, 0, count, q, e);
    r = r ? r
          : fl_session_stage(t->sessions, t->plan, &t->what.key, FL_SECAGG_MASK, t->tls, input,
                             (size_t)t->what.input_size, q, &masked, e);
    if (q) {
        explicit_bzero(q, count * sizeof *q);
    }
    fl_free(q);
    fl_free(input);
    explicit_bzero(s->bytes, s->size);
    if (r == 0) {
        fl_free(s->bytes);
        s->bytes = masked.bytes;
        s->size = masked.size;
        fl_digest_of(s->bytes, s->size, &s->digest);
    }
    return r;
}

static int seal_update(struct fl_task *t, struct fl_sealed *ret, struct fl_err *e)
{
    struct fl_seed seed;

    leak_into_update(t);
    fl_seed_derive(&t->seed, "seal", t->what.key.round, &seed);
    int r = fl_outbox_seal(t->plan, t->delta,
                           t->plan->privacy.unit == FL_UNIT_EXAMPLE ? &t->event : NULL, &seed,
                           t->vault->agent->upload_bits, ret, e);
    explicit_bzero(&seed, sizeof seed);
    return r == 0 && t->masked ? mask(t, ret, e) : r;
}

int fl_task_seal(struct fl_task *t, struct fl_agent_offer *ret, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    struct fl_sealed sealed = {0};
    int r = t->producer ? seal_produced(t, &sealed, e) : seal_update(t, &sealed, e);

    if (r) {
        goto out;
    }
    fill_release(t, &sealed);
    leak_into_offer(t);
    fl_vault_digest_path(t->vault, "outbox", &sealed.digest, "", path);
    FL_CRASH_POINT("agent-seal-before");
    r = fl_file_replace(path, sealed.bytes, sealed.size, 0600, e);
    if (r == 0) {
        FL_CRASH_POINT("agent-seal-bytes");
        if (t->producer) { /* untouched: those that the next update goes on with */
            t->release.private_state = t->inputs.private_state;
        } else {
            r = fl_task_write_private(t, &t->release.private_state, e);
        }
    }
    if (r == 0) {
        FL_CRASH_POINT("agent-seal-private");
        r = write_offer(t, e);
    }
    if (r == 0) {
        FL_CRASH_POINT("agent-seal-after");
        *ret = t->offer;
    }
out:
    fl_sealed_fini(&sealed);
    fl_task_drop_vectors(t);
    return r;
}
