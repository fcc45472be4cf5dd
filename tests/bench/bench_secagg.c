/*
 * What secure aggregation costs on this machine, as JSON lines: mask expansion beside plain random
 * bytes, a client's whole round and the coordinator's unmasking. CPU time of one thread.
 *
 * One round of n = 1000 agents is played with vectors of 1024 values, so that all but the long
 * vectors is real; a vector of d = 1e6 is then masked, taken and unmasked, with as many masks as
 * that round had, and counted as often as there are vectors. Signatures are the harness's: those of
 * certificates are counted, and cost what Mbed TLS needs for them (bench_secagg SIGN_MS VERIFY_MS;
 * 0.60 and 1.19 unless told).
 */
#include "common/privacy/secagg/mask.h"
#include "tests/bench/best.h"
#include "tests/lib/secagg_world.h"

#include <math.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

enum { N = 1000, D = 1000000 };

static uint64_t verified, signed_;

static int count_verify(void *arg, const uint8_t *cert, uint32_t cert_size, const uint8_t *message,
                        size_t size, const uint8_t *sig, uint32_t sig_size, uint8_t *ret,
                        struct fl_err *e)
{
    verified++;
    return sw_verify(arg, cert, cert_size, message, size, sig, sig_size, ret, e);
}

static int count_sign(void *arg, const uint8_t *message, size_t size, uint8_t *sig,
                      uint32_t *ret_size, struct fl_err *e)
{
    signed_++;
    return sw_sign(arg, message, size, sig, ret_size, e);
}

static void bench_mask(uint32_t bits)
{
    uint8_t *scratch = fl_try_aligned(2, FL_MASK_TILE);
    struct fl_seed seed;
    double best = INFINITY, bytes = INFINITY;
    struct fl_rng rng;

    fl_seed_from_u64(1, &seed);
    fl_rng_init(&rng, &seed, 0);
    for (int repeat = 0; repeat < 9; repeat++) {
        double start = now();
        for (uint64_t tile = 0; tile < 64; tile++) {
            fl_mask_add(&seed, bits, tile, tile & 1, scratch + FL_MASK_TILE, fl_ring_tile(bits),
                        scratch);
        }
        best = fmin(best, now() - start);
        start = now();
        for (uint64_t tile = 0; tile < 64; tile++) {
            fl_rng_bytes(&rng, scratch, FL_MASK_TILE);
        }
        bytes = fmin(bytes, now() - start);
    }
    printf("{\"bench\":\"mask\",\"bits\":%u,\"gb_per_s\":%.2f,\"random_gb_per_s\":%.2f}\n", bits,
           64e-9 * FL_MASK_TILE / best, 64e-9 * FL_MASK_TILE / bytes);
    fl_free(scratch);
}

/* Masks of a vector of D by `masks` seeds, seconds. */
static double masking(uint32_t bits, uint32_t masks, uint8_t *to)
{
    struct fl_mask *m = fl_new(masks, sizeof *m);
    int64_t *q = fl_new(D, sizeof *q);
    double start = now();

    for (uint32_t i = 0; i < masks; i++) {
        m[i].seed.bytes[0] = (uint8_t)i;
        m[i].seed.bytes[1] = (uint8_t)(i >> 8);
        m[i].negative = i & 1;
    }
    if (fl_mask_vector(bits, D, 1, m, masks, q, to, NULL) < 0) {
        abort();
    }
    start = now() - start;
    fl_free(m);
    fl_free(q);
    return start;
}

/* Taking one masked vector: its digest, and its words added to the sum. */
static double taking(uint32_t bits, const uint8_t *packed)
{
    uint32_t *sum = fl_new(D, sizeof *sum);
    double best = INFINITY;
    struct fl_digest d;

    for (int repeat = 0; repeat < 5; repeat++) {
        double start = now();
        fl_digest_of(packed, (size_t)D * bits / 8, &d);
        fl_ring_unpack_add(bits, packed, D, sum);
        best = fmin(best, now() - start);
    }
    fl_free(sum);
    return best;
}

static void bench_round(uint32_t corrupt, uint32_t dropout, double sign_s, double verify_s)
{
    struct fl_secagg_setup s = {.members_min = N / 2,
                                .members_max = N,
                                .survivors_min = N / 2,
                                .corrupt_permille = corrupt,
                                .dropout_permille = dropout,
                                .bits = 32,
                                .max = 1 << 20,
                                .count = 1024};
    struct sw *w = sw_new(&s, N, 1);
    struct sw_agent *a = &w->agent[N / 2 + 1];
    double client = 0, server = 0;
    uint64_t client_verified = 0, client_signed = 0, server_verified = 0, up = 0, down = 0;
    struct fl_secagg_rule rule;

    fl_secagg_rule(N, corrupt, dropout, &rule, NULL);
    for (uint32_t i = 0; i < N; i++) {
        w->agent[i].identity.verify = count_verify;
        w->agent[i].identity.sign = count_sign;
        /* 5 % leave between dealing and masking: the dearest moment. */
        w->agent[i].leaves = i % 20 == 0 ? FL_SECAGG_MASK : SW_STAYS;
    }
    w->identity.verify = count_verify;
    if (sw_start(w) < 0) {
        abort();
    }
    for (int stage = 0; stage < FL_SECAGG_STAGES; stage++) {
        uint64_t v = verified, g = signed_;
        double start = now();
        a->error = sw_client_step(a, (enum fl_secagg_stage)stage, &a->up[stage]);
        client += stage == FL_SECAGG_MASK ? 0 : now() - start;
        client_verified += verified - v;
        client_signed += signed_ - g;
        up += stage == FL_SECAGG_MASK ? 0 : a->up[stage].size;
        for (uint32_t i = 0; i < N; i++) {
            struct sw_agent *other = &w->agent[i];
            if (other->leaves > (uint32_t)stage && other != a &&
                sw_client_step(other, (enum fl_secagg_stage)stage, &other->up[stage]) < 0) {
                printf("%s\n", other->why.msg);
                abort();
            }
        }
        v = verified;
        start = now();
        for (uint32_t i = 0; i < N; i++) {
            struct sw_agent *other = &w->agent[i];
            if (other->leaves > (uint32_t)stage &&
                sw_give(w, (enum fl_secagg_stage)stage, other->id, &other->up[stage], NULL) < 0) {
                abort();
            }
        }
        if (sw_close(w, (enum fl_secagg_stage)stage) < 0) {
            printf("%s\n", w->why.msg);
            abort();
        }
        server += now() - start;
        server_verified += verified - v;
        down += stage < FL_SECAGG_UNMASK ? a->down.size : 0;
    }
    if (!sw_sum_is_right(w)) {
        abort();
    }
    uint8_t *packed = fl_new(4, D);
    uint32_t masks = (uint32_t)fl_secagg_server_masks(w->server);
    double mask_s = masking(32, rule.neighbours + 1, packed), unmask_s = masking(32, masks, packed);
    double client_s =
        client + mask_s + sign_s * (double)client_signed + verify_s * (double)client_verified;
    double take_s = N * 19 / 20 * taking(32, packed);
    double server_s = server + take_s + unmask_s + verify_s * (double)server_verified;
    printf("{\"bench\":\"secagg\",\"n\":%d,\"d\":%d,\"corrupt\":%.2f,\"dropout\":%.2f,\"k\":%u,"
           "\"t\":%u,\"client_s\":%.3f,\"client_mask_s\":%.3f,\"client_keys_s\":%.3f,"
           "\"client_signed\":%llu,\"client_verified\":%llu,\"client_up_kb\":%.1f,"
           "\"client_down_kb\":%.1f,\"server_s\":%.2f,\"server_take_s\":%.2f,\"server_unmask_s\":%."
           "2f,\"masks\":%u,"
           "\"server_verified\":%llu}\n",
           N, D, corrupt / 1000.0, dropout / 1000.0, rule.neighbours, rule.threshold, client_s,
           mask_s, client, (unsigned long long)client_signed, (unsigned long long)client_verified,
           (double)up / 1e3, (double)down / 1e3, server_s, take_s, unmask_s, masks,
           (unsigned long long)server_verified);
    fl_free(packed);
    sw_free(w);
}

/* The coordinator's memory for vectors: one sum, however many agents. It is there when the first
 * vector may come. */
static void bench_memory(void)
{
    struct rusage before, after;
    struct fl_secagg_setup s = {.members_min = 2,
                                .members_max = 1000,
                                .survivors_min = 2,
                                .bits = 32,
                                .max = 1 << 20,
                                .count = 1};
    struct sw *w = sw_new(&s, 3, 1);

    w->setup.count = 10 * D;
    if (sw_start(w) < 0) {
        abort();
    }
    getrusage(RUSAGE_SELF, &before);
    if (sw_run(w, FL_SECAGG_ADVERTISE, FL_SECAGG_SHARE) < 0) {
        abort();
    }
    getrusage(RUSAGE_SELF, &after);
    printf("{\"bench\":\"secagg_memory\",\"d\":%d,\"server_kb\":%ld,\"vector_kb\":%d}\n", 10 * D,
           after.ru_maxrss - before.ru_maxrss, 40 * D / 1024);
    sw_free(w);
}

int main(int argc, char **argv)
{
    double sign_s = 1e-3 * (argc > 1 ? strtod(argv[1], NULL) : 0.60);
    double verify_s = 1e-3 * (argc > 2 ? strtod(argv[2], NULL) : 1.19);

    setvbuf(stdout, NULL, _IOLBF, 0);
    bench_memory(); /* first: the peak is what is measured */
    bench_mask(32);
    bench_mask(48);
    bench_round(50, 50, sign_s, verify_s);
    bench_round(100, 100, sign_s, verify_s);
    bench_round(200, 100, sign_s, verify_s);
    bench_round(200, 200, sign_s, verify_s);
    return 0;
}
