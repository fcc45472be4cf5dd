/* Receipts: what is wanted, what is kept, and that it stands beside the chain. */
#include "client/core/ledger_receipts.h"
#include "tests/lib/ledger_bench.h"

#include <string.h>

static struct fl_receipt_proof proof_of(uint64_t round)
{
    struct fl_receipt_proof p = {.receipt = {.key = key_of(round),
                                             .weight = 7,
                                             .round = round + 1,
                                             .record = digest_of("record", round),
                                             .model = digest_of("model", round)},
                                 .certificate_size = 900,
                                 .signature_size = 71};

    memset(p.certificate, 0x30, p.certificate_size);
    memset(p.signature, (int)round, p.signature_size);
    return p;
}

static uint32_t seen, kept, none;
static int see(void *arg, uint64_t number, uint64_t wall_ms, const struct fl_receipt_proof *p)
{
    struct fl_digest update = digest_of("update", p->receipt.key.round),
                     record = digest_of("record", p->receipt.key.round);

    (void)arg;
    (void)number;
    seen++;
    ck_assert_str_eq(p->receipt.job, "fmnist");
    ck_assert(fl_digest_equal(&p->receipt.update, &update));
    ck_assert_uint_eq(p->receipt.size, 1000 + p->receipt.key.round);
    ck_assert_mem_eq(p->receipt.agent, owner, sizeof p->receipt.agent);
    ck_assert_int_eq(p->reason < 0, wall_ms == 0);
    none += p->reason > 0;
    if (p->reason == 0) {
        kept++;
        ck_assert(fl_digest_equal(&p->receipt.record, &record));
        ck_assert_uint_eq(p->receipt.weight, 7);
        ck_assert_uint_eq(p->receipt.round, p->receipt.key.round + 1);
        ck_assert_uint_eq(p->certificate_size, 900);
        ck_assert_uint_eq(p->signature_size, 71);
        ck_assert_uint_eq(p->signature[70], p->receipt.key.round);
    }
    return 0;
}

START_TEST(test_receipts_are_wanted_until_they_are_kept)
{
    struct fl_receipt_proof p[2] = {proof_of(1), proof_of(2)}, later = proof_of(1);
    uint8_t coordinator[16] = {5, 6}, other[16] = {7};
    struct fl_wanted keys[2];
    struct fl_digest third = digest_of("update", 3);
    uint32_t count;

    fresh();
    for (uint64_t round = 1; round <= 3; round++) {
        ck_ok(spend(round, 8, &client_budget));
    }
    ck_ok(fl_ledger_receipts_wanted(l, coordinator, keys, 2, &count, &e));
    ck_assert_uint_eq(count, 2); /* as many as there is room for */
    ck_ok(fl_ledger_receipts_wanted(l, other, keys, 2, &count, &e));
    ck_assert_uint_eq(count, 0);
    p[1].reason = FL_R_NOT_MEMBER;
    ck_ok(fl_ledger_receipts_keep(l, p, 2, 77, &e));
    later.receipt.weight = 8; /* what is kept stays as it is */
    ck_ok(fl_ledger_receipts_keep(l, &later, 1, 78, &e));
    reopen();
    ck_ok(fl_ledger_receipts_wanted(l, coordinator, keys, 2, &count, &e));
    ck_assert_uint_eq(count, 1);
    ck_assert_uint_eq(keys[0].key.round, 3);
    ck_assert(fl_digest_equal(&keys[0].update, &third));
    seen = kept = none = 0;
    ck_ok(fl_ledger_receipts_each(l, 0, 100, see, NULL, &e));
    ck_assert(seen == 3 && kept == 1 && none == 1);
    ck_ok(fl_ledger_verify(l, &e)); /* they are beside the chain */
    fl_ledger_close(l);
    l = NULL;
}
END_TEST

TESTS_MAIN("ledger_receipts", test_receipts_are_wanted_until_they_are_kept, gone)
