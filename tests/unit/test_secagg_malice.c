/* Secure sums whose agents or coordinator do what they should not. One test each. */
#include "tests/lib/secagg_small.h"

/* ---- what a coordinator may try ---- */

/* A second request, the same or another: never. */
START_TEST(test_second_request)
{
    struct sw *w = world(5);
    struct fl_secagg_bytes b = {NULL, 0}, proofs;
    struct fl_err e;

    ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_SIGN), 0);
    struct sw_agent *a = &w->agent[0];
    /* After it signed one set of survivors it signs no other. */
    ck_assert_int_eq(fl_secagg_client_sign(a->client, a->down.bytes, a->down.size, &b, &e),
                     -FL_R_MSG_ORDER);
    proofs = a->down;
    a->down = (struct fl_secagg_bytes){NULL, 0};
    ck_assert_int_eq(fl_secagg_client_reveal(a->client, proofs.bytes, proofs.size, &b, &e), 0);
    fl_secagg_bytes_free(&b);
    ck_assert_int_eq(fl_secagg_client_reveal(a->client, proofs.bytes, proofs.size, &b, &e),
                     -FL_R_MSG_ORDER);
    ck_assert_ptr_null(b.bytes);
    fl_secagg_bytes_free(&proofs);
    sw_free(w);
}
END_TEST

/* Both shares of agent 3: half of the agents are told that it dropped out, the others not. */
static void both_shares(struct sw *w, enum fl_secagg_stage stage, uint32_t i, bool up,
                        struct fl_secagg_bytes *b)
{
    if (!up && stage == FL_SECAGG_MASK && i >= w->count / 2 && i != 3) {
        uint32_t index = index_of(w, 3);
        b->bytes[FL_SECAGG_HEAD_SIZE + index / 8] &= (uint8_t) ~(1U << index % 8);
    }
}

START_TEST(test_different_survivors)
{
    struct sw *w = world(8);

    w->change = both_shares;
    ck_assert_int_lt(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_UNMASK), 0);
    /* Whoever was lied to is found out by the signature; the others lack a majority. */
    for (uint32_t i = 0; i < 8; i++) {
        ck_assert_ptr_null(w->agent[i].up[FL_SECAGG_UNMASK].bytes);
        ck_assert_int_eq(w->agent[i].error, i == 3 || i < 4 ? 0 : -FL_R_SECAGG_KEYS);
    }
    sw_free(w);
}
END_TEST

/* The same with a coordinator that skips its own checks and shows each half its own signatures: no
 * half is more than half. */
static void own_half(struct sw *w, uint32_t i, bool first_half, struct fl_secagg_bytes *ret)
{
    struct fl_secagg_out out;
    uint32_t count = 0;
    size_t size = 4;

    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t index = 0; index < w->count; index++) {
            for (uint32_t a = 0; a < w->count; a++) {
                struct fl_signed_view v;
                struct fl_secagg_bytes *b = &w->agent[a].up[FL_SECAGG_SIGN];
                if (a == i || (a < w->count / 2) != first_half || index_of(w, a) != index) {
                    continue;
                }
                ck_assert_int_eq(
                    fl_signed_read(&w->setup.context, b->bytes, b->size, w->count, &v, NULL), 0);
                if (pass == 0) {
                    count++;
                    size += 8 + SW_CERT + v.sig_size;
                } else {
                    fl_out_u32(&out, index);
                    fl_out_short(&out, w->agent[a].cert, SW_CERT);
                    fl_out_short(&out, v.sig, v.sig_size);
                }
            }
        }
        if (pass == 0) {
            ck_assert_int_eq(
                fl_out_begin(&out, FL_SECAGG_PROOFS, &w->setup.context, size, ret, NULL), 0);
            fl_out_u32(&out, count);
        }
    }
    fl_out_end(&out);
}

START_TEST(test_split_view)
{
    struct sw *w = world(8);

    w->change = both_shares;
    ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_MASK), 0);
    for (uint32_t i = 0; i < 8; i++) {
        struct sw_agent *a = &w->agent[i];
        ck_assert_int_eq(sw_client_step(a, FL_SECAGG_SIGN, &a->up[FL_SECAGG_SIGN]), 0);
    }
    for (uint32_t i = 0; i < 8; i++) {
        struct fl_secagg_bytes proofs = {NULL, 0}, b = {NULL, 0};
        struct fl_err e;
        own_half(w, i, i < 4, &proofs);
        ck_assert_int_eq(
            fl_secagg_client_reveal(w->agent[i].client, proofs.bytes, proofs.size, &b, &e),
            -FL_R_SECAGG_VIEW);
        ck_assert_ptr_null(b.bytes);
        fl_secagg_bytes_free(&proofs);
    }
    sw_free(w);
}
END_TEST

/* Proofs: another's signature under a name, one that was not asked for, a forged one, too few. */
START_TEST(test_proofs)
{
    for (int what = 0; what < 4; what++) {
        struct sw *w = world(5);
        struct fl_secagg_bytes b = {NULL, 0};
        struct fl_err e;
        ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_SIGN), 0);
        struct sw_agent *a = &w->agent[2];
        uint8_t *items = a->down.bytes + FL_SECAGG_HEAD_SIZE + 4;
        size_t item = 4 + 2 + SW_CERT + 2 + SW_SIG;
        ck_assert_uint_eq(a->down.size, FL_SECAGG_HEAD_SIZE + 4 + 4 * item);
        switch (what) {
        case 0:
            memcpy(items + 4, items + item + 4, item - 4);
            break;
        case 1:
            for (uint32_t i = 0, own = index_of(w, 2); i < 4; i++) {
                if (fl_get_u32(items + i * item) + 1 == own || (own == 0 && i == 0)) {
                    items[i * item] = (uint8_t)own;
                }
            }
            break;
        case 2:
            items[2 * item - 1] ^= 1;
            break;
        default:
            a->down.bytes[FL_SECAGG_HEAD_SIZE] = 1; /* with its own two, of five */
            a->down.size = FL_SECAGG_HEAD_SIZE + 4 + item;
            break;
        }
        ck_assert_int_eq(fl_secagg_client_reveal(a->client, a->down.bytes, a->down.size, &b, &e),
                         -FL_R_SECAGG_VIEW);
        ck_assert_ptr_null(b.bytes);
        sw_free(w);
    }
}
END_TEST

/* Survivors that did not deal, an agent's own absence, too few, bits behind the last. */
START_TEST(test_unknown_survivors)
{
    for (int what = 0; what < 4; what++) {
        struct sw *w = world(6);
        struct fl_secagg_bytes b = {NULL, 0};
        struct fl_err e;
        w->agent[4].leaves = FL_SECAGG_SHARE;
        ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_MASK), 0);
        struct sw_agent *a = &w->agent[0];
        uint8_t *set = a->down.bytes + FL_SECAGG_HEAD_SIZE;
        static const int expected[] = {-FL_R_SECAGG_VIEW, -FL_R_SECAGG_VIEW, -FL_R_SECAGG_FEW,
                                       -FL_R_SECAGG_OBJECT};
        if (what == 0) {
            fl_set_add(set, index_of(w, 4));
        } else if (what == 1) {
            set[0] &= (uint8_t) ~(1U << index_of(w, 0));
        } else if (what == 2) {
            set[0] = (uint8_t)(1U << index_of(w, 0) | 1U << index_of(w, 1));
        } else {
            set[0] |= 0x80;
        }
        ck_assert_int_eq(fl_secagg_client_sign(a->client, a->down.bytes, a->down.size, &b, &e),
                         expected[what]);
        ck_assert_ptr_null(b.bytes);
        sw_free(w);
    }
}
END_TEST

/* The coordinator in the middle: its own keys in a neighbour's place, however it goes about it. */
START_TEST(test_other_keys)
{
    for (int what = 0; what < 6; what++) {
        struct sw *w = world(4);
        struct fl_secagg_bytes b = {NULL, 0};
        struct fl_err e;
        ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_ADVERTISE), 0);
        struct sw_agent *a = &w->agent[0];
        uint8_t *bytes = a->down.bytes, *entries = bytes + FL_SECAGG_HEAD_SIZE + 12;
        uint8_t *advert = entries + (size_t)4 * FL_SECAGG_ENTRY_SIZE;
        uint32_t own = index_of(w, 0), other = own == 0 ? 1 : 0;
        int expected = -FL_R_SECAGG_KEYS;
        switch (what) {
        case 0: /* another mask key, signature untouched */
            advert[33] ^= 1;
            break;
        case 1: /* a certificate of nobody's */
            advert[66] ^= 1;
            break;
        case 2: { /* signed well, but by an agent that the roster does not name there */
            struct fl_digest message;
            advert[0] ^= 1;
            sw_cert(1077, advert + 66);
            fl_secagg_advert_message(&w->setup.context, advert, advert + 32, &message);
            sw_signature(advert + 66, message.bytes, sizeof message.bytes,
                         advert + 66 + SW_CERT + 2);
            break;
        }
        case 3: /* the roster has other keys for this agent */
            entries[own * FL_SECAGG_ENTRY_SIZE + 40] ^= 1;
            break;
        case 4: /* somebody twice */
            memcpy(entries + other * FL_SECAGG_ENTRY_SIZE, entries + own * FL_SECAGG_ENTRY_SIZE,
                   FL_SECAGG_ENTRY_SIZE);
            break;
        default: /* a threshold of one */
            bytes[FL_SECAGG_HEAD_SIZE + 8] = 1;
            expected = -FL_R_SECAGG_VIEW;
            break;
        }
        ck_assert_int_eq(fl_secagg_client_share(a->client, bytes, a->down.size, &b, &e), expected);
        ck_assert_ptr_null(b.bytes);
        sw_free(w);
    }
}
END_TEST

/* Different rosters for different agents: they have no usable shares of each other. */
START_TEST(test_different_rosters)
{
    struct fl_secagg_setup s = plain(12);
    struct sw *w = sw_new(&s, 12, 1);
    struct fl_secagg_server *small;
    struct fl_err e;

    ck_assert_int_eq(sw_start(w), 0);
    sw_up(w, FL_SECAGG_ADVERTISE);
    ck_assert_int_eq(fl_secagg_server_new(&s, &w->identity, &small, NULL), 0);
    for (uint32_t i = 0; i < 12; i += 2) { /* a second roster of half of them */
        struct fl_secagg_bytes *b = &w->agent[i].up[FL_SECAGG_ADVERTISE];
        ck_assert_int_eq(fl_secagg_server_take(small, FL_SECAGG_ADVERTISE, w->agent[i].id, b->bytes,
                                               b->size, &e),
                         0);
    }
    ck_assert_int_eq(fl_secagg_server_close(small, &e), 0);
    ck_assert_int_eq(sw_close(w, FL_SECAGG_ADVERTISE), 0);
    struct sw_agent *a = &w->agent[0];
    fl_secagg_bytes_free(&a->down);
    ck_assert_int_eq(fl_secagg_server_reply(small, FL_SECAGG_ADVERTISE, a->id, &a->down, &e), 0);
    sw_up(w, FL_SECAGG_SHARE);
    /* Agent 0 dealt to five; the honest coordinator of twelve cannot use that. */
    ck_assert_int_eq(a->error, -FL_R_SECAGG_OBJECT);
    ck_assert_int_eq(sw_close(w, FL_SECAGG_SHARE), 0);
    /* A bent one forges a delivery for agent 0 out of what its neighbours dealt elsewhere. */
    struct fl_secagg_bytes forged = {NULL, 0}, out = {NULL, 0};
    struct fl_secagg_out o;
    uint8_t set = 0x3f, item[FL_DELIVERY_ITEM];
    ck_assert_int_eq(
        fl_out_begin(&o, FL_SECAGG_DELIVERY, &s.context, 1 + 4 + 5 * sizeof item, &forged, &e), 0);
    fl_out_put(&o, &set, 1);
    fl_out_u32(&o, 5);
    for (uint32_t k = 0; k < 5; k++) {
        struct fl_shares_view v;
        struct fl_secagg_bytes *b = &w->agent[2 + 2 * k].up[FL_SECAGG_SHARE];
        ck_assert_int_eq(fl_shares_read(&s.context, b->bytes, b->size, 11, &v, NULL), 0);
        memcpy(item, v.ciphers, FL_SECAGG_CIPHER_SIZE);
        memcpy(item + FL_SECAGG_CIPHER_SIZE, v.self_checks + FL_SECAGG_CHECK_SIZE,
               FL_SECAGG_CHECK_SIZE);
        memcpy(item + FL_SECAGG_CIPHER_SIZE + FL_SECAGG_CHECK_SIZE, v.pair_checks,
               FL_SECAGG_CHECK_SIZE);
        fl_out_put(&o, item, sizeof item);
    }
    fl_out_end(&o);
    ck_assert_int_eq(fl_secagg_client_mask(a->client, forged.bytes, forged.size, a->q, &out, &e),
                     -FL_R_SECAGG_FEW);
    fl_secagg_bytes_free(&forged);
    fl_secagg_server_free(small);
    sw_free(w);
}
END_TEST

/* Too small a crowd: an agent stays out. */
START_TEST(test_small_crowd)
{
    struct fl_secagg_setup s = plain(6);
    struct sw *w = sw_new(&s, 6, 1);

    for (uint32_t i = 0; i < 3; i++) {
        w->agent[i].leaves = 0;
    }
    ck_assert_int_eq(sw_start(w), 0);
    w->agent[5].leaves = SW_STAYS;
    fl_secagg_client_free(w->agent[5].client);
    s.members_min = s.survivors_min = 4; /* this agent wants more than the coordinator */
    ck_assert_int_eq(fl_secagg_client_new(&s, &w->agent[5].identity, &w->agent[5].client, NULL), 0);
    ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_UNMASK), 0);
    ck_assert_int_eq(w->agent[5].error, -FL_R_SECAGG_FEW);
    ck_assert_uint_eq(fl_secagg_server_members(w->server, NULL, 0), 2);
    ck_assert(sw_sum_is_right(w));
    sw_free(w);
}
END_TEST

/* ---- what agents may try ---- */

/* A forged share: noticed, and the sum is made from the others'. */
static void forge_share(struct sw *w, enum fl_secagg_stage stage, uint32_t i, bool up,
                        struct fl_secagg_bytes *b)
{
    (void)w;
    if (up && stage == FL_SECAGG_UNMASK && i == 1) {
        b->bytes[b->size - 1] ^= 1;
    }
    if (up && stage == FL_SECAGG_UNMASK && i == 2) { /* the other kind than was asked for */
        uint8_t *kind = b->bytes + FL_SECAGG_HEAD_SIZE + 32 + 4 + 4;
        *kind = *kind == FL_SECAGG_SELF ? FL_SECAGG_PAIR : FL_SECAGG_SELF;
    }
}

START_TEST(test_forged_share)
{
    struct sw *w = world(9);

    w->change = forge_share;
    w->agent[7].leaves = FL_SECAGG_MASK;
    ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_UNMASK), 0);
    ck_assert_int_eq(w->agent[1].error, -FL_R_SECAGG_SHARE);
    ck_assert_int_eq(w->agent[2].error, -FL_R_SECAGG_SHARE);
    ck_assert_uint_eq(ended(w, 0), 7);
    ck_assert(sw_sum_is_right(w));
    sw_free(w);
}
END_TEST

/* A dealer whose sealed shares cannot be opened, or are not those it published: its neighbours go
 * on without them. When it then leaves there is nothing to take its masks off with, and the round
 * ends, naming it. */
static void bad_dealer(struct sw *w, enum fl_secagg_stage stage, uint32_t i, bool up,
                       struct fl_secagg_bytes *b)
{
    if (up && stage == FL_SECAGG_SHARE && i == 0) {
        size_t k = w->count - 1, from = w->arg ? FL_SECAGG_HEAD_SIZE + FL_DIGEST_SIZE
                                               : b->size - k * FL_SECAGG_CIPHER_SIZE;
        for (size_t at = from; at < b->size; at += 16) {
            b->bytes[at] ^= 1;
        }
    }
}

START_TEST(test_bad_dealer)
{
    for (int what = 0; what < 4; what++) {
        struct sw *w = world(5);
        struct fl_err *why = &w->why;
        w->change = bad_dealer;
        w->arg = what & 1 ? w : NULL;
        w->agent[0].leaves = what & 2 ? FL_SECAGG_MASK : FL_SECAGG_STAGES;
        int r = sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_UNMASK);
        ck_assert_int_eq(r, -FL_R_SECAGG_FEW);
        ck_assert_ptr_nonnull(strstr(why->msg, "00000000000003e8")); /* agent 1000 */
        struct fl_secagg_complaint said[8];
        ck_assert_uint_eq(fl_secagg_server_complaints(w->server, said, 8), 4);
        for (uint32_t i = 0; i < 4; i++) {
            ck_assert_uint_eq(said[i].of, 1000);
            ck_assert_uint_ge(said[i].by, 1001);
        }
        sw_free(w);
    }
}
END_TEST

/* Shares that are what was published and do not fit together name their dealer. */
static void false_commitment(struct sw *w, enum fl_secagg_stage stage, uint32_t i, bool up,
                             struct fl_secagg_bytes *b)
{
    (void)w;
    if (up && stage == FL_SECAGG_SHARE && i == 2) {
        b->bytes[FL_SECAGG_HEAD_SIZE] ^= 1;
    }
}

START_TEST(test_false_commitment)
{
    struct sw *w = world(5);

    w->change = false_commitment;
    ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_UNMASK), -FL_R_SECAGG_SHARE);
    ck_assert_str_eq(w->why.msg, "the shares that agent 00000000000003ea dealt do not fit");
    struct fl_secagg_complaint said;
    ck_assert_uint_eq(fl_secagg_server_complaints(w->server, &said, 1), 1);
    ck_assert_uint_eq(said.by, 0);
    ck_assert_uint_eq(said.of, 1002);
    sw_free(w);
}
END_TEST

/* One neighbour alone cannot read what it was dealt: the sum is whole, and the pair is known. */
static void bad_for_one(struct sw *w, enum fl_secagg_stage stage, uint32_t i, bool up,
                        struct fl_secagg_bytes *b)
{
    (void)w;
    if (up && stage == FL_SECAGG_SHARE && i == 3) {
        b->bytes[b->size - 1] ^= 1;
    }
}

START_TEST(test_bad_for_one)
{
    struct sw *w = world(5);
    struct fl_secagg_complaint said[2];

    w->change = bad_for_one;
    ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_UNMASK), 0);
    ck_assert(sw_sum_is_right(w));
    ck_assert_uint_eq(fl_secagg_server_complaints(w->server, said, 2), 1);
    ck_assert_uint_eq(said[0].of, 1003);
    ck_assert_uint_ne(said[0].by, 1003);
    sw_free(w);
}
END_TEST

/* A public key of small order makes every agreement zero. The coordinator does not take it; when it
 * helps, the neighbour notices. */
static void small_order(struct sw *w, enum fl_secagg_stage stage, uint32_t i, bool up,
                        struct fl_secagg_bytes *b)
{
    if (up && stage == FL_SECAGG_ADVERTISE && i == 1) {
        uint8_t *keys = b->bytes + FL_SECAGG_HEAD_SIZE;
        struct fl_digest message;
        memset(keys + (w->arg ? 32 : 0), 0, 32);
        fl_secagg_advert_message(&w->setup.context, keys, keys + 32, &message);
        sw_signature(w->agent[i].cert, message.bytes, sizeof message.bytes,
                     b->bytes + b->size - SW_SIG);
    }
}

START_TEST(test_small_order)
{
    struct sw *w;

    for (int which = 0; which < 2; which++) {
        w = world(4);
        w->change = small_order;
        w->arg = which ? w : NULL;
        ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_UNMASK), 0);
        ck_assert_int_eq(w->agent[1].error, -FL_R_SECAGG_KEYS);
        ck_assert_uint_eq(ended(w, 0), 3);
        ck_assert(sw_sum_is_right(w));
        sw_free(w);
    }
    w = world(4);
    ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_ADVERTISE), 0);
    struct sw_agent *a = &w->agent[0];
    uint8_t *entries = a->down.bytes + FL_SECAGG_HEAD_SIZE + 12;
    uint8_t *keys = entries + (size_t)4 * FL_SECAGG_ENTRY_SIZE;
    uint32_t other = index_of(w, 0) == 0 ? 1 : 0; /* whose advert is the first */
    struct fl_secagg_bytes b = {NULL, 0};
    struct fl_digest d;
    struct fl_err e;
    memset(keys, 0, 32);
    fl_secagg_advert_message(&w->setup.context, keys, keys + 32, &d);
    sw_signature(keys + 66, d.bytes, sizeof d.bytes, keys + 66 + SW_CERT + 2);
    fl_secagg_keys_digest(&w->setup.context, entries + (size_t)other * FL_SECAGG_ENTRY_SIZE, keys,
                          keys + 32, &d);
    memcpy(entries + (size_t)other * FL_SECAGG_ENTRY_SIZE + 32, d.bytes, FL_SECAGG_CHECK_SIZE);
    ck_assert_int_eq(fl_secagg_client_share(a->client, a->down.bytes, a->down.size, &b, &e),
                     -FL_R_SECAGG_KEYS);
    ck_assert_ptr_nonnull(strstr(e.msg, "small order"));
    ck_assert_ptr_null(b.bytes);
    sw_free(w);
}
END_TEST

/* Keys without a signature, or signed for another sum; one certificate for two agents. */
START_TEST(test_adverts)
{
    struct sw *w = world(4);
    struct fl_err e;

    sw_up(w, FL_SECAGG_ADVERTISE);
    struct fl_secagg_bytes *b = &w->agent[0].up[FL_SECAGG_ADVERTISE];
    ck_assert_int_eq(sw_give(w, FL_SECAGG_ADVERTISE, 77, b, &e), -FL_R_LIMIT); /* members_max */
    sw_free(w);

    w = world(4);
    w->agent[3].leaves = 0;
    sw_up(w, FL_SECAGG_ADVERTISE);
    b = &w->agent[0].up[FL_SECAGG_ADVERTISE];
    ck_assert_int_eq(sw_give(w, FL_SECAGG_ADVERTISE, 77, b, &e), -FL_R_SECAGG_KEYS);
    b->bytes[b->size - 1] ^= 1;
    ck_assert_int_eq(sw_give(w, FL_SECAGG_ADVERTISE, 77, b, &e), -FL_R_SECAGG_KEYS);
    b->bytes[10] ^= 1;
    ck_assert_int_eq(sw_give(w, FL_SECAGG_ADVERTISE, 77, b, &e), -FL_R_SECAGG_OBJECT);
    sw_free(w);
}
END_TEST

/* Vectors of another length, with bits behind the last word, and one that is not of the ring's sum
 * at all. */
START_TEST(test_vectors)
{
    struct fl_secagg_setup s = plain(4);
    struct sw *w = sw_new(&s, 4, 1);
    struct fl_err e;

    w->setup.bits = 29; /* 33 * 29 = 957 bits: 3 are unused */
    ck_assert_int_eq(sw_start(w), 0);
    ck_assert_int_eq(sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_SHARE), 0);
    struct sw_agent *a = &w->agent[0];
    ck_assert_int_eq(sw_client_step(a, FL_SECAGG_MASK, &a->up[FL_SECAGG_MASK]), 0);
    struct fl_secagg_bytes b = a->up[FL_SECAGG_MASK];
    b.size--;
    ck_assert_int_eq(sw_give(w, FL_SECAGG_MASK, a->id, &b, &e), -FL_R_UPDATE_LENGTH);
    b.size++;
    b.bytes[b.size - 1] |= 0x80;
    ck_assert_int_eq(sw_give(w, FL_SECAGG_MASK, a->id, &b, &e), -FL_R_UPDATE_RANGE);
    b.bytes[b.size - 1] &= 0x1f;
    b.bytes[FL_SECAGG_HEAD_SIZE + 7] ^= 1; /* bit 27 of word 1: more than four agents can make */
    ck_assert_int_eq(sw_give(w, FL_SECAGG_MASK, a->id, &b, &e), 0);
    a->leaves = FL_SECAGG_MASK; /* so that sw_run does not ask again; it still counts */
    sw_up(w, FL_SECAGG_MASK);
    a->leaves = SW_STAYS;
    ck_assert_int_eq(sw_close(w, FL_SECAGG_MASK), 0);
    ck_assert_int_eq(sw_run(w, FL_SECAGG_SIGN, FL_SECAGG_UNMASK), 0);
    int64_t q[33];
    ck_assert_int_eq(sw_sum(w, w->server, q, &e), -FL_R_UPDATE_RANGE);
    sw_free(w);
}
END_TEST

TESTS_MAIN("secagg_malice", test_second_request, test_different_survivors, test_split_view,
           test_proofs, test_unknown_survivors, test_other_keys, test_different_rosters,
           test_small_crowd, test_forged_share, test_bad_dealer, test_false_commitment,
           test_bad_for_one, test_small_order, test_adverts, test_vectors)
