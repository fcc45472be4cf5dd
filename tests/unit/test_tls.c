/* TLS between our own two ends: who is let in, which bytes pass, and what is judged when it is
 * loaded. */
#include "common/base/mem.h"
#include "tests/lib/tls_pair.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

START_TEST(test_both_ends_know_each_other)
{
    struct fl_tls_conf *s = certs_conf(true, "server", "ca"),
                       *c = certs_conf(false, "site-1", "ca");
    struct pair p;

    begin_pair(&p, s, c, "coordinator.test");
    shake_hands(&p);
    assert_open(&p);
    const struct fl_identity *agent = fl_tls_peer(p.server.tls);
    ck_assert_str_eq(agent->name, "site-1");
    ck_assert_mem_eq(agent->key, fl_tls_conf_identity(c)->key, FL_IDENTITY_KEY);
    ck_assert_str_eq(agent->serial, fl_tls_conf_identity(c)->serial);
    ck_assert_uint_gt(agent->expires_s, (uint64_t)time(NULL) + 86400);
    ck_assert_str_eq(fl_tls_peer(p.client.tls)->name, "server");
    ck_assert_mem_ne(agent->key, fl_tls_conf_identity(s)->key, FL_IDENTITY_KEY);
    end_pair(&p);
    fl_tls_conf_unref(s);
    fl_tls_conf_unref(c);
}
END_TEST

START_TEST(test_the_identity_is_the_digest_of_the_public_key)
{
    struct fl_tls_conf *c = certs_conf(false, "site-1", NULL);
    char command[512], hex[65] = "", ours[65];

    snprintf(command, sizeof command,
             "openssl x509 -in %s -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum",
             certs_path("site-1", "crt"));
    FILE *f = popen(command, "r");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%64[0-9a-f]", hex), 1);
    pclose(f);
    for (int i = 0; i < 32; i++) {
        snprintf(ours + 2 * i, 3, "%02x", fl_tls_conf_identity(c)->key[i]);
    }
    ck_assert_str_eq(ours, hex);
    fl_tls_conf_unref(c);
}
END_TEST

/* Sends `size` bytes both ways, with rooms and pieces of awkward sizes. */
static void exchange(struct pair *p, size_t size, size_t plain_max)
{
    uint8_t *data = fl_new(size, 1), *got[2] = {fl_new(size, 1), fl_new(size, 1)};
    size_t sent[2] = {0}, received[2] = {0};
    struct end *ends[2] = {&p->server, &p->client};

    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(i * 40503u >> 8);
    }
    while (received[0] < size || received[1] < size) {
        bool moved = false;
        for (int i = 0; i < 2; i++) {
            struct end *to = ends[1 - i];
            size_t left = size - received[i];
            struct fl_tls_io io = {.write = data + sent[i],
                                   /* nothing more while the other end has not read */
                                   .write_size = to->in_size > 30000 ? 0 : size - sent[i],
                                   .plain = got[i] + received[i],
                                   .plain_size = left < plain_max ? left : plain_max};
            moved |= turn(p, ends[i], to, &io);
            ck_assert_msg(ends[i]->status == 0, "%s", ends[i]->e.msg);
            sent[i] += io.ret_written;
            received[i] += io.ret_plain;
        }
        ck_assert(moved);
    }
    ck_assert_mem_eq(got[0], data, size);
    ck_assert_mem_eq(got[1], data, size);
    fl_free(data);
    fl_free(got[0]);
    fl_free(got[1]);
}

START_TEST(test_bytes_pass_whatever_the_room)
{
    const size_t rooms[] = {20000, 17000, 700, 193};
    struct fl_tls_conf *s = certs_conf(true, "server", NULL),
                       *c = certs_conf(false, "site-1", NULL);
    struct pair p;

    for (size_t i = 0; i < FL_COUNT(rooms); i++) {
        begin_pair(&p, s, c, "localhost");
        p.server.out_max = rooms[i];
        p.client.out_max = rooms[FL_COUNT(rooms) - 1 - i];
        shake_hands(&p);
        assert_open(&p);
        exchange(&p, 200000, 1 + i * 5000);
        end_pair(&p);
    }
    fl_tls_conf_unref(s);
    fl_tls_conf_unref(c);
}
END_TEST

START_TEST(test_giving_what_is_wanted_leaves_nothing_in_between)
{
    struct fl_tls_conf *s = certs_conf(true, "server", NULL),
                       *c = certs_conf(false, "site-1", NULL);
    struct pair p;
    uint8_t plain[20000], text[17000] = {0};
    size_t got = 0;

    begin_pair(&p, s, c, "localhost");
    shake_hands(&p);
    assert_open(&p);
    struct fl_tls_io io = {.write = text, .write_size = sizeof text};
    p.client.out_max = 20000;
    turn(&p, &p.client, &p.server, &io);
    while (got < sizeof text) {
        uint8_t out[256];
        size_t n = 0;
        io = (struct fl_tls_io){
            .out = out, .out_size = sizeof out, .plain = plain + got, .plain_size = 1000};
        ck_assert_int_eq(fl_tls_pump(p.server.tls, &io, NULL), 0);
        if (io.ret_plain == 0) {
            n = fl_tls_want(p.server.tls);
            ck_assert_uint_gt(n, 0);
            ck_assert_uint_le(n, p.server.in_size);
            io = (struct fl_tls_io){.in = p.server.in,
                                    .in_size = n,
                                    .out = out,
                                    .out_size = sizeof out,
                                    .plain = plain + got,
                                    .plain_size = 1000};
            ck_assert_int_eq(fl_tls_pump(p.server.tls, &io, NULL), 0);
            ck_assert_uint_eq(io.ret_in, n); /* all of it */
            p.server.in_size -= n;
            memmove(p.server.in, p.server.in + n, p.server.in_size);
        }
        got += io.ret_plain;
    }
    ck_assert_uint_eq(p.server.in_size, 0);
    end_pair(&p);
    fl_tls_conf_unref(s);
    fl_tls_conf_unref(c);
}
END_TEST

START_TEST(test_the_order_of_suites)
{
    const struct {
        enum fl_tls_order order;
        const char *suite;
    } cases[] = {{FL_TLS_ORDER_CHACHA, "CHACHA20"},
                 {FL_TLS_ORDER_AES_CCM, "CCM"},
                 {FL_TLS_ORDER_MEASURE, ""}};
    struct fl_tls_conf *c = certs_conf(false, "site-1", NULL);

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        struct fl_tls_conf *s = NULL;
        struct pair p;
        ck_assert_int_eq(
            certs_conf_with(true, "ca", "server", "server", NULL, cases[i].order, &s, NULL), 0);
        begin_pair(&p, s, c, "localhost");
        shake_hands(&p);
        assert_open(&p);
        ck_assert_ptr_nonnull(strstr(fl_tls_suite(p.server.tls), cases[i].suite));
        ck_assert_ptr_null(strstr(fl_tls_suite(p.server.tls), "GCM"));
        end_pair(&p);
        fl_tls_conf_unref(s);
    }
    fl_tls_conf_unref(c);
}
END_TEST

/* Who is refused by whom, and why. */
struct refusal {
    const char *server, *client, *crl, *name;
    int server_says, client_says;
    const char *text;
};

START_TEST(test_wrong_certificates_are_refused)
{
    static const struct refusal cases[] = {
        {"server", "foreign", "ca", "localhost", -FL_R_TLS_FOREIGN, -FL_R_TLS_HANDSHAKE,
         "not issued by our"},
        {"server", "self", NULL, "localhost", -FL_R_TLS_FOREIGN, -FL_R_TLS_HANDSHAKE, "'self'"},
        {"server", "nested", NULL, "localhost", -FL_R_TLS_FOREIGN, -FL_R_TLS_HANDSHAKE, "'nested'"},
        {"server", "expired", "ca", "localhost", -FL_R_TLS_EXPIRED, -FL_R_TLS_HANDSHAKE,
         "is expired"},
        {"server", "future", NULL, "localhost", -FL_R_TLS_EXPIRED, -FL_R_TLS_HANDSHAKE,
         "is not yet valid"},
        {"server", "revoked", "ca", "localhost", -FL_R_TLS_REVOKED, -FL_R_TLS_HANDSHAKE,
         "'revoked'"},
        {"server", "weak", NULL, "localhost", -FL_R_TLS_PROFILE, -FL_R_TLS_HANDSHAKE,
         "forbidden key or digest"},
        {"server", "site-1", NULL, "other.test", -FL_R_TLS_HANDSHAKE, -FL_R_TLS_NAME,
         "another host name"},
        {"foreign-server", "site-1", NULL, "localhost", -FL_R_TLS_HANDSHAKE, -FL_R_TLS_FOREIGN,
         "'foreign-server'"},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        const struct refusal *t = &cases[i];
        struct fl_tls_conf *s = certs_conf(true, t->server, t->crl),
                           *c = certs_conf(false, t->client, NULL);
        struct pair p;
        begin_pair(&p, s, c, t->name);
        shake_hands(&p);
        ck_assert_msg(p.server.status == t->server_says, "%s: server: %d %s", t->client,
                      p.server.status, p.server.e.msg);
        ck_assert_msg(p.client.status == t->client_says, "%s: client: %d %s", t->client,
                      p.client.status, p.client.e.msg);
        ck_assert_int_ne(fl_tls_state(p.server.tls), FL_TLS_OPEN);
        const char *said = t->server_says == -FL_R_TLS_HANDSHAKE ? p.client.e.msg : p.server.e.msg;
        ck_assert_msg(strstr(said, t->text), "%s: %s", t->client, said);
        /* An error is final. */
        struct fl_tls_io io = {0};
        ck_assert_int_eq(fl_tls_pump(p.server.tls, &io, NULL), t->server_says);
        end_pair(&p);
        fl_tls_conf_unref(s);
        fl_tls_conf_unref(c);
    }
}
END_TEST

START_TEST(test_a_revoked_certificate_passes_without_a_list)
{
    struct fl_tls_conf *s = certs_conf(true, "server", NULL),
                       *c = certs_conf(false, "revoked", NULL);
    struct fl_tls_conf *with = certs_conf(true, "server", "ca");
    struct pair p;

    begin_pair(&p, s, c, "localhost");
    shake_hands(&p);
    assert_open(&p);
    /* Live sessions are cut by serial after a reload. */
    ck_assert(fl_tls_conf_revoked(with, fl_tls_peer(p.server.tls)->serial));
    ck_assert(!fl_tls_conf_revoked(s, fl_tls_peer(p.server.tls)->serial));
    ck_assert(!fl_tls_conf_revoked(with, fl_tls_peer(p.client.tls)->serial));
    end_pair(&p);
    fl_tls_conf_unref(s);
    fl_tls_conf_unref(c);
    fl_tls_conf_unref(with);
}
END_TEST

START_TEST(test_a_list_that_expires_refuses_everyone)
{
    struct fl_tls_conf *c = certs_conf(false, "site-1", NULL);
    char command[512];
    int says = 0;

    snprintf(command, sizeof command,
             "cd %s && openssl ca -config ca.cnf -gencrl -crlsec 2 -out soon.crl 2>/dev/null",
             certs_dir);
    ck_assert_int_eq(system(command), 0);
    struct fl_tls_conf *s = certs_conf(true, "server", "soon");
    for (time_t until = time(NULL) + 20; says == 0 && time(NULL) < until;) {
        struct pair p;
        begin_pair(&p, s, c, "localhost");
        shake_hands(&p);
        says = p.server.status;
        if (says < 0) {
            ck_assert_ptr_nonnull(strstr(p.server.e.msg, "has expired"));
        }
        end_pair(&p);
    }
    ck_assert_int_eq(says, -FL_R_TLS_CRL);
    fl_tls_conf_unref(s);
    fl_tls_conf_unref(c);
}
END_TEST

START_TEST(test_our_own_files_are_judged_at_load)
{
    static const struct {
        const char *ca, *certificate, *key, *crl;
        int reason;
        const char *text;
    } cases[] = {
        {"ca", "site-1", "open", NULL, -FL_R_TLS_KEYMODE, "mode 0644"},
        {"ca", "site-1", "site-2", NULL, -FL_R_TLS_SETUP, "is not the key of"},
        {"ca", "site-1", "broken", NULL, -FL_R_TLS_SETUP, "broken.key"},
        {"ca", "site-1", "missing", NULL, -FL_R_TLS_SETUP, "No such file"},
        {"ca", "missing", "site-1", NULL, -FL_R_TLS_SETUP, "missing.crt"},
        {"missing", "site-1", "site-1", NULL, -FL_R_TLS_SETUP, "missing.crt"},
        {"site-2", "site-1", "site-1", NULL, -FL_R_TLS_SETUP, "no authority"},
        {"ca", "server", "server", NULL, -FL_R_TLS_SETUP, "not made for an agent"},
        {"ca", "rsa", "rsa", NULL, -FL_R_TLS_SETUP, "must be ECDSA"},
        {"ca", "site-1", "site-1", "stale", -FL_R_TLS_CRL, "expired on 2020-02-01"},
        {"ca", "site-1", "site-1", "other", -FL_R_TLS_CRL, "another authority"},
        {"nocrl", "site-1", "site-1", "nocrl", -FL_R_TLS_CRL, "may not sign"},
        {"ca", "site-1", "site-1", "missing", -FL_R_TLS_CRL, "cannot be read"},
    };

    certs_make();
    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        struct fl_tls_conf *c = NULL;
        struct fl_err e = {0};
        int r = certs_conf_with(false, cases[i].ca, cases[i].certificate, cases[i].key,
                                cases[i].crl, FL_TLS_ORDER_CHACHA, &c, &e);
        ck_assert_msg(r == cases[i].reason && strstr(e.msg, cases[i].text), "%zu: %d %s", i, r,
                      e.msg);
        ck_assert_ptr_null(c);
    }
}
END_TEST

START_TEST(test_every_authority_needs_its_list)
{
    char command[512];
    struct fl_tls_conf *c = NULL;
    struct fl_err e = {0};

    certs_make();
    snprintf(command, sizeof command,
             "cd %s && cat ca.crt other.crt >both.crt && cat ca.crl other.crl >both.crl",
             certs_dir);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(
        certs_conf_with(true, "both", "server", "server", "ca", FL_TLS_ORDER_CHACHA, &c, &e),
        -FL_R_TLS_CRL);
    ck_assert_int_eq(
        certs_conf_with(true, "both", "server", "server", "both", FL_TLS_ORDER_CHACHA, &c, &e), 0);
    fl_tls_conf_unref(c);
}
END_TEST

START_TEST(test_memory_failures_at_every_call)
{
    certs_make();
    for (uint64_t nth = 1;; nth++) {
        struct fl_tls_conf *c = NULL;
        struct fl_tls *t = NULL;
        fl_mem_fail_at(nth);
        int r =
            certs_conf_with(false, "ca", "site-1", "site-1", "ca", FL_TLS_ORDER_MEASURE, &c, NULL);
        r = r == 0 ? fl_tls_new(c, "localhost", &t, NULL) : r;
        bool hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert(hit ? r == -FL_R_NOMEM || r == -FL_R_TLS_CRL : r == 0);
        fl_tls_free(t);
        fl_tls_conf_unref(c);
        if (!hit) {
            break;
        }
    }
}
END_TEST
struct shared {
    struct fl_tls_conf *server, *client;
};

static void *many_handshakes(void *arg)
{
    struct shared *shared = arg;

    for (int i = 0; i < 6; i++) {
        struct end *ends = fl_new(2, sizeof *ends);
        uint8_t *out = fl_new(20000, 1);
        ck_assert_int_eq(fl_tls_new(shared->server, NULL, &ends[0].tls, NULL), 0);
        ck_assert_int_eq(fl_tls_new(shared->client, "localhost", &ends[1].tls, NULL), 0);
        for (int n = 0; n < 40; n++) {
            struct end *from = &ends[n % 2], *to = &ends[1 - n % 2];
            uint8_t plain[16];
            struct fl_tls_io io = {.in = from->in,
                                   .in_size = from->in_size,
                                   .out = out,
                                   .out_size = 20000,
                                   .plain = plain,
                                   .plain_size = sizeof plain};
            ck_assert_int_eq(fl_tls_pump(from->tls, &io, NULL), 0);
            from->in_size -= io.ret_in;
            memcpy(to->in + to->in_size, out, io.ret_out);
            to->in_size += io.ret_out;
        }
        ck_assert_int_eq(fl_tls_state(ends[0].tls), FL_TLS_OPEN);
        fl_tls_free(ends[0].tls);
        fl_tls_free(ends[1].tls);
        fl_free(ends);
        fl_free(out);
    }
    fl_tls_conf_unref(shared->server);
    fl_tls_conf_unref(shared->client);
    return NULL;
}

START_TEST(test_many_threads_share_one_configuration)
{
    struct shared shared = {certs_conf(true, "server", "ca"), certs_conf(false, "site-1", "ca")};
    pthread_t threads[4];

    for (size_t i = 0; i < FL_COUNT(threads); i++) {
        fl_tls_conf_ref(shared.server);
        fl_tls_conf_ref(shared.client);
        ck_assert_int_eq(pthread_create(&threads[i], NULL, many_handshakes, &shared), 0);
    }
    fl_tls_conf_unref(shared.server);
    fl_tls_conf_unref(shared.client);
    for (size_t i = 0; i < FL_COUNT(threads); i++) {
        pthread_join(threads[i], NULL);
    }
}
END_TEST

TESTS_MAIN("tls", test_both_ends_know_each_other, test_the_identity_is_the_digest_of_the_public_key,
           test_bytes_pass_whatever_the_room, test_giving_what_is_wanted_leaves_nothing_in_between,
           test_the_order_of_suites, test_wrong_certificates_are_refused,
           test_a_revoked_certificate_passes_without_a_list,
           test_a_list_that_expires_refuses_everyone, test_our_own_files_are_judged_at_load,
           test_every_authority_needs_its_list, test_memory_failures_at_every_call,
           test_many_threads_share_one_configuration)
