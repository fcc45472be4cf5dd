/* The verbs over a real socket; the coordinator behind them is a small one made for these tests. */
#include "common/base/mem.h"
#include "tests/lib/asker.h"
#include "tests/lib/check_main.h"
#include "tests/lib/small_coordinator.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static char dir[64], path[96];

static struct asker with1(const char *name, const char *value)
{
    return (struct asker){.request = {.argument_count = 1, .arguments = {{name, value}}}};
}

static void submit(struct co *co)
{
    struct asker a = {.request = {.body = (const uint8_t *)"name: demo", .body_size = 10}};

    ask(&co->loop, path, &a, "job submit");
    ck_assert_int_eq(a.status, 0);
}

static json_t *first(const struct asker *a)
{
    json_t *o = json_loads(a->json, JSON_DISABLE_EOF_CHECK, NULL);

    ck_assert_ptr_nonnull(o);
    return o;
}

static void expect_text(const struct asker *a, const char *field, const char *text)
{
    json_t *o = first(a);

    ck_assert_str_eq(json_string_value(json_object_get(o, field)), text);
    json_decref(o);
}

/* ---- tests ---- */

START_TEST(test_arguments_are_checked_before_anyone_is_asked)
{
    static const struct {
        const char *verb, *name, *value, *message;
    } bad[] = {
        {"job", "job", "demo", "no verb 'job'; `verbs` lists them"},
        {"job pause", "round", "1", "job pause: no argument 'round'"},
        {"job pause", "job", "../etc", "job pause: job: '../etc' is not a job's name"},
        {"job pause", "job", "", "job pause: job: '' is not a job's name"},
        {"job pause", "job", "demo@", "job pause: job: 'demo@' is not a job's name"},
        {"job pause", "job", "demo@03", "job pause: job: 'demo@03' is not a job's name"},
        {"job pause", "job", "@3", "job pause: job: '@3' is not a job's name"},
        {"job pause", "wait", "1", "job pause: needs job"},
        {"agent revoke", "agent", "a b", "agent revoke: agent: 'a b' is not an agent's name"},
        {"agent enrol", "key", "1234", "agent enrol: key: '1234' is not 64 hex digits"},
        {"agent list", "limit", "0", "limit: 1 to 1000"},
        {"agent list", "limit", "-1", "agent list: limit: '-1' is not a whole number"},
        {"agent list", "after", "99999999999999999999",
         "agent list: after: '99999999999999999999' is not a whole number"},
        {"job submit", "file", "job.yaml", "a job description has 1 to 65536 bytes, not 0"},
        {"status", "job", "x", "status: no argument 'job'"},
    };
    struct co co = {0};

    co_start(&co, path);
    for (size_t i = 0; i < FL_COUNT(bad); i++) {
        struct asker a = with1(bad[i].name, bad[i].value);
        ask(&co.loop, path, &a, bad[i].verb);
        ck_assert_int_eq(a.status, -FL_R_CTL_REQUEST);
        ck_assert_str_eq(a.e.msg, bad[i].message);
    }
    struct asker body = with1("job", "demo");
    body.request.body = (const uint8_t *)"x";
    body.request.body_size = 1;
    ask(&co.loop, path, &body, "job pause");
    ck_assert_str_eq(body.e.msg, "job pause: takes no file");
    ck_assert_int_eq(co.changes, 0);
    co_stop(&co);
}
END_TEST

START_TEST(test_views)
{
    struct co co = {0};
    struct asker status = {0}, none = {0}, list = {0}, agents = {0};
    struct asker page = with1("after", "3"), agent = with1("agent", "site-02"),
                 nobody = with1("agent", "site-09"), show = with1("job", "demo"),
                 other = with1("job", "other"), exact = with1("job", "demo@3"),
                 older = with1("job", "demo@2");

    co_start(&co, path);
    ask(&co.loop, path, &status, "status");
    expect_text(&status, "state", "running");
    ask(&co.loop, path, &none, "job list");
    ck_assert_int_eq(none.status, 0);
    ck_assert_int_eq(none.parts, 0);
    submit(&co);
    ask(&co.loop, path, &list, "job list");
    expect_text(&list, "job", "demo");
    ask(&co.loop, path, &show, "job show");
    expect_text(&show, "text", "name: demo");
    ask(&co.loop, path, &exact, "job show");
    expect_text(&exact, "job", "demo");
    ask(&co.loop, path, &older, "job show");
    ck_assert_int_eq(older.status, -FL_R_NO_JOB);
    ask(&co.loop, path, &other, "job show");
    ck_assert_int_eq(other.status, -FL_R_NO_JOB);
    ask(&co.loop, path, &agents, "agent list");
    ck_assert_int_eq(agents.parts, 2);
    ask(&co.loop, path, &page, "agent list");
    ck_assert_int_eq(page.parts, 1);
    expect_text(&page, "agent", "site-02");
    ask(&co.loop, path, &agent, "agent show");
    expect_text(&agent, "agent", "site-02");
    ask(&co.loop, path, &nobody, "agent show");
    ck_assert_int_eq(nobody.status, -FL_R_NOT_ENROLLED);
    co_stop(&co);
}
END_TEST

START_TEST(test_every_verb_has_its_row_in_the_documentation)
{
    static char page[64 * 1024];
    struct co co = {0};
    struct asker verbs = {0};
    json_t *o, *g;
    size_t i;
    char want[64], *rest = verbs.json, *line;

    FILE *f = fopen(TEST_SOURCE_ROOT "/deploy/docs/CONTROL.md", "r");
    ck_assert_ptr_nonnull(f);
    page[fread(page, 1, sizeof page - 1, f)] = 0;
    fclose(f);
    co_start(&co, path);
    ask(&co.loop, path, &verbs, "verbs");
    ck_assert_int_gt(verbs.parts, 15);
    while ((line = strsep(&rest, "\n")) != NULL && line[0]) {
        o = json_loads(line, 0, NULL);
        const char *verb = json_string_value(json_object_get(o, "verb"));
        snprintf(want, sizeof want, "\n| `%.40s` | ", verb);
        const char *row = strstr(page, want);
        /* the commands' table may have one too: the verbs' table is the last */
        for (const char *next; row && (next = strstr(row + 1, want)) != NULL;) {
            row = next;
        }
        ck_assert_msg(row != NULL, "%s has no row", verb);
        const char *end = strchr(row + 1, '\n');
        json_array_foreach(json_object_get(o, "arguments"), i, g)
        {
            snprintf(want, sizeof want, "`%.40s`", json_string_value(json_object_get(g, "name")));
            const char *at = strstr(row + 1 + strlen(verb), want);
            ck_assert_msg(at && at < end, "%s: %s is not in its row", verb, want);
        }
        json_decref(o);
    }
    co_stop(&co);
}
END_TEST

START_TEST(test_changes_say_who_and_what)
{
    struct co co = {0};
    char who[64];
    struct asker set = {
        .request = {.argument_count = 3,
                    .arguments = {{"value", "8"}, {"job", "demo"}, {"key", "round.quorum"}}}};
    struct asker enrol = {
        .request = {
            .argument_count = 2,
            .arguments = {
                {"agent", "site-01"},
                {"key", "0102030405060708091011121314151617181920212223242526272829303132"}}}};
    struct asker bad = {.request = {.argument_count = 1,
                                    .arguments = {{"file", "x.yaml"}},
                                    .body = (const uint8_t *)"bad: 1",
                                    .body_size = 6}};
    struct asker revoke = with1("agent", "site-02"), reload = {0};

    co_start(&co, path);
    submit(&co);
    ck_assert_str_eq(co.what, "job submit");
    ask(&co.loop, path, &set, "job set");
    expect_text(&set, "job", "demo");
    ck_assert_str_eq(co.text, "round.quorum=8");
    ck_assert_str_eq(co.what, "job set demo round.quorum 8");
    snprintf(who, sizeof who, "uid %u pid %d", (unsigned)getuid(), (int)getpid());
    ck_assert_str_eq(co.who, who);
    ask(&co.loop, path, &enrol, "agent enrol");
    ck_assert_int_eq(enrol.status, 0);
    ck_assert_uint_eq(co.key[31], 0x32);
    ask(&co.loop, path, &revoke, "agent revoke");
    ck_assert_int_eq(revoke.status, -FL_R_NOT_ENROLLED);
    ask(&co.loop, path, &reload, "reload");
    ck_assert_int_eq(reload.status, 0);
    expect_text(&reload, "waits_for_restart", "listen, threads");
    ask(&co.loop, path, &bad, "job submit");
    ck_assert_int_eq(bad.status, -FL_R_CONF_UNKNOWN);
    ck_assert_str_eq(bad.e.msg, "x.yaml:1:1: bad: unknown key");
    co_stop(&co);
}
END_TEST

START_TEST(test_pause_waits_until_no_round_is_open)
{
    struct co co = {0};
    struct asker pause = {
        .request = {.argument_count = 2, .arguments = {{"job", "demo"}, {"wait", "1"}}}};

    co_start(&co, path);
    submit(&co);
    co.job.round_open = true;
    ask_start(path, &pause, "job pause");
    RUN_UNTIL(&co.loop, co.pending);
    fl_control_done(co.control, co.pending, 0, NULL, NULL);
    for (int i = 0; i < 20; i++) {
        fl_control_changed(co.control);
        uv_run(&co.loop, UV_RUN_NOWAIT);
    }
    ck_assert(!pause.over);
    co.job.round_open = false;
    fl_control_changed(co.control);
    ask_finish(&co.loop, &pause);
    ck_assert_int_eq(pause.status, 0);
    expect_text(&pause, "state", "paused");
    co_stop(&co);
}
END_TEST

START_TEST(test_submit_waits_for_the_end)
{
    struct co co = {0};
    struct asker a = {.request = {.argument_count = 1,
                                  .arguments = {{"wait", "1"}},
                                  .body = (const uint8_t *)"name: demo",
                                  .body_size = 10}};
    struct asker b = with1("job", "demo"), c = with1("job", "demo"), gone = with1("job", "demo");

    co_start(&co, path);
    ask_start(path, &a, "job submit");
    RUN_UNTIL(&co.loop, co.has_job);
    co.job.state = FL_JOB_DONE;
    fl_control_changed(co.control);
    ask_finish(&co.loop, &a);
    ck_assert_int_eq(a.status, 0);
    expect_text(&a, "state", "done");

    co.job.state = FL_JOB_PAUSED;
    co.job.why = "three attempts below quorum";
    ask(&co.loop, path, &b, "job wait");
    ck_assert_int_eq(b.status, -FL_R_JOB_STATE);
    ck_assert_str_eq(b.e.msg, "job demo is paused: three attempts below quorum");

    co.job.state = FL_JOB_RUNNING;
    co.job.why = "";
    c.timeout_ms = 30;
    ask(&co.loop, path, &c, "job wait");
    ck_assert_int_eq(c.status, -FL_R_TIMEOUT);

    co.has_job = false;
    ask(&co.loop, path, &gone, "job wait");
    ck_assert_int_eq(gone.status, -FL_R_NO_JOB);
    co_stop(&co);
}
END_TEST

START_TEST(test_watch_speaks_when_something_changes)
{
    struct co co = {0};
    struct asker w = with1("job", "demo");

    co_start(&co, path);
    submit(&co);
    co.job.round_open = true;
    co.round = (struct fl_control_round){.job = "demo", .round = 1, .state = "collect"};
    ask_start(path, &w, "watch");
    RUN_UNTIL(&co.loop, w.parts == 1);
    for (uint32_t i = 1; i <= 3; i++) {
        fl_control_changed(co.control); /* nothing has: nothing is said */
        co.round.committed = i;
        fl_control_changed(co.control);
        RUN_UNTIL(&co.loop, w.parts == (int)i + 1);
    }
    co.job.state = FL_JOB_DONE;
    co.job.round_open = false;
    fl_control_changed(co.control);
    ask_finish(&co.loop, &w);
    ck_assert_int_eq(w.status, 0);
    ck_assert_int_eq(w.parts, 5);
    ck_assert_ptr_nonnull(strstr(w.json, "\"committed\":3"));
    co_stop(&co);
}
END_TEST

START_TEST(test_rounds_and_explain)
{
    struct co co = {0};
    struct asker list = {
        .request = {.argument_count = 2, .arguments = {{"job", "demo"}, {"limit", "2"}}}};
    struct asker show = with1("job", "demo"), explain = with1("job", "demo"), missing = list;
    json_t *o;

    co_start(&co, path);
    submit(&co);
    co.round = (struct fl_control_round){.job = "demo",
                                         .round = 2,
                                         .state = "collect",
                                         .wanted = 3,
                                         .quorum = 2,
                                         .invited = 3,
                                         .committed = 1,
                                         .exchanges = 1};
    ask(&co.loop, path, &list, "round list");
    ck_assert_int_eq(list.parts, 2);
    ask(&co.loop, path, &show, "round show");
    ck_assert_int_eq(show.parts, 4);
    ck_assert_ptr_nonnull(strstr(show.json, "\"reason_name\":\"declined\""));
    ask(&co.loop, path, &explain, "round explain");
    ck_assert_int_eq(explain.status, 0);
    o = first(&explain);
    ck_assert_int_eq(json_integer_value(json_object_get(o, "waiting_count")), 1);
    ck_assert_int_eq(json_integer_value(json_object_get(o, "lost_count")), 1);
    const char *line = json_string_value(json_array_get(json_object_get(o, "text"), 1));
    ck_assert_str_eq(line,
                     "The quorum is 2: unless 1 more arrive it is abandoned at its deadline and "
                     "tried again with a fresh cohort (this is attempt 1).");
    json_decref(o);
    missing.request.arguments[1] = (struct fl_ctl_argument){"round", "10"};
    ask(&co.loop, path, &missing, "round explain");
    ck_assert_int_eq(missing.status, -FL_R_NO_ROUND);
    co_stop(&co);
}
END_TEST

START_TEST(test_model_export)
{
    struct co co = {0};
    struct asker a = with1("job", "demo");
    struct asker old = {
        .request = {.argument_count = 2, .arguments = {{"job", "demo"}, {"round", "1"}}}};

    co_start(&co, path);
    ask(&co.loop, path, &a, "model export");
    ck_assert_int_eq(a.status, 0);
    ck_assert_uint_eq(a.bytes, 5);
    ck_assert_uint_eq(a.sum, 'm' ^ 'o' ^ 'd' ^ 'e' ^ 'l');
    ask(&co.loop, path, &old, "model export");
    ck_assert_int_eq(old.status, -FL_R_NO_OBJECT);
    co_stop(&co);
}
END_TEST

START_TEST(test_a_change_is_made_though_its_asker_has_gone)
{
    struct co co = {0};
    struct asker a = with1("job", "demo"), watcher = {0};
    struct fl_digest d = {{0}};

    co_start(&co, path);
    submit(&co);
    a.timeout_ms = 30;
    ask(&co.loop, path, &a, "job drain");
    ck_assert_int_eq(a.status, -FL_R_TIMEOUT);
    uv_run(&co.loop, UV_RUN_NOWAIT);
    fl_control_done(co.control, co.pending, 0, NULL, NULL);
    fl_control_round_row(co.control, co.pending, &co.round);
    struct fl_control_model model = {.round = 1, .digest = &d};
    fl_control_model(co.control, co.pending, open("/dev/null", O_RDONLY | O_CLOEXEC), &model);
    ck_assert_int_eq(co.job.state, FL_JOB_DRAINING);

    /* and the daemon may stop while others look */
    ask_start(path, &watcher, "watch");
    RUN_UNTIL(&co.loop, watcher.parts > 0);
    co_stop(&co);
    pthread_join(watcher.thread, NULL);
    ck_assert_int_eq(watcher.status, -FL_R_SHUTDOWN);
}
END_TEST

static int run(void)
{
    const TTest *const tests[] = {test_arguments_are_checked_before_anyone_is_asked,
                                  test_views,
                                  test_every_verb_has_its_row_in_the_documentation,
                                  test_changes_say_who_and_what,
                                  test_pause_waits_until_no_round_is_open,
                                  test_submit_waits_for_the_end,
                                  test_watch_speaks_when_something_changes,
                                  test_rounds_and_explain,
                                  test_model_export,
                                  test_a_change_is_made_though_its_asker_has_gone};

    return run_tests("control", tests, FL_COUNT(tests));
}

int main(void)
{
    snprintf(dir, sizeof dir, "/tmp/cohort-control-XXXXXX");
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    snprintf(path, sizeof path, "%s/sock", dir);
    signal(SIGPIPE, SIG_IGN);
    int failed = run();
    rmdir(dir);
    return failed;
}
