/* The text of a plan of which a line can be changed, so that tests can say where an error must be.
 */
#ifndef TESTS_LIB_PLAN_TEXT_H
#define TESTS_LIB_PLAN_TEXT_H

#include "common/base/mem.h"
#include "common/plan/plan.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>

static struct fl_err err;
static struct fl_plan plan;

/* Line by line, so that tests can say where an error must be. */
static const char *const base_lines[] = {
    "name: fashion",                                  /* 1 */
    "strategy: hyperfl",                              /* 2 */
    "rounds: 30",                                     /* 3 */
    "model:",                                         /* 4 */
    "  input: [1, 28, 28]",                           /* 5 */
    "  classes: 10",                                  /* 6 */
    "  layers:",                                      /* 7 */
    "    - conv2d: {out: 16, kernel: 5}",             /* 8 */
    "    - leaky_relu: {slope: 0.01}",                /* 9 */
    "    - max_pool: {size: 2}",                      /* 10 */
    "    - conv2d: {out: 32, kernel: 5, padding: 1}", /* 11 */
    "    - leaky_relu:",                              /* 12 */
    "    - max_pool: {size: 2}",                      /* 13 */
    "    - flatten:",                                 /* 14 */
    "    - linear: {out: 128, name: wide}",           /* 15 */
    "    - leaky_relu:",                              /* 16 */
    "    - linear: {out: 10}",                        /* 17 */
    "train:",                                         /* 18 */
    "  lr: 0.02",                                     /* 19 */
    "  momentum: 0.5",                                /* 20 */
    "  head: {epochs: 1}",                            /* 21 */
    "round:",                                         /* 22 */
    "  members: 20",                                  /* 23 */
    "  quorum: 15",                                   /* 24 */
    "privacy:",                                       /* 25 */
    "  unit: none",                                   /* 26 */
};

enum { LINES = sizeof base_lines / sizeof base_lines[0] };

/* The base text with one line replaced (line 0: none) and some more at the end. */
static inline char *text_with(unsigned line, const char *instead, const char *more)
{
    char *text = fl_new(1, 8192);
    size_t at = 0;

    for (unsigned i = 0; i < LINES; i++) {
        at +=
            (size_t)snprintf(text + at, 8192 - at, "%s\n", i + 1 == line ? instead : base_lines[i]);
    }
    snprintf(text + at, 8192 - at, "%s", more);
    return text;
}

static inline int parse(const char *text)
{
    memset(&err, 0, sizeof err);
    int r = fl_plan_parse(&plan, "job.yaml", text, strlen(text), &err);
    ck_assert_int_eq(err.code, r);
    return r;
}

static inline void good(unsigned line, const char *instead, const char *more)
{
    char *text = text_with(line, instead, more);
    int r = parse(text);
    ck_assert_msg(r == 0, "%s", err.msg);
    fl_free(text);
}

static inline void bad(unsigned line, const char *instead, const char *more, int reason,
                       const char *message)
{
    char *text = text_with(line, instead, more);
    int r = parse(text);
    ck_assert_msg(r == -reason, "%d, not %d: %s", r, -reason, err.msg);
    ck_assert_msg(strncmp(err.msg, message, strlen(message)) == 0, "got: %s\nwanted: %s", err.msg,
                  message);
    fl_free(text);
}

#endif
