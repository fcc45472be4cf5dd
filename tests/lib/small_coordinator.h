/*
 * A coordinator for tests of the control surface: one job, two agents, everything in memory, and
 * only as clever as the tests need.
 */
#ifndef TESTS_LIB_SMALL_COORDINATOR_H
#define TESTS_LIB_SMALL_COORDINATOR_H

#include "server/control/control.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    bool wrong_digest;
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

    if (!co->job.round_open || !fl_control_job_is(job, co->job.name, co->job.id)) {
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
    co->job = (struct fl_control_job){.id = 3,
                                      .name = "demo",
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

    if (!co->has_job || !fl_control_job_is(job, co->job.name, co->job.id)) {
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
    struct fl_err e = {0};

    note(co, by);
    if (strcmp(name, "taken") == 0) {
        fl_fail(&e, FL_R_CTL_EXISTS, "taken is enrolled with another key");
        fl_control_done(co->control, by->ticket, e.code, &e, NULL);
        return;
    }
    fl_control_enrolled(co->control, by->ticket, memcmp(co->key, key, sizeof co->key) != 0);
    memcpy(co->key, key, sizeof co->key);
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
    fl_control_reloaded(co->control, by->ticket, "listen, threads");
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

static void co_model(void *arg, uint64_t ticket, const struct fl_control_which *which)
{
    struct co *co = arg;
    struct fl_digest d;
    char file[] = "/tmp/cohort-model-XXXXXX";

    if ((!which->newest && which->round != 2) || which->slot > 0) {
        fl_control_done(co->control, ticket, -FL_R_NO_OBJECT, NULL, NULL);
        return;
    }
    int fd = mkstemp(file);
    ck_assert_int_ge(fd, 0);
    unlink(file);
    ck_assert_int_eq(write(fd, "modeloptimizer", 14), 14);
    fl_digest_of(co->wrong_digest ? "other" : "model", 5, &d);
    struct fl_control_model model = {.round = 2, .size = 5, .digest = &d};
    fl_control_model(co->control, ticket, fd, &model);
}

static void co_agent_models(void *arg, uint64_t ticket, const char *agent, uint32_t limit)
{
    struct co *co = arg;
    const struct fl_digest checkpoint = {{0xab, 0xcd}};

    for (uint64_t round = 3; round > 1 && limit; round--, limit--) {
        struct fl_control_containing m = {.job = "demo",
                                          .round = round,
                                          .published_ms = 1000 * round,
                                          .checkpoint = &checkpoint,
                                          .own = round == 2};
        if (strcmp(agent, "site-01") == 0) {
            fl_control_containing_row(co->control, ticket, &m);
        }
    }
    fl_control_done(co->control, ticket, 0, NULL, NULL);
}

static void co_agent_explain(void *arg, uint64_t ticket, const char *agent)
{
    struct co *co = arg;
    const struct fl_control_bubble b = {
        .job = "demo", .agent = agent, .round = 7, .slot = 0, .why = "in quarantine: norm 9"};

    if (strcmp(agent, "site-01") == 0) {
        fl_control_bubble_row(co->control, ticket, &b);
    }
    fl_control_done(co->control, ticket, 0, NULL, NULL);
}

static const struct fl_control_ops co_ops = {.status = co_status,
                                             .jobs = co_jobs,
                                             .agents = co_agents,
                                             .agent_explain = co_agent_explain,
                                             .agent_models = co_agent_models,
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

static inline void co_start(struct co *co, const char *path)
{
    struct fl_err e = {0};
    struct fl_control_conf conf = {.loop = &co->loop, .path = path, .ops = &co_ops, .co = co};

    uv_loop_init(&co->loop);
    ck_assert_msg(fl_control_open(&conf, &co->control, &e) == 0, "%s", e.msg);
}

static inline void co_stop(struct co *co)
{
    fl_control_close(co->control);
    uv_run(&co->loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&co->loop), 0);
}

#endif
