/* Who is not put together again in secure sums. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "server/strategy/distrust.h"
#include "tests/lib/check_main.h"

static void add(struct fl_distrust *d, uint64_t round, uint64_t by, uint64_t of)
{
    const struct fl_secagg_complaint c = {by, of};

    ck_assert_int_eq(fl_distrust_add(d, round, &c, 1, NULL), 0);
}

static bool sits_out(const struct fl_distrust *d, uint64_t round, uint64_t agent)
{
    struct fl_distrust_out *out;
    uint32_t count = 0;
    bool found = false;

    ck_assert_int_eq(fl_distrust_out(d, round, &out, &count, NULL), 0);
    for (uint32_t i = 0; i < count; i++) {
        found |= out[i].agent == agent;
        ck_assert(i == 0 || out[i].agent > out[i - 1].agent);
    }
    fl_free(out);
    return found;
}

static uint32_t how_many(const struct fl_distrust *d, uint64_t round)
{
    struct fl_distrust_out *out;
    uint32_t count = 0;

    ck_assert_int_eq(fl_distrust_out(d, round, &out, &count, NULL), 0);
    fl_free(out);
    return count;
}

START_TEST(test_one_against_many)
{
    struct fl_distrust d = {0};

    for (uint64_t by = 1; by <= 4; by++) { /* four cannot read what 5 dealt */
        add(&d, 1, by, 5);
    }
    for (uint64_t round = 2; round <= 9; round++) {
        ck_assert_uint_eq(how_many(&d, round), 1);
        ck_assert(sits_out(&d, round, 5));
    }
    ck_assert_uint_eq(how_many(&d, 10), 0); /* forgotten */
    add(&d, 3, 2, 5);                       /* and again: twice as long, but only that pair */
    ck_assert(sits_out(&d, 19, 5) || sits_out(&d, 19, 2));
    ck_assert_uint_eq(how_many(&d, 20), 0);
    fl_distrust_fini(&d);
    for (uint64_t of = 1; of <= 4; of++) { /* 5 says so of four */
        add(&d, 1, 5, of);
    }
    ck_assert_uint_eq(how_many(&d, 2), 1);
    ck_assert(sits_out(&d, 2, 5));
    fl_distrust_fini(&d);
}
END_TEST

/* They take turns; the cheat's next victim makes it the one with more pairs. */
START_TEST(test_one_against_one)
{
    struct fl_distrust d = {0};

    add(&d, 1, 2, 5);
    for (uint64_t round = 2; round < 9; round++) {
        ck_assert_uint_eq(how_many(&d, round), 1);
        ck_assert(sits_out(&d, round, 2) == (round % 2 == 1));
        ck_assert(sits_out(&d, round, 5) == (round % 2 == 0));
    }
    add(&d, 3, 3, 5);
    for (uint64_t round = 4; round < 9; round++) {
        ck_assert_uint_eq(how_many(&d, round), 1);
        ck_assert(sits_out(&d, round, 5));
    }
    fl_distrust_fini(&d);
    const struct fl_secagg_complaint both[] = {{2, 5}, {5, 2}}; /* of one round: one complaint */
    ck_assert_int_eq(fl_distrust_add(&d, 1, both, 2, NULL), 0);
    ck_assert_uint_eq(d.count, 1);
    ck_assert_uint_eq(d.at[0].times, 1);
    fl_distrust_fini(&d);
}
END_TEST

START_TEST(test_proven)
{
    struct fl_distrust d = {0};

    add(&d, 1, 0, 7);
    add(&d, 1, 3, 7); /* its pair is settled: 3 stays */
    for (uint64_t round = 2; round <= 9; round++) {
        ck_assert_uint_eq(how_many(&d, round), 1);
        ck_assert(sits_out(&d, round, 7));
    }
    fl_distrust_fini(&d);
}
END_TEST

/* However cheats complain, of every pair one sits out, and no more honest agents sit out than there
 * are cheats. */
START_TEST(test_cover)
{
    struct fl_seed seed;
    struct fl_rng rng;

    fl_seed_from_u64(4, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (uint32_t times = 0; times < 300; times++) {
        uint64_t agents = 4 + fl_rng_below(&rng, 30), cheats = 1 + fl_rng_below(&rng, 3);
        struct fl_distrust d = {0};
        for (uint32_t i = 0; i < 20; i++) {
            uint64_t cheat = 1 + fl_rng_below(&rng, cheats), peer = 1 + fl_rng_below(&rng, agents);
            if (peer != cheat) {
                bool says = fl_rng_below(&rng, 2);
                add(&d, 1 + i / 4, says ? cheat : peer, says ? peer : cheat);
            }
        }
        uint32_t honest_out = 0;
        for (uint32_t i = 0; i < d.count; i++) {
            ck_assert(sits_out(&d, 6, d.at[i].one) || sits_out(&d, 6, d.at[i].other));
        }
        for (uint64_t a = cheats + 1; a <= agents; a++) {
            honest_out += sits_out(&d, 6, a);
        }
        ck_assert_uint_le(honest_out, cheats);
        fl_distrust_fini(&d);
    }
    fl_rng_fini(&rng);
}
END_TEST

START_TEST(test_bytes)
{
    struct fl_distrust d = {0}, back = {0};
    uint8_t *bytes;
    size_t size;

    add(&d, 1, 0, 7);
    add(&d, 2, 9, 3);
    add(&d, 4, 3, 9);
    ck_assert_int_eq(fl_distrust_put(&d, &bytes, &size, NULL), 0);
    ck_assert_uint_eq(size, 4 + 2 * 28);
    ck_assert_int_eq(fl_distrust_get(bytes, size, &back, NULL), 0);
    ck_assert_uint_eq(back.count, 2);
    ck_assert_uint_eq(back.at[1].one, 3);
    ck_assert_uint_eq(back.at[1].other, 9);
    ck_assert_uint_eq(back.at[1].round, 4);
    ck_assert_uint_eq(back.at[1].times, 2);
    fl_distrust_fini(&back);
    ck_assert_int_eq(fl_distrust_get(bytes, size - 1, &back, NULL), -FL_R_STORE_MISMATCH);
    bytes[0] = 1;
    ck_assert_int_eq(fl_distrust_get(bytes, size, &back, NULL), -FL_R_STORE_MISMATCH);
    bytes[0] = 2;
    bytes[4 + 28] = 0xff; /* one above the other */
    ck_assert_int_eq(fl_distrust_get(bytes, size, &back, NULL), -FL_R_STORE_MISMATCH);
    ck_assert_int_eq(fl_distrust_get(bytes, 3, &back, NULL), -FL_R_STORE_MISMATCH);
    fl_free(bytes);
    fl_distrust_fini(&d);
}
END_TEST

/* There is a ceiling, and the newest are what is kept. */
START_TEST(test_many)
{
    struct fl_secagg_complaint *all = fl_new(FL_DISTRUST_MAX, sizeof *all);
    struct fl_distrust d = {0};

    for (uint64_t round = 1; round <= 2; round++) {
        for (uint32_t i = 0; i < FL_DISTRUST_MAX; i++) {
            all[i] = (struct fl_secagg_complaint){round, 100 + i};
        }
        ck_assert_int_eq(fl_distrust_add(&d, round, all, FL_DISTRUST_MAX, NULL), 0);
        ck_assert_uint_eq(d.count, FL_DISTRUST_MAX);
    }
    ck_assert_uint_eq(how_many(&d, 3), 1);
    ck_assert(sits_out(&d, 3, 2));
    fl_free(all);
    fl_distrust_fini(&d);
}
END_TEST

TESTS_MAIN("distrust", test_one_against_many, test_one_against_one, test_proven, test_cover,
           test_bytes, test_many)
