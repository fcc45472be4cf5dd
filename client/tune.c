/*
 * cohort-tune: the coordinator's worker for target data (client/trainer/tune.h), started by cohortd
 * under a keeper. It runs in a folder made for it:
 *
 *     plan    the job's description      ask     what is to be done (common/plan/fedka.h)
 *     models  models of float32, one after the other: before, aggregate, members
 *     answer  written here, at the end
 *
 *     cohort-tune DATA.yaml            a round
 *     cohort-tune DATA.yaml --check    whether the data fit the job in `plan`; no more
 *
 * Members' models and the target's files are bytes that others made. So before it reads any of them
 * it gives up what it does not need: new programs and processes, sockets, other processes. Memory
 * and time are limited from outside, and it dies with the coordinator.
 */
#include "client/trainer/tune.h"
#include "client/data/dataset.h"
#include "common/base/conf.h"
#include "common/base/le.h"
#include "common/base/mem.h"
#include "common/io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FILES_MAX = 64, ANSWER_TILE = 4096 };

/* ---- what it gives up ---- */

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(SANITIZED) /* looks for leaks in a clone of itself */
#elif defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#define X32 0x40000000

#define DENY(call)                                                                                 \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (__NR_##call), 0, 1),                                      \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)

static int give_up_calls(struct fl_err *e)
{
#ifdef ARCHITECTURE
    struct sock_filter list[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#ifdef __x86_64__
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32, 0, 1), /* the same calls by other numbers */
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        DENY(fork),
        DENY(vfork),
#endif
        DENY(clone),
        DENY(clone3),
        DENY(execve),
        DENY(execveat),
        DENY(socket),
        DENY(socketpair),
        DENY(io_uring_setup), /* opens sockets without calling for them */
        DENY(unshare),
        DENY(setns),
        DENY(ptrace),
        DENY(process_vm_readv),
        DENY(process_vm_writev),
        DENY(kill),
        DENY(tkill),
        DENY(mount),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = FL_COUNT(list), .filter = list};

    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        return fl_fail_sys(e, FL_R_SYS, errno, "give up system calls");
    }
#else
    (void)e;
#endif
    return 0;
}

static int give_up(struct fl_err *e)
{
    const struct rlimit files = {FILES_MAX, FILES_MAX};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0) ||
        setrlimit(RLIMIT_NOFILE, &files)) {
        return fl_fail_sys(e, FL_R_SYS, errno, "give up privileges");
    }
    return give_up_calls(e);
}

/* ---- the target's data ---- */

static const char *const formats[] = {"idx", "csv", "cifar10", "cifar100", "npy", NULL};

#define OF struct fl_data_source
#define TEXT(key, m)                                                                               \
    .name = key, .type = FL_CONF_STRING, .offset = offsetof(OF, m), .size = sizeof(((OF *)NULL)->m)
#define NUMBER(key, m) .name = key, .type = FL_CONF_UINT32, .offset = offsetof(OF, m)

static const struct fl_conf_field data_keys[] = {
    {.name = "format",
     .type = FL_CONF_ENUM,
     .offset = offsetof(OF, format),
     .words = formats,
     .flags = FL_CONF_REQUIRED},
    {TEXT("examples", train_x), .min = 1, .flags = FL_CONF_REQUIRED},
    {TEXT("labelled", test_x)},
    {TEXT("labels", test_y)},
    {TEXT("target", target)},
    {NUMBER("most", train)},
    {NUMBER("most_labelled", test)},
    {.name = NULL},
};

/* Relative paths are taken from the file's own folder. */
static int place(const char *file, char *path, size_t size, struct fl_err *e)
{
    char full[1024];
    const char *slash = strrchr(file, '/');

    if (!path[0] || path[0] == '/' || !slash) {
        return 0;
    }
    int n = snprintf(full, sizeof full, "%.*s/%s", (int)(slash - file), file, path);
    if (n < 0 || (size_t)n >= size) {
        return fl_fail(e, FL_R_CONF_RANGE, "%s: %s: too long a path", file, path);
    }
    memcpy(path, full, (size_t)n + 1);
    return 0;
}

static int load_data(const char *file, const struct fl_plan *plan, struct fl_dataset *ret,
                     struct fl_err *e)
{
    struct fl_data_source source = {.partition = FL_PARTITION_ALL, .of = 1};
    struct fl_conf *c = NULL;
    int r = fl_conf_load(file, &c, e);

    r = r ? r : fl_conf_decode(fl_conf_root(c), data_keys, &source, e);
    fl_conf_free(c);
    if (r == 0 && !source.test_x[0] != !source.test_y[0] &&
        (source.format == FL_DATA_IDX || source.format == FL_DATA_NPY)) {
        r = fl_fail(e, FL_R_CONF_MISSING, "%s: labelled and labels belong together", file);
    }
    r = r ? r : place(file, source.train_x, sizeof source.train_x, e);
    r = r ? r : place(file, source.test_x, sizeof source.test_x, e);
    r = r ? r : place(file, source.test_y, sizeof source.test_y, e);
    if (r) {
        return r;
    }
    source.schema = &plan->data.schema;
    r = fl_dataset_load(&source, ret, e);
    if (r == 0 && plan->data.schema.count) { /* a row as the model folds it; checked in the plan */
        memcpy(ret->shape, plan->layout.spec.input, sizeof ret->shape);
    }
    return r;
}

/* ---- the folder ---- */

static int load_plan(struct fl_plan *ret, struct fl_err *e)
{
    uint8_t *text = NULL;
    size_t size = 0;
    int r = fl_file_read("plan", FL_PLAN_TEXT_MAX, &text, &size, e);

    r = r ? r : fl_plan_parse(ret, "plan", (const char *)text, size, e);
    fl_free(text);
    return r;
}

struct models {
    int fd;
    size_t elements;
};

static int read_model(void *arg, uint32_t i, float *to, struct fl_err *e)
{
    const struct models *m = arg;
    uint8_t tile[4 * ANSWER_TILE];
    int r = 0;

    for (size_t at = 0, n; r == 0 && at < m->elements; at += n) {
        n = m->elements - at < ANSWER_TILE ? m->elements - at : ANSWER_TILE;
        r = fl_file_read_at(m->fd, 4 * ((uint64_t)i * m->elements + at), tile, 4 * n, e);
        for (size_t k = 0; r == 0 && k < n; k++) {
            to[at + k] = fl_get_float(tile + 4 * k);
        }
    }
    return r;
}

static int write_answer(const struct fl_tune_result *result, size_t elements, struct fl_err *e)
{
    size_t input = fl_fedka_input_size(&result->input);
    size_t size = FL_FEDKA_ANSWER_HEAD + input + 4 * elements;
    uint8_t *bytes = fl_try(size, 1);

    if (!bytes) {
        return fl_fail(e, FL_R_NOMEM, "an answer of %zu bytes", size);
    }
    fl_fedka_score_put(&result->score, bytes);
    fl_put_u64(bytes + FL_FEDKA_SCORE_SIZE, input);
    fl_fedka_input_put(&result->input, bytes + FL_FEDKA_ANSWER_HEAD);
    for (size_t i = 0; i < elements; i++) {
        fl_put_float(bytes + FL_FEDKA_ANSWER_HEAD + input + 4 * i, result->model[i]);
    }
    int r = fl_file_replace("answer", bytes, size, 0600, e);
    fl_free(bytes);
    return r;
}

static int run_round(const struct fl_plan *plan, const struct fl_dataset *data, struct fl_err *e)
{
    struct models models = {.fd = -1, .elements = plan->layout.shared.elements};
    struct fl_tune_task task = {.plan = plan, .data = data, .model = read_model, .arg = &models};
    struct fl_tune_result result = {0};
    uint8_t *ask = NULL;
    size_t size = 0;
    int r = fl_file_read("ask", FL_FEDKA_SCORE_SIZE, &ask, &size, e);

    if (r == 0 && size != FL_FEDKA_SCORE_SIZE) {
        r = fl_fail(e, FL_R_STORE_MISMATCH, "ask: %zu bytes", size);
    }
    if (r == 0) {
        fl_fedka_score_get(ask, &task.before);
        models.fd = open("models", O_RDONLY | O_CLOEXEC);
        r = models.fd < 0 ? fl_fail_sys(e, FL_R_SYS, errno, "open models") : 0;
    }
    r = r ? r : fl_tune_round(&task, &result, e);
    r = r ? r : write_answer(&result, models.elements, e);
    if (models.fd >= 0) {
        close(models.fd);
    }
    fl_tune_result_fini(&result);
    fl_free(ask);
    return r;
}

int main(int argc, char **argv)
{
    struct fl_dataset data = {0};
    struct fl_err e = {0};
    bool check = argc == 3 && strcmp(argv[2], "--check") == 0;
    struct fl_plan *plan = fl_new(1, sizeof *plan);

    if (argc != 2 && !check) {
        fputs("usage: cohort-tune DATA.yaml [--check]   (started by cohortd)\n", stderr);
        return 2;
    }
    int r = give_up(&e);
    r = r ? r : load_plan(plan, &e);
    r = r ? r : load_data(argv[1], plan, &data, &e);
    r = r ? r : fl_tune_check(plan, &data, &e);
    if (r == 0 && !check) {
        r = run_round(plan, &data, &e);
    }
    fl_dataset_fini(&data);
    fl_free(plan);
    if (r) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    puts("done");
    return 0;
}
