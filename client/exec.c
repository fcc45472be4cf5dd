#include "client/exec.h"

#include "client/trainer/exec.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/io/keeper.h"
#include "common/math/vec.h"
#include "common/nn/tensors.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_ROOM = 800, HEAD = 128 };

static void path_of(const struct fl_exec *x, const char *name, char ret[PATH_ROOM])
{
    int w = snprintf(ret, PATH_ROOM, "%s/%s", x->folder, name);
    (void)w; /* the folder's path was made with room for this */
}

/* ---- the folder ---- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)at;
    /* A folder the program made unreadable is still ours. */
    return kind == FTW_DNR ? chmod(path, 0700) && rmdir(path) : remove(path);
}

int fl_exec_sweep(const char *folder, struct fl_err *e)
{
    if (nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT) {
        return fl_fail_sys(e, FL_R_STORE_IO, errno, "%s: cannot be removed", folder);
    }
    return 0;
}

static int make_folder(const struct fl_exec *x, struct fl_err *e)
{
    int r = fl_exec_sweep(x->folder, e);

    if (r == 0 && mkdir(x->folder, 0700)) {
        r = fl_fail_sys(e, fl_file_reason(errno), errno, "%s", x->folder);
    }
    return r;
}

/* ---- examples as .npy: what a program in any language reads, values from byte 128 on ---- */

static int write_all(FILE *f, const char *path, const void *data, size_t size, struct fl_err *e)
{
    if (fwrite(data, 1, size, f) != size) {
        return fl_fail_sys(e, fl_file_reason(errno), errno, "%s", path);
    }
    return 0;
}

static int write_head(FILE *f, const char *path, const char *type, const char *shape,
                      struct fl_err *e)
{
    char head[HEAD + 1];

    memset(head, ' ', sizeof head);
    memcpy(head, "\x93NUMPY\x01\0", 8);
    head[8] = HEAD - 10;
    head[9] = 0;
    int n = snprintf(head + 10, sizeof head - 10,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", type, shape);
    head[10 + n] = ' ';
    head[HEAD - 1] = '\n';
    return write_all(f, path, head, HEAD, e);
}

static int write_x(FILE *f, const char *path, const struct fl_dataset *d,
                   const struct fl_examples *part, struct fl_err *e)
{
    size_t features = (size_t)d->shape[0] * d->shape[1] * d->shape[2];
    char shape[64];
    float *row = fl_try(features, sizeof *row);

    if (!row) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for an example");
    }
    if (d->shape[1] == 1 && d->shape[2] == 1) {
        snprintf(shape, sizeof shape, "%u, %u", part->count, d->shape[0]);
    } else {
        snprintf(shape, sizeof shape, "%u, %u, %u, %u", part->count, d->shape[0], d->shape[1],
                 d->shape[2]);
    }
    int r = write_head(f, path, "<f4", shape, e);
    for (uint32_t i = 0; r == 0 && i < part->count; i++) {
        r = fl_examples_get(part, features, i, row, e);
        if (r == 0) {
            r = write_all(f, path, row, features * sizeof *row, e);
        }
    }
    fl_free(row);
    return r;
}

static int write_y(FILE *f, const char *path, const struct fl_examples *part, struct fl_err *e)
{
    char shape[64];

    if (part->y) {
        snprintf(shape, sizeof shape, "%u,", part->count);
        int r = write_head(f, path, "<i4", shape, e);
        return r ? r : write_all(f, path, part->y, part->count * sizeof *part->y, e);
    }
    snprintf(shape, sizeof shape, "%u, %u", part->count, part->target_width);
    int r = write_head(f, path, "<f4", shape, e);
    return r ? r
             : write_all(f, path, part->target,
                         (size_t)part->count * part->target_width * sizeof *part->target, e);
}

static int write_file(const struct fl_exec *x, const char *name, const struct fl_dataset *d,
                      const struct fl_examples *part, bool labels, struct fl_err *e)
{
    char path[PATH_ROOM];

    path_of(x, name, path);
    FILE *f = fopen(path, "wxe");
    if (!f) {
        return fl_fail_sys(e, fl_file_reason(errno), errno, "%s", path);
    }
    int r = labels ? write_y(f, path, part, e) : write_x(f, path, d, part, e);
    if (fclose(f) && r == 0) {
        r = fl_fail_sys(e, fl_file_reason(errno), errno, "%s", path);
    }
    return r;
}

static int write_examples(const struct fl_exec *x, const struct fl_dataset *d, struct fl_err *e)
{
    int r;

    (void)((r = write_file(x, "train-x.npy", d, &d->train, false, e)) ||
           (r = write_file(x, "train-y.npy", d, &d->train, true, e)) ||
           (r = write_file(x, "test-x.npy", d, &d->test, false, e)) ||
           (r = write_file(x, "test-y.npy", d, &d->test, true, e)));
    return r;
}

/* ---- tensors ---- */

static int write_tensors(const struct fl_exec *x, const char *name, const struct fl_tensors *table,
                         const float *values, struct fl_err *e)
{
    char path[PATH_ROOM];

    if (table->count == 0) {
        return 0;
    }
    path_of(x, name, path);
    return fl_tensors_save(path, table, values, NULL, 0, e);
}

/* A file the program wrote, all of it, of the model's shapes. */
static int read_tensors(const struct fl_exec *x, const char *name, const struct fl_tensors *table,
                        float *ret, struct fl_err *e)
{
    char path[PATH_ROOM];
    struct stat st;
    struct fl_tensor_file *f;

    if (table->count == 0) {
        return 0;
    }
    path_of(x, name, path);
    /* The program has ended: what is there stays as it is. A FIFO must not make us wait. */
    if (lstat(path, &st) || !S_ISREG(st.st_mode)) {
        return fl_fail(e, FL_R_EXEC_TENSORS, "%s: no such file", name);
    }
    if (!(f = fl_try(1, sizeof *f))) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    int r = fl_tensor_file_open(path, 4 * table->elements + FL_TENSORS_HEADER_MAX + 16, f, e);
    if (r == 0) {
        r = fl_tensor_file_take(f, table, ret, e);
        fl_tensor_file_close(f);
    }
    fl_free(f);
    if (r && r != -FL_R_NOMEM && e) {
        struct fl_err inner = *e;
        return fl_fail(e, FL_R_EXEC_TENSORS, "%s: %s", name, inner.msg);
    }
    if (r == 0 && !fl_vec_finite(ret, table->elements)) {
        r = fl_fail(e, FL_R_NOT_FINITE, "%s: NaN or infinity", name);
    }
    return r;
}

/* ---- one run ---- */

static void log_tail(const struct fl_exec *x, const char *tail)
{
    char area[FL_CONFIG_NAME_MAX + 16];
    const char *end;

    snprintf(area, sizeof area, "trainer %s", x->agent->name);
    for (; *tail; tail = *end ? end + 1 : end) {
        end = tail + strcspn(tail, "\n");
        if (end > tail) {
            fl_log(FL_LOG_WARN, area, "%.*s", (int)(end - tail), tail);
        }
    }
}

static int write_inputs(const struct fl_exec *x, const struct fl_train_task *task, bool examples,
                        struct fl_err *e)
{
    const struct fl_layout *l = &task->plan->layout;
    int r;

    (void)((r = make_folder(x, e)) ||
           (r = write_tensors(x, FL_EXEC_SHARED, &l->shared, task->base, e)) ||
           (r = write_tensors(x, FL_EXEC_PRIVATE, &l->private_, task->private_in, e)) ||
           (r = examples ? write_examples(x, task->data, e) : 0));
    return r;
}

/* Asks the program; its numbers are in *ret. The folder stays. */
static int ask(const struct fl_exec *x, const struct fl_train_task *task, bool evaluate,
               struct fl_train_report *ret, struct fl_err *e)
{
    const struct fl_config_trainer *t = &x->agent->trainer;
    const char *program[FL_KEEPER_ARGS_MAX + 1] = {NULL};
    struct fl_keeper_result result = {0};
    bool examples = t->examples && task->data->train.count > 0;
    int r = write_inputs(x, task, examples, e);

    if (r) {
        return r;
    }
    char *line = fl_exec_request(task, x->folder, evaluate, examples);
    if (!line) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < t->program_count; i++) {
        program[i] = t->program[i];
    }
    struct fl_keeper_job job = {.program = program,
                                .folder = x->folder,
                                .input = line,
                                .time_ms = t->time_ms,
                                .memory = t->memory,
                                .output = t->output,
                                .file = t->file,
                                .cancel = task->cancel};
    r = fl_keeper_run(&job, &result, e);
    if (r == 0) {
        r = fl_exec_answer(result.answer, ret, e);
        ret->cpu_s = (double)result.cpu_ms / 1000;
    }
    if (r && r != -FL_R_CANCELLED) {
        log_tail(x, result.tail);
    }
    fl_keeper_result_fini(&result);
    explicit_bzero(line, strlen(line));
    free(line);
    return r;
}

static int end(const struct fl_exec *x, int r, struct fl_err *e)
{
    struct fl_err swept;

    if (fl_exec_sweep(x->folder, &swept) && r == 0) {
        r = fl_fail(e, (enum fl_reason) - swept.code, "%s", swept.msg);
    }
    return r;
}

int fl_exec_train(const struct fl_exec *x, const struct fl_train_task *task,
                  struct fl_train_result *ret, struct fl_err *e)
{
    const struct fl_layout *l = &task->plan->layout;
    struct fl_train_report report = {0};
    int r;

    if (task->plan->privacy.unit == FL_UNIT_EXAMPLE) {
        return fl_fail(e, FL_R_PLAN_PRIVACY,
                       "a program cannot be watched clipping each example: no unit example");
    }
    (void)((r = ask(x, task, false, &report, e)) ||
           (r = read_tensors(x, FL_EXEC_SHARED_OUT, &l->shared, ret->delta, e)) ||
           (r = read_tensors(x, FL_EXEC_PRIVATE_OUT, &l->private_, ret->private_out, e)));
    if (r == 0) {
        fl_vec_sub(ret->delta, task->base, ret->delta, l->shared.elements);
        ret->event = (struct fl_event){0};
        ret->report = report;
    }
    return end(x, r, e);
}

int fl_exec_serve(const struct fl_exec *x, const struct fl_train_task *task,
                  struct fl_train_report *ret, struct fl_err *e)
{
    return end(x, ask(x, task, true, ret, e), e);
}
