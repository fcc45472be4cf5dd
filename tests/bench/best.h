/* How benchmarks measure: CPU seconds of this thread, and the best of several times. */
#ifndef TESTS_BENCH_BEST_H
#define TESTS_BENCH_BEST_H

#include <math.h>
#include <time.h>

static inline double now_by(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline double now(void)
{
    return now_by(CLOCK_THREAD_CPUTIME_ID);
}

/* The best time of a piece of work, of REPEATS (the program's own number). */
#define BEST(ret, work)                                                                            \
    do {                                                                                           \
        (ret) = INFINITY;                                                                          \
        for (int repeat_ = 0; repeat_ < REPEATS; repeat_++) {                                      \
            double start_ = now();                                                                 \
            work;                                                                                  \
            (ret) = fmin((ret), now() - start_);                                                   \
        }                                                                                          \
    } while (0)

#endif
