/* Secure sums side by side: bubbles, a common body with heads, buckets of a robust rule. Next
 * models are those of naive twins that see every update. */
#include "server/strategy/secure.h"
#include "tests/lib/bubble_rounds.h"
#include "tests/lib/secagg_world.h"

/* ---- a round through secure sums ---- */

static uint32_t leaves[AGENTS]; /* the stage that member i takes no part in any more */
static int out[AGENTS];         /* why member i was out before its time */
static char note[256];
static int lost; /* of the round */
static struct fl_secure *sums;

struct actor {
    struct sw_agent *a;
    struct fl_secagg_client *client[FL_SECURE_PARTS_MAX];
    struct fl_secagg_bytes up; /* as long as it may be read */
};

static void actor_new(struct actor *x, struct sw_agent *a, uint64_t id, uint64_t round)
{
    struct fl_secure_part parts[FL_SECURE_PARTS_MAX];
    uint32_t count = fl_plan_secure_parts(plan, parts);
    static const uint8_t incarnation[16] = {5};

    *x = (struct actor){.a = a};
    a->id = id;
    sw_cert(id, a->cert);
    for (uint32_t p = 0; p < count; p++) {
        struct fl_secagg_setup setup;
        ck_assert_int_eq(fl_plan_secure_setup(plan, incarnation, round, p, &setup, NULL), 0);
        ck_assert_int_eq(fl_secagg_client_new(&setup, &a->identity, &x->client[p], NULL), 0);
    }
}

static int step(struct fl_secagg_client *c, enum fl_secagg_stage stage,
                const struct fl_secagg_bytes *in, const int64_t *q, struct fl_secagg_bytes *ret)
{
    switch (stage) {
    case FL_SECAGG_ADVERTISE:
        return fl_secagg_client_advertise(c, ret, &err);
    case FL_SECAGG_SHARE:
        return fl_secagg_client_share(c, in->bytes, in->size, ret, &err);
    case FL_SECAGG_MASK:
        return fl_secagg_client_mask(c, in->bytes, in->size, q, ret, &err);
    case FL_SECAGG_SIGN:
        return fl_secagg_client_sign(c, in->bytes, in->size, ret, &err);
    default:
        return fl_secagg_client_reveal(c, in->bytes, in->size, ret, &err);
    }
}

/* What an agent makes of its input in all its parts. */
static int act(struct actor *x, enum fl_secagg_stage stage, const int64_t *q)
{
    struct fl_secure_part parts[FL_SECURE_PARTS_MAX];
    uint32_t count = fl_plan_secure_parts(plan, parts);
    struct fl_secagg_bytes in = {NULL, 0}, made[FL_SECURE_PARTS_MAX] = {{NULL, 0}};
    size_t size[FL_SECURE_PARTS_MAX] = {0};
    int r = 0;

    if (stage > FL_SECAGG_ADVERTISE) {
        r = fl_secure_input(sums, stage, x->a->id, &in.bytes, &in.size, &err);
        size[0] = in.size;
        r = r == 0 && count > 1 ? fl_plan_secure_split(in.bytes, in.size, size, &err) : r;
    }
    uint8_t *at = in.bytes && count > 1 ? in.bytes + FL_SECURE_JOIN_HEAD : in.bytes;
    for (uint32_t p = 0; r == 0 && p < count; p++) {
        const struct fl_secagg_bytes piece = {at, size[p]};
        if (stage == FL_SECAGG_ADVERTISE || size[p] > 0) {
            r = step(x->client[p], stage, &piece, q ? q + parts[p].first : NULL, &made[p]);
        }
        at = at ? at + size[p] : NULL;
    }
    fl_secagg_bytes_free(&x->up);
    if (r == 0 && count > 1) {
        r = fl_plan_secure_join(made, &x->up, &err);
        fl_secagg_bytes_free(&made[0]);
        fl_secagg_bytes_free(&made[1]);
    } else if (r == 0) {
        x->up = made[0];
    }
    fl_secagg_bytes_free(&in);
    return r;
}

static void stage_of(struct actor *x, uint32_t i, enum fl_secagg_stage stage, const int64_t *q)
{
    struct fl_digest principal;

    if (leaves[i] <= (uint32_t)stage || out[i] < 0) {
        return;
    }
    out[i] = act(x, stage, q);
    if (out[i] < 0) {
        return;
    }
    const struct fl_update u = {.agent = x->a->id,
                                .exchange = stage,
                                .weight = 1,
                                .size = x->up.size,
                                .read = sw_read,
                                .arg = &x->up};
    fl_digest_of(x->a->cert, SW_CERT, &principal);
    ck_assert_msg(fl_secure_judge(sums, stage, &u, principal.bytes, &err) == 0, "%s", err.msg);
    ck_assert_int_eq(fl_secure_fold(sums, stage, &u, &err), 0);
    ck_assert_int_eq(fl_secure_judge(sums, stage, &u, principal.bytes, &err), 0);
}

/* Members' q go through secure sums; *io is what comes of them, until the next call. */
static void sum_all(const struct fl_strategy *strategy, const void *shared, void *const *slots,
                    const uint64_t *id, const int64_t *const *q, uint32_t n, uint64_t round,
                    struct fl_updates *io)
{
    static const uint8_t incarnation[16] = {5};
    const struct fl_secagg_setup any = {.count = 1, .max = 1};
    struct sw *w = sw_new(&any, n, 1);
    struct actor *x = fl_new(n, sizeof *x);

    fl_secure_free(sums);
    sums = NULL;
    lost = fl_secure_new(plan, strategy, incarnation, round, &w->identity, &sums, &err);
    ck_assert_msg(lost == 0, "%s", err.msg);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = 0;
        actor_new(&x[i], &w->agent[i], id[i], round);
    }
    for (int stage = 0; lost == 0 && stage < FL_SECAGG_STAGES; stage++) {
        for (uint32_t i = n; i-- > 0;) {
            stage_of(&x[i], i, (enum fl_secagg_stage)stage, q[i]);
        }
        if (stage == FL_SECAGG_SIGN) { /* the disk failed: it is told again */
            fl_secure_reset(sums, FL_SECAGG_SIGN);
            for (uint32_t i = 0; i < n; i++) {
                const struct fl_update u = {id[i],        (uint32_t)stage, 1,       0,
                                            x[i].up.size, sw_read,         &x[i].up};
                if (leaves[i] > (uint32_t)stage && out[i] == 0) {
                    ck_assert_int_eq(fl_secure_fold(sums, FL_SECAGG_SIGN, &u, &err), 0);
                }
            }
        }
        lost = fl_secure_between(sums, shared, NULL, &err);
    }
    *io = (struct fl_updates){0, NULL};
    lost = lost ? lost : fl_secure_finish(sums, shared, slots, io, &err);
    fl_secure_note(sums, note, sizeof note);
    for (uint32_t i = 0; i < n; i++) {
        fl_secagg_client_free(x[i].client[0]);
        fl_secagg_client_free(x[i].client[1]);
        fl_secagg_bytes_free(&x[i].up);
    }
    fl_free(x);
    sw_free(w);
}

static void through_sums(struct job *j, struct fl_updates *io)
{
    void *slots[SLOTS] = {NULL};
    const int64_t *q[AGENTS];
    uint64_t id[AGENTS];

    for (uint32_t i = 0; i < j->members; i++) {
        id[i] = j->member[i].agent;
        q[i] = j->member[i].q;
    }
    sum_all(j->strategy, j->shared, slots, id, q, j->members, j->round, io);
}

static void everybody_stays(void)
{
    for (int i = 0; i < AGENTS; i++) {
        leaves[i] = SW_STAYS;
    }
}

static void open_secure(struct job *j, const char *strategy, const char *setting)
{
    open_job(j, strategy, setting,
             "secure_aggregation: {corrupt: 0, dropout: 0.2, survivors: 3}\n"
             "set: {round.quorum: 10}\n");
    everybody_stays();
    through = through_sums;
}

static void close_secure(struct job *j)
{
    fl_secure_free(sums);
    sums = NULL;
    through = NULL;
    close_job(j);
}

/* ---- bubbles ---- */

START_TEST(test_each_bubble_has_its_sum)
{
    struct job j;
    uint32_t of[] = {0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1}, one[] = {0, 0}, own[] = {0, 1};

    open_secure(&j, "pacfl", "most: 4");
    add_members(&j, 0, 5);
    add_members(&j, 1, 6);
    full_round(&j);
    ck_assert_uint_eq(j.slots, 2);
    twin_round(&j, of, one, 2);
    same_as_twin(&j);
    ck_assert_str_eq(note, "2 secure sums of 5 to 6 members; 0 given up; 0 members in none, for "
                           "want of 4 to be hidden among");
    leaves[2] = FL_SECAGG_MASK; /* a dropout in each, and one that counts */
    leaves[7] = FL_SECAGG_MASK;
    leaves[9] = FL_SECAGG_SIGN;
    full_round(&j);
    of[2] = of[7] = 9;
    twin_round(&j, of, own, 2);
    same_as_twin(&j);
    close_secure(&j);
}
END_TEST

/* Too few are left of one bubble: its model stays, the other's goes on. */
START_TEST(test_a_bubble_that_too_many_leave)
{
    static const uint32_t stages[] = {FL_SECAGG_ADVERTISE, FL_SECAGG_SHARE, FL_SECAGG_MASK};

    for (size_t s = 0; s < FL_COUNT(stages); s++) {
        struct job j;
        uint32_t of[] = {0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1}, one[] = {0, 0}, own[] = {0, 1};
        open_secure(&j, "ifca", "bubbles: 2");
        add_members(&j, 0, 5);
        add_members(&j, 1, 6);
        for (int i = 0; i < 3; i++) {
            leaves[i] = stages[s];
        }
        full_round(&j);
        for (int i = 0; i < 5; i++) {
            of[i] = 9;
        }
        (void)one;
        twin_round(&j, of, own, 2);
        same_as_twin(&j);
        ck_assert_int_eq(lost, 0);
        ck_assert_ptr_nonnull(
            strstr(note, s == 0 ? "1 secure sums of 6 to 6 members; 0 given up; 2 members in none"
                                : "1 secure sums of 6 to 6 members; 1 given up; 0 members"));
        ck_assert_int_eq(out[3], -FL_R_NOT_MEMBER); /* it is told why */
        for (int i = 5; i < 8; i++) {               /* and nobody is left of the other, either */
            leaves[i] = stages[s];
        }
        j.round++;
        ck_assert_int_eq(begin_round(&j), 0);
        leaves[8] = stages[s];
        struct fl_updates none;
        through_sums(&j, &none);
        ck_assert_int_eq(lost, -FL_R_SECAGG_FEW);
        close_secure(&j);
    }
}
END_TEST

/* Three are too few to be hidden among: they are summed with the bubble nearest to theirs. */
START_TEST(test_a_small_bubble_is_folded_into_its_parent)
{
    struct job j;
    static const uint32_t of[] = {0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0}, base[] = {0, 0, 0};
    float small[VALUES];

    open_secure(&j, "pacfl", "most: 4");
    add_members(&j, 0, 5);
    add_members(&j, 3, 4);
    add_members(&j, 1, 3);
    full_round(&j);
    ck_assert_uint_eq(j.slots, 3);
    ck_assert_ptr_nonnull(strstr(note, "2 secure sums of 4 to 8 members"));
    twin_round(&j, of, base, 2);
    memcpy(small, j.twin[0], sizeof small);
    memcpy(j.twin[2], small, sizeof small);
    same_as_twin(&j);
    close_secure(&j);
}
END_TEST

/* A body of all, a head of each bubble; and a bubble whose sum is given up still gives to the body.
 */
START_TEST(test_common_body)
{
    for (int gone = 0; gone < 2; gone++) {
        struct job j;
        uint32_t of[] = {0, 0, 0, 0, 0, 1, 1, 1, 1, 1}, all[10] = {0}, one[2] = {0}, own[] = {0, 1};
        size_t split = 4 * 3 + 3;
        float body[VALUES], head[VALUES];
        open_secure(&j, "pacfl", "most: 4, body: shared");
        add_members(&j, 0, 5);
        add_members(&j, 1, 5);
        for (int round = 1; round <= 2; round++) {
            if (round == 2) {
                leaves[8] = FL_SECAGG_MASK;
                of[8] = all[8] = 9;
            }
            if (round == 2 && gone) { /* two are left of the first bubble's masked vectors */
                leaves[0] = leaves[1] = leaves[2] = FL_SECAGG_MASK;
                all[0] = all[1] = all[2] = 9;
            }
            full_round(&j);
            ck_assert_uint_eq(j.slots, 2);
            memcpy(head, j.twin[0], sizeof head);
            struct job k = j;
            twin_round(&k, all, one, 1);
            memcpy(body, k.twin[0], sizeof body);
            twin_round(&j, of, round == 1 ? one : own, 2);
            for (uint32_t b = 0; b < 2; b++) {
                memcpy(j.twin[b], body, split * sizeof(float));
            }
            if (round == 2 && gone) {
                memcpy(j.twin[0] + split, head + split, (VALUES - split) * sizeof(float));
                ck_assert_ptr_nonnull(strstr(note, "1 given up"));
            }
            same_as_twin(&j);
        }
        ck_assert_int_eq(lost, 0);
        close_secure(&j);
    }
}
END_TEST

/* The example of proto/WIRE.md, section 11. */
START_TEST(test_joined)
{
    static const uint8_t expected[] = {2, 0, 0, 0, 0xaa, 0xbb, 0xcc};
    uint8_t one[] = {0xaa, 0xbb}, other[] = {0xcc};
    const struct fl_secagg_bytes parts[] = {{one, sizeof one}, {other, sizeof other}};
    struct fl_secagg_bytes both;
    size_t size[FL_SECURE_PARTS_MAX];

    ck_assert_int_eq(fl_plan_secure_join(parts, &both, &err), 0);
    ck_assert_uint_eq(both.size, sizeof expected);
    ck_assert_mem_eq(both.bytes, expected, sizeof expected);
    ck_assert_int_eq(fl_plan_secure_split(both.bytes, both.size, size, &err), 0);
    ck_assert(size[0] == 2 && size[1] == 1);
    for (size_t cut = 0; cut < 6; cut++) { /* the second may be missing, the first may not */
        ck_assert_int_eq(fl_plan_secure_split(both.bytes, cut, size, &err), -FL_R_SECAGG_OBJECT);
    }
    ck_assert_int_eq(fl_plan_secure_split(both.bytes, 6, size, &err), 0);
    ck_assert(size[0] == 2 && size[1] == 0);
    fl_secagg_bytes_free(&both);
}
END_TEST

/* Payloads of two parts that are cut, swapped, or lack one. */
START_TEST(test_parts_that_do_not_fit)
{
    static const uint8_t incarnation[16] = {5};
    const struct fl_secagg_setup any = {.count = 1, .max = 1};
    struct fl_secagg_bytes part[FL_SECURE_PARTS_MAX], bad;
    uint8_t principal[FL_SECAGG_PRINCIPAL_SIZE];
    struct fl_digest d;
    struct actor x;
    struct job j;

    open_secure(&j, "pacfl", "most: 4, body: shared");
    struct sw *w = sw_new(&any, 1, 1);
    ck_assert_int_eq(fl_secure_new(plan, j.strategy, incarnation, 1, &w->identity, &sums, &err), 0);
    actor_new(&x, &w->agent[0], 10, 1);
    ck_assert_int_eq(act(&x, FL_SECAGG_ADVERTISE, NULL), 0);
    fl_digest_of(x.a->cert, SW_CERT, &d);
    memcpy(principal, d.bytes, sizeof principal);
    size_t size[2];
    ck_assert_int_eq(fl_plan_secure_split(x.up.bytes, x.up.size, size, &err), 0);
    part[0] = (struct fl_secagg_bytes){x.up.bytes + FL_SECURE_JOIN_HEAD, size[0]};
    part[1] = (struct fl_secagg_bytes){part[0].bytes + size[0], size[1]};
    for (int how = 0; how < 5; how++) {
        struct fl_secagg_bytes two[2] = {part[0], part[1]};
        if (how == 1) { /* the parts' contexts differ */
            two[0] = part[1];
            two[1] = part[0];
        } else if (how == 2) {
            two[1].size = 0;
        } else if (how == 3) {
            two[1].size--;
        }
        ck_assert_int_eq(fl_plan_secure_join(two, &bad, &err), 0);
        if (how == 4) {
            fl_put_u32(bad.bytes, (uint32_t)bad.size);
        }
        const struct fl_update u = {10, 0, 1, 0, bad.size, sw_read, &bad};
        ck_assert_int_eq(fl_secure_judge(sums, FL_SECAGG_ADVERTISE, &u, principal, &err),
                         how == 0 ? 0 : -FL_R_SECAGG_OBJECT);
        fl_secagg_bytes_free(&bad);
    }
    fl_secagg_client_free(x.client[0]);
    fl_secagg_client_free(x.client[1]);
    fl_secagg_bytes_free(&x.up);
    sw_free(w);
    close_secure(&j);
}
END_TEST

/* ---- buckets ---- */

struct robust {
    const struct fl_strategy *s;
    void *shared, *slot;
    uint64_t id[AGENTS];
    int64_t value[AGENTS][VALUES];
    const int64_t *q[AGENTS];
    float next[VALUES];
};

static void robust_open(struct robust *b, const char *rule, bool secure)
{
    char text[1024];

    plan = plan ? plan : fl_new(1, sizeof *plan);
    snprintf(text, sizeof text,
             "name: p\nstrategy: fedavg\nrounds: 9\nseed: 3\n"
             "model: {input: [4], classes: 2, layers: [{linear: {out: 3}}, {relu: {}}, {linear: "
             "{out: 2}}]}\ntrain: {lr: 0.1}\nround: {members: 24, quorum: 20}\n"
             "aggregate: {rule: %s, before: bucketing, bucket: 4, byzantine: 1, radius: 1}\n%s",
             rule, secure ? "secure_aggregation: {corrupt: 0, dropout: 0.2}\n" : "");
    ck_assert_msg(fl_plan_parse(plan, "job", text, strlen(text), &err) == 0, "%s", err.msg);
    memset(b, 0, sizeof *b);
    b->s = fl_strategy_find("fedavg");
    b->shared = fl_new(1, b->s->shared_size);
    ck_assert_int_eq(b->s->init(b->shared, plan, &err), 0);
    ck_assert_int_eq(b->s->slot_new(b->shared, &b->slot, &err), 0);
    for (uint32_t i = 0; i < AGENTS; i++) {
        b->id[i] = 7 * (i + 1);
        b->q[i] = b->value[i];
        for (uint32_t v = 0; v < VALUES; v++) {
            b->value[i][v] = (int64_t)((i * 31 + v * 17) % 301) - 150 + (i < 4 ? 20000 : 0);
        }
    }
    everybody_stays();
}

static void robust_finish(struct robust *b, const struct fl_updates *updates)
{
    const float base[VALUES] = {0};
    struct next_memory memory = {base, b->next, VALUES};
    uint8_t *state = fl_new(b->s->state_size(b->shared) + 1, 1);
    struct fl_next n = next_in_memory(&memory, 1, state, b->s->state_size(b->shared));

    n.updates = *updates;
    n.round = 1;
    ck_assert_msg(b->s->finish(b->shared, &b->slot, 4, &n, &err) == 0, "%s", err.msg);
    fl_free(state);
}

static void robust_close(struct robust *b)
{
    fl_secure_free(sums);
    sums = NULL;
    b->s->slot_free(b->slot);
    b->s->fini(b->shared);
    fl_free(b->shared);
}

/* The rule over the members' own updates, in buckets drawn from the same seed. */
static void plain(const char *rule, float next[VALUES])
{
    const struct fl_grid g = {.bits = 16, .step = 0};
    uint8_t packed[AGENTS][2 * VALUES];
    struct fl_update u[AGENTS];
    struct robust b;

    robust_open(&b, rule, false);
    for (uint32_t i = 0; i < AGENTS; i++) {
        ck_assert_uint_eq(plan->grid.bits, g.bits);
        ck_assert_uint_eq(fl_grid_pack(&g, b.value[i], VALUES, packed[i]), 0);
        u[i] = (struct fl_update){.agent = b.id[i],
                                  .weight = 1,
                                  .size = sizeof packed[i],
                                  .read = read_bytes,
                                  .arg = packed[i]};
        ck_assert_int_eq(b.s->fold(b.slot, b.shared, &u[i], &err), 0);
    }
    const struct fl_updates updates = {AGENTS, u};
    robust_finish(&b, &updates);
    memcpy(next, b.next, sizeof b.next);
    robust_close(&b);
}

START_TEST(test_rules_over_buckets)
{
    static const char *const rules[] = {
        "mean", "median", "trimmed_mean", "geometric_median", "multi_krum", "centered_clipping"};

    for (size_t r = 0; r < FL_COUNT(rules); r++) {
        struct fl_updates made;
        float expected[VALUES];
        struct robust b;
        plain(rules[r], expected);
        robust_open(&b, rules[r], true);
        sum_all(b.s, b.shared, &b.slot, b.id, b.q, AGENTS, 1, &made);
        ck_assert_msg(lost == 0, "%s", err.msg);
        ck_assert_uint_eq(made.count, AGENTS);
        robust_finish(&b, &made);
        if (r == 1 || r == 2) { /* by coordinate: the very same */
            ck_assert_mem_eq(b.next, expected, sizeof expected);
        }
        for (uint32_t v = 0; v < VALUES; v++) { /* weights are sums in another order */
            ck_assert_float_le(fabsf(b.next[v] - expected[v]), 1e-5f * (1 + fabsf(expected[v])));
        }
        robust_close(&b);
    }
}
END_TEST

static int by_value(const void *x, const void *y)
{
    const double *a = x, *b = y;

    return (*a > *b) - (*a < *b);
}

/* Some leave, and one bucket loses too many: the median of what is left of the others. */
START_TEST(test_buckets_with_dropouts)
{
    struct fl_updates made;
    struct robust b;
    uint32_t members[6] = {0}, group[AGENTS], buckets = 0;

    robust_open(&b, "median", true);
    sum_all(b.s, b.shared, &b.slot, b.id, b.q, AGENTS, 1, &made);
    for (uint32_t i = 0; i < AGENTS; i++) {
        group[i] = made.at[i].group;
        ck_assert_uint_lt(group[i], 6);
    }
    for (uint32_t i = 0, gone = 0; i < AGENTS; i++) { /* two of bucket 2, and one of bucket 4 */
        if (group[i] == 2 && gone++ < 2) {
            leaves[i] = FL_SECAGG_MASK;
        }
    }
    for (uint32_t i = 0; i < AGENTS; i++) {
        if (group[i] == 4) {
            leaves[i] = FL_SECAGG_MASK;
            break;
        }
    }
    b.s->slot_reset(b.shared, b.slot);
    sum_all(b.s, b.shared, &b.slot, b.id, b.q, AGENTS, 1, &made);
    ck_assert_int_eq(lost, 0);
    ck_assert_uint_eq(made.count, 24 - 4 - 1);
    robust_finish(&b, &made);
    for (uint32_t v = 0; v < VALUES; v++) {
        double mean[6] = {0}, middle[6];
        memset(members, 0, sizeof members);
        for (uint32_t i = 0; i < AGENTS; i++) {
            if (leaves[i] == SW_STAYS && group[i] != 2) {
                mean[group[i]] += (double)b.value[i][v];
                members[group[i]]++;
            }
        }
        buckets = 0;
        for (uint32_t g = 0; g < 6; g++) {
            if (members[g]) {
                ck_assert_uint_ge(members[g], 3);
                middle[buckets++] = ldexp(mean[g] / members[g], plan->grid.step);
            }
        }
        qsort(middle, buckets, sizeof *middle, by_value);
        ck_assert_uint_eq(buckets, 5);
        ck_assert_float_le(fabsf(b.next[v] - (float)middle[2]), 1e-5f);
    }
    robust_close(&b);
}
END_TEST

/* ---- refused ---- */

static void refused(const char *text, int reason, const char *words)
{
    struct fl_plan *p = fl_new(1, sizeof *p);
    char all[1024];

    snprintf(all, sizeof all,
             "name: p\nrounds: 9\nmodel: {input: [4], classes: 2, layers: [{linear: {out: 3}}, "
             "{relu: {}}, {linear: {out: 2}}]}\ntrain: {lr: 0.1}\n%s",
             text);
    int r = fl_plan_parse(p, "job", all, strlen(all), &err);
    ck_assert_msg(r == reason, "%d instead of %d: %s", r, reason, r ? err.msg : "");
    ck_assert_msg(!words || strstr(err.msg, words), "%s", err.msg);
    fl_free(p);
}

START_TEST(test_what_is_refused)
{
#define ROUND  "round: {members: 24, quorum: 20}\n"
#define SECURE "secure_aggregation: {corrupt: 0, dropout: 0.2, survivors: 4}\n"
#define BUCKET "strategy: fedavg\naggregate: {rule: median, before: bucketing, bucket: "
    refused(BUCKET "5}\n" ROUND SECURE, 0, NULL);
    refused(BUCKET "4}\n" ROUND SECURE, -FL_R_CONF_CONFLICT, "a bucket has at least 5 members");
    refused(BUCKET "5, clip: 2}\n" ROUND SECURE, -FL_R_CONF_CONFLICT, "without clip and gates");
    refused(BUCKET "5, gates: {norm: 3}}\n" ROUND SECURE, -FL_R_CONF_CONFLICT, "without clip");
    refused(BUCKET "5, byzantine: 2}\n" ROUND SECURE, -FL_R_CONF_CONFLICT, "2 bad ones among 4");
    refused("strategy: fedavg\naggregate: {rule: median}\n" ROUND SECURE, -FL_R_CONF_CONFLICT,
            "before: bucketing");
    refused("strategy: pacfl\n" ROUND SECURE, 0, NULL);
    refused("strategy: pacfl\nround: {members: 4}\n" SECURE, -FL_R_CONF_CONFLICT,
            "not one sum of at least 5");
    refused(
        "strategy: pacfl\naggregate: {rule: median, before: bucketing, bucket: 5}\n" ROUND SECURE,
        -FL_R_CONF_CONFLICT, "no aggregate inside bubbles");
    refused("strategy: {pacfl: {variant: published}}\n" ROUND SECURE, -FL_R_PLAN_STRATEGY,
            "a sum of one hides nothing");
    refused("strategy: {pacfl: {body: shared, model: fedrep}}\n" ROUND SECURE, -FL_R_CONF_CONFLICT,
            "body: shared");
    refused("strategy: {ifca: {bubbles: 2}}\n" ROUND SECURE, 0, NULL);
    refused("strategy: cfl\n" ROUND SECURE, -FL_R_PLAN_STRATEGY, "tells sites apart by their");
    refused("strategy: flhc\n" ROUND SECURE, -FL_R_PLAN_STRATEGY, "tells sites apart by their");
    refused("strategy: fesem\n" ROUND SECURE, -FL_R_PLAN_STRATEGY, "tells sites apart by their");
    refused("strategy: fedcac\n" ROUND SECURE, -FL_R_PLAN_STRATEGY, NULL);
    /* All colluders of a round may be in one bubble, so three honest ones are more than them. */
    refused("strategy: pacfl\n" ROUND "secure_aggregation: {corrupt: 0.1, survivors: 4}\n",
            -FL_R_CONF_CONFLICT, "hides an update among fewer than three");
    refused("strategy: pacfl\n" ROUND "secure_aggregation: {corrupt: 0.1}\n", 0, NULL);
}
END_TEST

TESTS_MAIN("secure_groups", test_each_bubble_has_its_sum, test_a_bubble_that_too_many_leave,
           test_a_small_bubble_is_folded_into_its_parent, test_common_body, test_joined,
           test_parts_that_do_not_fit, test_rules_over_buckets, test_buckets_with_dropouts,
           test_what_is_refused)
