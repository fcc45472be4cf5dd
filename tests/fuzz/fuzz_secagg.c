/*
 * Objects of secure sums, as a hostile peer would make them. The input's first byte says who meets
 * it: a stage's object at the coordinator, at an agent, or a reader alone. Three agents, whose
 * randomness is fixed here (getrandom below), so that the kept objects fit their sum. Whatever is
 * sent, the answer is a reason or bytes; a coordinator goes on to the right sum when the others'
 * objects come after it, or says why not.
 */
#include "tests/lib/secagg_world.h"

#include <stdio.h>
#include <sys/random.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t drawn;

ssize_t getrandom(void *buf, size_t size, unsigned flags)
{
    (void)flags;
    memset(buf, ++drawn, size);
    return (ssize_t)size;
}

static void require(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "fuzz_secagg: %s\n", what);
        abort();
    }
}

static const struct fl_secagg_setup setup = {.context = {{7}},
                                             .members_min = 2,
                                             .members_max = 3,
                                             .survivors_min = 2,
                                             .bits = 29,
                                             .max = 1000,
                                             .count = 5};

/* Walks whatever a reader accepted. */
static void read_all(const uint8_t *data, size_t size)
{
    const struct fl_digest *context = &setup.context;
    struct fl_advert_view advert;
    struct fl_roster_view roster;
    struct fl_shares_view shares;
    struct fl_delivery_view delivery;
    struct fl_signed_view sig;
    struct fl_proofs_view proofs;
    struct fl_proof_view proof;
    struct fl_reveal_view reveal;
    const uint8_t *set;
    struct fl_digest d;
    volatile uint8_t sum = 0;
    size_t at = 0;

    if (fl_advert_read(context, data, size, &advert, NULL) == 0) {
        sum ^= advert.cert[advert.cert_size - 1] ^ advert.sig[advert.sig_size - 1];
    }
    if (fl_roster_read(context, data, size, &roster, NULL) == 0) {
        for (uint32_t i = 0; i < roster.neighbours; i++) {
            fl_roster_next(&roster, &at, &advert);
            sum ^= advert.s_public[31] ^ advert.sig[advert.sig_size - 1];
        }
        require(at == roster.adverts_size, "a roster with bytes behind its adverts");
        fl_roster_digest(context, &roster, &d);
    }
    for (uint32_t n = 1; n < 40; n += 7) {
        if (fl_shares_read(context, data, size, n, &shares, NULL) == 0) {
            sum ^= shares.ciphers[(size_t)n * FL_SECAGG_CIPHER_SIZE - 1];
        }
        if (fl_delivery_read(context, data, size, n, &delivery, NULL) == 0) {
            sum ^= (uint8_t)fl_set_count(delivery.set, n);
            sum ^= delivery.count ? delivery.items[delivery.count * FL_DELIVERY_ITEM - 1] : 0;
        }
        if (fl_survivors_read(context, data, size, n, &set, NULL) == 0) {
            require(fl_set_count(set, n) <= n, "more survivors than agents");
        }
        if (fl_signed_read(context, data, size, n, &sig, NULL) == 0) {
            require(sig.count < n, "a sample of everybody and more");
        }
        if (fl_reveal_read(context, data, size, n, &reveal, NULL) == 0) {
            sum ^= reveal.count ? reveal.items[reveal.count * FL_REVEAL_ITEM - 1] : 0;
        }
        if (fl_proofs_read(context, data, size, n, &proofs, NULL) == 0) {
            at = 0;
            for (uint32_t i = 0; i < proofs.count; i++) {
                fl_proofs_next(&proofs, &at, &proof);
                require(proof.index < n, "a proof of nobody");
                sum ^= proof.sig[proof.sig_size - 1];
            }
        }
    }
    (void)sum;
}

static struct sw *world_until(int stage)
{
    struct sw *w;

    drawn = 0;
    w = sw_new(&setup, 3, 1);
    require(sw_start(w) == 0, "no world");
    for (int s = 0; s < stage; s++) {
        require(sw_run(w, (enum fl_secagg_stage)s, (enum fl_secagg_stage)s) == 0, w->why.msg);
    }
    return w;
}

/* The coordinator gets it as agent 0's; then the round goes on. */
static void to_coordinator(int stage, const uint8_t *data, size_t size)
{
    struct sw *w = world_until(stage);
    struct fl_secagg_bytes b = {fl_new(size + 1, 1), size};
    struct fl_err e = {0};

    memcpy(b.bytes, data, size);
    int r = sw_give(w, (enum fl_secagg_stage)stage, w->agent[0].id, &b, &e);
    require(r == 0 || (r == e.code && e.msg[0]), "refused without a reason");
    w->agent[0].leaves = (uint32_t)stage;
    if (r == 0 && stage < FL_SECAGG_UNMASK) {
        w->agent[0].leaves = SW_STAYS; /* what was taken first stays */
    }
    int whole = sw_run(w, (enum fl_secagg_stage)stage, FL_SECAGG_UNMASK);
    if (whole == 0 && r < 0) {
        require(sw_sum_is_right(w), "another sum");
    }
    fl_secagg_bytes_free(&b);
    sw_free(w);
}

/* An agent gets it; whatever it makes of it, a second time it makes nothing. */
static void to_agent(int stage, const uint8_t *data, size_t size)
{
    struct sw *w = world_until(stage);
    struct sw_agent *a = &w->agent[0];
    struct fl_secagg_bytes out = {NULL, 0};

    fl_secagg_bytes_free(&a->down);
    a->down = (struct fl_secagg_bytes){fl_new(size + 1, 1), size};
    memcpy(a->down.bytes, data, size);
    int r = sw_client_step(a, (enum fl_secagg_stage)stage, &out);
    require((r == 0) == (out.bytes != NULL), "bytes and an error");
    require(r == 0 || (a->why.code == r && a->why.msg[0]), "refused without a reason");
    fl_secagg_bytes_free(&out);
    require(sw_client_step(a, (enum fl_secagg_stage)stage, &out) < 0, "twice");
    fl_secagg_bytes_free(&out);
    sw_free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    int who = data[0] / 16, stage = data[0] % 16;
    read_all(data + 1, size - 1);
    if (who == 1 && stage < FL_SECAGG_STAGES) {
        to_coordinator(stage, data + 1, size - 1);
    } else if (who == 2 && stage > 0 && stage < FL_SECAGG_STAGES) {
        to_agent(stage, data + 1, size - 1);
    }
    return 0;
}

/* COHORT_WRITE_CORPUS=folder: the objects of an honest sum, to begin with. */
__attribute__((constructor)) static void write_corpus(void)
{
    const char *folder = getenv("COHORT_WRITE_CORPUS");

    for (int stage = 0; folder && stage < FL_SECAGG_STAGES; stage++) {
        struct sw *w = world_until(stage);
        for (int way = 1; way <= 2; way++) {
            struct fl_secagg_bytes *b = &w->agent[0].down;
            char path[4096];
            if (way == 1) {
                b = &w->agent[0].up[stage];
                require(sw_client_step(&w->agent[0], (enum fl_secagg_stage)stage, b) == 0, "step");
            } else if (stage == 0) {
                continue;
            }
            snprintf(path, sizeof path, "%s/%s-%s", folder,
                     fl_secagg_stage_name((enum fl_secagg_stage)stage), way == 1 ? "up" : "down");
            FILE *f = fopen(path, "wb");
            require(f && fputc(16 * way + stage, f) >= 0 &&
                        fwrite(b->bytes, 1, b->size, f) == b->size && fclose(f) == 0,
                    path);
        }
        sw_free(w);
    }
}
