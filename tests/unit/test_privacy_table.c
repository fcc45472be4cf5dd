#include "common/base/mem.h"
#include "common/privacy/table.h"
#include "common/privacy/worth.h"
#include "tests/lib/check_main.h"
#include "tests/lib/dp_table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static char answers[64][256];
static uint32_t count;
static uint64_t refused;

static void keep(void *arg, const char *text)
{
    (void)arg;
    ck_assert_uint_lt(count, 64);
    snprintf(answers[count++], sizeof answers[0], "%s", text);
}

static int ask(const char *text, struct fl_err *e)
{
    count = 0;
    return fl_privacy_table("q.csv", text, strlen(text), keep, NULL, &refused, e);
}

/* The answer's numbers and bound. */
static void answer(uint32_t line, double *value, double *lower, double *upper, char bound[32])
{
    ck_assert_msg(
        sscanf(answers[line], "%*[^,],%*[^,],%lf,%lf,%lf,%31s", value, lower, upper, bound) == 4,
        "%s", answers[line]);
}

START_TEST(test_each_kind_of_question)
{
    static const char text[] =
        "kind,id,note,event,relation,q,sigma,steps,delta,target_eps,alpha\r\n"
        "subsampled_gaussian,a,\"x, \"\"y\"\"\",Poisson(q=0.1;Gauss(sigma=1.0))x100,"
        "ADD_OR_REMOVE_ONE,0.1,1.0,100,1e-05,,\r\n"
        "full_batch_gaussian,b,,Gauss(sigma=4.0)x100,,,,,1e-05,,\n"
        "composition,c,,Gauss(sigma=10.0)x100 + Gauss(sigma=30.0)x10 + Gauss(sigma=50.0)x10,,,,,"
        "1e-6,,\n"
        "mixed_events,d,,zCDP(rho=0.5)x1,ADD_OR_REMOVE_ONE,,,,1e-06,,\n"
        "wor_gaussian,e,,WOR(N=10000;m=10;Gauss(sigma=1.0))x1000,REPLACE_ONE,,,,1e-06,,\n"
        "analytic_eps,f,,,,,10.0,,1e-10,,\n"
        "analytic_sigma,g,,,,,,,1e-05,0.1,\n"
        "analytic_delta,h,,,,,1.0,,,20.0,\n"
        "inverse_sigma,i,,,,0.25,,200,1e-06,5.0,\n"
        "rdp_order,j,,,,0.01,1.0,1,,,64\n"
        "mixed_events,k,,Gauss(4)x1,REPLACE_ONE,,,,1e-6,,\n"
        "mixed_events,l,,TreeAggregation(sigma=7;steps=1000)x3,REPLACE_SPECIAL,,,,1e-6,,";
    const struct {
        double value, tolerance;
        const char *bound;
    } want[] = {{7.04660287713374, 1e-3, "pld"},
                {13.20671224045199, 1e-9, "exact-gaussian"},
                {4.9284466911606835, 1e-9, "exact-gaussian"},
                {5.2215396311544175, 1e-9, "rdp"},
                {0.8952067661504954, 1e-9, "rdp"},
                {0.5746403075263056, 1e-9, "exact-gaussian"},
                {30.749566131977502, 1e-9, "exact-gaussian"},
                {2.6647067053680912e-86, 1e-9, "exact-gaussian"},
                {3.6167788, 1e-3, "pld"},
                {27.32173187455178, 1e-12, "rdp"},
                {2.2540846502, 1e-9, "exact-gaussian"},
                {3.70414073585328, 1e-9, "exact-gaussian"}};
    struct fl_err e = {0};

    ck_assert_msg(ask(text, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(refused, 0);
    ck_assert_str_eq(answers[0], "id,kind,value,lower,upper,bound");
    ck_assert_uint_eq(count, FL_COUNT(want) + 1);
    for (uint32_t i = 0; i < FL_COUNT(want); i++) {
        double value, lower, upper;
        char bound[32];
        answer(i + 1, &value, &lower, &upper, bound);
        ck_assert_msg(fabs(value / want[i].value - 1) <= want[i].tolerance, "%s", answers[i + 1]);
        ck_assert_str_eq(bound, want[i].bound);
        ck_assert_double_le(lower, value);
        ck_assert_double_eq(upper, value);
        ck_assert_int_eq(answers[i + 1][0], 'a' + (int)i);
    }
}
END_TEST

START_TEST(test_what_cannot_be_answered_says_why_and_the_rest_goes_on)
{
    static const char text[] = "id,kind,event,sigma,delta,target_eps,alpha,q\n"
                               "a,nonsense,,,,,,\n"
                               "b,composition,\"Gauss(1,2\",,1e-5,,,\n"
                               "c,composition,Gauss(1),,1,,,\n"
                               "d,composition,Gauss(1),,,,,\n"
                               "e,analytic_sigma,,,0,1,,\n"
                               "f,analytic_eps,,nan,1e-5,,,\n"
                               "g,rdp_order,,1,,,1,0.5\n"
                               "h,rdp_order,,1x,,,2,0.5\n"
                               "\n"
                               "i,composition,\"Gauss(1)\",,1e-5,,,\n"
                               "j\n";
    static const char *const says[] = {"kind nonsense", "expected",  "delta 1;", "delta is empty",
                                       "delta 0;",      "sigma nan", "order 1;", "not a number"};
    struct fl_err e = {0};

    ck_assert_msg(ask(text, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(refused, 9);
    ck_assert_uint_eq(count, 11);
    for (uint32_t i = 0; i < FL_COUNT(says); i++) {
        ck_assert_msg(strstr(answers[i + 1], says[i]) != NULL, "\"%s\" does not say %s",
                      answers[i + 1], says[i]);
        ck_assert_ptr_nonnull(strstr(answers[i + 1], ",,,,\""));
    }
    ck_assert_ptr_nonnull(strstr(answers[9], "i,composition,4.377"));
    ck_assert_int_eq(ask("a,b\n1,2\n", &e), -FL_R_DATA_FORMAT);
    ck_assert_int_eq(ask("", &e), -FL_R_DATA_FORMAT);
    ck_assert_int_eq(fl_privacy_table("q.csv", "id,kind\0\n", 9, keep, NULL, &refused, &e),
                     -FL_R_DATA_FORMAT);
}
END_TEST

START_TEST(test_any_text_is_taken_apart_safely)
{
    static const char seedling[] =
        "id,kind,event,delta\n\"a\"\"b\",composition,\"Gauss(1)\",1e-5\n";
    static const char letters[] = "\",\n\r;()x+aG1.e-";
    char text[sizeof seedling];
    uint64_t state = 1;
    struct fl_err e;

    for (int i = 0; i < 20000; i++) {
        memcpy(text, seedling, sizeof text);
        for (int k = 0; k < 3; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            text[20 + (state >> 33) % (sizeof text - 21)] =
                letters[(state >> 20) % (sizeof letters - 1)];
        }
        size_t size = (state >> 40) % sizeof text;
        char *exact = fl_new(size, 1); /* so that reading past the end is noticed */
        memcpy(exact, text, size);
        count = 0;
        fl_privacy_table("q.csv", exact, size, keep, NULL, &refused, &e);
        fl_free(exact);
    }
    for (uint64_t nth = 1; nth <= 2; nth++) {
        fl_mem_fail_at(nth);
        ck_assert_int_eq(ask(seedling, &e), -FL_R_NOMEM);
    }
    fl_mem_fail_at(0);
}
END_TEST

/* ---- the reference table, every row of it ---- */

/* Its own rules for what an answer must be. The row of randomized response has it composed once
 * instead of 20 times, and that of the discrete Gaussian has sensitivity and sigma exchanged: both
 * are held to what is sound on the other side alone. */
static void judge_row(uint32_t r, double got, double lower, const char *bound)
{
    const char *id = cell(r, "id"), *event = cell(r, "event");
    double pld = value(r, "eps_pld"), coarse = value(r, "eps_pld_coarse");
    double rdp = value(r, "eps_rdp"), prv = value(r, "eps_prv_lower");
    double exact = value(r, "eps_exact"), wanted;

    if (is_kind(r, "rdp_order")) {
        double alpha = value(r, "alpha");
        ck_relative(id, got, value(r, "rdp_value"), alpha == floor(alpha) ? 1e-12 : 1e-7);
    } else if (is_kind(r, "analytic_delta")) {
        ck_relative(id, got, value(r, "delta_result"), 1e-9);
    } else if (is_kind(r, "analytic_sigma")) {
        ck_relative(id, got, value(r, "sigma_result"), 1e-9);
    } else if (is_kind(r, "inverse_sigma")) {
        /* Where the table's interval is too wide for the loss of a step, less noise is enough. */
        wanted = value(r, "sigma_pld");
        ck_assert_msg(got <= wanted * (1 + 1e-3), "%s: %.12g above %.12g", id, got, wanted);
        ck_assert_msg(got >= wanted * (1 - 1e-2), "%s: %.12g below %.12g", id, got, wanted);
        ck_assert_double_le(lower, wanted);
    } else if (!isnan(exact)) {
        ck_assert_msg(fabs(got - exact) <= 1e-9 * exact, "%s: %.17g, want %.17g", id, got, exact);
        ck_assert_str_eq(bound, "exact-gaussian");
    } else {
        bool once = strstr(event, "RandomizedResponse") != NULL;
        ck_assert_msg(got <= rdp * (1 + 1e-9), "%s: %.12g above %.12g", id, got, rdp);
        ck_assert_msg(isnan(prv) || got >= prv, "%s: %.12g below %.12g", id, got, prv);
        ck_assert_msg(isnan(pld) || once || got <= pld * (1 + 1e-3), "%s: %.12g above %.12g", id,
                      got, pld);
        ck_assert_msg(isnan(pld) || isnan(coarse) || got >= pld * (1 - 1e-3) - fabs(coarse - pld),
                      "%s: %.12g below %.12g", id, got, pld);
        ck_assert_msg(isnan(pld) || once || lower <= pld, "%s: %.12g above %.12g", id, lower, pld);
    }
}

static char *all_answers[ROWS + 1];

static void keep_all(void *arg, const char *text)
{
    uint32_t *n = arg;

    ck_assert_uint_le(*n, ROWS);
    all_answers[(*n)++] = strdup(text);
}

/* All rows take 20 CPU seconds, and minutes under the sanitizers. */
static uint32_t every = 1;

/* Leaves the first line of the text and every `every`-th row behind it. */
static size_t keep_some(char *text, size_t size)
{
    size_t to = 0;
    uint32_t line = 0;

    every = tests_every(4, 29);
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t n = end ? (size_t)(end - text) - at + 1 : size - at;
        if (line == 0 || (line - 1) % every == 0) {
            memmove(text + to, text + at, n);
            to += n;
        }
        at += n;
        line++;
    }
    return to;
}

START_TEST(test_every_row_of_the_reference)
{
    static char text[1 << 20];
    FILE *f = open_table();
    size_t size = fread(text, 1, sizeof text, f);
    struct fl_err e = {0};
    uint32_t n = 0;

    fclose(f);
    load();
    size = keep_some(text, size);
    ck_assert_msg(fl_privacy_table("reference", text, size, keep_all, &n, &refused, &e) == 0, "%s",
                  e.msg);
    ck_assert_uint_eq(refused, 0);
    ck_assert_uint_eq(n, (table_rows + every - 1) / every + 1);
    for (uint32_t r = 0; r < table_rows; r += every) {
        char id[64], kind[64], bound[64];
        double got, lower, upper;
        const char *answer = all_answers[r / every + 1];
        ck_assert_msg(sscanf(answer, "%63[^,],%63[^,],%lf,%lf,%lf,%63s", id, kind, &got, &lower,
                             &upper, bound) == 6,
                      "%s", answer);
        ck_assert_str_eq(id, cell(r, "id"));
        ck_assert_str_eq(kind, cell(r, "kind"));
        ck_assert(lower <= got && got == upper);
        judge_row(r, got, lower, bound);
    }
    for (uint32_t i = 0; i < n; i++) {
        free(all_answers[i]);
    }
}
END_TEST

/* ---- is it worth joining? ---- */

/* A naive twin: the errors as they stand in the header, and the crossing by trying. */
static double naive_ratio(const struct fl_worth_question *q)
{
    double alone = 1 / q->units, noise, m = q->members, drawn = q->q * q->units;

    noise = q->dimensions * q->sigma * q->sigma / (drawn * drawn * (double)q->releases);
    return (1 / (m * q->units) + noise / (q->central ? m * m : m)) / alone;
}

START_TEST(test_worth_follows_its_model)
{
    struct fl_worth_question q = {.dimensions = 117066,
                                  .units = 1000,
                                  .q = 0.2,
                                  .sigma = 1.22566,
                                  .releases = 50,
                                  .in_an_upload = 5,
                                  .members = 3};
    struct fl_worth w = {0};
    struct fl_err e = {0};

    for (int central = 0; central < 2; central++) {
        q.central = central != 0;
        ck_assert_int_eq(fl_worth(&q, &w, &e), 0);
        ck_assert_double_eq_tol(w.ratio, naive_ratio(&q), 1e-9 * w.ratio);
        struct fl_worth_question at = q;
        at.dimensions = w.break_even;
        ck_assert_double_eq_tol(naive_ratio(&at), 1, 1e-9);
    }
    q.central = false;
    ck_assert_int_eq(fl_worth(&q, &w, &e), 0);
    /* sqrt(117066) sigma / 200 for a step; five steps an upload; three members; ten rounds. */
    ck_assert_double_eq_tol(w.upload, 1.22566 * 342.14909 / 200 / sqrt(5), 1e-6);
    ck_assert_double_eq_tol(w.mean, w.upload / sqrt(3), 1e-12);
    ck_assert_double_eq_tol(w.job, w.mean / sqrt(10), 1e-12);
    q.sigma = 0;
    ck_assert_int_eq(fl_worth(&q, &w, &e), 0);
    ck_assert_double_eq_tol(w.ratio, 1.0 / 3, 1e-12);
    ck_assert(isinf(w.break_even));
    q.sigma = NAN;
    ck_assert_int_eq(fl_worth(&q, &w, &e), -FL_R_ACCOUNTING);
    q.sigma = 1;
    q.q = 0;
    ck_assert_int_eq(fl_worth(&q, &w, &e), -FL_R_ACCOUNTING);
    q.q = 1;
    q.members = 0;
    ck_assert_int_eq(fl_worth(&q, &w, &e), -FL_R_ACCOUNTING);
}
END_TEST

TESTS_MAIN("privacy_table", test_each_kind_of_question,
           test_what_cannot_be_answered_says_why_and_the_rest_goes_on,
           test_any_text_is_taken_apart_safely, test_every_row_of_the_reference,
           test_worth_follows_its_model)
