/* For tests of the round machine: it is told things, and what it answers is compared as words. */
#ifndef TESTS_LIB_ROUND_DESK_H
#define TESTS_LIB_ROUND_DESK_H

#include "server/core/round.h"
#include "tests/lib/check_main.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A round that is told things and whose answers are written down as words. */
struct desk {
    struct fl_round *r;
    struct fl_round_todo todo;
    uint64_t now;
    uint64_t round;
    char said[4096];
};

static const char *const words[] = {
    [FL_ROUND_DO_OPEN] = "OPEN",       [FL_ROUND_DO_ENLIST] = "ENLIST",
    [FL_ROUND_DO_INVITE] = "INVITE",   [FL_ROUND_DO_RECEIVE] = "RECEIVE",
    [FL_ROUND_DO_RECORD] = "RECORD",   [FL_ROUND_DO_ACK] = "ACK",
    [FL_ROUND_DO_FOLD] = "FOLD",       [FL_ROUND_DO_REFOLD] = "REFOLD",
    [FL_ROUND_DO_CLOSE] = "CLOSE",     [FL_ROUND_DO_FINISH] = "FINISH",
    [FL_ROUND_DO_PUBLISH] = "PUBLISH", [FL_ROUND_DO_DROP] = "DROP",
    [FL_ROUND_DO_REFUSE] = "REFUSE",   [FL_ROUND_DO_RETRY] = "RETRY",
    [FL_ROUND_DO_PAUSED] = "PAUSED",   [FL_ROUND_DO_DONE] = "DONE",
};

static inline void note(struct desk *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline void note(struct desk *d, const char *fmt, ...)
{
    size_t used = strlen(d->said);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->said + used, sizeof d->said - used, fmt, ap);
    va_end(ap);
}

static inline void write_down(struct desk *d)
{
    for (uint32_t i = 0; i < d->todo.count; i++) {
        const struct fl_round_item *it = &d->todo.item[i];
        note(d, "%s%s", d->said[0] ? " " : "", words[it->type]);
        if (it->agent) {
            note(d, " %d", (int)it->agent);
        }
        if (it->type == FL_ROUND_DO_CLOSE) {
            for (uint32_t k = 0; k < it->count; k++) {
                note(d, "%c%d", k ? ',' : ' ', (int)it->members[k]);
            }
        }
        if (it->reason) {
            note(d, " (%s)", fl_reason_name(it->reason));
        }
        note(d, ";");
    }
}

static inline int tell(struct desk *d, struct fl_round_event ev)
{
    int status;
    d->said[0] = 0;
    ev.now_ms = d->now;
    if (ev.round == 0) {
        ev.round = d->round;
    }
    status = fl_round_step(d->r, &ev, &d->todo);
    if (status != 0) {
        return status;
    }
    write_down(d);
    while (d->todo.more) {
        struct fl_round_event tick = {.now_ms = d->now, .type = FL_ROUND_EV_TICK};
        ck_assert_int_eq(fl_round_step(d->r, &tick, &d->todo), 0);
        write_down(d);
    }
    return 0;
}

static inline struct fl_digest digest(uint64_t agent)
{
    struct fl_digest d;
    fl_digest_of(&agent, sizeof agent, &d);
    return d;
}

#define TELL(d, text, ...)                                                                         \
    do {                                                                                           \
        ck_assert_int_eq(tell(d, (struct fl_round_event){.type = FL_ROUND_EV_##__VA_ARGS__}), 0);  \
        ck_assert_str_eq((d)->said, text);                                                         \
    } while (0)
#define BY(n)     .agent = (n), .digest = digest(n), .size = 100, .weight = 1
#define STATUS(n) .status = -FL_R_##n

static inline struct fl_round_rules rules(uint32_t members, uint32_t quorum, uint32_t over)
{
    return (struct fl_round_rules){
        .rounds = 2,
        .job_seed = 7,
        .attempts = 2,
        .exchange_count = 1,
        .exchange = {{.name = "update",
                      .members = members,
                      .quorum = quorum,
                      .over_select = over,
                      .deadline_ms = 1000,
                      .fill_ms = 100}},
    };
}

static inline void start(struct desk *d, const struct fl_round_rules *rules)
{
    struct fl_err e = {0};
    struct fl_round_setup setup = {.candidates_max = 100, .now_ms = 1, .rules = rules};
    *d = (struct desk){.now = 1, .round = 1};
    ck_assert_msg(fl_round_new(&setup, &d->r, &e) == 0, "%s", e.msg);
    TELL(d, "", TICK);
}

/* From nothing to both members at work. */
static inline void both_at_work(struct desk *d)
{
    TELL(d, "", AVAILABLE, BY(1));
    TELL(d, "OPEN;", AVAILABLE, BY(2));
    TELL(d, "ENLIST 1; ENLIST 2;", OPENED);
    TELL(d, "INVITE 1;", ENLISTED, BY(1));
    TELL(d, "INVITE 2;", ENLISTED, BY(2));
    TELL(d, "", ACCEPTED, BY(1));
    TELL(d, "", ACCEPTED, BY(2));
}

#endif
