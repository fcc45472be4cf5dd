#include "common/base/mem.h"
#include "common/privacy/table.h"
#include "tests/lib/check_main.h"

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

TESTS_MAIN("privacy_table", test_each_kind_of_question,
           test_what_cannot_be_answered_says_why_and_the_rest_goes_on,
           test_any_text_is_taken_apart_safely)
