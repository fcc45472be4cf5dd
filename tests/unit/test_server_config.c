#include "server/config.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], path[96];

static int load(const char *text, struct fl_server_config *c, struct fl_err *e)
{
    FILE *f = fopen(path, "w");

    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
    return fl_server_config_load(path, c, e);
}

#define TLS "tls:\n  ca: ca.crt\n  certificate: /etc/c.crt\n  key: c.key\n"

START_TEST(test_only_tls_is_required)
{
    struct fl_server_config c;
    struct fl_err e = {0};
    char expect[128];

    ck_assert_msg(load(TLS, &c, &e) == 0, "%s", e.msg);
    ck_assert_str_eq(c.listen.address, "127.0.0.1");
    ck_assert_uint_eq(c.listen.port, 7443);
    ck_assert_str_eq(c.state, "/var/lib/cohort");
    ck_assert_uint_eq(c.limits.connections, 1000);
    ck_assert_uint_eq(c.limits.heartbeat_ms, 20000);
    ck_assert_uint_eq(c.retention.state_bytes, 0);
    ck_assert_uint_eq(c.retention.keep_models, 3);
    ck_assert_int_eq(c.log.level, FL_LOG_INFO);
    ck_assert_int_eq(c.tls.order, FL_TLS_ORDER_MEASURE);
    snprintf(expect, sizeof expect, "%s/ca.crt", dir);
    ck_assert_str_eq(c.tls.ca, expect);
    ck_assert_str_eq(c.tls.certificate, "/etc/c.crt");
    ck_assert_ptr_null(fl_server_config_tls(&c).crl);
}
END_TEST

START_TEST(test_everything_can_be_said)
{
    struct fl_server_config c;
    struct fl_err e = {0};

    ck_assert_msg(load("listen: {address: '::', port: 1}\nstate: s\n"
                       "socket: {path: /tmp/x.sock, group: adm}\n"
                       "tls: {ca: /a, certificate: /b, key: /c, crl: /d, order: aes-ccm}\n"
                       "limits: {connections: 5, half_open: 5, frame_buffers: 2, heartbeat: 90s}\n"
                       "retention: {state_bytes: 2GiB, keep_models: 2}\n"
                       "log: {level: debug, format: json}\nthreads: {short: 1, sync: 2, long: 3}\n",
                       &c, &e) == 0,
                  "%s", e.msg);
    ck_assert_str_eq(c.listen.address, "::");
    ck_assert_str_eq(c.socket.group, "adm");
    ck_assert_str_eq(fl_server_config_tls(&c).crl, "/d");
    ck_assert_int_eq(c.tls.order, FL_TLS_ORDER_AES_CCM);
    ck_assert_uint_eq(c.limits.heartbeat_ms, 90000);
    ck_assert_uint_eq(c.retention.state_bytes, (uint64_t)2 << 30);
    ck_assert_int_eq(c.log.level, FL_LOG_DEBUG);
    ck_assert_int_eq(c.log.format, FL_LOG_JSON);
    ck_assert_uint_eq(c.threads.short_, 1);
    ck_assert_uint_eq(c.threads.long_, 3);
}
END_TEST

START_TEST(test_errors_name_their_line)
{
    static const struct {
        const char *text;
        int reason, line;
        const char *says;
    } bad[] = {
        {TLS "listen:\n  prot: 1\n", FL_R_CONF_UNKNOWN, 6, "did you mean port?"},
        {TLS "log: loud\n", FL_R_CONF_TYPE, 5, "log"},
        {TLS "limits:\n  connections: many\n", FL_R_CONF_TYPE, 6, "limits.connections"},
        {TLS "limits:\n  heartbeat: 20\n", FL_R_CONF_TYPE, 6, "limits.heartbeat"},
        {TLS "limits:\n  heartbeat: 1ms\n", FL_R_CONF_RANGE, 6, "limits.heartbeat"},
        {TLS "listen:\n  address: ::1\n  port: 70000\n", FL_R_CONF_RANGE, 7, "listen.port"},
        {TLS "log:\n  level: loud\n", FL_R_CONF_TYPE, 6, "log.level"},
        {TLS "retention:\n  keep_models: 1\n", FL_R_CONF_RANGE, 6, "retention.keep_models"},
        {TLS "state: a\nstate: b\n", FL_R_CONF_DUPLICATE, 6, "state"},
        {"tls:\n  ca: a\n  key: b\n", FL_R_CONF_MISSING, 1, "certificate"},
        {"state: a\n", FL_R_CONF_MISSING, 1, "tls"},
        {TLS "limits:\n  connections: 9\n  half_open: 10\n", FL_R_CONF_CONFLICT, 7, "half_open"},
        {TLS "limits:\n  connections: 9\n", FL_R_CONF_CONFLICT, 6, "half_open (64)"},
        {TLS "log: [\n", FL_R_CONF_SYNTAX, 6, ""},
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fl_server_config c;
        struct fl_err e = {0};
        char where[128];

        int status = load(bad[i].text, &c, &e);
        snprintf(where, sizeof where, "%s:%d:", path, bad[i].line);
        ck_assert_msg(status == -bad[i].reason, "%zu: %d %s", i, status, e.msg);
        ck_assert_msg(strncmp(e.msg, where, strlen(where)) == 0, "%zu: %s, not %s", i, e.msg,
                      where);
        ck_assert_msg(strstr(e.msg, bad[i].says), "%zu: %s", i, e.msg);
    }
    struct fl_server_config c;
    ck_assert_int_eq(fl_server_config_load("/nonexistent.yaml", &c, NULL), -FL_R_CONF_OPEN);
}
END_TEST

START_TEST(test_a_reload_takes_what_it_can_and_says_what_waits)
{
    struct fl_server_config running, fresh;
    char waiting[256];

    ck_assert_int_eq(load(TLS, &running, NULL), 0);
    ck_assert_int_eq(load(TLS "log: {level: debug, format: json}\nlisten: {port: 1}\n"
                              "limits: {connections: 70, frame_buffers: 9}\n",
                          &fresh, NULL),
                     0);
    fl_server_config_renew(&running, &fresh, waiting, sizeof waiting);
    ck_assert_str_eq(waiting, "listen, limits.frame_buffers, log.format");
    ck_assert_int_eq(running.log.level, FL_LOG_DEBUG);
    ck_assert_uint_eq(running.limits.connections, 70);
    ck_assert_uint_eq(running.listen.port, 7443);
    fl_server_config_renew(&running, &running, waiting, sizeof waiting);
    ck_assert_str_eq(waiting, "");
}
END_TEST

START_TEST(test_connections_are_those_there_are_descriptors_for)
{
    ck_assert_uint_eq(fl_server_config_connections(1000, 65536), 1000);
    ck_assert_uint_eq(fl_server_config_connections(1000, 1024), (1024 - FL_SERVER_DESCRIPTORS) / 2);
    ck_assert_uint_eq(fl_server_config_connections(10, FL_SERVER_DESCRIPTORS + 20), 10);
    ck_assert_uint_eq(fl_server_config_connections(10, FL_SERVER_DESCRIPTORS + 19), 9);
    ck_assert_uint_eq(fl_server_config_connections(10, 64), 0);
}
END_TEST

START_TEST(test_the_example_says_the_defaults)
{
    struct fl_server_config example, c;
    struct fl_err e = {0};
    char waiting[256];

    ck_assert_msg(
        fl_server_config_load(TEST_SOURCE_ROOT "/deploy/examples/cohortd.yaml", &example, &e) == 0,
        "%s", e.msg);
    ck_assert_int_eq(load(TLS, &c, &e), 0);
    memcpy(&c.tls, &example.tls, sizeof c.tls);
    fl_server_config_renew(&c, &example, waiting, sizeof waiting);
    ck_assert_str_eq(waiting, "");
    ck_assert_int_eq(memcmp(&c, &example, sizeof c), 0);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_only_tls_is_required,
                                  test_everything_can_be_said,
                                  test_errors_name_their_line,
                                  test_a_reload_takes_what_it_can_and_says_what_waits,
                                  test_connections_are_those_there_are_descriptors_for,
                                  test_the_example_says_the_defaults};

    snprintf(dir, sizeof dir, "/tmp/cohort-config-XXXXXX");
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    snprintf(path, sizeof path, "%s/cohortd.yaml", dir);
    int failed = run_tests("server_config", tests, sizeof tests / sizeof tests[0]);
    unlink(path);
    rmdir(dir);
    return failed;
}
