/* The agent's configuration: what the file says is what is run, and each mistake is reported where
 * it was made. */
#include "client/config.h"
#include "common/base/mem.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char path[64];

static int load(const char *text, struct fl_config **ret, struct fl_err *e)
{
    snprintf(path, sizeof path, "/tmp/cohort-config-%d.yaml", (int)getpid());
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fputs(text, f) < 0, 0);
    fclose(f);
    int r = fl_config_load(path, ret, e);
    unlink(path);
    return r;
}

#define HEAD                                                                                       \
    "state: state\n"                                                                               \
    "coordinator: {host: hub.example.org, ca: ca.crt}\n"

START_TEST(test_twenty_sites_stay_short)
{
    struct fl_config *c = NULL;
    struct fl_err e;
    const char *text =
        HEAD "defaults:\n"
             "  certificate: pki/site-{nn}.crt\n"
             "  key: /keys/site-{nn}.key\n"
             "  jobs: [demo, {name: other, strategies: [fedavg], min_noise: 0.5}]\n"
             "  privacy: {unit: client, epsilon: 8, delta: 1e-5}\n"
             "  data: {train_x: d/x, train_y: d/y, classes: 10, partition: dirichlet,\n"
             "         alpha: 0.3, of: 21, client: '{n}', train: 80, test: 240}\n"
             "  window: 22:00-06:00\n"
             "agents:\n"
             "  - {count: 20, name: 'site-{nn}'}\n"
             "  - name: big\n"
             "    window: 00:00-24:00\n"
             "    certificate: big.crt\n"
             "    key: big.key\n"
             "    declared_examples: 5000\n"
             "    jobs: ['*']\n"
             "    data: {client: 21, train: 5000}\n";

    ck_assert_msg(load(text, &c, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(c->agent_count, 21);
    ck_assert_str_eq(c->state, "/tmp/state");
    ck_assert_str_eq(c->socket.path, "/tmp/state/agent.sock");
    ck_assert_str_eq(c->coordinator.name, "hub.example.org");
    ck_assert_uint_eq(c->coordinator.port, 7443);
    ck_assert_uint_eq(c->backoff.max_ms, 60000);
    const struct fl_config_agent *a = &c->agents[6];
    ck_assert_str_eq(a->name, "site-07");
    ck_assert_str_eq(a->certificate, "/tmp/pki/site-07.crt");
    ck_assert_str_eq(a->key, "/keys/site-07.key");
    ck_assert_uint_eq(a->data.client, 6);
    ck_assert_uint_eq(a->data.of, 21);
    ck_assert_uint_eq(a->data.train, 80);
    ck_assert_double_eq(a->data.alpha, 0.3);
    ck_assert(a->data.disjoint);
    ck_assert_int_eq(a->window_from, 22 * 60);
    ck_assert_int_eq(a->window_to, 6 * 60);
    ck_assert_uint_eq(a->policy->job_count, 2);
    ck_assert_str_eq(a->policy->jobs[0].name, "demo");
    ck_assert_int_eq(a->policy->jobs[0].budget.unit, FL_UNIT_CLIENT);
    ck_assert_double_eq(a->policy->jobs[1].budget.epsilon, 8);
    ck_assert_double_eq(a->policy->jobs[1].min_noise_multiplier, 0.5);
    ck_assert_str_eq(a->policy->jobs[1].strategies[0], "fedavg");
    a = &c->agents[20];
    ck_assert_str_eq(a->name, "big");
    ck_assert_int_eq(a->window_from, a->window_to);
    ck_assert_uint_eq(a->data.client, 20);
    ck_assert_uint_eq(a->data.train, 5000);
    ck_assert_uint_eq(a->data.test, 240);
    ck_assert_uint_eq(a->policy->job_count, 1);
    fl_config_free(c);
}
END_TEST

START_TEST(test_columns_and_programs)
{
    struct fl_config *c = NULL;
    struct fl_err e;
    const char *text = HEAD
        "defaults:\n"
        "  certificate: c\n"
        "  key: k\n"
        "  jobs: ['*']\n"
        "  data: {format: csv, train_x: t.csv, columns: {price: Preis, day: Tag},\n"
        "         partition: column, column: shop, client: Berlin}\n"
        "  trainer: {program: [./train.sh, ./a.py, b.py, 'site-{n}'], time: 2m, memory: 0}\n"
        "agents:\n"
        "  - {count: 2, name: 'site-{n}'}\n"
        "  - {name: own, data: {columns: {price: prix}, client: 7}, trainer: {program: [sh]}}\n";

    ck_assert_msg(load(text, &c, &e) == 0, "%s", e.msg);
    const struct fl_config_agent *a = &c->agents[1];
    ck_assert(a->data.rename_count == 2 && a->data.memory == 1u << 30);
    ck_assert_str_eq(a->data.rename[1].job, "day");
    ck_assert_str_eq(a->data.rename[1].site, "Tag");
    ck_assert_str_eq(a->data.client_text, "Berlin");
    ck_assert_uint_eq(a->trainer.program_count, 4);
    ck_assert_str_eq(a->trainer.program[0], "/tmp/train.sh");
    ck_assert_str_eq(a->trainer.program[1], "/tmp/a.py");
    ck_assert_str_eq(a->trainer.program[2], "b.py");
    ck_assert_str_eq(a->trainer.program[3], "site-2");
    ck_assert(a->trainer.time_ms == 120000 && a->trainer.memory == 0 && a->trainer.examples);
    a = &c->agents[2];
    ck_assert_uint_eq(a->data.rename_count, 1);
    ck_assert_str_eq(a->data.rename[0].site, "prix");
    ck_assert_str_eq(a->data.client_text, "7");
    ck_assert_uint_eq(a->trainer.program_count, 1);
    ck_assert_str_eq(a->trainer.program[0], "sh");
    fl_config_free(c);
}
END_TEST

#define GOOD                                                                                       \
    "agents:\n"                                                                                    \
    "  - name: a\n"                                                                                \
    "    certificate: a.crt\n"                                                                     \
    "    key: a.key\n"

static const struct {
    const char *text;
    int reason;
    const char *says[3];
} mistakes[] = {
    {"state: s\ncoordinator: {host: h, ca: c, prot: 1}\nagents: []\n",
     FL_R_CONF_UNKNOWN,
     {":2:", "coordinator.prot", "port"}},
    {"state: s\nstate: t\n", FL_R_CONF_DUPLICATE, {":2:", "state"}},
    {"coordinator: {host: h, ca: c}\nagents: []\n", FL_R_CONF_MISSING, {"state"}},
    {"state: s\nagents: []\n", FL_R_CONF_MISSING, {"coordinator"}},
    {HEAD "threads: many\nagents: []\n", FL_R_CONF_TYPE, {":3:", "threads"}},
    {HEAD "heartbeat: 5\nagents: []\n", FL_R_CONF_TYPE, {":3:", "heartbeat"}},
    {HEAD "coordinator: {host: h, ca: c, port: 70000}\n", FL_R_CONF_DUPLICATE, {":3:"}},
    {"state: s\ncoordinator:\n  host: h\n  ca: c\n  port: 70000\nagents: []\n",
     FL_R_CONF_RANGE,
     {":5:", "coordinator.port"}},
    {HEAD "backoff: {min: 5s, max: 1s}\n" GOOD, FL_R_CONF_CONFLICT, {":3:", "backoff"}},
    {HEAD "agents: []\n", FL_R_CONF_TYPE, {":3:", "agents"}},
    {HEAD "agents: [5]\n", FL_R_CONF_TYPE, {":3:", "map"}},
    {HEAD GOOD "    jobs: [x]\n    data: {train_y: y, classes: 10}\n",
     FL_R_CONF_MISSING,
     {":8:", "data.train_x"}},
    {HEAD GOOD "    jobs: [x]\n    data: {format: program, train_x: x, version: v}\n",
     FL_R_CONF_CONFLICT,
     {":8:", "no files"}},
    {HEAD GOOD
     "    jobs: [x]\n    trainer: {program: []}\n    data: {format: program, version: v}\n",
     FL_R_CONF_RANGE,
     {":8:", "trainer.program"}},
    {HEAD GOOD "    jobs: [x]\n    data: {train_x: x, classes: 10}\n",
     FL_R_CONF_MISSING,
     {":8:", "train_y"}},
    {HEAD GOOD "    jobs: [x]\n    data: {train_x: x, train_y: y}\n",
     FL_R_CONF_MISSING,
     {":8:", "classes"}},
    {HEAD GOOD "    jobs: [x]\n    data: {train_x: x, train_y: y, classes: 10, client: 3, of: 2}\n",
     FL_R_CONF_RANGE,
     {":8:", "data.client", "1 to 2"}},
    {HEAD GOOD "    jobs: [x]\n    data: {train_x: x, train_y: y, classes: 10, client: x}\n",
     FL_R_CONF_TYPE,
     {":8:", "data.client"}},
    {HEAD GOOD "    jobs: [x]\n    data: {train_x: x, train_y: y, classes: 10, partition: file}\n",
     FL_R_CONF_CONFLICT,
     {":8:", "clients"}},
    {HEAD GOOD "    data: {train_x: x, train_y: y, classes: 10}\n",
     FL_R_CONF_MISSING,
     {":4:", "jobs"}},
    {HEAD GOOD "    jobs: x\n    data: {train_x: x, train_y: y, classes: 10}\n",
     FL_R_CONF_TYPE,
     {":7:", "jobs"}},
    {HEAD GOOD "    jobs: ['a b']\n    data: {train_x: x, train_y: y, classes: 10}\n",
     FL_R_CONF_RANGE,
     {":7:", "a b"}},
    {HEAD GOOD
     "    jobs: [{name: x, min_nose: 1}]\n    data: {train_x: x, train_y: y, classes: 10}\n",
     FL_R_CONF_UNKNOWN,
     {":7:", "min_nose", "min_noise"}},
    {HEAD GOOD "    jobs: [x]\n    privacy: {unit: client}\n"
               "    data: {train_x: x, train_y: y, classes: 10}\n",
     FL_R_CONF_RANGE,
     {":8:", "privacy"}},
    {HEAD GOOD "    jobs: [x, x]\n    data: {train_x: x, train_y: y, classes: 10}\n",
     FL_R_CONF_DUPLICATE,
     {":7:"}},
    {HEAD GOOD "    jobs: [x]\n    window: 25:00-26:00\n"
               "    data: {train_x: x, train_y: y, classes: 10}\n",
     FL_R_CONF_RANGE,
     {":8:", "window"}},
    {HEAD GOOD "    count: 2\n    jobs: [x]\n    data: {train_x: x, train_y: y, classes: 10}\n",
     FL_R_CONF_DUPLICATE,
     {":4:", "{n}"}},
    {HEAD "agents:\n  - {name: ../x, certificate: c, key: k, jobs: [x],\n"
          "     data: {train_x: x, train_y: y, classes: 10}}\n",
     FL_R_CONF_RANGE,
     {":4:", "../x"}},
    {HEAD GOOD "    data: {train_x: x, train_y: y, classes: 2, test: 2.5}\n",
     FL_R_CONF_RANGE,
     {":7:", "test is a whole number", "below 1"}},
    {HEAD GOOD "    data: {train_x: x, train_y: y, classes: 2, deal: placed, train: 0.5}\n",
     FL_R_CONF_CONFLICT,
     {":7:", "need deal: hashed"}},
    {HEAD GOOD "    data: {train_x: x, train_y: y, classes: 2, test: 0.5, train: 20}\n",
     FL_R_CONF_CONFLICT,
     {":7:", "parts of the rows, not numbers"}},
    {HEAD GOOD "    data: {train_x: x, train_y: y, classes: 2, deal: hashed,\n"
               "           partition: dirichlet}\n",
     FL_R_CONF_CONFLICT,
     {":7:", "a site's own rows"}},
    {HEAD "defaults: {data: {trian: 5}}\n" GOOD, FL_R_CONF_UNKNOWN, {":3:", "data.trian", "train"}},
};

START_TEST(test_mistakes_are_reported_where_they_are)
{
    for (size_t i = 0; i < FL_COUNT(mistakes); i++) {
        struct fl_config *c = NULL;
        struct fl_err e = {0};
        int r = load(mistakes[i].text, &c, &e);
        ck_assert_msg(r == -mistakes[i].reason && e.code == r, "mistake %zu: %d %s", i, r, e.msg);
        ck_assert_ptr_null(c);
        for (size_t k = 0; k < 3 && mistakes[i].says[k]; k++) {
            ck_assert_msg(strstr(e.msg, mistakes[i].says[k]) != NULL, "mistake %zu: '%s' not in %s",
                          i, mistakes[i].says[k], e.msg);
        }
    }
}
END_TEST

START_TEST(test_memory_that_ends_is_an_error)
{
    const char *text = HEAD GOOD "    jobs: [x, y]\n"
                                 "    data: {train_x: x, train_y: y, classes: 10}\n";

    for (uint64_t n = 1;; n++) {
        struct fl_config *c = NULL;
        struct fl_err e;
        fl_mem_fail_at(n);
        int r = load(text, &c, &e);
        bool hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert(!hit || r == -FL_R_NOMEM);
        fl_config_free(c);
        if (!hit) {
            ck_assert_int_eq(r, 0);
            break;
        }
    }
}
END_TEST

START_TEST(test_window)
{
    uint16_t from, to;

    ck_assert(fl_config_window("22:00-06:30", &from, &to));
    ck_assert_int_eq(from, 1320);
    ck_assert_int_eq(to, 390);
    ck_assert(fl_config_window("00:00-24:00", &from, &to));
    ck_assert_int_eq(from, to);
    ck_assert(!fl_config_window("22:00", &from, &to));
    ck_assert(!fl_config_window("22:00-06:00x", &from, &to));
    ck_assert(!fl_config_window("22:60-06:00", &from, &to));
}
END_TEST

TESTS_MAIN("client_config", test_columns_and_programs, test_twenty_sites_stay_short,
           test_mistakes_are_reported_where_they_are, test_memory_that_ends_is_an_error,
           test_window)
