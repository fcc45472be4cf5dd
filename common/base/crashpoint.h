/*
 * Crash points: places where a test may end the process as a power cut would, without a word.
 *
 *     FL_CRASH_POINT("store-commit-before");
 *
 * is nothing at all unless the build has -Dcrash_points=true. Then the environment variable
 * COHORT_CRASH_AT=name[:count] makes the process kill itself (SIGKILL: no handler, no flush) when
 * it comes by the count-th time (the first by default). Names are lower-case words joined by '-',
 * and are said before or after what they bracket. All names of a program:
 *
 *     strings PROGRAM | sed -n 's/^crash-point=//p' | sort -u
 */
#ifndef FL_BASE_CRASHPOINT_H
#define FL_BASE_CRASHPOINT_H

#ifdef FL_CRASH_POINTS
/* `mark` is "crash-point=" and the name, so that the names stand in the program's file. */
void fl_crash_point(const char *mark);
#define FL_CRASH_POINT(name) fl_crash_point("crash-point=" name)
#else
#define FL_CRASH_POINT(name) ((void)0)
#endif

#endif
