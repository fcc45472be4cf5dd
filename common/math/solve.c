#include "common/math/solve.h"

#include "common/math/vec.h"

#include <math.h>

/* In eight sums, so that it is vector code without reassociating anything. */
FL_VECTOR static double dot(const double *restrict a, const double *restrict b, size_t n)
{
    double s[8] = {0}, rest = 0;
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        for (size_t k = 0; k < 8; k++) {
            s[k] += a[i + k] * b[i + k];
        }
    }
    for (; i < n; i++) {
        rest += a[i] * b[i];
    }
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])) + rest;
}

FL_VECTOR static void subtract(double f, const double *restrict x, double *restrict y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] -= f * x[i];
    }
}

/* Row by row (Cholesky-Banachiewicz): every element is a product of two rows that lie in order. */
bool fl_cholesky(double *a, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double *row = a + i * n;
        for (size_t j = 0; j < i; j++) {
            row[j] = (row[j] - dot(row, a + j * n, j)) / a[j * n + j];
        }
        double d = row[i] - dot(row, row, i);
        if (!(d > 0) || !isfinite(d)) {
            return false;
        }
        row[i] = sqrt(d);
    }
    return true;
}

void fl_cholesky_solve(const double *l, size_t n, double *b, size_t columns)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            subtract(l[i * n + k], b + k * columns, b + i * columns, columns);
        }
        for (size_t c = 0; c < columns; c++) {
            b[i * columns + c] /= l[i * n + i];
        }
    }
    for (size_t i = n; i-- > 0;) {
        for (size_t c = 0; c < columns; c++) {
            b[i * columns + c] /= l[i * n + i];
        }
        for (size_t k = 0; k < i; k++) { /* column i of L^T is row i of L */
            subtract(l[i * n + k], b + i * columns, b + k * columns, columns);
        }
    }
}
