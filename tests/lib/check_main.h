/*
 * Every unit test is one program: a suite built from a list of test cases. Sanitizers want no fork,
 * a debugger neither; CK_FORK=yes brings Check's own isolation back.
 */
#ifndef TESTS_LIB_CHECK_MAIN_H
#define TESTS_LIB_CHECK_MAIN_H

#include <check.h>
#include <stdlib.h>

#ifdef __has_feature
#define TESTS_SANITIZED __has_feature(address_sanitizer)
#else
#define TESTS_SANITIZED 0
#endif

/*
 * Of a long series (rows of a table, sizes, places of a fault) each how many-th is tried: all of it
 * when TESTS_LONG=1, else as many as fit a second or two of the optimized build, and fewer under
 * the sanitizers, which take ten times as long. What calls this stands in the list `optimized` of
 * unit/meson.build, so that the quick suite runs it in both builds.
 */
static inline unsigned tests_every(unsigned optimized, unsigned sanitized)
{
    const char *all = getenv("TESTS_LONG");

    return all && all[0] == '1' ? 1 : TESTS_SANITIZED ? sanitized : optimized;
}

static inline int run_tests(const char *name, const TTest *const *tests, size_t count)
{
    Suite *s = suite_create(name);
    TCase *c = tcase_create(name);

    tcase_set_timeout(c, 0);
    for (size_t i = 0; i < count; i++) {
        tcase_add_test(c, tests[i]);
    }
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    if (!getenv("CK_FORK")) {
        srunner_set_fork_status(r, CK_NOFORK);
    }
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* TESTS_MAIN("grid", test_round, test_pack, ...) */
#define TESTS_MAIN(name, ...)                                                                      \
    int main(void)                                                                                 \
    {                                                                                              \
        const TTest *const tests[] = {__VA_ARGS__};                                                \
        return run_tests(name, tests, sizeof tests / sizeof tests[0]);                             \
    }

#endif
