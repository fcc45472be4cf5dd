/* The verbs over a real socket; the coordinator behind them is a small one made for these tests. */
#include "common/base/mem.h"
#include "server/control/control.h"
#include "tests/lib/asker.h"
#include "tests/lib/check_main.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static char dir[64], path[96];

/* ---- a coordinator with one job and two agents ---- */

struct co {
    uv_loop_t loop;
    struct fl_control *control;
    struct fl_control_job job;
    struct fl_control_round round;
    bool has_job;
    uint64_t pending; /* a change that is not durable yet */
    char who[64], what[1400], text[256];
    uint8_t key[32];
    int changes;
};

static const uint8_t incarnation[FL_INCARNATION_SIZE] = {0xab};

static void note(struct co *co, const struct fl_control_by *by)
{
    snprintf(co->who, sizeof co->who, "%s", by->who);
    snprintf(co->what, sizeof co->what, "%s", by->what);
    co->changes++;
}

static void co_status(void *arg, struct fl_control_status *ret)
{
    (void)arg;
    *ret = (struct fl_control_status){
        .state = "running", .address = "127.0.0.1", .port = 7443, .agents_enrolled = 2};
}

static void co_jobs(void *arg, void (*each)(void *, const struct fl_control_job *), void *each_arg)
{
    struct co *co = arg;

    if (co->has_job) {
        each(each_arg, &co->job);
    }
}

static void co_agents(void *arg, void (*each)(void *, const struct fl_control_agent *),
                      void *each_arg)
{
    static const uint8_t key[32] = {1, 2};

    (void)arg;
    each(each_arg, &(struct fl_control_agent){
                       .id = 3, .key = key, .name = "site-01", .connected = true, .task = "train"});
    each(each_arg, &(struct fl_control_agent){.id = 5, .key = key, .name = "site-02"});
}

static bool co_round_now(void *arg, const char *job, struct fl_control_round *ret)
{
    struct co *co = arg;

    if (!co->job.round_open || strcmp(job, co->job.name) != 0) {
        return false;
    }
    *ret = co->round;
    return true;
}

static void co_submit(void *arg, const struct fl_control_by *by, const char *file, const char *text,
                      size_t size)
{
    struct co *co = arg;
    struct fl_err e = {0};

    if (memcmp(text, "bad", 3) == 0) {
        fl_fail(&e, FL_R_CONF_UNKNOWN, "%s:1:1: bad: unknown key", file);
        fl_control_done(co->control, by->ticket, e.code, &e, NULL);
        return;
    }
    note(co, by);
    snprintf(co->text, sizeof co->text, "%.*s", (int)size, text);
    co->job = (struct fl_control_job){.name = "demo",
                                      .incarnation = incarnation,
                                      .state = FL_JOB_RUNNING,
                                      .why = "",
                                      .strategy = "fedavg",
                                      .unit = "none",
                                      .rounds = 3,
                                      .text = co->text,
                                      .text_size = size};
    co->has_job = true;
    fl_control_done(co->control, by->ticket, 0, NULL, "demo");
}

static void co_state(void *arg, const struct fl_control_by *by, const char *job,
                     enum fl_control_to to)
{
    struct co *co = arg;

    if (!co->has_job || strcmp(job, "demo") != 0) {
        fl_control_done(co->control, by->ticket, -FL_R_NO_JOB, NULL, NULL);
        return;
    }
    note(co, by);
    co->job.state = to == FL_CONTROL_PAUSE    ? FL_JOB_PAUSED
                    : to == FL_CONTROL_RESUME ? FL_JOB_RUNNING
                    : to == FL_CONTROL_DRAIN  ? FL_JOB_DRAINING
                                              : FL_JOB_CANCELLED;
    co->pending = by->ticket;
}

static void co_set(void *arg, const struct fl_control_by *by, const char *job, const char *key,
                   const char *value)
{
    struct co *co = arg;

    (void)job;
    note(co, by);
    snprintf(co->text, sizeof co->text, "%s=%s", key, value);
    fl_control_done(co->control, by->ticket, 0, NULL, NULL);
}

static void co_enrol(void *arg, const struct fl_control_by *by, const uint8_t key[32],
                     const char *name)
{
    struct co *co = arg;

    (void)name;
    note(co, by);
    memcpy(co->key, key, sizeof co->key);
    fl_control_done(co->control, by->ticket, 0, NULL, NULL);
}

static void co_revoke(void *arg, const struct fl_control_by *by, const char *name)
{
    struct co *co = arg;

    note(co, by);
    fl_control_done(co->control, by->ticket, strcmp(name, "site-01") == 0 ? 0 : -FL_R_NOT_ENROLLED,
                    NULL, NULL);
}

static void co_reload(void *arg, const struct fl_control_by *by)
{
    struct co *co = arg;

    note(co, by);
    fl_control_done(co->control, by->ticket, 0, NULL, NULL);
}

static void co_rounds(void *arg, uint64_t ticket, const char *job, uint32_t limit)
{
    struct co *co = arg;

    for (uint32_t i = 0; i < limit && i < 3; i++) {
        struct fl_control_round r = {.job = job, .round = 3 - i, .state = "published"};
        fl_control_round_row(co->control, ticket, &r);
    }
    fl_control_done(co->control, ticket, 0, NULL, NULL);
}

static void co_round_show(void *arg, uint64_t ticket, const char *job, uint64_t round)
{
    struct co *co = arg;
    struct fl_err e = {0};

    (void)job;
    if (round > 9) {
        fl_control_done(co->control, ticket, fl_fail(&e, FL_R_NO_ROUND, "no round 10"), &e, NULL);
        return;
    }
    fl_control_round_row(co->control, ticket, &co->round);
    fl_control_member(co->control, ticket,
                      &(struct fl_control_member){.agent = "site-01", .state = "committed"});
    fl_control_member(
        co->control, ticket,
        &(struct fl_control_member){.agent = "site-02", .state = "lost", .reason = -FL_R_DECLINED});
    fl_control_member(co->control, ticket,
                      &(struct fl_control_member){.agent = "site-03", .state = "training"});
    fl_control_done(co->control, ticket, 0, NULL, NULL);
}

static void co_model(void *arg, uint64_t ticket, const char *job, bool newest, uint64_t round)
{
    struct co *co = arg;
    struct fl_digest d;
    char file[128];

    (void)job;
    if (!newest && round != 2) {
        fl_control_done(co->control, ticket, -FL_R_NO_OBJECT, NULL, NULL);
        return;
    }
    snprintf(file, sizeof file, "%s/model", dir);
    FILE *f = fopen(file, "wb");
    ck_assert_uint_eq(fwrite("modeloptimizer", 1, 14, f), 14);
    fclose(f);
    fl_digest_of("model", 5, &d);
    fl_control_model(co->control, ticket, open(file, O_RDONLY | O_CLOEXEC), 5, 2, &d);
    unlink(file);
}

static const struct fl_control_ops co_ops = {.status = co_status,
                                             .jobs = co_jobs,
                                             .agents = co_agents,
                                             .round_now = co_round_now,
                                             .job_submit = co_submit,
                                             .job_state = co_state,
                                             .job_set = co_set,
                                             .agent_enrol = co_enrol,
                                             .agent_revoke = co_revoke,
                                             .reload = co_reload,
                                             .round_list = co_rounds,
                                             .round_show = co_round_show,
                                             .model = co_model};

static void co_start(struct co *co)
{
    struct fl_err e = {0};
    struct fl_control_conf conf = {.loop = &co->loop, .path = path, .ops = &co_ops, .co = co};

    uv_loop_init(&co->loop);
    ck_assert_msg(fl_control_open(&conf, &co->control, &e) == 0, "%s", e.msg);
}

static void co_stop(struct co *co)
{
    fl_control_close(co->control);
    uv_run(&co->loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&co->loop), 0);
}

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

    co_start(&co);
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
    struct asker status = {0}, none = {0}, list = {0}, agents = {0}, verbs = {0};
    struct asker page = with1("after", "3"), agent = with1("agent", "site-02"),
                 nobody = with1("agent", "site-09"), show = with1("job", "demo"),
                 other = with1("job", "other");

    co_start(&co);
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
    ask(&co.loop, path, &verbs, "verbs");
    ck_assert_int_gt(verbs.parts, 15);
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

    co_start(&co);
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

    co_start(&co);
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

    co_start(&co);
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

    co_start(&co);
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

    co_start(&co);
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

    co_start(&co);
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

    co_start(&co);
    submit(&co);
    a.timeout_ms = 30;
    ask(&co.loop, path, &a, "job drain");
    ck_assert_int_eq(a.status, -FL_R_TIMEOUT);
    uv_run(&co.loop, UV_RUN_NOWAIT);
    fl_control_done(co.control, co.pending, 0, NULL, NULL);
    fl_control_round_row(co.control, co.pending, &co.round);
    fl_control_model(co.control, co.pending, open("/dev/null", O_RDONLY | O_CLOEXEC), 0, 1, &d);
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
