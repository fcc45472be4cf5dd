/*
 * Work on models with the coordinator's own examples (fedka): in a process of its own, cohort-tune,
 * under a keeper, since it reads models that members sent and files of some other kind, and takes
 * as long as training does. It has a folder for the time it runs; what is in it, client/tune.c
 * says.
 *
 * The job's lane waits for it. It is killed when the round is given up, when the coordinator stops,
 * when it takes too long or too much memory, and with the coordinator itself. It is deterministic:
 * after a crash the same closed records make the same answer, so nothing of it is kept.
 */
#include "server/co.h"

#include "common/base/crashpoint.h"
#include "common/base/le.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/io/keeper.h"
#include "common/plan/fedka.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TUNE_OUTPUT = 64 * 1024, TUNE_TILE = 4096 };

static const char *const files[] = {"plan", "ask", "models", "answer"};
static const char prefix[] = "tune-";

/* ---- its folder ---- */

static void remove_folder(const char *folder)
{
    char path[FL_STORE_PATH_MAX + 16];
    DIR *d = opendir(folder);

    for (struct dirent *x; d && (x = readdir(d)) != NULL;) { /* a file half written is there too */
        if (strcmp(x->d_name, ".") != 0 && strcmp(x->d_name, "..") != 0 &&
            snprintf(path, sizeof path, "%s/%s", folder, x->d_name) < (int)sizeof path) {
            unlink(path);
        }
    }
    if (d) {
        closedir(d);
    }
    rmdir(folder);
}

void co_tune_sweep(const char *dir)
{
    char path[FL_STORE_PATH_MAX];
    DIR *d = opendir(dir);

    for (struct dirent *x; d && (x = readdir(d)) != NULL;) {
        if (strncmp(x->d_name, prefix, sizeof prefix - 1) == 0 &&
            snprintf(path, sizeof path, "%s/%s", dir, x->d_name) < (int)sizeof path) {
            remove_folder(path);
        }
    }
    if (d) {
        closedir(d);
    }
}

static int make_folder(const char *dir, char folder[FL_STORE_PATH_MAX], struct fl_err *e)
{
    int n = snprintf(folder, FL_STORE_PATH_MAX, "%s/%sXXXXXX", dir, prefix);

    if (n < 0 || n >= FL_STORE_PATH_MAX) {
        return fl_fail(e, FL_R_LIMIT, "%s: too long a path", dir);
    }
    return mkdtemp(folder) ? 0 : fl_fail_sys(e, FL_R_SYS, errno, "make %s", folder);
}

/* Room that is missing pauses the job until there is some; no other failure is the store's. */
static int failed(struct fl_err *e, const char *path)
{
    enum fl_reason reason = fl_file_reason(errno);

    return fl_fail_sys(e, reason == FL_R_STORE_IO ? FL_R_SYS : reason, errno, "%s", path);
}

static int write_all(int fd, const uint8_t *from, size_t size)
{
    while (size) {
        ssize_t n = write(fd, from, size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return -1;
        }
        from += n;
        size -= (size_t)n;
    }
    return 0;
}

/* A new file; *ret_fd is closed by the caller. */
static int create(const char *folder, const char *name, int *ret_fd, char path[FL_STORE_PATH_MAX],
                  struct fl_err *e)
{
    if (snprintf(path, FL_STORE_PATH_MAX, "%s/%s", folder, name) >= FL_STORE_PATH_MAX) {
        return fl_fail(e, FL_R_LIMIT, "%s: too long a path", folder);
    }
    *ret_fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return *ret_fd < 0 ? failed(e, path) : 0;
}

static int write_file(const char *folder, const char *name, const void *bytes, size_t size,
                      struct fl_err *e)
{
    char path[FL_STORE_PATH_MAX];
    int fd = -1, r = create(folder, name, &fd, path, e);

    if (r) {
        return r;
    }
    r = write_all(fd, bytes, size) ? failed(e, path) : 0;
    close(fd);
    return r;
}

static int write_models(const char *folder, const struct co_tune *t, const struct fl_tune *what,
                        struct fl_err *e)
{
    char path[FL_STORE_PATH_MAX];
    uint8_t tile[4 * TUNE_TILE];
    float *model = fl_try_aligned(t->elements, sizeof *model);
    int fd = -1;
    int r = model ? create(folder, "models", &fd, path, e)
                  : fl_fail(e, FL_R_NOMEM, "a model of %zu elements", t->elements);

    for (uint32_t i = 0; r == 0 && i < what->models; i++) {
        r = what->model(what->arg, i, model, e);
        for (size_t at = 0, n; r == 0 && at < t->elements; at += n) {
            n = t->elements - at < TUNE_TILE ? t->elements - at : TUNE_TILE;
            for (size_t k = 0; k < n; k++) {
                fl_put_float(tile + 4 * k, model[at + k]);
            }
            r = write_all(fd, tile, 4 * n) ? failed(e, path) : 0;
        }
        if (r == 0 && atomic_load(t->cancel)) {
            r = fl_fail(e, FL_R_CANCELLED, "the round was given up");
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    fl_free(model);
    return r;
}

/* ---- running it ---- */

/* Its last words, in one line. */
static const char *last_line(char *tail)
{
    size_t n = strlen(tail);

    while (n > 0 && tail[n - 1] == '\n') {
        tail[--n] = 0;
    }
    char *line = strrchr(tail, '\n');
    return line ? line + 1 : tail;
}

static int run_tune(const struct fl_server_target *target, const char *folder, uint64_t file,
                    bool check, const atomic_bool *cancel, struct fl_err *e)
{
    const char *const program[] = {target->program, target->data, check ? "--check" : NULL, NULL};
    const struct fl_keeper_job job = {.program = program,
                                      .folder = folder,
                                      .input = "",
                                      .time_ms = target->time_ms,
                                      .memory = target->memory,
                                      .output = TUNE_OUTPUT,
                                      .file = file,
                                      .cancel = cancel};
    struct fl_keeper_result result;
    int r = fl_keeper_run(&job, &result, e);

    if (r == -FL_R_EXEC_EXIT && result.tail[0]) {
        r = fl_fail(e, FL_R_EXEC_EXIT, "target data: %s", last_line(result.tail));
    }
    fl_keeper_result_fini(&result);
    return r;
}

int co_tune(void *arg, const struct fl_tune *what, uint8_t **ret, size_t *ret_size,
            struct fl_err *e)
{
    const struct co_tune *t = arg;
    char folder[FL_STORE_PATH_MAX], path[FL_STORE_PATH_MAX + 16];
    int r = make_folder(t->dir, folder, e);

    if (r) {
        return r;
    }
    r = write_file(folder, files[0], t->text, t->text_size, e);
    r = r ? r : write_file(folder, files[1], what->ask, what->ask_size, e);
    r = r ? r : write_models(folder, t, what, e);
    FL_CRASH_POINT("round-tune-before");
    r = r ? r : run_tune(&t->target, folder, what->answer_max, false, t->cancel, e);
    FL_CRASH_POINT("round-tune-after");
    snprintf(path, sizeof path, "%s/%s", folder, files[3]);
    r = r ? r : fl_file_read(path, what->answer_max, ret, ret_size, e);
    remove_folder(folder);
    return r == -FL_R_STORE_IO ? fl_wrap(e, -FL_R_EXEC_ANSWER, "cohort-tune") : r;
}

int co_tune_check(const struct co *co, const struct fl_server_target *target,
                  const struct fl_plan *plan, const char *text, size_t size, struct fl_err *e)
{
    char folder[FL_STORE_PATH_MAX];

    if (!fl_fedka_is(plan) || plan->setting.fedka.target != FL_FEDKA_COORDINATOR) {
        return 0;
    }
    if (!target->data[0]) {
        return fl_fail(
            e, FL_R_PLAN_STRATEGY,
            "strategy.fedka.target: coordinator: this one has no target data (target.data "
            "in its configuration); sites can have them: target: site or none");
    }
    int r = make_folder(fl_store_dir(co->store), folder, e);
    if (r) {
        return r;
    }
    r = write_file(folder, files[0], text, size, e);
    r = r ? r : run_tune(target, folder, 1, true, NULL, e);
    remove_folder(folder);
    return r ? fl_wrap(e, -FL_R_PLAN_STRATEGY, "strategy.fedka") : 0;
}
