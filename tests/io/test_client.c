/*
 * cohort-agent's host on a real loop, over TLS on loopback: two agents, three rounds, the final
 * model. The coordinator cuts connections in the middle of uploads; what is offered again must be
 * the same bytes, and they must go on where they stopped. The trainer pretends.
 */
#include "client/core/ledger_receipts.h"
#include "client/host.h"
#include "common/io/ctl_client.h"
#include "tests/lib/check_main.h"
#include "tests/lib/hub.h"
#include "tests/lib/pretend_trainer.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool host_stopped;

static void on_host_stopped(void *arg)
{
    fl_host_close(arg ? *(struct fl_host **)arg : NULL);
    host_stopped = true;
}

static struct fl_host *start(struct hub *h, const struct fl_config *c, struct fl_host **keep,
                             bool once)
{
    host_stopped = false;
    ck_assert_msg(fl_host_open(&h->loop, c, once, on_host_stopped, keep, keep, &e) == 0, "%s",
                  e.msg);
    ck_assert_msg(fl_host_start(*keep, &e) == 0, "%s", e.msg);
    return *keep;
}

static void run_until_evaluated(struct hub *h)
{
    while (!all_evaluated()) {
        uv_run(&h->loop, UV_RUN_ONCE);
    }
}

static void run_until_stopped(struct hub *h)
{
    while (!host_stopped) {
        uv_run(&h->loop, UV_RUN_ONCE);
    }
}

enum { ENOUGH = 300 }; /* Asks, a millisecond and more apart: a write to the ledger takes some */

/* Whoever has asked so often without a claim has all its receipts, and keeps them. */
static void run_until_quiet(struct hub *h)
{
    while (h->quiet[0] < ENOUGH || h->quiet[1] < ENOUGH) {
        uv_run(&h->loop, UV_RUN_ONCE);
    }
}

static void check_reports(const struct hub *h)
{
    for (uint32_t i = 0; i < AGENTS; i++) {
        ck_assert_int_eq(count_lines(i, "\"outcome\":\"acknowledged\""), ROUNDS);
        ck_assert_int_eq(count_lines(i, "\"event\":\"final\""), 1);
        ck_assert_uint_eq(h->round[i], ROUNDS);
    }
}

/* Of each site each round's receipt was claimed until it was right; what lied is not kept. */
static int one_receipt(void *arg, uint64_t number, uint64_t wall_ms,
                       const struct fl_receipt_proof *p)
{
    uint32_t *kept = arg;

    (void)number;
    (void)wall_ms;
    ck_assert_int_le(p->reason, 0);
    if (p->reason == 0) {
        *kept |= 1u << p->receipt.key.round;
        ck_assert_uint_eq(p->receipt.weight, 1);
    }
    return 0;
}

static void check_receipts(const struct hub *h, const struct fl_config *c)
{
    for (uint32_t i = 0; i < AGENTS; i++) {
        const struct fl_tls_files files = {.ca = c->coordinator.ca,
                                           .certificate = c->agents[i].certificate,
                                           .key = c->agents[i].key,
                                           .order = FL_TLS_ORDER_CHACHA};
        struct fl_tls_conf *tls;
        struct fl_ledger *l;
        char path[600];
        uint32_t kept = 0;
        ck_assert_int_eq(fl_tls_conf_new(false, &files, &tls, &e), 0);
        snprintf(path, sizeof path, "%s/%s/ledger.db", c->state, c->agents[i].name);
        ck_assert_int_eq(fl_ledger_open(path, fl_tls_conf_identity(tls)->key, &l, &e), 0);
        ck_assert_int_eq(fl_ledger_receipts_each(l, 0, 100, one_receipt, &kept, &e), 0);
        for (uint32_t r = 1; r <= ROUNDS; r++) {
            ck_assert_uint_eq((kept >> r) & 1, 1);
            ck_assert_uint_ge(h->claimed[i][r], 3);
        }
        fl_ledger_close(l);
        fl_tls_conf_unref(tls);
    }
}

START_TEST(test_three_rounds)
{
    static struct hub h;
    struct fl_host *host = NULL;
    char waiting[FL_HOST_WAITING_MAX];

    write_stage();
    hub_open(&h);
    struct fl_config *c = load_config(&h, "");
    start(&h, c, &host, false);
    struct fl_host *second = NULL; /* on the same folder */
    ck_assert_int_eq(fl_host_open(&h.loop, c, false, on_host_stopped, NULL, &second, &e),
                     -FL_R_STORE_LOCKED);
    ck_assert_int_eq(fl_host_reload(host, waiting, &e), 0);
    ck_assert_str_eq(waiting, "");
    h.restless = true;
    run_until_evaluated(&h);
    run_until_quiet(&h);
    fl_host_stop(host);
    run_until_stopped(&h);
    check_reports(&h);
    check_receipts(&h, c);
    ck_assert_uint_eq(h.connections, AGENTS);
    ck_assert_uint_eq(h.declines, 0);
    for (uint32_t r = 1; r <= ROUNDS; r++) { /* two sites, two updates; two rounds likewise */
        ck_assert(!fl_digest_equal(&h.up[0][r].digest, &h.up[1][r].digest));
        ck_assert(!fl_digest_equal(&h.up[0][r].digest, &h.up[0][r % ROUNDS + 1].digest));
    }
    /* Everything was evaluated in an earlier life: once finds nothing to do and leaves. */
    run_until_left(&h);
    h.finals[0] = h.finals[1] = 0;
    start(&h, c, &host, true);
    run_until_stopped(&h);
    check_reports(&h);
    hub_close(&h);
    fl_config_free(c);
    clear_state();
}
END_TEST

START_TEST(test_cut_uploads_go_on)
{
    static struct hub h;
    struct fl_host *host = NULL;

    hub_open(&h);
    h.cut = true;
    h.refuse_first = true;
    struct fl_config *c = load_config(&h, "limits: {data: 1}\n"); /* loaded again each round */
    start(&h, c, &host, false);
    run_until_evaluated(&h);
    fl_host_stop(host);
    run_until_stopped(&h);
    check_reports(&h);
    ck_assert_uint_eq(h.connections, AGENTS * (1 + ROUNDS));
    hub_close(&h);
    fl_config_free(c);
    clear_state();
}
END_TEST

/* The site's socket, from a thread, as the command line tool would. */
struct asking {
    const char *socket;
    int status, ledger, withdraw, nonsense;
    char text[3][8192];
    uint32_t at;
    uv_async_t done;
};

static int take_part(void *arg, const struct fl_ctl_answer *part)
{
    struct asking *a = arg;
    size_t n = strlen(a->text[a->at]);

    snprintf(a->text[a->at] + n, sizeof a->text[0] - n, "%s\n", part->text);
    return 0;
}

static void ask_all(void *arg)
{
    struct asking *a = arg;
    struct fl_err why;
    struct fl_ctl_request status = {.verb = "status"}, ledger = {.verb = "ledger"};
    struct fl_ctl_request withdraw = {.verb = "withdraw",
                                      .argument_count = 2,
                                      .arguments = {{"job", "demo"}, {"agent", "site-02"}}};
    struct fl_ctl_request nonsense = {.verb = "train"};

    a->status = fl_ctl_ask(a->socket, &status, 10000, take_part, a, &why);
    a->at = 1;
    a->ledger = fl_ctl_ask(a->socket, &ledger, 10000, take_part, a, &why);
    a->at = 2;
    a->withdraw = fl_ctl_ask(a->socket, &withdraw, 10000, take_part, a, &why);
    a->nonsense = fl_ctl_ask(a->socket, &nonsense, 10000, take_part, a, &why);
    uv_async_send(&a->done);
}

static void asked(uv_async_t *async)
{
    *(bool *)async->data = true;
    uv_close((uv_handle_t *)async, NULL);
}

START_TEST(test_socket)
{
    static struct hub h;
    static struct asking a;
    struct fl_host *host = NULL;
    uv_thread_t thread;
    bool answered = false;

    hub_open(&h);
    struct fl_config *c = load_config(&h, "");
    start(&h, c, &host, false);
    run_until_evaluated(&h);
    a.socket = c->socket.path;
    a.done.data = &answered;
    uv_async_init(&h.loop, &a.done, asked);
    a.done.data = &answered;
    uv_thread_create(&thread, ask_all, &a);
    while (!answered) {
        uv_run(&h.loop, UV_RUN_ONCE);
    }
    uv_thread_join(&thread);
    ck_assert_int_eq(a.status, 0);
    ck_assert_ptr_nonnull(strstr(a.text[0], "\"state\":\"running\""));
    ck_assert_ptr_nonnull(strstr(a.text[0], "\"agent\":\"site-02\""));
    ck_assert_ptr_nonnull(strstr(a.text[0], "\"settled\":3"));
    ck_assert_int_eq(a.ledger, 0);
    ck_assert_ptr_nonnull(strstr(a.text[1], "\"agent\":\"site-01\""));
    ck_assert_ptr_nonnull(strstr(a.text[1], "\"releases\":3"));
    ck_assert_ptr_nonnull(strstr(a.text[1], "\"acknowledged\":true"));
    ck_assert_int_eq(a.withdraw, 0);
    ck_assert_ptr_nonnull(strstr(a.text[2], "\"withdrawn\":[\"demo\"]"));
    ck_assert_ptr_null(strstr(a.text[2], "site-01"));
    ck_assert_int_eq(a.nonsense, -FL_R_CTL_REQUEST);
    fl_host_stop(host);
    run_until_stopped(&h);
    hub_close(&h);
    fl_config_free(c);
    clear_state();
    remove_stage();
}
END_TEST

TESTS_MAIN("client", test_three_rounds, test_cut_uploads_go_on, test_socket)
