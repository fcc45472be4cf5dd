/*
 * pFedHN (Shamsian et al. 2021, arXiv 2103.04628): the coordinator has a network h that makes each
 * agent's model from an embedding of its own. An agent trains what it is sent as it would any model
 * and sends the difference; nothing of h or of embeddings leaves the coordinator.
 *
 *     f_i = relu(M e_i + m)          theta_i = b + sum over hidden units u of f_i[u] W_u
 *
 * After training, h and the embedding take a step towards what the agent came to: D_i being its
 * update and w_i its weight among the round's members, all gradients at the h that they were sent,
 *
 *     d_i = f_i > 0 ? (W_u . D_i)_u : 0
 *     W_u += lr sum w_i f_i[u] D_i       b += lr sum w_i D_i
 *     M += lr sum w_i d_i e_i^T          m += lr sum w_i d_i        e_i += embedding_lr M^T d_i
 *
 * `published` takes these steps as they are, and one has to find rates for each network. The
 * default divides lr by 1 + sum w_i |f_i|^2, so that 1 moves the mean of the models by the mean
 * update as FedAvg does, and embedding_lr by the square of the largest step theta could take, sum
 * over active u of |W_u|^2 |M_u|^2.
 *
 * A job begins with one model for all: W with zeros, b with that model, and embeddings drawn for
 * each agent of the first round, so that from then on W can tell them apart. An agent that comes
 * later is sent what the mean of all embeddings makes, and its own begins there.
 *
 * Everything but M, m and embeddings is done by tiles of the model, twice over the updates: first
 * the d_i, then W, b and the models that come of them. h itself is state of the checkpoint, hidden
 * + 1 times the model, and in memory. Everything is computed from what agents released: it is
 * post-processing.
 */
#include "server/strategy/pfedhn.h"

#include "common/base/le.h"
#include "common/base/mem.h"
#include "server/strategy/personal.h"

#include <assert.h>
#include <math.h>
#include <string.h>

struct hn {
    struct fl_personal p;
    size_t hidden, embedding, elements;
    struct fl_seed job;
    bool begun;   /* b is known */
    size_t count; /* of all that follows, in one piece */
    float *all;   /* M [hidden, embedding], */
    float *m;     /* [hidden], */
    float *first; /* [embedding]: embedding 0, */
    float *e;     /* [homes at most, embedding], */
    float *w, *b; /* [hidden, elements], [elements] */
    size_t small; /* how many come before W */
};

static struct hn places(struct hn s, float *all)
{
    s.all = all;
    s.m = all + s.hidden * s.embedding;
    s.first = s.m + s.hidden;
    s.e = s.first + s.embedding;
    s.w = s.e + s.p.most * s.embedding;
    s.b = s.w + s.hidden * s.elements;
    return s;
}

/* ---- shared ---- */

static void fill(const struct fl_seed *job, const char *label, uint64_t index, double bound,
                 float *to, size_t count)
{
    struct fl_seed own;
    struct fl_rng r;

    fl_seed_derive(job, label, index, &own);
    fl_rng_init(&r, &own, 0);
    for (size_t i = 0; i < count; i++) {
        to[i] = (float)((2 * fl_rng_unit(&r) - 1) * bound);
    }
    fl_rng_fini(&r);
}

static void begin(struct hn *s, const struct fl_plan *plan)
{
    double bound = 1 / sqrt((double)s->embedding);

    fl_seed_from_u64(plan->seed, &s->job);
    fill(&s->job, "pfedhn weight", 0, bound, s->all, s->hidden * s->embedding);
    fill(&s->job, "pfedhn bias", 0, bound, s->m, s->hidden);
}

static void hn_fini(void *shared)
{
    struct hn *s = shared;

    fl_free(s->all);
    s->all = NULL;
    fl_personal_fini(&s->p);
}

static int hn_init(void *shared, const struct fl_plan *plan, struct fl_err *e)
{
    struct hn *s = shared;
    int r = fl_personal_init(&s->p, NULL, plan, e);

    if (r) {
        return r;
    }
    s->hidden = plan->setting.pfedhn.hidden;
    s->embedding = plan->setting.pfedhn.embedding;
    s->elements = s->p.elements;
    s->small = (s->hidden + 1 + s->p.most) * s->embedding + s->hidden;
    s->count = s->small + (s->hidden + 1) * s->elements;
    float *all = fl_try_aligned(s->count, sizeof *all);
    if (!all) {
        hn_fini(s);
        return fl_fail(e, FL_R_NOMEM, "a hypernetwork of %zu values", s->count);
    }
    *s = places(*s, all);
    begin(s, plan);
    return 0;
}

/* ---- state: of personal.h, then u32 begun, then all values ---- */

static size_t values_at(const struct hn *s)
{
    return fl_personal_state_size(&s->p) + 4;
}

static size_t hn_state_size(const void *shared)
{
    const struct hn *s = shared;

    return values_at(s) + 4 * s->count;
}

static void hn_save(const void *shared, uint8_t *to)
{
    const struct hn *s = shared;

    fl_personal_save(&s->p, to);
    fl_put_u32(to + values_at(s) - 4, s->begun);
    for (size_t i = 0; i < s->count; i++) {
        fl_put_float(to + values_at(s) + 4 * i, s->all[i]);
    }
}

static int hn_load(void *shared, const uint8_t *from, size_t size, struct fl_err *e)
{
    struct hn *s = shared;

    if (size != hn_state_size(s) || fl_get_u32(from + values_at(s) - 4) > 1) {
        return fl_fail(e, FL_R_STORE_MISMATCH,
                       "strategy state of %zu bytes is not a hypernetwork's of %zu", size,
                       hn_state_size(s));
    }
    int r = fl_personal_load(&s->p, from, fl_personal_state_size(&s->p), e);
    s->begun = fl_get_u32(from + values_at(s) - 4);
    for (size_t i = 0; r == 0 && i < s->count; i++) {
        s->all[i] = fl_get_float(from + values_at(s) + 4 * i);
        if (!isfinite(s->all[i])) {
            r = fl_fail(e, FL_R_STORE_MISMATCH, "value %zu of the hypernetwork is not finite", i);
        }
    }
    return r;
}

/* ---- a finish ---- */

struct finish {
    const struct hn *s;
    struct hn now; /* the small values after it; W and b go to the state as they are made */
    struct fl_next *next;
    struct fl_rows rows;
    double rate;   /* of h */
    float *from;   /* [rows, embedding] */
    double *f;     /* [rows, hidden] */
    double *f_now; /* [1 + rows, hidden]: of embedding 0, then of each row */
    double *d;     /* [rows, hidden] */
    double *norms; /* [hidden]: |W_u|^2 */
    double *b, *w; /* a tile of them */
    float *before, *after;
    double moved;
};

static float *embedding_of(const struct finish *f, uint32_t row)
{
    return f->from + row * f->s->embedding;
}

/* What each row's model was made of. */
static void find_embeddings(struct finish *f)
{
    const struct hn *s = f->s;

    for (uint32_t i = 0; i < f->rows.count; i++) {
        const struct fl_row *row = &f->rows.at[i];
        if (!s->begun) { /* W is 0: of any */
            fill(&s->job, "pfedhn agent", row->home.agent, sqrt(3), embedding_of(f, i),
                 s->embedding);
        } else {
            memcpy(embedding_of(f, i), row->slot ? s->e + (row->slot - 1) * s->embedding : s->first,
                   s->embedding * sizeof *f->from);
        }
    }
}

static void features(const struct hn *s, const float *e, double *to)
{
    for (size_t u = 0; u < s->hidden; u++) {
        double p = (double)s->m[u];
        for (size_t i = 0; i < s->embedding; i++) {
            p += (double)s->all[u * s->embedding + i] * (double)e[i];
        }
        to[u] = p > 0 ? p : 0;
    }
}

static double weight_of(const struct finish *f, uint32_t row)
{
    const struct fl_update *u = f->rows.at[row].update;

    return u ? (double)u->weight / (double)f->next->weight : 0;
}

/* Values [first, first + count) of a row's update into f->after. */
static int read_update(struct finish *f, uint32_t row, size_t first, size_t count, struct fl_err *e)
{
    int r = fl_rows_read(&f->rows, row, first, count, f->before, f->after, e);

    for (size_t k = 0; r == 0 && k < count; k++) {
        f->after[k] -= f->before[k];
    }
    return r;
}

static int project(struct finish *f, size_t first, size_t count, struct fl_err *e)
{
    const struct hn *s = f->s;

    for (size_t u = 0; u < s->hidden; u++) {
        const float *w = s->w + u * s->elements + first;
        for (size_t k = 0; k < count; k++) {
            f->norms[u] += (double)w[k] * (double)w[k];
        }
    }
    for (uint32_t i = 0; i < f->rows.count; i++) {
        int r = f->rows.at[i].update ? read_update(f, i, first, count, e) : 0;
        if (r) {
            return r;
        }
        for (size_t u = 0; f->rows.at[i].update && u < s->hidden; u++) {
            const float *w = s->w + u * s->elements + first;
            double sum = 0;
            for (size_t k = 0; f->f[i * s->hidden + u] > 0 && k < count; k++) {
                sum += (double)w[k] * (double)f->after[k];
            }
            f->d[i * s->hidden + u] += sum;
        }
    }
    return 0;
}

/* The embedding of a row after the round, into its new place. */
static void step_embedding(struct finish *f, uint32_t row)
{
    const struct hn *s = f->s;
    const float *e = embedding_of(f, row);
    float *to = f->now.e + row * s->embedding;
    double rate = s->p.setting.pfedhn.embedding_lr, largest = 0;

    for (size_t u = 0; u < s->hidden; u++) {
        for (size_t i = 0; f->f[row * s->hidden + u] > 0 && i < s->embedding; i++) {
            double m = (double)s->all[u * s->embedding + i];
            largest += f->norms[u] * m * m;
        }
    }
    if (s->p.setting.pfedhn.variant == FL_PERSONAL_BETTER) {
        rate = largest > 0 ? rate / largest : 0;
    }
    for (size_t i = 0; i < s->embedding; i++) {
        double by = 0;
        for (size_t u = 0; u < s->hidden; u++) {
            by += (double)s->all[u * s->embedding + i] * f->d[row * s->hidden + u];
        }
        to[i] = (float)((double)e[i] + rate * by);
    }
}

/* M, m and the embeddings; then what they make of every row. */
static void step_small(struct finish *f)
{
    const struct hn *s = f->s;
    uint32_t n = f->rows.count;

    memset(f->now.e, 0, s->p.most * s->embedding * sizeof *f->now.e);
    for (uint32_t i = 0; i < n; i++) {
        step_embedding(f, i); /* one without an update keeps its own: d is 0 */
    }
    for (size_t u = 0; u < s->hidden; u++) {
        double by = 0;
        for (uint32_t i = 0; i < n; i++) {
            by += weight_of(f, i) * f->d[i * s->hidden + u];
        }
        f->now.m[u] = (float)((double)s->m[u] + f->rate * by);
        for (size_t k = 0; k < s->embedding; k++) {
            by = 0;
            for (uint32_t i = 0; i < n; i++) {
                by += weight_of(f, i) * f->d[i * s->hidden + u] * (double)embedding_of(f, i)[k];
            }
            size_t at = u * s->embedding + k;
            f->now.all[at] = (float)((double)s->all[at] + f->rate * by);
        }
    }
    for (size_t k = 0; k < s->embedding; k++) {
        double sum = 0;
        for (uint32_t i = 0; i < n; i++) {
            sum += (double)f->now.e[i * s->embedding + k];
        }
        f->now.first[k] = (float)(sum / n);
    }
    features(&f->now, f->now.first, f->f_now);
    for (uint32_t i = 0; i < n; i++) {
        features(&f->now, f->now.e + i * s->embedding, f->f_now + (1 + i) * s->hidden);
    }
}

/* W and b of a tile after the round, rounded as they are kept. */
static int step_tile(struct finish *f, size_t first, size_t count, struct fl_err *e)
{
    const struct hn *s = f->s;
    uint8_t *state = f->next->state + values_at(s) + 4 * (s->small + first);
    int r = s->begun ? 0 : f->next->base(f->next->arg, 0, first, count, f->before, e);

    for (size_t k = 0; r == 0 && k < count; k++) {
        f->b[k] = s->begun ? (double)s->b[first + k] : (double)f->before[k];
        for (size_t u = 0; u < s->hidden; u++) {
            f->w[u * FL_ROWS_TILE + k] = (double)s->w[u * s->elements + first + k];
        }
    }
    for (uint32_t i = 0; r == 0 && i < f->rows.count; i++) {
        double by = f->rate * weight_of(f, i);
        r = f->rows.at[i].update ? read_update(f, i, first, count, e) : 0;
        for (size_t k = 0; r == 0 && by > 0 && k < count; k++) {
            f->b[k] += by * (double)f->after[k];
            for (size_t u = 0; u < s->hidden; u++) {
                f->w[u * FL_ROWS_TILE + k] += by * f->f[i * s->hidden + u] * (double)f->after[k];
            }
        }
    }
    for (size_t k = 0; r == 0 && k < count; k++) {
        for (size_t u = 0; u < s->hidden; u++) {
            double *w = &f->w[u * FL_ROWS_TILE + k];
            fl_put_float(state + 4 * (u * s->elements + k), (float)*w);
            *w = (double)(float)*w;
        }
        fl_put_float(state + 4 * (s->hidden * s->elements + k), (float)f->b[k]);
        f->b[k] = (double)(float)f->b[k];
    }
    return r;
}

/* Model `slot` of a tile. */
static int make(struct finish *f, uint32_t slot, size_t first, size_t count, struct fl_err *e)
{
    const struct hn *s = f->s;
    const double *at = f->f_now + slot * s->hidden;
    int r = slot ? 0 : f->next->base(f->next->arg, 0, first, count, f->before, e);

    for (size_t k = 0; r == 0 && k < count; k++) {
        double x = f->b[k];
        for (size_t u = 0; u < s->hidden; u++) {
            x += at[u] * f->w[u * FL_ROWS_TILE + k];
        }
        f->after[k] = (float)x;
        if (!isfinite(f->after[k])) {
            return fl_fail(e, FL_R_NOT_FINITE, "element %zu of the next model %u is not finite",
                           first + k, slot);
        }
        double by = slot ? 0 : (double)f->after[k] - (double)f->before[k];
        f->moved += by * by;
    }
    return r ? r : f->next->put(f->next->arg, slot, first, count, f->after, e);
}

static int finish_all(struct finish *f, struct fl_err *e)
{
    const struct hn *s = f->s;
    size_t n = s->elements, count;
    double power = 0;
    int r = 0;

    find_embeddings(f);
    for (uint32_t i = 0; i < f->rows.count; i++) {
        double *at = f->f + i * s->hidden;
        features(s, embedding_of(f, i), at);
        for (size_t u = 0; u < s->hidden; u++) {
            power += weight_of(f, i) * at[u] * at[u];
        }
    }
    f->rate = s->p.setting.pfedhn.lr;
    if (s->p.setting.pfedhn.variant == FL_PERSONAL_BETTER) {
        f->rate /= 1 + power;
    }
    for (size_t first = 0; r == 0 && first < n; first += count) {
        count = n - first < FL_ROWS_TILE ? n - first : FL_ROWS_TILE;
        r = project(f, first, count, e);
    }
    if (r) {
        return r;
    }
    step_small(f);
    for (size_t i = 0; i < s->small; i++) {
        fl_put_float(f->next->state + values_at(s) + 4 * i, f->now.all[i]);
    }
    for (size_t first = 0; r == 0 && first < n; first += count) {
        count = n - first < FL_ROWS_TILE ? n - first : FL_ROWS_TILE;
        r = step_tile(f, first, count, e);
        for (uint32_t slot = 0; r == 0 && slot < f->next->put_count; slot++) {
            r = make(f, slot, first, count, e);
        }
    }
    return r;
}

static int finish_init(struct finish *f, struct fl_err *e)
{
    size_t n = f->rows.count, hidden = f->s->hidden;
    float *small = fl_try_aligned(f->s->small, sizeof *small);

    if (small) {
        f->now = places(*f->s, small);
    }
    f->from = fl_try((1 + n) * f->s->embedding, sizeof *f->from);
    f->f = fl_try((1 + n) * hidden, sizeof *f->f);
    f->f_now = fl_try((1 + n) * hidden, sizeof *f->f_now);
    f->d = fl_try((1 + n) * hidden, sizeof *f->d);
    f->norms = fl_try(hidden, sizeof *f->norms);
    f->b = fl_try(FL_ROWS_TILE, sizeof *f->b);
    f->w = fl_try(FL_ROWS_TILE * hidden, sizeof *f->w);
    f->before = fl_try(FL_ROWS_TILE, sizeof *f->before);
    f->after = fl_try(FL_ROWS_TILE, sizeof *f->after);
    return small && f->from && f->f && f->f_now && f->d && f->norms && f->b && f->w && f->before &&
                   f->after
               ? 0
               : fl_fail(e, FL_R_NOMEM, "a step of a hypernetwork for %zu agents", n);
}

static void finish_fini(struct finish *f)
{
    fl_free(f->now.all);
    fl_free(f->from);
    fl_free(f->f);
    fl_free(f->f_now);
    fl_free(f->d);
    fl_free(f->norms);
    fl_free(f->b);
    fl_free(f->w);
    fl_free(f->before);
    fl_free(f->after);
    fl_rows_fini(&f->rows);
}

static int hn_finish(const void *shared, void *const *slots, uint32_t exchange,
                     struct fl_next *next, struct fl_err *e)
{
    const struct hn *s = shared;
    struct finish f = {.s = s, .next = next};
    int r = fl_rows_init(&f.rows, &s->p, next, e);

    (void)slots;
    (void)exchange;
    if (r) {
        return r;
    }
    assert(next->state_size == hn_state_size(s));
    hn_save(s, next->state);
    fl_rows_save(&f.rows, next);
    if (f.rows.fresh == 0) {
        r = fl_personal_keep(next, s->elements, e);
    } else {
        fl_put_u32(next->state + values_at(s) - 4, 1);
        r = finish_init(&f, e);
        r = r ? r : finish_all(&f, e);
        next->update_norm = sqrt(f.moved);
    }
    finish_fini(&f);
    return r;
}

const struct fl_strategy fl_strategy_pfedhn = {
    .name = "pfedhn",
    .shared_size = sizeof(struct hn),
    .init = hn_init,
    .fini = hn_fini,
    .slots = fl_personal_slots,
    .slot_new = fl_personal_slot_new,
    .slot_reset = fl_personal_slot_reset,
    .slot_free = fl_personal_slot_free,
    .place = fl_personal_place,
    .fold = fl_personal_fold,
    .next_slots = fl_personal_next_slots,
    .finish = hn_finish,
    .state_size = hn_state_size,
    .save = hn_save,
    .load = hn_load,
};
