/*
 * Section 11 of proto/WIRE.md against the code: the vectors there were computed by
 * tests/golden/secagg_vectors.py, which shares nothing with it. Draw number d of the kernel's
 * randomness is 32 bytes of value d here.
 */
#include "common/privacy/secagg/client_in.h"
#include "common/privacy/secagg/server_in.h"
#include "tests/lib/check_main.h"
#include "tests/lib/secagg_world.h"

#include <stdio.h>
#include <sys/random.h>

static uint8_t drawn;

ssize_t getrandom(void *buf, size_t size, unsigned flags)
{
    (void)flags;
    memset(buf, ++drawn, size);
    return (ssize_t)size;
}

static char *page;

/* The bytes of "    secagg NAME: hex" on the page; freed by the caller. */
static struct fl_secagg_bytes vector(const char *name)
{
    char mark[64];
    struct fl_secagg_bytes b;
    unsigned byte;

    snprintf(mark, sizeof mark, "\n    secagg %s: ", name);
    const char *at = strstr(page, mark);
    ck_assert_msg(at, "no vector %s", name);
    at += strlen(mark);
    b.bytes = fl_new(strcspn(at, "\n") / 2, 1);
    for (b.size = 0; sscanf(at, "%2x", &byte) == 1; at += 2) {
        b.bytes[b.size++] = (uint8_t)byte;
        if (at[2] == '\n') {
            break;
        }
    }
    return b;
}

static void same(const char *name, const void *bytes, size_t size)
{
    struct fl_secagg_bytes b = vector(name);

    ck_assert_msg(b.size == size, "%s: %zu bytes, the page has %zu", name, size, b.size);
    ck_assert_msg(memcmp(b.bytes, bytes, size) == 0, "%s: other bytes", name);
    fl_secagg_bytes_free(&b);
}

START_TEST(test_vectors)
{
    static const char *const downs[] = {"ROSTER", "DELIVERY", "SURVIVORS", "PROOFS"};
    static const char *const ups[] = {"ADVERT", "SHARES", "MASKED", "SIGNED", "REVEAL"};
    struct fl_secagg_setup s = {.context = {{7}},
                                .members_min = 2,
                                .members_max = 3,
                                .survivors_min = 2,
                                .bits = 32,
                                .max = 1000,
                                .count = 5};
    struct sw *w = sw_new(&s, 3, 1);
    int64_t q[5];

    for (uint32_t i = 0; i < 3; i++) {
        for (int v = 0; v < 5; v++) {
            w->agent[i].q[v] = 100 * ((int)i + 1) - v;
        }
    }
    w->agent[2].leaves = FL_SECAGG_MASK;
    drawn = 0; /* libsodium drew at its start */
    ck_assert_int_eq(sw_start(w), 0);
    for (int stage = 0; stage < FL_SECAGG_STAGES; stage++) {
        ck_assert_int_eq(sw_run(w, (enum fl_secagg_stage)stage, (enum fl_secagg_stage)stage), 0);
        same(ups[stage], w->agent[0].up[stage].bytes, w->agent[0].up[stage].size);
        if (stage < FL_SECAGG_UNMASK) {
            same(downs[stage], w->agent[0].down.bytes, w->agent[0].down.size);
        }
    }
    ck_assert_int_eq(sw_sum(w, w->server, q, NULL), 0);
    same("sum", q, sizeof q);
    same("roster-digest", w->server->view.bytes, FL_DIGEST_SIZE);
    uint32_t own = w->agent[0].client->own, found = 0;
    for (uint64_t m = 0; m < w->server->mask_count; m++) { /* two self masks, two of agent 2's */
        struct fl_secagg_bytes b = vector("self-seed");
        found += memcmp(b.bytes, w->server->mask[m].seed.bytes, FL_SEED_SIZE) == 0;
        fl_secagg_bytes_free(&b);
    }
    ck_assert_uint_eq(found, 1);
    ck_assert_uint_eq(w->server->mask_count, 4);
    uint8_t shared[32], secret[32], public[32];
    struct fl_seed seed;
    memset(secret, 2,
           sizeof secret); /* the second draw: agent 0's mask key; the fifth: agent 1's */
    memset(shared, 5, sizeof shared);
    fl_secagg_public(shared, public);
    ck_assert(fl_secagg_agree(secret, public, shared));
    fl_secagg_pair_seed(shared, &w->server->view, w->agent[1].client->own, own, &seed);
    same("pair-seed", seed.bytes, sizeof seed.bytes);
    sw_free(w);
}
END_TEST

START_TEST(test_ring)
{
    struct fl_digest seed;
    uint32_t order[40], place[40];
    uint8_t bytes[40];

    for (uint8_t i = 0; i < 32; i++) {
        seed.bytes[i] = i;
    }
    fl_secagg_graph(&seed, 40, order, place);
    for (int i = 0; i < 40; i++) {
        bytes[i] = (uint8_t)order[i];
    }
    same("ring", bytes, sizeof bytes);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_vectors, test_ring};
    FILE *f = fopen(TEST_SOURCE_ROOT "/proto/WIRE.md", "rb");

    page = fl_new(1 << 20, 1);
    if (!f || fread(page, 1, (1 << 20) - 1, f) == 0) {
        return EXIT_FAILURE;
    }
    fclose(f);
    int r = run_tests("secagg-wire", tests, FL_COUNT(tests));
    fl_free(page);
    return r;
}
