#include "common/base/mem.h"
#include "common/io/work.h"
#include "tests/lib/check_main.h"

#include <string.h>
#include <uv.h>

static uv_loop_t loop;
static struct fl_work *work;

static void given_workers(unsigned s, unsigned d, unsigned l)
{
    struct fl_err e = {0};
    const unsigned threads[FL_WORK_CLASSES] = {s, d, l};

    ck_assert_int_eq(uv_loop_init(&loop), 0);
    ck_assert_msg(fl_work_new(&loop, threads, &work, &e) == 0, "%s", e.msg);
}

static void end_workers(void)
{
    fl_work_free(work);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
}

struct step {
    struct fl_job job;
    int number;
    struct trace *trace;
    uv_sem_t *gate; /* the job waits here */
};

struct trace {
    int ran[64], done[64], n_ran, n_done, n_cancelled;
    int running, most; /* touched by the lane's jobs only */
    struct fl_lane *free_after_first;
};

static void run_step(struct fl_job *job)
{
    struct step *s = (struct step *)job;

    s->trace->running++;
    s->trace->most = s->trace->running > s->trace->most ? s->trace->running : s->trace->most;
    if (s->gate) {
        uv_sem_wait(s->gate);
    }
    s->trace->ran[s->trace->n_ran++] = s->number;
    s->trace->running--;
}

static void step_done(struct fl_job *job)
{
    struct step *s = (struct step *)job;

    s->trace->n_cancelled += job->cancelled;
    s->trace->done[s->trace->n_done++] = s->number;
    if (s->trace->free_after_first) {
        fl_lane_free(s->trace->free_after_first);
        s->trace->free_after_first = NULL;
    }
}

static void make_steps(struct step *steps, int n, struct trace *t)
{
    for (int i = 0; i < n; i++) {
        steps[i] =
            (struct step){.job = {.run = run_step, .done = step_done}, .number = i, .trace = t};
    }
}

START_TEST(test_a_lane_runs_one_at_a_time_in_order)
{
    given_workers(4, 1, 1);
    struct trace t = {0};
    struct step steps[40];
    struct fl_lane *lane = fl_lane_new(work, FL_WORK_SHORT, 40);

    make_steps(steps, 40, &t);
    for (int i = 0; i < 40; i++) {
        ck_assert_int_eq(fl_lane_submit(lane, &steps[i].job), 0);
    }
    ck_assert_uint_eq(fl_lane_pending(lane), 40);
    uv_run(&loop, UV_RUN_DEFAULT); /* ends by itself: no job, nothing to wait for */
    ck_assert_int_eq(t.most, 1);
    ck_assert_int_eq(t.n_done, 40);
    for (int i = 0; i < 40; i++) {
        ck_assert_int_eq(t.ran[i], i);
        ck_assert_int_eq(t.done[i], i);
    }
    fl_lane_free(lane);
    end_workers();
}
END_TEST

START_TEST(test_a_full_lane_refuses)
{
    given_workers(1, 1, 1);
    struct trace t = {0};
    struct step steps[3];
    struct fl_lane *lane = fl_lane_new(work, FL_WORK_LONG, 2);

    make_steps(steps, 3, &t);
    ck_assert_int_eq(fl_lane_submit(lane, &steps[0].job), 0);
    ck_assert_int_eq(fl_lane_submit(lane, &steps[1].job), 0);
    ck_assert_int_eq(fl_lane_submit(lane, &steps[2].job), -FL_R_LIMIT);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(fl_lane_submit(lane, &steps[2].job), 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(t.n_done, 3);
    fl_lane_free(lane);
    end_workers();
}
END_TEST

START_TEST(test_classes_do_not_starve_each_other)
{
    given_workers(1, 1, 1);
    struct trace blocked = {0}, quick = {0};
    struct step stuck, fast;
    uv_sem_t gate;
    struct fl_lane *a = fl_lane_new(work, FL_WORK_LONG, 1);
    struct fl_lane *b = fl_lane_new(work, FL_WORK_SHORT, 1);

    ck_assert_int_eq(uv_sem_init(&gate, 0), 0);
    make_steps(&stuck, 1, &blocked);
    make_steps(&fast, 1, &quick);
    stuck.gate = &gate;
    ck_assert_int_eq(fl_lane_submit(a, &stuck.job), 0);
    ck_assert_int_eq(fl_lane_submit(b, &fast.job), 0);
    while (quick.n_done == 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    ck_assert_int_eq(blocked.n_done, 0);
    uv_sem_post(&gate);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(blocked.n_done, 1);
    uv_sem_destroy(&gate);
    fl_lane_free(a);
    fl_lane_free(b);
    end_workers();
}
END_TEST

START_TEST(test_freeing_a_lane_cancels_what_has_not_begun)
{
    given_workers(1, 1, 1);
    struct trace t = {0};
    struct step steps[4];
    uv_sem_t gate;
    struct fl_lane *lane = fl_lane_new(work, FL_WORK_SHORT, 4);

    ck_assert_int_eq(uv_sem_init(&gate, 0), 0);
    make_steps(steps, 4, &t);
    steps[0].gate = &gate;
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(fl_lane_submit(lane, &steps[i].job), 0);
    }
    fl_lane_free(lane);
    uv_sem_post(&gate);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(t.n_done, 4); /* always, in order */
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(t.done[i], i);
    }
    ck_assert_int_ge(t.n_cancelled, 3);
    ck_assert_int_eq(t.n_ran + t.n_cancelled, 4);
    uv_sem_destroy(&gate);
    end_workers();
}
END_TEST

START_TEST(test_a_job_that_waits_behind_another_lane_is_cancelled_too)
{
    given_workers(1, 1, 1);
    struct trace t = {0}, u = {0};
    struct step stuck, waiting;
    uv_sem_t gate;
    struct fl_lane *a = fl_lane_new(work, FL_WORK_SHORT, 1);
    struct fl_lane *b = fl_lane_new(work, FL_WORK_SHORT, 1);

    ck_assert_int_eq(uv_sem_init(&gate, 0), 0);
    make_steps(&stuck, 1, &t);
    make_steps(&waiting, 1, &u);
    stuck.gate = &gate;
    waiting.gate = NULL;
    ck_assert_int_eq(fl_lane_submit(a, &stuck.job), 0);
    ck_assert_int_eq(fl_lane_submit(b, &waiting.job), 0);
    fl_lane_free(b);
    while (u.n_done == 0) { /* its end does not wait for the only thread of the class */
        uv_run(&loop, UV_RUN_ONCE);
    }
    ck_assert_int_eq(u.n_cancelled, 1);
    ck_assert_int_eq(t.n_done, 0);
    uv_sem_post(&gate);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_sem_destroy(&gate);
    fl_lane_free(a);
    end_workers();
}
END_TEST

START_TEST(test_a_lane_may_be_freed_in_done)
{
    given_workers(2, 1, 1);
    struct trace t = {0};
    struct step steps[3];

    t.free_after_first = fl_lane_new(work, FL_WORK_SHORT, 3);
    struct fl_lane *lane = t.free_after_first;
    make_steps(steps, 3, &t);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(fl_lane_submit(lane, &steps[i].job), 0);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(t.n_done, 3);
    ck_assert_int_eq(t.n_ran, 1);
    ck_assert_int_eq(t.n_cancelled, 2);
    end_workers();
}
END_TEST

/* Many lanes, each a counter that only its jobs touch, each job resubmitted in done. */
enum { LANES = 32, ROUNDS = 200 };

struct counter {
    struct fl_job job;
    struct fl_lane *lane;
    int in_job, in_loop;
};

static void count_run(struct fl_job *job)
{
    ((struct counter *)job)->in_job++;
}

static void count_done(struct fl_job *job)
{
    struct counter *c = (struct counter *)job;

    c->in_loop++;
    ck_assert_int_eq(c->in_job, c->in_loop);
    if (c->in_loop < ROUNDS) {
        ck_assert_int_eq(fl_lane_submit(c->lane, job), 0);
    } else {
        fl_lane_free(c->lane);
    }
}

START_TEST(test_many_lanes_over_all_classes)
{
    given_workers(3, 2, 3);
    struct counter c[LANES];

    for (int i = 0; i < LANES; i++) {
        c[i] = (struct counter){.job = {.run = count_run, .done = count_done}};
        c[i].lane = fl_lane_new(work, (enum fl_work_class)(i % FL_WORK_CLASSES), 1);
        ck_assert_int_eq(fl_lane_submit(c[i].lane, &c[i].job), 0);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    for (int i = 0; i < LANES; i++) {
        ck_assert_int_eq(c[i].in_job, ROUNDS);
    }
    end_workers();
}
END_TEST

START_TEST(test_too_many_threads_are_refused)
{
    const unsigned threads[FL_WORK_CLASSES] = {1, 100000, 1};
    struct fl_err e = {0};

    ck_assert_int_eq(uv_loop_init(&loop), 0);
    ck_assert_int_eq(fl_work_new(&loop, threads, &work, &e), -FL_R_LIMIT);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

TESTS_MAIN("work", test_a_lane_runs_one_at_a_time_in_order, test_a_full_lane_refuses,
           test_classes_do_not_starve_each_other, test_freeing_a_lane_cancels_what_has_not_begun,
           test_a_job_that_waits_behind_another_lane_is_cancelled_too,
           test_a_lane_may_be_freed_in_done, test_many_lanes_over_all_classes,
           test_too_many_threads_are_refused)
