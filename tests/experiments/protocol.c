/*
 * The published Fashion-MNIST protocol (README.md) by this project's own trainer, all sites in one
 * process and one thread: fl_dataset_load, fl_plan_parse, fl_train, and a mean in doubles where
 * the coordinator would add integers. Rows as pytorch_protocol.py writes them, for
 * compare_protocol.py.
 *
 *     protocol --data DIR --out FILE.csv [--state DIR] [--seeds 1,2,3] [--rounds N]
 *              [--train N] [--test N] [--width PERCENT] [--disjoint] [--apart] JOB.yaml...
 *     protocol --data DIR --digests [--train N] [--test N]
 *
 * The method's name in a row is the job's. After every round the whole federation is written to
 * STATE/NAME-SEED.state, beside and renamed: a run goes on where it was stopped, and --rounds may
 * be raised. A stop between row and state repeats a row; readers take the last.
 */
#include "client/data/dataset.h"
#include "client/trainer/trainer.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/nn/tensors.h"
#include "common/plan/plan.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SITES = 20, CLASSES = 10, SEEDS_MAX = 64 };

struct options {
    const char *data, *out, *state;
    uint32_t train, test;
    float width;     /* of sites 1, 3, 5 ... where a job has nested layers */
    uint64_t rounds; /* 0: as the job says */
    uint64_t seed[SEEDS_MAX];
    size_t seeds;
    bool digests;
    bool disjoint; /* no image at two sites, instead of the published wrap-around */
    bool apart;    /* the test files are not opened: test images are set apart from training ones */
};

struct federation {
    const struct fl_plan *plan;
    const struct fl_dataset *data; /* SITES */
    uint64_t rounds;               /* done */
    size_t shared_count, private_count;
    float *shared;
    float *private_; /* SITES * private_count */
    float *delta;
    double *sum;
    struct fl_features kept[SITES];
};

_Noreturn static void die(const char *what, const struct fl_err *e)
{
    fprintf(stderr, "protocol: %s: %s\n", what, e ? e->msg : strerror(errno));
    exit(1);
}

/* ---- options ---- */

static uint64_t number(const char *text, const char *what)
{
    char *end;

    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno || end == text || *end) {
        fprintf(stderr, "protocol: %s: %s is not a number\n", what, text);
        exit(2);
    }
    return n;
}

static void parse_seeds(char *text, struct options *o)
{
    o->seeds = 0;
    for (char *s = strtok(text, ","); s; s = strtok(NULL, ",")) {
        if (o->seeds == SEEDS_MAX) {
            fprintf(stderr, "protocol: at most %d seeds\n", SEEDS_MAX);
            exit(2);
        }
        o->seed[o->seeds++] = number(s, "--seeds");
    }
}

static void parse_options(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {
        {"data", required_argument, NULL, 'd'},   {"out", required_argument, NULL, 'o'},
        {"state", required_argument, NULL, 's'},  {"seeds", required_argument, NULL, 'n'},
        {"rounds", required_argument, NULL, 'r'}, {"train", required_argument, NULL, 't'},
        {"test", required_argument, NULL, 'e'},   {"width", required_argument, NULL, 'w'},
        {"digests", no_argument, NULL, 'g'},      {"disjoint", no_argument, NULL, 'j'},
        {"apart", no_argument, NULL, 'a'},        {NULL, 0, NULL, 0},
    };
    int c;

    *o = (struct options){
        .state = ".", .width = 1, .train = 600, .test = 600, .seed = {1, 2, 3}, .seeds = 3};
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (c) {
        case 'd':
            o->data = optarg;
            break;
        case 'o':
            o->out = optarg;
            break;
        case 's':
            o->state = optarg;
            break;
        case 'n':
            parse_seeds(optarg, o);
            break;
        case 'r':
            o->rounds = number(optarg, "--rounds");
            break;
        case 't':
            o->train = (uint32_t)number(optarg, "--train");
            break;
        case 'e':
            o->test = (uint32_t)number(optarg, "--test");
            break;
        case 'w':
            o->width = (float)number(optarg, "--width") / 100;
            break;
        case 'g':
            o->digests = true;
            break;
        case 'a':
            o->apart = true;
            /* fall through */
        case 'j':
            o->disjoint = true;
            break;
        default:
            exit(2);
        }
    }
    if (!o->data || !(o->digests || (o->out && optind < argc))) {
        fprintf(stderr, "usage: protocol --data DIR --out FILE.csv [--state DIR] [--seeds N,N] "
                        "[--rounds N] [--disjoint] [--apart] JOB.yaml...\n"
                        "       protocol --data DIR --digests\n");
        exit(2);
    }
}

/* ---- data ---- */

static void load_site(const struct options *o, uint32_t i, struct fl_dataset *ret)
{
    struct fl_data_source s = {
        .format = FL_DATA_IDX,
        .partition = FL_PARTITION_PATHOLOGICAL,
        .client = i,
        .of = SITES,
        .train = o->train,
        .test = o->test,
        .classes = CLASSES,
        .disjoint = o->disjoint,
    };
    struct fl_err e;

    snprintf(s.train_x, sizeof s.train_x, "%s/train-images-idx3-ubyte.gz", o->data);
    snprintf(s.train_y, sizeof s.train_y, "%s/train-labels-idx1-ubyte.gz", o->data);
    if (!o->apart) {
        snprintf(s.test_x, sizeof s.test_x, "%s/test-images-idx3-ubyte.gz", o->data);
        snprintf(s.test_y, sizeof s.test_y, "%s/test-labels-idx1-ubyte.gz", o->data);
    }
    if (fl_dataset_load(&s, ret, &e)) {
        die(o->data, &e);
    }
}

/* ---- state: a header, the shared vector, the private ones ---- */

struct state_head {
    char magic[8];
    struct fl_digest plan;
    uint64_t rounds, shared_count, private_count;
};

static const char magic[8] = "protocol";

static void state_path(const struct options *o, const struct fl_plan *p, const char *end, char *ret,
                       size_t size)
{
    snprintf(ret, size, "%s/%s-%llu.state%s", o->state, p->name, (unsigned long long)p->seed, end);
}

static void save(const struct options *o, const struct federation *f)
{
    struct state_head h = {.plan = f->plan->digest,
                           .rounds = f->rounds,
                           .shared_count = f->shared_count,
                           .private_count = f->private_count};
    char path[1024], beside[1024];

    memcpy(h.magic, magic, sizeof magic);
    state_path(o, f->plan, "", path, sizeof path);
    state_path(o, f->plan, ".new", beside, sizeof beside);
    FILE *file = fopen(beside, "wb");
    if (!file) {
        die(beside, NULL);
    }
    size_t all = SITES * f->private_count;
    bool ok = fwrite(&h, sizeof h, 1, file) == 1 &&
              fwrite(f->shared, sizeof(float), f->shared_count, file) == f->shared_count &&
              fwrite(f->private_, sizeof(float), all, file) == all;
    if (fclose(file) || !ok || rename(beside, path)) {
        die(path, NULL);
    }
}

/* Nothing happens when there is none. One of another job under the same name is refused. */
static void restore(const struct options *o, struct federation *f)
{
    struct state_head h;
    char path[1024];
    size_t all = SITES * f->private_count;

    state_path(o, f->plan, "", path, sizeof path);
    FILE *file = fopen(path, "rb");
    if (!file) {
        if (errno != ENOENT) {
            die(path, NULL);
        }
        return;
    }
    if (fread(&h, sizeof h, 1, file) != 1 || memcmp(h.magic, magic, sizeof magic) != 0 ||
        !fl_digest_equal(&h.plan, &f->plan->digest) || h.shared_count != f->shared_count ||
        h.private_count != f->private_count ||
        fread(f->shared, sizeof(float), f->shared_count, file) != f->shared_count ||
        fread(f->private_, sizeof(float), all, file) != all) {
        fprintf(stderr, "protocol: %s is not of this job; remove it to begin anew\n", path);
        exit(1);
    }
    fclose(file);
    f->rounds = h.rounds;
}

/* ---- a federation ---- */

static void site_seed(const struct fl_plan *plan, uint32_t site, struct fl_seed *ret)
{
    struct fl_seed job;

    fl_seed_from_u64(plan->seed, &job);
    fl_seed_derive(&job, "protocol.site", site, ret);
}

static void federation_init(struct federation *f, const struct options *o,
                            const struct fl_plan *plan, const struct fl_dataset *data)
{
    const struct fl_layout *l = &plan->layout;
    struct fl_seed job, site;

    *f = (struct federation){.plan = plan,
                             .data = data,
                             .shared_count = l->shared.elements,
                             .private_count = l->private_.elements};
    f->shared = fl_try_aligned(f->shared_count + 1, sizeof(float));
    f->private_ = fl_try_aligned(SITES * f->private_count + 1, sizeof(float));
    f->delta = fl_try_aligned(f->shared_count + 1, sizeof(float));
    f->sum = fl_try_aligned(f->shared_count + 1, sizeof(double));
    if (!f->shared || !f->private_ || !f->delta || !f->sum) {
        die(plan->name, NULL);
    }
    fl_seed_from_u64(plan->seed, &job);
    fl_layout_init_shared(l, &job, f->shared);
    for (uint32_t i = 0; i < SITES; i++) {
        site_seed(plan, i, &site);
        fl_layout_init_private(l, &job, &site, f->private_ + i * f->private_count);
        const struct fl_tensor *width = fl_tensors_find(&l->private_, "width");
        if (width && i % 2) {
            f->private_[i * f->private_count + width->offset] = o->width;
        }
    }
}

static void federation_fini(struct federation *f)
{
    fl_free(f->shared);
    fl_free(f->private_);
    fl_free(f->delta);
    fl_free(f->sum);
    for (uint32_t i = 0; i < SITES; i++) {
        fl_features_fini(&f->kept[i]);
    }
}

/* One round: every site trains from the same model, then the mean by examples. */
static void step(struct federation *f, double *after, double *received, double *ret_cpu)
{
    static const atomic_bool never;
    double examples = 0;

    f->rounds++;
    *ret_cpu = 0;
    memset(f->sum, 0, f->shared_count * sizeof *f->sum);
    for (uint32_t i = 0; i < SITES; i++) {
        float *own = f->private_ + i * f->private_count;
        struct fl_train_task task = {.plan = f->plan,
                                     .data = &f->data[i],
                                     .base = f->shared,
                                     .private_in = own,
                                     .kept = &f->kept[i],
                                     .round = f->rounds,
                                     .cancel = &never};
        float *trained = fl_try_aligned(f->private_count + 1, sizeof *trained);
        struct fl_train_result result = {.delta = f->delta, .private_out = trained};
        struct fl_seed site;
        struct fl_err e;

        if (!trained) {
            die(f->plan->name, NULL);
        }
        site_seed(f->plan, i, &site);
        fl_seed_derive(&site, "protocol.round", f->rounds, &task.seed);
        if (fl_train(&task, &result, &e)) {
            die(f->plan->name, &e);
        }
        memcpy(own, trained, f->private_count * sizeof *own);
        fl_free(trained);
        double weight = f->data[i].train.count;
        for (size_t k = 0; k < f->shared_count; k++) {
            f->sum[k] += weight * (double)f->delta[k];
        }
        examples += weight;
        after[i] = 100 * result.report.accuracy_trained;
        received[i] = 100 * result.report.accuracy_received;
        *ret_cpu += result.report.cpu_s;
    }
    for (size_t k = 0; k < f->shared_count; k++) {
        f->shared[k] = (float)((double)f->shared[k] + f->sum[k] / examples);
    }
}

static void evaluate(const struct federation *f, double *received)
{
    for (uint32_t i = 0; i < SITES; i++) {
        double loss;
        struct fl_err e;
        if (fl_train_evaluate(f->plan, &f->data[i], f->shared, f->private_ + i * f->private_count,
                              &received[i], &loss, &e)) {
            die(f->plan->name, &e);
        }
        received[i] *= 100;
    }
}

/* ---- rows ---- */

static double mean(const double *x)
{
    double sum = 0;

    for (int i = 0; i < SITES; i++) {
        sum += x[i];
    }
    return sum / SITES;
}

static void print_mean(FILE *out, const double *x)
{
    if (x) {
        fprintf(out, "%.4f,", mean(x));
    } else {
        fprintf(out, "-,");
    }
}

static void print_each(FILE *out, const double *x, const char *end)
{
    for (int i = 0; x && i < SITES; i++) {
        fprintf(out, "%s%.2f", i ? " " : "", x[i]);
    }
    fprintf(out, "%s%s", x ? "" : "-", end);
}

/* after or received may be NULL and cpu NAN: not known. */
static void append(const struct options *o, const struct fl_plan *p, uint64_t round,
                   const double *after, const double *received, double cpu)
{
    FILE *out = fopen(o->out, "a");

    if (!out) {
        die(o->out, NULL);
    }
    fseek(out, 0, SEEK_END);
    if (ftell(out) == 0) {
        fprintf(out, "method,seed,round,accuracy_after,accuracy_received,cpu_s,after_by_site,"
                     "received_by_site\n");
    }
    fprintf(out, "%s,%llu,%llu,", p->name, (unsigned long long)p->seed, (unsigned long long)round);
    print_mean(out, after);
    print_mean(out, received);
    if (isnan(cpu)) {
        fprintf(out, "-,");
    } else {
        fprintf(out, "%.2f,", cpu);
    }
    print_each(out, after, ",");
    print_each(out, received, "\n");
    if (fclose(out)) {
        die(o->out, NULL);
    }
}

/* ---- runs ---- */

static void read_plan(const char *path, uint64_t seed, struct fl_plan *ret)
{
    size_t size, with_size;
    char value[24], *with;
    uint8_t *text;
    struct fl_err e;

    snprintf(value, sizeof value, "%llu", (unsigned long long)seed);
    if (fl_file_read(path, FL_PLAN_TEXT_MAX, &text, &size, &e) ||
        fl_plan_override((const char *)text, size, "seed", value, &with, &with_size, &e) ||
        fl_plan_parse(ret, path, with, with_size, &e)) {
        die(path, &e);
    }
    fl_free(text);
    fl_free(with);
}

static void run(const struct options *o, const char *path, uint64_t seed,
                const struct fl_dataset *data)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    double after[SITES], received[SITES], cpu;
    struct federation f;

    read_plan(path, seed, plan);
    federation_init(&f, o, plan, data);
    restore(o, &f);
    uint64_t rounds = o->rounds ? o->rounds : plan->rounds;
    while (f.rounds < rounds) {
        step(&f, after, received, &cpu);
        append(o, plan, f.rounds, after, received, cpu);
        save(o, &f);
        printf("%s seed %llu round %llu: after %.2f received %.2f cpu %.2f s\n", plan->name,
               (unsigned long long)seed, (unsigned long long)f.rounds, mean(after), mean(received),
               cpu);
        fflush(stdout);
    }
    if (f.rounds == rounds) {
        evaluate(&f, received);
        append(o, plan, rounds + 1, NULL, received, (double)NAN);
    }
    federation_fini(&f);
    fl_free(plan);
}

int main(int argc, char **argv)
{
    struct fl_dataset *data = fl_new(SITES, sizeof *data);
    struct options o;

    parse_options(argc, argv, &o);
    for (uint32_t i = 0; i < SITES; i++) {
        load_site(&o, i, &data[i]);
        if (o.digests) {
            char hex[FL_DIGEST_HEX];
            fl_digest_hex(&data[i].digest, hex);
            printf("%u %s\n", i, hex);
        }
    }
    for (size_t s = 0; s < o.seeds && !o.digests; s++) {
        for (int i = optind; i < argc; i++) {
            run(&o, argv[i], o.seed[s], data);
        }
    }
    for (uint32_t i = 0; i < SITES; i++) {
        fl_dataset_fini(&data[i]);
    }
    fl_free(data);
    return 0;
}
