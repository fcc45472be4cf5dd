/*
 * Several lanes train at once, so products are asked for from several threads. OpenBLAS's threaded
 * build serves that when told to use one thread for each call; its idle workers sleep. Debian's
 * serial build does not: it is made without locks, and concurrent calls overwrite each other's
 * packing buffers and return wrong numbers. Whichever of them the system has chosen for
 * libopenblas.so.0 is asked at run time; with the serial one calls take turns.
 */
#include "common/math/blas.h"

#include <assert.h>
#include <cblas.h>
#include <limits.h>
#include <pthread.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static bool take_turns;

static void setup(void)
{
    openblas_set_num_threads(1);
    take_turns = openblas_get_parallel() == OPENBLAS_SEQUENTIAL;
}

static void enter(void)
{
    pthread_once(&once, setup);
    if (take_turns) {
        pthread_mutex_lock(&turn);
    }
}

static void leave(void)
{
    if (take_turns) {
        pthread_mutex_unlock(&turn);
    }
}

static int dim(size_t n)
{
    assert(n <= INT_MAX);
    return (int)n;
}

void fl_blas_gemm(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, float alpha,
                  const float *a, size_t lda, const float *b, size_t ldb, float beta, float *c,
                  size_t ldc)
{
    enter();
    cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
                transpose_b ? CblasTrans : CblasNoTrans, dim(m), dim(n), dim(k), alpha, a, dim(lda),
                b, dim(ldb), beta, c, dim(ldc));
    leave();
}

void fl_blas_gemv(bool transpose, size_t m, size_t n, float alpha, const float *a, size_t lda,
                  const float *x, float beta, float *y)
{
    enter();
    cblas_sgemv(CblasRowMajor, transpose ? CblasTrans : CblasNoTrans, dim(m), dim(n), alpha, a,
                dim(lda), x, 1, beta, y, 1);
    leave();
}

const char *fl_blas_name(void)
{
    return openblas_get_config();
}
