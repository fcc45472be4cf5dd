#include "client/report.h"

#include "client/core/policy.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/plan/secure.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void fl_report_number(json_t *line, const char *name, double value)
{
    json_object_set_new(line, name, isfinite(value) ? json_real(value) : json_null());
}

void fl_report_count(json_t *line, const char *name, uint64_t value)
{
    json_object_set_new(line, name, json_integer((json_int_t)(value & INT64_MAX)));
}

void fl_report_text(json_t *line, const char *name, const char *value)
{
    json_object_set_new(line, name, json_string(value));
}

const char *fl_report_neighbours(enum fl_unit unit, enum fl_noise_place trust, bool placeless)
{
    switch (unit) {
    case FL_UNIT_EXAMPLE:
        return placeless ? "one example added or removed at this site"
                         : "one example added or removed at this site, all others in their places";
    case FL_UNIT_CLIENT:
        return trust == FL_NOISE_LOCAL
                   ? "this whole site added or removed"
                   : "this site's updates replaced by nothing (how many took part is public)";
    default:
        return "none";
    }
}

void fl_report_epsilon(json_t *line, enum fl_unit unit, enum fl_noise_place trust, bool placeless,
                       double epsilon, double delta, enum fl_bound bound)
{
    fl_report_text(line, "unit", fl_policy_unit_name(unit));
    if (unit == FL_UNIT_NONE) {
        json_object_set_new(line, "epsilon", json_null());
        return;
    }
    fl_report_number(line, "epsilon", epsilon);
    fl_report_number(line, "delta", delta);
    fl_report_text(line, "bound", fl_bound_name(bound));
    fl_report_text(line, "neighbours", fl_report_neighbours(unit, trust, placeless));
    fl_report_text(
        line, "adversary",
        trust == FL_NOISE_CENTRAL ? "everyone but the coordinators that add the noise"
        : trust == FL_NOISE_DISTRIBUTED
            ? "everyone who sees uploads, the coordinator too, together with at most the "
              "part of the members that a job with shared noise takes for colluders"
            : "everyone who sees uploads, the coordinator too");
}

/* Errors of models that predict numbers; the accuracy of each class of the others. */
static void report_errors(json_t *line, const char *model, const struct fl_errors *x)
{
    const struct {
        const char *name;
        double value;
    } all[] = {{"rmse", x->rmse}, {"mae", x->mae}, {"mape", x->mape}, {"r2", x->r2}};
    char name[32];

    for (size_t i = 0; i < sizeof all / sizeof all[0] && x->known; i++) {
        snprintf(name, sizeof name, "%s_%s", all[i].name, model);
        fl_report_number(line, name, all[i].value);
    }
    if (x->class_count) {
        json_t *list = json_array();
        for (uint32_t c = 0; c < x->class_count; c++) {
            double a = (double)x->class_accuracy[c];
            json_array_append_new(list, isfinite(a) ? json_real(a) : json_null());
        }
        snprintf(name, sizeof name, "classes_%s", model);
        json_object_set_new(line, name, list);
    }
}

void fl_report_trained(json_t *line, const struct fl_train_report *trained)
{
    fl_report_number(line, "loss", trained->loss);
    if (isfinite(trained->accuracy_shared)) {
        fl_report_number(line, "accuracy_shared", trained->accuracy_shared);
    }
    fl_report_number(line, "accuracy_received", trained->accuracy_received);
    fl_report_number(line, "accuracy_trained", trained->accuracy_trained);
    fl_report_number(line, "accuracy_served", trained->accuracy_served);
    report_errors(line, "received", &trained->received);
    report_errors(line, "trained", &trained->trained);
    report_errors(line, "served", &trained->served);
    fl_report_count(line, "steps", trained->steps);
    fl_report_number(line, "cpu_s", trained->cpu_s);
}

void fl_report_guard(json_t *line, const struct fl_guard_report *guard)
{
    json_t *all = json_object();

    fl_report_text(all, "choice", fl_guard_word(guard->choice));
    fl_report_number(all, "cpu_s", guard->cpu_s);
    for (int m = 0; m < FL_GUARD_MODELS; m++) {
        const struct fl_guard_score *score = &guard->of[m];
        json_t *one = json_object();
        if (!score->tried) {
            json_decref(one);
            continue;
        }
        fl_report_number(one, "validation_loss", score->validation_loss);
        fl_report_number(one, "validation_accuracy", score->validation_accuracy);
        fl_report_number(one, "loss", score->test_loss);
        fl_report_number(one, "accuracy", score->test_accuracy);
        fl_report_number(one, "setting", score->setting);
        report_errors(one, "test", &score->test);
        json_object_set_new(all, fl_guard_word((enum fl_guard_model)m), one);
    }
    json_object_set_new(line, "guard", all);
}

json_t *fl_report_new(const char *event, const struct fl_agent_task *task,
                      const struct fl_plan *plan, const struct fl_train_report *trained)
{
    json_t *line = json_object();
    char incarnation[2 * FL_INCARNATION_SIZE + 1];

    if (!line) {
        return NULL;
    }
    for (size_t i = 0; i < FL_INCARNATION_SIZE; i++) {
        snprintf(incarnation + 2 * i, 3, "%02x", task->key.incarnation[i]);
    }
    fl_report_text(line, "event", event);
    json_object_set_new(line, "final", json_boolean(task->final));
    fl_report_text(line, "job", task->job);
    fl_report_text(line, "incarnation", incarnation);
    fl_report_count(line, "round", task->key.round);
    fl_report_text(line, "strategy", plan ? plan->strategy : "");
    if (plan) {
        fl_report_text(line, "measured", fl_plan_personal(plan) ? "personal" : "received");
    }
    if (trained) {
        fl_report_trained(line, trained);
    }
    return line;
}

static json_t *tensors_of(const struct fl_tensors *tensors)
{
    enum { SHOWN = 64 }; /* a line of the report has a ceiling */
    json_t *list = json_array();

    for (uint32_t i = 0; i < tensors->count && i < SHOWN; i++) {
        const struct fl_tensor *x = &tensors->at[i];
        json_t *shape = json_array();
        for (uint32_t k = 0; k < x->rank; k++) {
            json_array_append_new(shape, json_integer(x->shape[k]));
        }
        json_array_append_new(list, json_pack("{ss so sI}", "name", x->name, "shape", shape,
                                              "elements", (json_int_t)x->count));
    }
    return list;
}

void fl_report_update(json_t *line, const struct fl_release *r, double norm_after,
                      const struct fl_plan *plan)
{
    char digest[FL_DIGEST_HEX];

    fl_digest_hex(&r->update, digest);
    fl_report_count(line, "update_bytes", r->size);
    fl_report_text(line, "update", digest);
    fl_report_text(line, "unit", fl_policy_unit_name(r->unit));
    fl_report_number(line, "norm_before", r->norm_before);
    fl_report_number(line, "norm_after", norm_after);
    fl_report_number(line, "clip", r->clip);
    if (r->unit == FL_UNIT_EXAMPLE) {
        fl_report_text(line, "clip_of", "example");
        fl_report_count(line, "noised_steps", r->event.count);
    }
    fl_report_number(line, "noise_std", r->noise_std);
    if (r->unit != FL_UNIT_NONE) {
        fl_report_text(line, "noise", fl_noise_place_name(r->noise));
    }
    if (r->noise == FL_NOISE_DISTRIBUTED) { /* what is in the sum that others see */
        uint32_t sharers = fl_plan_noise_sharers(plan);
        fl_report_count(line, "noise_sharers", sharers);
        fl_report_number(line, "noise_std_sum", r->noise_std * sqrt((double)sharers));
    }
    fl_report_count(line, "saturated", r->saturated);
    fl_report_number(line, "plan_delta", plan->privacy.delta);
}

void fl_report_tensors(json_t *line, const struct fl_plan *plan)
{
    json_object_set_new(line, "tensors", tensors_of(&plan->layout.shared));
}

/* Opens for appending behind a whole line; moves a file that has grown too long aside. */
static int open_report(const char *path, struct fl_err *e)
{
    struct stat st;
    char old[600], last = '\n';

    if (stat(path, &st) == 0 && st.st_size > FL_REPORT_FILE_MAX) {
        int w = snprintf(old, sizeof old, "%s.1", path);
        if (w < 0 || (size_t)w >= sizeof old || rename(path, old) != 0) {
            return fl_fail_sys(e, FL_R_STORE_IO, errno, "%s: move aside", path);
        }
    }
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) {
        return fl_fail_sys(e, fl_file_reason(errno), errno, "%s: open", path);
    }
    if (fstat(fd, &st) == 0 && st.st_size > 0 && pread(fd, &last, 1, st.st_size - 1) == 1 &&
        last != '\n' && write(fd, "\n", 1) != 1) {
        int error = errno;
        close(fd);
        return fl_fail_sys(e, fl_file_reason(error), error, "%s: write", path);
    }
    return fd;
}

int fl_report_append(const char *path, json_t *line, struct fl_err *e)
{
    struct timespec now;
    struct tm tm;
    char stamp[32];
    int r = 0;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(stamp, sizeof stamp - 8, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(stamp + n, sizeof stamp - n, ".%03ldZ", now.tv_nsec / 1000000);
    fl_report_text(line, "time", stamp);
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (!text) {
        return fl_fail(e, FL_R_NOMEM, "out of memory");
    }
    size_t size = strlen(text);
    if (size >= FL_REPORT_LINE_MAX) {
        free(text);
        return fl_fail(e, FL_R_LIMIT, "%s: a line of %zu bytes", path, size);
    }
    text[size] = '\n'; /* in place of the end: one write, one line */
    int fd = open_report(path, e);
    if (fd < 0) {
        free(text);
        return fd;
    }
    ssize_t w = write(fd, text, size + 1);
    if (w != (ssize_t)(size + 1) || fdatasync(fd) != 0) {
        r = fl_fail_sys(e, fl_file_reason(errno), errno, "%s: write", path);
    }
    close(fd);
    free(text);
    return r;
}
