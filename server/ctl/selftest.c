/*
 * `selftest dp`: an attack on the job's own mechanism, at this machine, before anybody takes part.
 * Canaries, each with a direction of its own and as large as it likes, are put in or left out by
 * coins of the kernel; the job's clip, grid, noise and number of releases are applied by the very
 * code that sites and coordinator use; an attacker who sees everything that is released guesses
 * which were in (common/privacy/audit.h). What the guesses prove must stay below the epsilon that
 * is claimed.
 *
 * A test that finds nothing may be blind. So the same attack runs with the noise off, where it has
 * to prove a lot, and with half the noise, where what it proves should rise. What is audited is the
 * mechanism as the plan configures it: not the training that fills it, and not the programs around
 * it.
 */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/math/grid.h"
#include "common/plan/plan.h"
#include "common/plan/releases.h"
#include "common/privacy/accountant.h"
#include "common/privacy/audit.h"
#include "common/privacy/clip.h"
#include "common/privacy/noise.h"
#include "server/ctl/attack/attack.h"
#include "server/ctl/cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { DATA_CANARIES = 128, DATA_CANARIES_MIN = 32 };
#define DATA_WORK_MAX       ((uint64_t)4 * 1000 * 1000 * 1000)
#define DATA_POWER_REQUIRED 1.0 /* 32 right guesses of 32 prove 2.3 */
enum { CANARIES = 2000, WIDTH = 32, LEVELS = 21 };
#define DRAWS_MAX      ((uint64_t)400 * 1000 * 1000)
#define POWER_REQUIRED 5.0 /* what the attack must prove with the noise off */

struct attack {
    const struct fl_plan *plan;
    enum fl_release_kind kind;
    uint32_t canaries;
    double factor; /* of the noise: 1 as the job says, 0 off */
    struct fl_rng rng;
    bool *in;
    double *score;
};

/* Noise of this many steps onto q; none when it is off. */
static int add_noise(struct attack *a, double scale, int64_t *q, size_t count, struct fl_err *e)
{
    struct fl_noise *noise = NULL;

    if (a->factor == 0) {
        return 0;
    }
    int r = fl_noise_new(scale * a->factor, &noise, e);
    if (r == 0) {
        fl_noise_add(noise, &a->rng, q, count);
    }
    fl_noise_free(noise);
    return r;
}

/* A site that is nothing but a canary: ten times the clip in one direction, or nothing. */
static int clipped(const struct attack *a, uint32_t canary, int64_t *ret, struct fl_err *e)
{
    const struct fl_grid g = {a->plan->grid.bits, a->plan->grid.step};
    float x[WIDTH] = {0};
    int64_t bound = 0;
    double norm;
    int r = fl_clip_bound(&g, a->plan->privacy.clip, &bound, e);

    if (a->in[canary]) {
        x[canary % WIDTH] = (float)(10 * a->plan->privacy.clip);
    }
    return r ? r : fl_clip_to_grid(&g, x, WIDTH, bound, ret, &norm, e);
}

/* Noise at the sites: an update of each canary's, every round, through packing and back. */
static int attack_updates(struct attack *a, struct fl_err *e)
{
    const struct fl_privacy_conf *v = &a->plan->privacy;
    const struct fl_grid g = {a->plan->grid.bits, a->plan->grid.step};
    struct fl_noise *noise = NULL;
    uint8_t packed[WIDTH * 4];
    int64_t q[WIDTH], bound = 0;
    size_t size = 0;
    int r = fl_clip_bound(&g, v->clip, &bound, e);

    if (r == 0 && a->factor > 0) {
        r = fl_noise_new(v->noise_multiplier * a->factor * (double)bound, &noise, e);
    }
    fl_grid_bytes(&g, WIDTH, &size);
    for (uint64_t round = 0; r == 0 && round < a->plan->rounds; round++) {
        for (uint32_t i = 0; r == 0 && i < a->canaries; i++) {
            r = clipped(a, i, q, e);
            if (r == 0 && noise) {
                fl_noise_add(noise, &a->rng, q, WIDTH);
            }
            if (r == 0) {
                fl_grid_pack(&g, q, WIDTH, packed);
                r = fl_grid_unpack(&g, packed, size, 0, WIDTH, q, e);
            }
            a->score[i] += r == 0 ? (double)q[i % WIDTH] : 0;
        }
    }
    fl_noise_free(noise);
    return r;
}

/* Noise on the sum. With a tree, a canary is in one round of each tree, and the attacker looks at
 * what that round added to the noised prefix. */
static int attack_sums(struct attack *a, struct fl_err *e)
{
    const struct fl_privacy_conf *v = &a->plan->privacy;
    const struct fl_grid g = {a->plan->grid.bits, a->plan->grid.step};
    uint64_t tree = v->tree ? v->tree : 1;
    int64_t *node = fl_try((size_t)a->canaries * LEVELS, sizeof *node), *sum;
    int64_t bound = 0, one[WIDTH];
    int r = node ? fl_clip_bound(&g, v->clip, &bound, e) : fl_fail(e, FL_R_NOMEM, "a tree");

    sum = fl_try(a->canaries, sizeof *sum);
    r = sum || r ? r : fl_fail(e, FL_R_NOMEM, "a sum");
    for (uint64_t round = 0; r == 0 && round < a->plan->rounds; round++) {
        uint64_t before = round % tree;
        uint32_t level = 0;
        memset(sum, 0, a->canaries * sizeof *sum);
        r = add_noise(a, v->noise_multiplier * (double)bound, sum, a->canaries, e);
        while ((before >> level) & 1) { /* nodes that this round's replaces */
            level++;
        }
        int64_t *new_node = node + (size_t)level * a->canaries;
        for (uint32_t i = 0; r == 0 && i < a->canaries; i++) {
            int64_t seen = sum[i];
            new_node[i] = sum[i];
            for (uint32_t k = 0; k < level; k++) {
                seen -= node[(size_t)k * a->canaries + i];
            }
            if (v->tree && i % tree != before) {
                continue; /* this canary's round of the tree is another one */
            }
            r = clipped(a, i, one, e);
            a->score[i] += (double)(seen + one[i % WIDTH]);
        }
    }
    fl_free(node);
    fl_free(sum);
    return r;
}

/* Unit example: an example whose gradient is a canary, in each Poisson batch that draws it. */
static int attack_steps(struct attack *a, struct fl_err *e)
{
    const struct fl_privacy_conf *v = &a->plan->privacy;
    const double bound = 0x1p16; /* the clip in grid steps, as training sums them */
    uint64_t steps = a->plan->rounds * a->plan->train.steps;
    struct fl_noise *noise = NULL;
    int64_t *sum = fl_try(a->canaries, sizeof *sum);
    int r = sum ? 0 : fl_fail(e, FL_R_NOMEM, "a sum");

    if (r == 0 && a->factor > 0) {
        r = fl_noise_new(v->noise_multiplier * a->factor * bound, &noise, e);
    }
    for (uint64_t s = 0; r == 0 && s < steps; s++) {
        for (uint32_t i = 0; i < a->canaries; i++) {
            bool drawn = fl_rng_unit(&a->rng) < v->sampling_rate;
            sum[i] = a->in[i] && drawn ? (int64_t)bound : 0;
        }
        if (noise) {
            fl_noise_add(noise, &a->rng, sum, a->canaries);
        }
        for (uint32_t i = 0; i < a->canaries; i++) {
            a->score[i] += (double)sum[i];
        }
    }
    fl_noise_free(noise);
    fl_free(sum);
    return r;
}

static int run_attack(const struct fl_plan *plan, enum fl_release_kind kind, uint32_t canaries,
                      double factor, struct fl_audit *ret, struct fl_err *e)
{
    struct attack a = {.plan = plan, .kind = kind, .canaries = canaries, .factor = factor};
    struct fl_seed seed = {{0}};
    int r = fl_entropy(seed.bytes, FL_SEED_SIZE, e);

    a.in = fl_try(canaries, sizeof *a.in);
    a.score = fl_try(canaries, sizeof *a.score);
    r = r || (a.in && a.score) ? r : fl_fail(e, FL_R_NOMEM, "%u canaries", canaries);
    fl_rng_init(&a.rng, &seed, 0);
    for (uint32_t i = 0; r == 0 && i < canaries; i++) {
        a.in[i] = fl_rng_below(&a.rng, 2) != 0;
    }
    if (r == 0) {
        r = kind == FL_RELEASE_STEPS    ? attack_steps(&a, e)
            : kind == FL_RELEASE_UPDATE ? attack_updates(&a, e)
                                        : attack_sums(&a, e);
    }
    r = r ? r : fl_audit_scores(a.score, a.in, canaries, plan->privacy.delta, ret, e);
    fl_rng_fini(&a.rng);
    fl_free(a.in);
    fl_free(a.score);
    return r;
}

/* ---- the report ---- */

struct outcome {
    double claimed;
    uint32_t canaries;
    struct fl_audit as_is, half, off;
    uint32_t data_canaries; /* 0: none were used, since */
    const char *no_data;
    struct fl_audit data, data_off;
};

/* Data canaries through the whole job: with the noise, and without. */
static int examine_data(const struct fl_plan *plan, enum fl_release_kind kind, struct outcome *ret,
                        struct fl_err *e)
{
    struct fl_attack *a = NULL;
    uint32_t count = ret->canaries < DATA_CANARIES ? ret->canaries : DATA_CANARIES;

    while (count > DATA_CANARIES_MIN && fl_attack_canary_work(plan, kind, count) > DATA_WORK_MAX) {
        count /= 2;
    }
    ret->no_data = plan->layout.spec.layer_count == 0 ? "a network that only a program knows"
                   : !fl_attack_can_audit(kind)       ? "trees over rounds are not looked at"
                   : fl_attack_canary_work(plan, kind, count) > DATA_WORK_MAX
                       ? "it would take long: fewer rounds by --set rounds=N"
                       : NULL;
    if (ret->no_data) {
        return 0;
    }
    ret->data_canaries = count;
    int r = fl_attack_new(plan, 0, &a, e);
    r = r ? r : fl_attack_canaries(a, kind, count, 1, &ret->data, e);
    r = r ? r : fl_attack_canaries(a, kind, count, 0, &ret->data_off, e);
    fl_attack_free(a);
    return r;
}

static int examine(struct fl_cli *c, const struct fl_plan *plan, enum fl_release_kind kind,
                   struct outcome *ret)
{
    struct fl_event events[FL_RELEASE_EVENTS_MAX];
    enum fl_bound bound;
    uint32_t count = 0;
    uint64_t canaries = CANARIES, releases = plan->rounds;
    int r = fl_cli_count(c, "count", 32, 1000000, CANARIES, &canaries);

    releases *= kind == FL_RELEASE_STEPS    ? plan->train.steps
                : kind == FL_RELEASE_UPDATE ? WIDTH
                                            : 1;
    if (r == 0 && canaries * releases > DRAWS_MAX) {
        r = fl_fail(&c->err, FL_R_LIMIT,
                    "%" PRIu64 " canaries in %" PRIu64
                    " releases would take long: fewer by --count, "
                    "or fewer rounds by --set rounds=N",
                    canaries, releases);
    }
    ret->canaries = (uint32_t)canaries;
    r = r ? r : fl_release_total(plan, plan->privacy.noise_multiplier, events, &count, &c->err);
    /* The attack is on the strategy's own releases: what stands beside them only adds to the claim.
     */
    r = r ? r : fl_epsilon(events, 1, plan->privacy.delta, &ret->claimed, &bound, &c->err);
    r = r ? r : run_attack(plan, kind, ret->canaries, 1, &ret->as_is, &c->err);
    r = r ? r : run_attack(plan, kind, ret->canaries, 0.5, &ret->half, &c->err);
    r = r ? r : run_attack(plan, kind, ret->canaries, 0, &ret->off, &c->err);
    return r ? r : examine_data(plan, kind, ret, &c->err);
}

static json_t *audit_json(const struct fl_audit *a)
{
    return json_pack("{sf sI sI}", "epsilon_lower", a->lower, "guesses", (json_int_t)a->guesses,
                     "right", (json_int_t)a->right);
}

static void audit_row(const char *name, const struct fl_audit *a)
{
    fl_cli_row(name, "epsilon is above %.4g (%u of %u guesses right)", a->lower, a->right,
               a->guesses);
}

static int report(struct fl_cli *c, const struct fl_plan *plan)
{
    const struct fl_release_row *row = NULL;
    struct outcome o = {0};
    int r = fl_release_row(plan, &row, &c->err);

    if (r == 0 && (!row || row->kind == FL_RELEASE_NOTHING)) {
        r = fl_fail(&c->err, FL_R_PLAN_PRIVACY, "%s claims no epsilon: there is nothing to audit",
                    plan->name);
    }
    r = r ? r : examine(c, plan, row->kind, &o);
    if (r) {
        return r;
    }
    double lower = fmax(o.as_is.lower, o.no_data ? 0 : o.data.lower);
    bool holds = lower <= o.claimed, power = o.off.lower > POWER_REQUIRED &&
                                             (o.no_data || o.data_off.lower > DATA_POWER_REQUIRED);
    if (c->json) {
        json_t *doc =
            json_pack("{ss sf sf sI so so so sb sb}", "job", plan->name, "epsilon_claimed",
                      o.claimed, "delta", plan->privacy.delta, "canaries", (json_int_t)o.canaries,
                      "as_configured", audit_json(&o.as_is), "half_noise", audit_json(&o.half),
                      "noise_off", audit_json(&o.off), "claim_holds", holds, "has_power", power);
        json_object_set_new(doc, "data_canaries",
                            o.no_data
                                ? json_pack("{ss}", "not_run", o.no_data)
                                : json_pack("{sI so so}", "canaries", (json_int_t)o.data_canaries,
                                            "as_configured", audit_json(&o.data), "noise_off",
                                            audit_json(&o.data_off)));
        fl_cli_print_json(doc);
        json_decref(doc);
    } else {
        fl_cli_row("job", "%s: %s", plan->name, row->quantity);
        fl_cli_row("claimed", "epsilon %.6g at delta %g", o.claimed, plan->privacy.delta);
        fl_cli_row("canaries", "%u, each in or out by a coin; 95 %% confidence", o.canaries);
        audit_row("as configured", &o.as_is);
        audit_row("half the noise", &o.half);
        audit_row("noise off", &o.off);
        if (o.no_data) {
            fl_cli_row("data canaries", "not run: %s", o.no_data);
        } else {
            fl_cli_row("data canaries", "%u, mislabelled, white and extreme, through the whole job",
                       o.data_canaries);
            audit_row("as configured", &o.data);
            audit_row("noise off", &o.data_off);
        }
    }
    if (!holds) {
        return fl_fail(&c->err, FL_R_PLAN_PRIVACY,
                       "epsilon is above %.4g, but %.4g is claimed: the mechanism is broken", lower,
                       o.claimed);
    }
    if (!power) {
        return fl_fail(
            &c->err, FL_R_ACCOUNTING,
            "with the noise off the attack proves only %.4g (data canaries: %.4g): it is "
            "too weak to say anything; more canaries by --count",
            o.off.lower, o.data_off.lower);
    }
    return 0;
}

int fl_cli_selftest_dp(struct fl_cli *c)
{
    struct fl_plan *plan = NULL;
    int status = fl_cli_job_plan(c, &plan);

    if (status == 0) {
        status = report(c, plan);
    }
    fl_free(plan);
    return status;
}
