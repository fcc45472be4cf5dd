/* What an intent binds and a release leaves behind. */
#include "client/core/ledger.h"
#include "tests/lib/ledger_bench.h"

#include <stdio.h>
#include <string.h>

/* ---- intents ---- */

START_TEST(test_an_intent_gives_the_same_seed_for_the_same_inputs_only)
{
    struct fl_key key = key_of(1), second = key_of(2);
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_seed seed = {{0}}, again = {{0}}, zero = {{0}};

    fresh();
    ck_ok(fl_ledger_intent(l, &key, &in, 1, &seed, &e));
    ck_assert_mem_ne(&seed, &zero, sizeof seed);
    reopen();
    ck_ok(fl_ledger_intent(l, &key, &in, 2, &again, &e));
    ck_assert_mem_eq(&seed, &again, sizeof seed);
    ck_ok(fl_ledger_intent(l, &second, &in, 3, &again, &e));
    ck_assert_mem_ne(&seed, &again, sizeof seed);

    struct fl_digest *fields[] = {&in.plan, &in.base, &in.data, &in.private_state};
    const char *names[] = {"job description", "base model", "data set", "private state"};
    for (size_t i = 0; i < FL_COUNT(fields); i++) {
        in = inputs_of(1);
        fields[i]->bytes[31] ^= 1;
        again = zero;
        ck_assert_int_eq(fl_ledger_intent(l, &key, &in, 4, &again, &e), -FL_R_INTENT);
        ck_assert_ptr_nonnull(strstr(e.msg, names[i]));
        ck_assert_mem_eq(&again, &zero, sizeof again);
    }
    ck_ok(fl_ledger_verify(l, &e));
    shut();
}
END_TEST

START_TEST(test_prepared_seeds_are_bound_by_the_first_intent)
{
    struct fl_key key = key_of(1);
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_seed laid, got, other;

    fresh();
    fl_seed_from_u64(1, &laid);
    fl_seed_from_u64(2, &other);
    ck_ok(fl_ledger_prepare(l, &key, &laid, 1, &e));
    ck_ok(fl_ledger_prepare(l, &key, &laid, 1, &e));
    ck_assert_int_eq(fl_ledger_prepare(l, &key, &other, 1, &e), -FL_R_INTENT);
    reopen();
    ck_ok(fl_ledger_intent(l, &key, &in, 2, &got, &e));
    ck_assert_mem_eq(&got, &laid, sizeof got);
    in.base.bytes[0] ^= 1;
    ck_assert_int_eq(fl_ledger_intent(l, &key, &in, 2, &got, &e), -FL_R_INTENT);
    /* An intent that is there has its seed: nothing can be laid in any more. */
    key.round = 2;
    ck_ok(fl_ledger_intent(l, &key, &in, 2, &got, &e));
    ck_assert_int_eq(fl_ledger_prepare(l, &key, &laid, 3, &e), -FL_R_INTENT);
    ck_ok(fl_ledger_prepare(l, &key, &got, 3, &e));
    shut();
}
END_TEST

/* ---- releases ---- */

START_TEST(test_a_release_is_found_whole_and_only_once)
{
    struct fl_release r = release_of(1, 8), got;
    struct fl_key key = key_of(1);
    struct fl_digest d;
    uint64_t round = 0, seen[4] = {0};

    fresh();
    ck_assert_int_eq(fl_ledger_find(l, &key, &got, &e), 0);
    ck_assert_int_eq(fl_ledger_private(l, key.incarnation, &d, &round, &e), 0);
    ck_ok(spend(1, 8, &client_budget));
    ck_ok(spend(2, 8, &client_budget));
    reopen();
    memset(&got, 0, sizeof got);
    ck_assert_int_eq(fl_ledger_find(l, &key, &got, &e), 1);
    ck_assert_str_eq(got.job, "fmnist");
    ck_assert_mem_eq(got.coordinator, r.coordinator, 16);
    ck_assert_int_eq(got.unit, r.unit);
    ck_assert_double_eq(got.event.sigma, 8);
    ck_assert_double_eq(got.event.q, 1);
    ck_assert_uint_eq(got.event.count, 1);
    ck_assert(fl_digest_equal(&got.data, &r.data));
    ck_assert(fl_digest_equal(&got.update, &r.update));
    ck_assert(fl_digest_equal(&got.private_state, &r.private_state));
    ck_assert_uint_eq(got.size, r.size);
    ck_assert_double_eq(got.norm_before, 2.5);
    ck_assert_double_eq(got.noise_std, 8);
    ck_assert_uint_eq(got.saturated, 3);
    ck_assert(fl_key_equal(&got.key, &key));
    ck_assert_int_eq(fl_ledger_private(l, key.incarnation, &d, &round, &e), 1);
    ck_assert_uint_eq(round, 2);
    struct fl_digest want = digest_of("private", 3);
    ck_assert(fl_digest_equal(&d, &want));

    ck_ok(fl_ledger_debit(l, &client_budget, &r, 77, &e)); /* the same again */
    r.update.bytes[5] ^= 1;
    ck_assert_int_eq(fl_ledger_debit(l, &client_budget, &r, 77, &e), -FL_R_LEDGER);
    ck_assert_ptr_nonnull(strstr(e.msg, "another update"));
    ck_assert_int_eq(fl_ledger_each(l, count_release, seen, &e), 0);
    ck_assert_uint_eq(seen[0], 2);
    ck_assert_uint_eq(seen[1], 0);
    ck_assert_uint_eq(seen[2], 11 + 21);
    ck_assert_uint_eq(seen[3], 1001 + 1002);
    shut();
}
END_TEST

START_TEST(test_no_release_without_its_intent_and_its_data)
{
    struct fl_release r = release_of(1, 8);
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_seed seed;

    fresh();
    ck_assert_int_eq(fl_ledger_debit(l, &client_budget, &r, 1, &e), -FL_R_INTENT);
    ck_ok(fl_ledger_intent(l, &r.key, &in, 1, &seed, &e));
    r.data.bytes[0] ^= 1;
    ck_assert_int_eq(fl_ledger_debit(l, &client_budget, &r, 1, &e), -FL_R_INTENT);
    r.data.bytes[0] ^= 1;
    ck_ok(fl_ledger_debit(l, &client_budget, &r, 1, &e));
    shut();
}
END_TEST

START_TEST(test_acknowledging_erases_the_seed)
{
    struct fl_key key = key_of(1);
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_seed seed;
    uint64_t seen[4] = {0};

    fresh();
    ck_assert_int_eq(fl_ledger_acknowledged(l, &key, 1, &e), -FL_R_LEDGER);
    ck_ok(spend(1, 8, &client_budget));
    ck_ok(fl_ledger_intent(l, &key, &in, 2, &seed, &e)); /* may still be repeated */
    ck_ok(fl_ledger_acknowledged(l, &key, 3, &e));
    ck_ok(fl_ledger_acknowledged(l, &key, 4, &e));
    ck_assert_int_eq(fl_ledger_intent(l, &key, &in, 5, &seed, &e), -FL_R_INTENT);
    ck_assert_ptr_nonnull(strstr(e.msg, "acknowledged"));
    ck_assert_int_eq(fl_ledger_each(l, count_release, seen, &e), 0);
    ck_assert_uint_eq(seen[1], 1);
    shut();
    /* Nowhere in the file. */
    FILE *f = fopen(path, "rb");
    static uint8_t bytes[1 << 20];
    size_t size = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    ck_assert_uint_gt(size, 4096);
    ck_assert_ptr_null(memmem(bytes, size, seed.bytes, 8));
}
END_TEST

TESTS_MAIN("ledger", test_an_intent_gives_the_same_seed_for_the_same_inputs_only,
           test_prepared_seeds_are_bound_by_the_first_intent,
           test_a_release_is_found_whole_and_only_once,
           test_no_release_without_its_intent_and_its_data, test_acknowledging_erases_the_seed,
           gone)
