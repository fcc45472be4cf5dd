/* Secure sums whose members leave, come back, are late or say things twice. */
#include "tests/lib/secagg_small.h"

/* ---- dropouts ---- */

START_TEST(test_drop_at_each_stage)
{
    for (uint32_t stage = 0; stage < FL_SECAGG_STAGES; stage++) {
        struct sw *w = world(7);
        w->agent[2].leaves = stage;
        ck_assert_msg(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_UNMASK) == 0, "%s", w->why.msg);
        uint64_t ids[7];
        /* Its vector counts once it was taken, whatever happens to the agent afterwards. */
        ck_assert_uint_eq(fl_secagg_server_members(w->server, ids, 7),
                          stage > FL_SECAGG_MASK ? 7 : 6);
        ck_assert(sw_sum_is_right(w));
        sw_free(w);
    }
}
END_TEST

/* t = 4 of 7: with four who reveal there is a sum, with three there is none, and no secret. */
START_TEST(test_exactly_the_threshold)
{
    for (uint32_t stay = 3; stay <= 4; stay++) {
        struct sw *w = world(7);
        for (uint32_t i = stay; i < 7; i++) {
            w->agent[i].leaves = FL_SECAGG_UNMASK;
        }
        int r = sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_UNMASK);
        if (stay == 4) {
            ck_assert_int_eq(r, 0);
            ck_assert(sw_sum_is_right(w));
        } else {
            int64_t q[33];
            ck_assert_int_eq(r, -FL_R_SECAGG_FEW);
            ck_assert_uint_eq(fl_secagg_server_masks(w->server), 0);
            ck_assert_int_eq(sw_sum(w, w->server, q, NULL), -FL_R_MSG_ORDER);
        }
        sw_free(w);
    }
}
END_TEST

/* In a sparse graph one agent's whole neighbourhood leaves: clean end, naming the agent. */
START_TEST(test_all_neighbours_leave)
{
    for (int when = FL_SECAGG_MASK; when <= FL_SECAGG_UNMASK; when++) {
        struct fl_secagg_setup s = plain(100);
        s.corrupt_permille = s.dropout_permille = 50;
        struct sw *w = sw_new(&s, 100, 1);
        uint32_t gone = 0;
        ck_assert_int_eq(sw_start(w), 0);
        ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_ADVERTISE), 0);
        struct fl_roster_view v;
        ck_assert_int_eq(
            fl_roster_read(&s.context, w->agent[0].down.bytes, w->agent[0].down.size, &v, NULL), 0);
        size_t at = 0;
        for (uint32_t k = 0; k < v.neighbours; k++) {
            struct fl_advert_view a;
            fl_roster_next(&v, &at, &a);
            for (uint32_t i = 1; i < 100; i++) {
                if (memcmp(w->agent[i].cert, a.cert, SW_CERT) == 0) {
                    w->agent[i].leaves = (uint32_t)when;
                    gone++;
                }
            }
        }
        ck_assert_uint_eq(gone, 11);
        int r = sw_run(w, FL_SECAGG_SHARE, FL_SECAGG_UNMASK);
        ck_assert_int_eq(r, -FL_R_SECAGG_FEW);
        if (when == FL_SECAGG_MASK) { /* the agent itself notices first */
            ck_assert_int_eq(w->agent[0].error, -FL_R_SECAGG_FEW);
        }
        sw_free(w);
    }
}
END_TEST

/* ---- repetitions ---- */

START_TEST(test_late_vector)
{
    struct sw *w = world(6);
    struct fl_err e;

    ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_SHARE), 0);
    sw_up(w, FL_SECAGG_MASK);
    /* Agent 5's vector never arrived. */
    struct fl_secagg_bytes late = w->agent[5].up[FL_SECAGG_MASK];
    w->agent[5].up[FL_SECAGG_MASK] = (struct fl_secagg_bytes){NULL, 0};
    fl_secagg_server_free(w->server);
    ck_assert_int_eq(fl_secagg_server_new(&w->setup, &w->identity, &w->server, NULL), 0);
    for (int stage = 0; stage <= FL_SECAGG_MASK; stage++) {
        for (uint32_t i = 0; i < 6; i++) {
            struct fl_secagg_bytes *b = &w->agent[i].up[stage];
            if (b->bytes) {
                ck_assert_int_eq(sw_give(w, (enum fl_secagg_stage)stage, w->agent[i].id, b, &e), 0);
            }
        }
        w->agent[5].leaves = stage == FL_SECAGG_MASK ? FL_SECAGG_MASK : SW_STAYS;
        ck_assert_int_eq(sw_close(w, (enum fl_secagg_stage)stage), 0);
    }
    ck_assert_int_eq(sw_give(w, FL_SECAGG_MASK, w->agent[5].id, &late, &e), -FL_R_ROUND_OVER);
    ck_assert_int_eq(sw_run(w, FL_SECAGG_SIGN, FL_SECAGG_UNMASK), 0);
    ck_assert_int_eq(sw_give(w, FL_SECAGG_MASK, w->agent[5].id, &late, &e), -FL_R_ROUND_OVER);
    ck_assert(sw_sum_is_right(w));
    ck_assert_uint_eq(fl_secagg_server_members(w->server, NULL, 0), 5);
    /* Nobody revealed a share of its own mask: only of the key. */
    uint32_t gone = index_of(w, 5);
    for (uint32_t i = 0; i < 5; i++) {
        struct fl_reveal_view v;
        const struct fl_secagg_bytes *b = &w->agent[i].up[FL_SECAGG_UNMASK];
        uint32_t seen = 0;
        ck_assert_int_eq(fl_reveal_read(&w->setup.context, b->bytes, b->size, 6, &v, NULL), 0);
        for (uint32_t k = 0; k < v.count; k++) {
            const uint8_t *item = v.items + (size_t)k * FL_REVEAL_ITEM;
            bool its = fl_get_u32(item) == gone;
            ck_assert_uint_eq(item[4], its ? FL_SECAGG_PAIR : FL_SECAGG_SELF);
            seen += its;
        }
        ck_assert_uint_eq(seen, 1);
    }
    fl_secagg_bytes_free(&late);
    sw_free(w);
}
END_TEST

START_TEST(test_twice)
{
    struct sw *w = world(4);
    struct fl_err e;

    for (int stage = 0; stage < FL_SECAGG_STAGES; stage++) {
        struct fl_secagg_bytes *b = &w->agent[1].up[stage];
        sw_up(w, (enum fl_secagg_stage)stage);
        ck_assert_int_eq(sw_give(w, (enum fl_secagg_stage)stage, w->agent[1].id, b, &e), 0);
        b->bytes[b->size - 1] ^= 1;
        ck_assert_int_eq(sw_give(w, (enum fl_secagg_stage)stage, w->agent[1].id, b, &e),
                         -FL_R_UPDATE_CONFLICT);
        b->bytes[b->size - 1] ^= 1;
        ck_assert_int_eq(sw_give(w, (enum fl_secagg_stage)stage, 999, b, &e),
                         stage == 0 ? -FL_R_LIMIT : -FL_R_NOT_MEMBER);
        ck_assert_int_eq(sw_close(w, (enum fl_secagg_stage)stage), 0);
        /* Long after, too. */
        ck_assert_int_eq(sw_give(w, (enum fl_secagg_stage)stage, w->agent[1].id, b, &e), 0);
    }
    ck_assert(sw_sum_is_right(w));
    sw_free(w);
}
END_TEST

/* A client that was restarted has other keys: it cannot come back in. */
START_TEST(test_agent_restarts)
{
    for (int when = FL_SECAGG_ADVERTISE; when < FL_SECAGG_UNMASK; when++) {
        struct sw *w = world(5);
        struct fl_secagg_bytes b = {NULL, 0};
        struct fl_err e;
        ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, (enum fl_secagg_stage)when), 0);
        struct sw_agent *a = &w->agent[3];
        fl_secagg_client_free(a->client);
        ck_assert_int_eq(fl_secagg_client_new(&w->setup, &a->identity, &a->client, &e), 0);
        ck_assert_int_eq(fl_secagg_client_advertise(a->client, &b, &e), 0);
        ck_assert_int_eq(sw_give(w, FL_SECAGG_ADVERTISE, a->id, &b, &e), -FL_R_UPDATE_CONFLICT);
        int r = sw_run(w, (enum fl_secagg_stage)(when + 1), FL_SECAGG_UNMASK);
        ck_assert_int_eq(r, 0);
        ck_assert_int_eq(a->error,
                         when == FL_SECAGG_ADVERTISE ? -FL_R_SECAGG_KEYS : -FL_R_MSG_ORDER);
        ck_assert(sw_sum_is_right(w));
        fl_secagg_bytes_free(&b);
        sw_free(w);
    }
}
END_TEST

/* A coordinator that was restarted between any two stages and is told the same objects, in another
 * order, answers with the same bytes and comes to the same sum. */
START_TEST(test_coordinator_restarts)
{
    struct sw *w = world(6);
    int64_t before[33], after[33];

    w->agent[1].leaves = FL_SECAGG_MASK;
    w->agent[4].leaves = FL_SECAGG_SIGN;
    ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_UNMASK), 0);
    ck_assert_int_eq(sw_sum(w, w->server, before, NULL), 0);
    struct fl_secagg_server *old = w->server;
    ck_assert_int_eq(fl_secagg_server_new(&w->setup, &w->identity, &w->server, NULL), 0);
    for (int stage = 0; stage < FL_SECAGG_STAGES; stage++) {
        for (uint32_t i = 6; i-- > 0;) {
            struct fl_secagg_bytes *b = &w->agent[i].up[stage];
            if (b->bytes) {
                ck_assert_int_eq(sw_give(w, (enum fl_secagg_stage)stage, w->agent[i].id, b, NULL),
                                 0);
            }
        }
        ck_assert_int_eq(fl_secagg_server_close(w->server, NULL), 0);
        for (uint32_t i = 0; i < 6 && stage < FL_SECAGG_UNMASK; i++) {
            struct fl_secagg_bytes one = {NULL, 0}, two = {NULL, 0};
            int r = fl_secagg_server_reply(old, (enum fl_secagg_stage)stage, w->agent[i].id, &one,
                                           NULL);
            ck_assert_int_eq(fl_secagg_server_reply(w->server, (enum fl_secagg_stage)stage,
                                                    w->agent[i].id, &two, NULL),
                             r);
            ck_assert_uint_eq(one.size, two.size);
            ck_assert(one.size == 0 || memcmp(one.bytes, two.bytes, one.size) == 0);
            fl_secagg_bytes_free(&one);
            fl_secagg_bytes_free(&two);
        }
    }
    ck_assert_int_eq(sw_sum(w, w->server, after, NULL), 0);
    ck_assert_mem_eq(before, after, sizeof before);
    fl_secagg_server_free(old);
    sw_free(w);
}
END_TEST

/* Two sums at once: nothing of one is taken for the other, on either side. */
START_TEST(test_interleaved)
{
    struct fl_secagg_setup s = plain(3);
    struct sw *one = sw_new(&s, 3, 1), *two;
    struct fl_secagg_bytes b = {NULL, 0};
    struct fl_err e;

    s.context.bytes[5] = 1;
    two = sw_new(&s, 3, 2);
    ck_assert_int_eq(sw_start(one), 0);
    ck_assert_int_eq(sw_start(two), 0);
    for (int stage = 0; stage < FL_SECAGG_STAGES; stage++) {
        sw_up(one, (enum fl_secagg_stage)stage);
        ck_assert_int_eq(
            sw_give(two, (enum fl_secagg_stage)stage, 1000, &one->agent[0].up[stage], &e),
            -FL_R_SECAGG_OBJECT);
        sw_up(two, (enum fl_secagg_stage)stage);
        ck_assert_int_eq(sw_close(one, (enum fl_secagg_stage)stage), 0);
        ck_assert_int_eq(sw_close(two, (enum fl_secagg_stage)stage), 0);
    }
    ck_assert(sw_sum_is_right(one) && sw_sum_is_right(two));
    sw_free(one);
    sw_free(two);
    /* And an agent that is given the other's. */
    s = plain(3);
    one = sw_new(&s, 3, 1);
    s.context.bytes[5] = 1;
    two = sw_new(&s, 3, 2);
    sw_start(one);
    sw_start(two);
    sw_run(one, FL_SECAGG_ADVERTISE, FL_SECAGG_ADVERTISE);
    sw_run(two, FL_SECAGG_ADVERTISE, FL_SECAGG_ADVERTISE);
    ck_assert_int_eq(fl_secagg_client_share(one->agent[0].client, two->agent[0].down.bytes,
                                            two->agent[0].down.size, &b, &e),
                     -FL_R_SECAGG_OBJECT);
    sw_free(one);
    sw_free(two);
}
END_TEST

TESTS_MAIN("secagg_lost", test_drop_at_each_stage, test_exactly_the_threshold,
           test_all_neighbours_leave, test_late_vector, test_twice, test_agent_restarts,
           test_coordinator_restarts, test_interleaved)
