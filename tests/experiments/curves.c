/*
 * One site's training by the builtin trainer, epoch by epoch, for curves.py:
 *
 *     curves JOB.yaml EXAMPLES.safetensors WEIGHTS.safetensors EPOCHS SEED[,SEED...]
 *
 * EXAMPLES has x, y, test_x, test_y, as the network takes them. The job's initial weights are
 * written to WEIGHTS; every seed, of the order of examples, begins there. A line each epoch: seed,
 * epoch, mean loss of the test examples, and their accuracy in percent (0 for numbers), CPU
 * seconds.
 */
#include "client/trainer/session.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/nn/param/param.h"
#include "common/nn/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const size_t FILE_MAX = (size_t)1 << 30;

_Noreturn static void die(const char *what, const struct fl_err *e)
{
    fprintf(stderr, "curves: %s: %s\n", what, e->msg);
    exit(1);
}

static struct fl_plan *read_job(const char *path)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    uint8_t *text;
    size_t size;
    struct fl_err e;

    if (fl_file_read(path, FL_PLAN_TEXT_MAX, &text, &size, &e) ||
        fl_plan_parse(plan, path, (const char *)text, size, &e)) {
        die(path, &e);
    }
    fl_free(text);
    return plan;
}

static float *values(const struct fl_tensor_file *f, const char *name, size_t *ret_rows)
{
    const struct fl_tensor *t = fl_tensors_find(&f->table, name);
    float *to = t ? fl_try_aligned(t->count, sizeof *to) : NULL;

    if (!to) {
        fprintf(stderr, "curves: no %s\n", name);
        exit(1);
    }
    fl_tensor_file_get(f, t, to);
    *ret_rows = t->shape[0];
    return to;
}

static void read_part(const struct fl_tensor_file *f, const char *x, const char *y,
                      uint32_t targets_of, struct fl_examples *ret)
{
    size_t rows, targets;

    ret->x = values(f, x, &rows);
    float *goal = values(f, y, &targets);
    if (rows != targets) {
        fprintf(stderr, "curves: %zu of %s and %zu of %s\n", rows, x, targets, y);
        exit(1);
    }
    ret->count = (uint32_t)rows;
    if (targets_of) {
        ret->target = goal;
        ret->target_width = targets_of;
        return;
    }
    ret->y = fl_new(rows, sizeof *ret->y);
    for (size_t i = 0; i < rows; i++) {
        ret->y[i] = (int32_t)goal[i];
    }
    fl_free(goal);
}

static void read_data(const char *path, const struct fl_plan *plan, struct fl_dataset *data)
{
    const struct fl_spec *spec = &plan->layout.spec;
    struct fl_tensor_file *f = fl_new(1, sizeof *f);
    struct fl_err e = {0};

    if (fl_tensor_file_open(path, FILE_MAX, f, &e) < 0) {
        die(path, &e);
    }
    for (int i = 0; i < 3; i++) {
        data->shape[i] = spec->input[i];
    }
    data->classes = spec->classes;
    read_part(f, "x", "y", spec->targets, &data->train);
    read_part(f, "test_x", "test_y", spec->targets, &data->test);
    fl_tensor_file_close(f);
    fl_free(f);
}

static double cpu(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void train(struct fl_plan *plan, const struct fl_dataset *data, const float *start,
                  uint32_t epochs, uint64_t seed)
{
    size_t shared = plan->layout.shared.elements;
    float *w = fl_new(shared, sizeof *w), none[1];
    struct fl_session s;
    struct fl_moves moves = {0};
    struct fl_progress p = {0};
    struct fl_seed from;
    struct fl_err e = {0};
    double begun = cpu(), accuracy, loss;
    struct fl_errors errors;

    for (size_t i = 0; i < shared; i++) {
        w[i] = start[i];
    }
    if (fl_session_init(&s, plan, data, NULL, NULL, &e) < 0 ||
        fl_param_make(&plan->layout, w, none, s.theta, &e) < 0) {
        die("session", &e);
    }
    s.rate = 1;
    uint64_t steps = fl_session_batches(&s, 1);
    if (fl_moves_init(&moves, &s, true, true, true, w, none, steps * epochs, &e) < 0) {
        die("moves", &e);
    }
    fl_seed_from_u64(seed, &from);
    for (uint32_t k = 0; k <= epochs; k++) {
        struct fl_seed own;
        fl_seed_derive(&from, "epoch", k, &own);
        if ((k && fl_train_batches(&s, &moves, &own, steps, &p, &e) < 0) ||
            fl_session_evaluate(&s, &accuracy, &loss, &errors, &e) < 0) {
            die("epoch", &e);
        }
        printf("%u %u %.6f %.3f %.3f\n", (unsigned)seed, k, loss,
               plan->layout.spec.classes ? 100 * accuracy : 0, cpu() - begun);
        fflush(stdout);
    }
    fl_moves_fini(&moves);
    fl_session_fini(&s);
    fl_free(w);
}

int main(int argc, char **argv)
{
    struct fl_dataset data = {0};
    struct fl_seed seed;
    struct fl_err e = {0};

    if (argc != 6) {
        fprintf(stderr, "curves JOB.yaml EXAMPLES WEIGHTS EPOCHS SEED[,SEED...]\n");
        return 2;
    }
    struct fl_plan *plan = read_job(argv[1]);
    read_data(argv[2], plan, &data);
    float *start = fl_new(plan->layout.shared.elements, sizeof *start);
    fl_seed_from_u64(plan->seed, &seed);
    fl_layout_init_shared(&plan->layout, &seed, start);
    if (fl_tensors_save(argv[3], &plan->layout.shared, start, NULL, 0, &e) < 0) {
        die(argv[3], &e);
    }
    for (char *at = argv[5]; *at; at += *at == ',') {
        train(plan, &data, start, (uint32_t)strtoul(argv[4], NULL, 10), strtoull(at, &at, 10));
    }
    return 0;
}
