/* Linear systems with symmetric positive definite matrices, in double precision. */
#ifndef FL_MATH_SOLVE_H
#define FL_MATH_SOLVE_H

#include <stdbool.h>
#include <stddef.h>

/* a (n x n; its lower triangle is read) becomes L of a = L L^T in its lower triangle. False: not
 * positive definite, or not finite; then a is spoilt. */
bool fl_cholesky(double *a, size_t n);
/* b (n x columns) becomes the solution of L L^T x = b. */
void fl_cholesky_solve(const double *l, size_t n, double *b, size_t columns);

#endif
