#include "client/served.h"

#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/nn/onnx.h"
#include "common/nn/tensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_ROOM = 900 };

static void path_of(const char *dir, const char *job, char ret[PATH_ROOM])
{
    int w = snprintf(ret, PATH_ROOM, "%s/models/%s.safetensors", dir, job);
    (void)w; /* both are bounded: a state folder and a job's name */
}

static int sync_file(const char *path, struct fl_err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int bad = fd < 0 || fsync(fd);

    if (bad) {
        bad = fl_fail_sys(e, FL_R_STORE_IO, errno, "%s", path);
    }
    if (fd >= 0) {
        close(fd);
    }
    return bad;
}

int fl_served_save(const char *dir, const struct fl_agent_task *what, const struct fl_plan *plan,
                   const uint8_t *plan_text, const float *theta, struct fl_err *e)
{
    char folder[PATH_ROOM], path[PATH_ROOM], round[24],
        incarnation[2 * FL_INCARNATION_SIZE + 1] = "";
    const struct fl_meta meta[] = {{"job", plan->name},
                                   {"strategy", plan->strategy},
                                   {"round", round},
                                   {"incarnation", incarnation},
                                   {"description", (const char *)plan_text}};

    snprintf(round, sizeof round, "%llu", (unsigned long long)what->key.round);
    for (size_t i = 0; i < FL_INCARNATION_SIZE; i++) {
        snprintf(incarnation + 2 * i, 3, "%02x", what->key.incarnation[i]);
    }
    snprintf(folder, sizeof folder, "%s/models", dir);
    path_of(dir, plan->name, path);
    int r = fl_file_make_dirs(folder, e);
    if (r == 0) {
        r = fl_tensors_save(path, &plan->layout.theta, theta, meta, FL_COUNT(meta), e);
    }
    if (r == 0) {
        r = sync_file(path, e);
    }
    return r ? r : fl_file_sync_dir(folder, e);
}

static int write_onnx(const char *path, const struct fl_tensor_file *f, const struct fl_plan *plan,
                      const float *theta, struct fl_err *e)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    const struct fl_meta meta[] = {{"job", plan->name},
                                   {"strategy", plan->strategy},
                                   {"round", fl_tensor_file_meta(f, "round")},
                                   {"incarnation", fl_tensor_file_meta(f, "incarnation")}};
    struct fl_onnx model = {.spec = &plan->layout.spec,
                            .tensors = &plan->layout.theta,
                            .theta = theta,
                            .channels = plan->data.channels,
                            .mean = plan->data.mean,
                            .std = plan->data.std,
                            .name = plan->name,
                            .meta = meta,
                            .meta_count = FL_COUNT(meta)};

    int r = fl_onnx_write(&model, &bytes, &size, e);
    if (r == 0) {
        r = fl_file_replace(path, bytes, size, 0600, e);
    }
    fl_free(bytes);
    return r;
}

static int export_file(const struct fl_tensor_file *f, const char *onnx, const char *safetensors,
                       struct fl_plan *plan, struct fl_err *e)
{
    const char *text = fl_tensor_file_meta(f, "description");
    float *theta = NULL;

    if (!text || !fl_tensor_file_meta(f, "round") || !fl_tensor_file_meta(f, "incarnation")) {
        return fl_fail(e, FL_R_STORE_MISMATCH, "not a model this agent wrote");
    }
    int r = fl_plan_parse(plan, "description", text, strlen(text), e);
    if (r == 0 && !(theta = fl_try_aligned(plan->layout.theta.elements + 1, sizeof *theta))) {
        r = fl_fail(e, FL_R_NOMEM, "out of memory for the model");
    }
    if (r == 0) {
        r = fl_tensor_file_take(f, &plan->layout.theta, theta, e);
    }
    if (r == 0 && onnx) {
        r = write_onnx(onnx, f, plan, theta, e);
    }
    if (r == 0 && safetensors) {
        r = fl_tensors_save(safetensors, &plan->layout.theta, theta, f->meta, f->meta_count, e);
    }
    fl_free(theta);
    return r;
}

int fl_served_export(const char *dir, const char *job, const char *onnx, const char *safetensors,
                     struct fl_err *e)
{
    char path[PATH_ROOM];
    struct fl_tensor_file *f = fl_try(1, sizeof *f);
    struct fl_plan *plan = fl_try(1, sizeof *plan);
    int r = f && plan ? 0 : fl_fail(e, FL_R_NOMEM, "out of memory");

    path_of(dir, job, path);
    if (r == 0 && access(path, F_OK)) {
        r = fl_fail(e, FL_R_STORE_OPEN,
                    "no model of job %s yet: it is written when the job is done", job);
    }
    if (r == 0) {
        r = fl_tensor_file_open(path, (size_t)1 << 34, f, e);
    }
    if (r == 0) {
        r = export_file(f, onnx, safetensors, plan, e);
        fl_tensor_file_close(f);
        r = r ? fl_wrap(e, r, "%s", path) : 0;
    }
    fl_free(f);
    fl_free(plan);
    return r;
}
