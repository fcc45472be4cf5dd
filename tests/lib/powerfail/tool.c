/*
 * powerfail: the tool beside the shim.
 *
 *   powerfail begin JOURNAL DIR           a new journal; what is in DIR is durable
 *   powerfail reconcile JOURNAL DIR       after a kill: adds (as pending) what the last call did to
 *                                         DIR before it could be journalled. Always before the next
 *                                         program runs on DIR
 *   powerfail rebuild JOURNAL TO [MODE [SEED]]    one state that a power failure now could leave.
 *                                         MODE: drop keep prefix subset meta
 *   powerfail notes JOURNAL               the notes of the program
 *   powerfail explore JOURNAL WORK EVERY SEEDS PROGRAM ARGUMENT...
 *                                         a power failure after every EVERY-th record (and after
 *                                         notes that are not close to one), SEEDS states of each
 *                                         and the two extremes; then
 *                                         PROGRAM ARGUMENT... WORK/state WORK/notes
 *                                         must exit 0. Says how many exited 1; the exit is then 1,
 *                                         and 2 when it ended in any other way
 */
#include "tests/lib/powerfail/model.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SHOWN = 5 };

struct journal {
    const uint8_t *data;
    size_t size, at;
};

static void fail(const char *what, const char *about)
{
    fprintf(stderr, "powerfail: %s: %s\n", what, about);
    exit(70);
}

static struct journal load(const char *path)
{
    struct journal j = {0};
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size == 0) {
        fail(path, "no journal; begin one");
    }
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        fail(path, strerror(errno));
    }
    close(fd);
    j.data = data;
    j.size = (size_t)st.st_size;
    return j;
}

/* The next record; its names end with zero bytes in the callers' room. */
static bool next(struct journal *j, struct pf_record *r, char name[PF_NAME_MAX + 1],
                 char name2[PF_NAME_MAX + 1], const uint8_t **ret_data)
{
    /* A kill may have cut the last record short. */
    if (j->size - j->at < sizeof *r) {
        return false;
    }
    memcpy(r, j->data + j->at, sizeof *r);
    if (r->magic != PF_MAGIC || r->name > PF_NAME_MAX || r->name2 > PF_NAME_MAX) {
        fail("journal", "not one, or damaged");
    }
    size_t left = j->size - j->at - sizeof *r;
    if (left < r->name || left - r->name < r->name2 || left - r->name - r->name2 < r->size) {
        return false;
    }
    const uint8_t *at = j->data + j->at + sizeof *r;
    memcpy(name, at, r->name);
    name[r->name] = '\0';
    memcpy(name2, at + r->name, r->name2);
    name2[r->name2] = '\0';
    *ret_data = at + r->name + r->name2;
    j->at += sizeof *r + r->name + r->name2 + r->size;
    return true;
}

static void append(void *arg, const struct pf_record *r, const char *name, const uint8_t *data)
{
    struct pf_record out = *r;
    FILE *f = arg;

    out.magic = PF_MAGIC;
    out.name = name ? (uint32_t)strlen(name) : 0;
    fwrite(&out, sizeof out, 1, f);
    if (name) {
        fwrite(name, out.name, 1, f);
    }
    if (data) {
        fwrite(data, out.size, 1, f);
    }
}

/* While walking a new folder: everything is durable. */
static void append_durable(void *arg, const struct pf_record *r, const char *name,
                           const uint8_t *data)
{
    append(arg, r, name, data);
    struct pf_record sync = {.op = PF_SYNC, .inode = name ? r->parent : r->inode};
    append(arg, &sync, NULL, NULL);
}

static int begin(const char *path, const char *dir)
{
    struct stat st;

    if (stat(dir, &st) != 0) {
        fail(dir, strerror(errno));
    }
    FILE *f = fopen(path, "w");
    if (!f) {
        fail(path, strerror(errno));
    }
    /* The first record says which inode the folder itself has. */
    struct pf_record root = {.op = PF_CREATE, .inode = st.st_ino, .offset = 1};
    append(f, &root, NULL, NULL);
    struct pf_model *m = pf_model_new(st.st_ino);
    pf_model_differences(m, dir, append_durable, f);
    pf_model_free(m);
    return fclose(f) == 0 ? 0 : 70;
}

static struct pf_model *start(struct journal *j)
{
    char name[PF_NAME_MAX + 1], name2[PF_NAME_MAX + 1];
    const uint8_t *data;
    struct pf_record r;

    if (!next(j, &r, name, name2, &data) || r.op != PF_CREATE || r.name) {
        fail("journal", "has no beginning");
    }
    return pf_model_new(r.inode);
}

static struct pf_model *replay(struct journal *j)
{
    char name[PF_NAME_MAX + 1], name2[PF_NAME_MAX + 1];
    const uint8_t *data;
    struct pf_record r;
    struct pf_model *m = start(j);

    while (next(j, &r, name, name2, &data)) {
        pf_model_apply(m, &r, name, name2, data);
    }
    return m;
}

static int reconcile(const char *path, const char *dir)
{
    struct journal j = load(path);
    struct pf_model *m = replay(&j);

    if (j.at < j.size && truncate(path, (off_t)j.at) != 0) {
        fail(path, strerror(errno));
    }
    FILE *f = fopen(path, "a");
    if (!f) {
        fail(path, strerror(errno));
    }
    pf_model_differences(m, dir, append, f);
    pf_model_free(m);
    return fclose(f) == 0 ? 0 : 70;
}

static enum pf_mode mode_of(const char *name)
{
    for (int i = 0; i < PF_MODES; i++) {
        if (strcmp(name, pf_mode_name[i]) == 0) {
            return (enum pf_mode)i;
        }
    }
    fail("no such mode", name);
    return PF_DROP;
}

static int notes(const char *path)
{
    char name[PF_NAME_MAX + 1], name2[PF_NAME_MAX + 1];
    const uint8_t *data;
    struct pf_record r;
    struct journal j = load(path);

    while (next(&j, &r, name, name2, &data)) {
        if (r.op == PF_NOTE) {
            printf("%.*s\n", (int)r.size, (const char *)data);
        }
    }
    return 0;
}

/* ---- exploring ---- */

struct explore {
    const struct pf_model *model;
    char state[512], notes[512];
    char **argv; /* program, arguments, state, notes, NULL */
    unsigned long crashes, failures, odd;
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void crash(struct explore *x, unsigned long cut, enum pf_mode mode, uint64_t seed)
{
    int status = -1;

    nftw(x->state, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    pf_model_rebuild(x->model, mode, seed, x->state);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (x->failures >= SHOWN) {
            int null = open("/dev/null", O_WRONLY);
            dup2(null, STDERR_FILENO);
        }
        execv(x->argv[0], x->argv);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid ||
        (WIFEXITED(status) && WEXITSTATUS(status) == 127)) {
        fail("cannot run", x->argv[0]);
    }
    x->crashes++;
    x->odd += status != 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 1);
    if (status != 0) {
        if (x->failures++ < SHOWN) {
            fprintf(stderr, "power failure after record %lu, %s, seed %llu: status %x\n", cut,
                    pf_mode_name[mode], (unsigned long long)seed, (unsigned)status);
        }
    }
}

static int explore(int argc, char **argv)
{
    char name[PF_NAME_MAX + 1], name2[PF_NAME_MAX + 1];
    const uint8_t *data;
    struct pf_record r;
    struct explore x = {0};
    unsigned long every = strtoul(argv[2], NULL, 10), cut = 0, last = 0;
    uint64_t seeds = strtoull(argv[3], NULL, 10), seed = 1;
    struct journal j = load(argv[0]);
    struct pf_model *m = start(&j);

    snprintf(x.state, sizeof x.state, "%s/state", argv[1]);
    snprintf(x.notes, sizeof x.notes, "%s/notes", argv[1]);
    x.model = m;
    x.argv = calloc((size_t)argc, sizeof *x.argv);
    FILE *facts = fopen(x.notes, "w");
    if (!x.argv || !facts || every == 0) {
        fail(x.notes, strerror(errno));
    }
    for (int i = 4; i < argc; i++) {
        x.argv[i - 4] = argv[i];
    }
    x.argv[argc - 4] = x.state;
    x.argv[argc - 3] = x.notes;
    while (next(&j, &r, name, name2, &data)) {
        pf_model_apply(m, &r, name, name2, data);
        if (r.op == PF_NOTE) {
            fprintf(facts, "%.*s\n", (int)r.size, (const char *)data);
            fflush(facts);
        }
        if (++cut % every == 0 || (r.op == PF_NOTE && (cut - last) * 4 >= every)) {
            last = cut;
            crash(&x, cut, PF_DROP, 0);
            crash(&x, cut, PF_META, 0);
            for (uint64_t i = 0; i < seeds; i++, seed++) {
                crash(&x, cut, seed % 2 ? PF_SUBSET : PF_PREFIX, seed);
            }
        }
    }
    fclose(facts);
    pf_model_free(m);
    free(x.argv);
    printf("%lu records, %lu power failures, %lu not survived\n", cut, x.crashes, x.failures);
    return x.odd ? 2 : x.failures ? 1 : 0;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";

    if (argc == 4 && strcmp(verb, "begin") == 0) {
        return begin(argv[2], argv[3]);
    }
    if (argc == 4 && strcmp(verb, "reconcile") == 0) {
        return reconcile(argv[2], argv[3]);
    }
    if (argc == 3 && strcmp(verb, "notes") == 0) {
        return notes(argv[2]);
    }
    if (argc >= 4 && argc <= 6 && strcmp(verb, "rebuild") == 0) {
        struct journal j = load(argv[2]);
        struct pf_model *m = replay(&j);
        pf_model_rebuild(m, argc > 4 ? mode_of(argv[4]) : PF_DROP,
                         argc > 5 ? strtoull(argv[5], NULL, 10) : 1, argv[3]);
        pf_model_free(m);
        return 0;
    }
    if (argc >= 7 && strcmp(verb, "explore") == 0) {
        return explore(argc - 2, argv + 2);
    }
    fprintf(stderr, "usage: powerfail begin|reconcile|rebuild|notes|explore JOURNAL ...\n");
    return 64;
}
