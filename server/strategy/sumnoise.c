#include "server/strategy/sumnoise.h"

#include "common/base/hash.h"
#include "common/base/le.h"
#include "common/base/mem.h"
#include "common/plan/adaptive.h"

#include <math.h>
#include <string.h>

bool fl_sum_noise_wanted(const struct fl_plan *plan)
{
    return plan->privacy.unit == FL_UNIT_CLIENT && plan->privacy.noise == FL_NOISE_CENTRAL;
}

int fl_sum_noise_init(struct fl_sum_noise *n, const struct fl_plan *plan, struct fl_err *e)
{
    struct fl_adaptive_bound bound;
    int r = fl_adaptive_bound(&plan->privacy, plan->grid.step, &bound, e);

    memset(n, 0, sizeof *n);
    if (r < 0) {
        return r;
    }
    double scale = plan->privacy.noise_multiplier * bound.both;
    /* As at sites: below 4 steps the discrete Gaussian's loss may differ from the continuous one's.
     */
    if (!(scale >= 4) || !isfinite(scale)) {
        return fl_fail(e, FL_R_PLAN_PRIVACY,
                       "central noise of %g grid steps; at least 4 are needed", scale);
    }
    if (plan->privacy.tree >= (uint64_t)1 << FL_SUM_NOISE_LEVELS) {
        return fl_fail(e, FL_R_PLAN_PRIVACY, "a tree of %u rounds", plan->privacy.tree);
    }
    n->tree = plan->privacy.tree;
    return fl_noise_new(scale, &n->noise, e);
}

void fl_sum_noise_fini(struct fl_sum_noise *n)
{
    fl_noise_free(n->noise);
    explicit_bzero(n, sizeof *n);
}

static void seed_of(const struct fl_seed *secret, const struct fl_sum_noise_of *of,
                    struct fl_seed *ret)
{
    static const char purpose[] = "central noise of";
    struct fl_hash h;
    struct fl_digest d;
    struct fl_seed inputs;
    uint64_t facts[] = {of->round, of->slot, of->weight, of->count};

    fl_hash_init(&h);
    fl_hash_add(&h, purpose, sizeof purpose);
    fl_hash_add(&h, facts, sizeof facts);
    fl_hash_add(&h, of->sum, of->count * sizeof *of->sum);
    fl_hash_end(&h, &d);
    /* Keyed in the end: the digest of the sums alone is nobody's secret. */
    fl_seed_derive(secret, "central noise", of->round, &inputs);
    for (size_t i = 0; i < FL_SEED_SIZE; i += 8) {
        uint64_t part;
        struct fl_seed step = inputs;
        memcpy(&part, d.bytes + i, sizeof part);
        fl_seed_derive(&step, "sums", part, &inputs);
        explicit_bzero(&step, sizeof step);
    }
    *ret = inputs;
    explicit_bzero(&inputs, sizeof inputs);
}

int fl_sum_noise_begin(struct fl_sum_noise *n, const struct fl_seed *secret,
                       const struct fl_sum_noise_of *of, struct fl_err *e)
{
    uint64_t round = of->round;

    n->cancel_count = 0;
    n->next = n->state;
    seed_of(secret, of, &n->add);
    if (n->tree == 0) {
        return 0;
    }
    /* A full tree stays in the model as it is; the next one begins beside it. */
    uint64_t before = round ? (round - 1) % n->tree : 0;
    uint64_t done = n->state.done == n->tree ? 0 : n->state.done;
    if (round == 0 || done != before) {
        return fl_fail(e, FL_R_STORE_MISMATCH,
                       "the noise of round %llu begins behind %llu rounds of its tree, not %llu",
                       (unsigned long long)round, (unsigned long long)before,
                       (unsigned long long)done);
    }
    uint32_t level = 0;
    for (; (before >> level) & 1; level++) {
        n->cancel[n->cancel_count++] = n->state.node[level];
        memset(&n->next.node[level], 0, sizeof n->next.node[level]);
    }
    n->next.node[level] = n->add;
    n->next.done = before + 1;
    return 0;
}

static void draw(const struct fl_sum_noise *n, const struct fl_seed *node, size_t first, int64_t *q,
                 size_t count)
{
    struct fl_seed seed;
    struct fl_rng rng;

    fl_seed_derive(node, "elements from", first, &seed);
    fl_rng_init(&rng, &seed, 0);
    fl_noise_add(n->noise, &rng, q, count);
    fl_rng_fini(&rng);
    explicit_bzero(&seed, sizeof seed);
}

int fl_sum_noise_add(const struct fl_sum_noise *n, size_t first, int64_t *q, size_t count,
                     struct fl_err *e)
{
    int64_t *old;

    draw(n, &n->add, first, q, count);
    if (n->cancel_count == 0) {
        return 0;
    }
    old = fl_try_aligned(count, sizeof *old);
    if (!old) {
        return fl_fail(e, FL_R_NOMEM, "noise of %zu elements", count);
    }
    for (uint32_t k = 0; k < n->cancel_count; k++) {
        memset(old, 0, count * sizeof *old);
        draw(n, &n->cancel[k], first, old, count);
        for (size_t i = 0; i < count; i++) {
            q[i] -= old[i];
        }
    }
    explicit_bzero(old, count * sizeof *old);
    fl_free(old);
    return 0;
}

void fl_sum_noise_put(const struct fl_sum_noise_state *s, uint8_t *to)
{
    fl_put_u64(to, s->done);
    memcpy(to + 8, s->node, sizeof s->node);
}

bool fl_sum_noise_get(struct fl_sum_noise_state *ret, const uint8_t *from, uint64_t tree)
{
    uint64_t done = fl_get_u64(from);

    if (done > tree) {
        return false;
    }
    ret->done = done;
    memcpy(ret->node, from + 8, sizeof ret->node);
    return true;
}
