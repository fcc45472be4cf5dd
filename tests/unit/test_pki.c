/* The authority's folder, judged by OpenSSL's command line. */
#include "server/ctl/pki.h"
#include "tests/lib/check_main.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

/* Runs a shell command in the folder; true when it ends well. Its output is kept in `said`. */
static char said[16 * 1024];

__attribute__((format(printf, 1, 2))) static bool shell(const char *fmt, ...)
{
    char command[1024], whole[1200];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    snprintf(whole, sizeof whole, "cd %s && { %s ; } 2>&1", dir, command);
    FILE *f = popen(whole, "r");
    ck_assert_ptr_nonnull(f);
    size_t n = fread(said, 1, sizeof said - 1, f);
    said[n] = 0;
    return pclose(f) == 0;
}

static void fresh(void)
{
    struct fl_err e = {0};

    ck_assert(shell("rm -rf ./*"));
    ck_assert_msg(fl_pki_init(dir, "Consortium CA", &e) == 0, "%s", e.msg);
}

static struct fl_pki_order agents(const char *name, uint32_t count)
{
    return (struct fl_pki_order){
        .kind = FL_PKI_AGENT, .name = name, .count = count, .first = 1, .days = FL_PKI_DAYS};
}

static struct fl_pki_order coordinator(void)
{
    return (struct fl_pki_order){.kind = FL_PKI_COORDINATOR,
                                 .name = "coordinator",
                                 .count = 1,
                                 .first = 1,
                                 .days = FL_PKI_DAYS,
                                 .host_count = 3,
                                 .hosts = {"localhost", "cohortd.example", "127.0.0.1"}};
}

struct seen {
    uint32_t count, revoked;
    struct fl_pki_entry last;
};

static void see(void *arg, const struct fl_pki_entry *t)
{
    struct seen *s = arg;

    s->count++;
    s->revoked += t->revoked != 0;
    s->last = *t;
}

static void issue(struct fl_pki_order order, struct seen *s)
{
    struct fl_err e = {0};

    ck_assert_msg(fl_pki_issue(dir, &order, see, s, &e) == 0, "%s", e.msg);
}

START_TEST(test_the_authority)
{
    struct fl_err e = {0};

    fresh();
    ck_assert(shell("openssl x509 -in ca.crt -noout -text"));
    ck_assert_ptr_nonnull(strstr(said, "CA:TRUE, pathlen:0"));
    ck_assert_ptr_nonnull(strstr(said, "Certificate Sign, CRL Sign\n"));
    ck_assert_ptr_nonnull(strstr(said, "Subject: CN = Consortium CA\n"));
    ck_assert_ptr_nonnull(strstr(said, "ASN1 OID: prime256v1"));
    ck_assert(shell("openssl verify -x509_strict -CAfile ca.crt ca.crt"));
    ck_assert(shell("openssl crl -in ca.crl -CAfile ca.crt -noout -text"));
    ck_assert_ptr_nonnull(strstr(said, "verify OK"));
    ck_assert_ptr_nonnull(strstr(said, "No Revoked Certificates."));
    ck_assert(!shell("openssl x509 -in ca.crt -noout -checkend %d", 3654 * 86400));
    ck_assert(shell("openssl x509 -in ca.crt -noout -checkend %d", 3650 * 86400));
    ck_assert_int_eq(fl_pki_init(dir, "again", &e), -FL_R_CTL_EXISTS);
    ck_assert_int_eq(fl_pki_init(dir, "", &e), -FL_R_ARG);
    ck_assert_int_eq(fl_pki_init(dir, "two\nlines", &e), -FL_R_ARG);
}
END_TEST

START_TEST(test_a_coordinator_serves_and_agents_dial)
{
    struct seen s = {0};

    fresh();
    issue(coordinator(), &s);
    issue(agents("site-{nn}", 3), &s);
    ck_assert_uint_eq(s.count, 4);
    ck_assert_str_eq(s.last.name, "site-03");
    ck_assert(shell("openssl verify -x509_strict -crl_check -purpose sslserver -verify_hostname "
                    "localhost -CAfile ca.crt -CRLfile ca.crl coordinator.crt"));
    ck_assert(shell("openssl verify -verify_hostname cohortd.example -CAfile ca.crt "
                    "coordinator.crt"));
    ck_assert(shell("openssl verify -verify_ip 127.0.0.1 -CAfile ca.crt coordinator.crt"));
    ck_assert(!shell("openssl verify -verify_hostname other -CAfile ca.crt coordinator.crt"));
    ck_assert(!shell("openssl verify -purpose sslclient -CAfile ca.crt coordinator.crt"));
    ck_assert(shell("openssl verify -x509_strict -crl_check -purpose sslclient -CAfile ca.crt "
                    "-CRLfile ca.crl site-01.crt site-02.crt site-03.crt"));
    ck_assert(!shell("openssl verify -purpose sslserver -CAfile ca.crt site-01.crt"));
    ck_assert(!shell("openssl x509 -in site-01.crt -noout -checkend %d", 366 * 86400));
    /* the key is the certificate's */
    ck_assert(shell("test \"$(openssl pkey -in site-03.key -pubout)\" = "
                    "\"$(openssl x509 -in site-03.crt -noout -pubkey)\""));
}
END_TEST

START_TEST(test_the_identity_is_the_digest_of_the_public_key)
{
    struct seen s = {0};
    struct fl_pki_info info;
    struct fl_err e = {0};
    char path[96], hex[65];

    fresh();
    issue(agents("site-01", 1), &s);
    ck_assert(shell("openssl x509 -in site-01.crt -noout -pubkey | openssl pkey -pubin -outform "
                    "DER | sha256sum"));
    ck_assert_mem_eq(said, s.last.key, 64);
    snprintf(path, sizeof path, "%s/site-01.crt", dir);
    ck_assert_int_eq(fl_pki_read(path, &info, &e), 0);
    ck_assert_str_eq(info.name, "site-01");
    for (size_t i = 0; i < FL_PKI_KEY; i++) {
        snprintf(hex + 2 * i, 3, "%02x", info.key[i]);
    }
    ck_assert_str_eq(hex, s.last.key);
    ck_assert(shell("openssl x509 -in site-01.crt -noout -serial"));
    char serial[64];
    snprintf(serial, sizeof serial, "%.32s", said + strlen("serial="));
    for (char *p = serial; *p; p++) {
        *p = *p >= 'A' && *p <= 'F' ? (char)(*p - 'A' + 'a') : *p;
    }
    ck_assert_str_eq(serial, s.last.serial);
    snprintf(path, sizeof path, "%s/site-01.key", dir);
    ck_assert_int_eq(fl_pki_read(path, &info, &e), -FL_R_TLS_SETUP);
    snprintf(path, sizeof path, "%s/none.crt", dir);
    ck_assert_int_eq(fl_pki_read(path, &info, &e), -FL_R_TLS_SETUP);
    ck_assert_ptr_nonnull(strstr(e.msg, "No such file"));
}
END_TEST

START_TEST(test_revoking_and_renewing)
{
    struct seen s = {0}, all = {0};
    struct fl_err e = {0};
    time_t expires = 0;

    fresh();
    issue(agents("site-{nn}", 2), &s);
    struct fl_pki_order again = agents("site-01", 1);
    ck_assert_int_eq(fl_pki_issue(dir, &again, NULL, NULL, &e), -FL_R_CTL_EXISTS);
    ck_assert_int_eq(fl_pki_revoke(dir, "site-01", see, &all, &e), 0);
    ck_assert_uint_eq(all.revoked, 1);
    ck_assert(!shell("openssl verify -crl_check -CAfile ca.crt -CRLfile ca.crl site-01.crt"));
    ck_assert_ptr_nonnull(strstr(said, "certificate revoked"));
    ck_assert(shell("openssl verify -crl_check -CAfile ca.crt -CRLfile ca.crl site-02.crt"));
    ck_assert_int_eq(fl_pki_revoke(dir, "site-01", NULL, NULL, &e), -FL_R_ARG);

    ck_assert(shell("cp site-01.crt old.crt"));
    issue(again, &s);
    ck_assert(shell("openssl verify -crl_check -CAfile ca.crt -CRLfile ca.crl site-01.crt"));
    ck_assert(!shell("openssl verify -crl_check -CAfile ca.crt -CRLfile ca.crl old.crt"));

    ck_assert_int_eq(fl_pki_refresh(dir, &e), 0);
    ck_assert(shell("openssl crl -in ca.crl -CAfile ca.crt -noout -text"));
    /* init, revoke, refresh */
    ck_assert_msg(strstr(said, "X509v3 CRL Number: \n                3\n") != NULL, "%s", said);
    ck_assert(!shell("openssl verify -crl_check -CAfile ca.crt -CRLfile ca.crl old.crt"));
    memset(&all, 0, sizeof all);
    ck_assert_int_eq(fl_pki_list(dir, see, &all, &expires, &e), 0);
    ck_assert_uint_eq(all.count, 3);
    ck_assert_uint_eq(all.revoked, 1);
    time_t left = expires - time(NULL);
    ck_assert(left > 29 * 86400 && left <= 30 * 86400);
}
END_TEST

START_TEST(test_keys_are_private_whatever_the_umask)
{
    struct seen s = {0};
    struct stat st;
    struct fl_err e = {0};
    char path[96];
    mode_t mask = umask(0);

    fresh();
    issue(agents("site-01", 1), &s);
    umask(mask);
    static const char *const keys[] = {"ca.key", "site-01.key"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, keys[i]);
        ck_assert_int_eq(stat(path, &st), 0);
        ck_assert_uint_eq(st.st_mode & 07777, 0600);
    }
    ck_assert(shell("chmod 640 ca.key"));
    struct fl_pki_order more = agents("site-02", 1);
    ck_assert_int_eq(fl_pki_issue(dir, &more, NULL, NULL, &e), -FL_R_TLS_KEYMODE);
}
END_TEST

START_TEST(test_what_cannot_be_issued)
{
    static const struct {
        const char *name;
        uint32_t count, days;
        const char *host;
        bool server;
    } bad[] = {
        {"", 1, 1, NULL, false},          {"ca", 1, 1, NULL, false},
        {"../x", 1, 1, NULL, false},      {"a/b", 1, 1, NULL, false},
        {"a,CN=b", 1, 1, NULL, false},    {"site", 2, 1, NULL, false},
        {"site-{xx}", 2, 1, NULL, false}, {"site-{n", 2, 1, NULL, false},
        {"a", 0, 1, NULL, false},         {"a", 1, 0, NULL, false},
        {"a", 1, 100000, NULL, false},    {"{n}", FL_PKI_COUNT_MAX + 1, 1, NULL, false},
        {"a", 1, 3653, NULL, false}, /* not shorter than the authority */
        {"a", 1, 1, NULL, true},          {"a", 1, 1, "", true},
        {"a", 1, 1, "a b", true},         {"a", 1, 1, "-x", true},
    };
    struct seen s = {0};
    struct fl_err e = {0};

    fresh();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fl_pki_order o = {.kind = bad[i].server ? FL_PKI_COORDINATOR : FL_PKI_AGENT,
                                 .name = bad[i].name,
                                 .count = bad[i].count,
                                 .first = 1,
                                 .days = bad[i].days,
                                 .host_count = bad[i].host ? 1 : 0,
                                 .hosts = {bad[i].host}};
        ck_assert_msg(fl_pki_issue(dir, &o, see, &s, &e) == -FL_R_ARG, "%zu: %s", i, e.msg);
    }
    /* All or none: the second name is taken. */
    issue(agents("site-02", 1), &s);
    struct fl_pki_order three = agents("site-{nn}", 3);
    ck_assert_int_eq(fl_pki_issue(dir, &three, see, &s, &e), -FL_R_CTL_EXISTS);
    ck_assert_uint_eq(s.count, 1);
    ck_assert(shell("test ! -e site-01.crt"));
    /* A key of somebody else is not written over. */
    ck_assert(shell("touch site-09.key"));
    struct fl_pki_order ninth = agents("site-09", 1);
    ck_assert_int_eq(fl_pki_issue(dir, &ninth, see, &s, &e), -FL_R_CTL_EXISTS);
}
END_TEST

START_TEST(test_damaged_folders)
{
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "{\"certificates\":{}}",
        "{\"crl_number\":1,\"certificates\":[{}]}",
        ("{\"crl_number\":1,\"certificates\":[{\"name\":\"a\",\"kind\":\"agent\",\"serial\":\"zz\","
         "\"key\":\"00\",\"not_before_s\":0,\"not_after_s\":0,\"revoked_s\":1}]}")};
    struct seen s = {0};
    struct fl_err e = {0};

    fresh();
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        ck_assert(shell("printf '%%s' '%s' >index.json", texts[i]));
        ck_assert_int_eq(fl_pki_list(dir, see, &s, NULL, &e), -FL_R_STORE_CORRUPT);
        ck_assert_int_eq(fl_pki_revoke(dir, "a", NULL, NULL, &e), -FL_R_STORE_CORRUPT);
    }
    ck_assert(shell("rm -f index.json"));
    ck_assert_int_eq(fl_pki_list(dir, see, &s, NULL, &e), -FL_R_STORE_OPEN);
    fresh();
    ck_assert(shell("openssl ecparam -name prime256v1 -genkey -noout -out ca.key"));
    ck_assert_int_eq(fl_pki_refresh(dir, &e), -FL_R_TLS_SETUP);
    ck_assert_ptr_nonnull(strstr(e.msg, "is not the key of"));
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_the_authority,
                                  test_a_coordinator_serves_and_agents_dial,
                                  test_the_identity_is_the_digest_of_the_public_key,
                                  test_revoking_and_renewing,
                                  test_keys_are_private_whatever_the_umask,
                                  test_what_cannot_be_issued,
                                  test_damaged_folders};

    snprintf(dir, sizeof dir, "/tmp/cohort-pki-XXXXXX");
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    int failed = run_tests("pki", tests, sizeof tests / sizeof tests[0]);
    char remove[96];
    snprintf(remove, sizeof remove, "rm -rf %s", dir);
    return system(remove) == 0 ? failed : 1;
}
