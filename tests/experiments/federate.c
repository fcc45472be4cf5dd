/*
 * One federation in one process, without daemons: the agents' own training and sealing (fl_train,
 * fl_outbox_seal), the sum of the sealed integers, and the coordinator's averaging with momentum.
 * For tables whose rounds would otherwise be spent on keys and signatures: what a secure sum opens
 * is this very sum (common/privacy/secagg), so the models are those that real rounds publish.
 *
 *     federate --folder DIR --sites N --seed N [--dealt N] [--test N] --train N,N,... JOB.yaml
 *
 * DIR has {train,test}-{x,y}.npy, dealt as `partition: pathological`, disjoint, by the seed;
 * --train says how many each site has, the last number for all that follow. Prints a JSON line a
 * site.
 */
#include "client/core/outbox.h"
#include "client/data/dataset.h"
#include "client/trainer/trainer.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/math/grid.h"
#include "common/plan/plan.h"
#include "server/strategy/serveropt.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SITES_MAX = 100 };

struct options {
    const char *folder;
    uint32_t sites, dealt, test;
    uint64_t seed;
    uint32_t train[SITES_MAX];
};

struct federation {
    struct fl_plan *plan, *quiet; /* quiet: serves nobody, for the rounds before the last */
    struct fl_dataset data[SITES_MAX];
    uint32_t sites;
    size_t count;
    float *model, *next, *momentum, *moved, *delta;
    int64_t *sum, *q;
    double *mean;
};

_Noreturn static void die(const char *what, const struct fl_err *e)
{
    fprintf(stderr, "federate: %s: %s\n", what, e ? e->msg : "bad argument");
    exit(1);
}

static uint64_t number(const char *text, const char *what)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);

    if (end == text || *end) {
        die(what, NULL);
    }
    return n;
}

static void sizes(char *text, struct options *o)
{
    uint32_t n = 0;

    for (char *s = strtok(text, ","); s && n < SITES_MAX; s = strtok(NULL, ",")) {
        o->train[n++] = (uint32_t)number(s, "--train");
    }
    for (; n > 0 && n < SITES_MAX; n++) {
        o->train[n] = o->train[n - 1];
    }
}

static void parse_options(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {{"folder", required_argument, NULL, 'f'},
                                          {"sites", required_argument, NULL, 'n'},
                                          {"seed", required_argument, NULL, 's'},
                                          {"dealt", required_argument, NULL, 'd'},
                                          {"test", required_argument, NULL, 'e'},
                                          {"train", required_argument, NULL, 't'},
                                          {NULL, 0, NULL, 0}};
    int c;

    *o = (struct options){.test = 600};
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (c) {
        case 'f':
            o->folder = optarg;
            break;
        case 'n':
            o->sites = (uint32_t)number(optarg, "--sites");
            break;
        case 's':
            o->seed = number(optarg, "--seed");
            break;
        case 'd':
            o->dealt = (uint32_t)number(optarg, "--dealt");
            break;
        case 'e':
            o->test = (uint32_t)number(optarg, "--test");
            break;
        case 't':
            sizes(optarg, o);
            break;
        default:
            exit(2);
        }
    }
    if (!o->folder || o->sites == 0 || o->sites > SITES_MAX || !o->train[0] || optind + 1 != argc) {
        fprintf(stderr, "usage: federate --folder DIR --sites N --seed N [--dealt N] [--test N] "
                        "--train N,N,... JOB.yaml\n");
        exit(2);
    }
}

static void load(const struct options *o, uint32_t i, struct fl_dataset *ret)
{
    struct fl_data_source s = {.format = FL_DATA_NPY,
                               .partition = FL_PARTITION_PATHOLOGICAL,
                               .disjoint = true,
                               .classes = 10,
                               .client = i,
                               .of = o->sites,
                               .seed = o->seed,
                               .dealt = o->dealt,
                               .train = o->train[i],
                               .test = o->test};
    struct fl_err e;

    snprintf(s.train_x, sizeof s.train_x, "%s/train-x.npy", o->folder);
    snprintf(s.train_y, sizeof s.train_y, "%s/train-y.npy", o->folder);
    snprintf(s.test_x, sizeof s.test_x, "%s/test-x.npy", o->folder);
    snprintf(s.test_y, sizeof s.test_y, "%s/test-y.npy", o->folder);
    if (fl_dataset_load(&s, ret, &e)) {
        die(o->folder, &e);
    }
}

static void read_plan(const char *path, struct fl_plan *ret)
{
    uint8_t *text;
    char *resolved;
    size_t size;
    struct fl_err e;

    if (fl_file_read(path, FL_PLAN_TEXT_MAX, &text, &size, &e) ||
        fl_plan_resolve((const char *)text, size, &resolved, &size, &e) ||
        fl_plan_parse(ret, path, resolved, size, &e)) {
        die(path, &e);
    }
    fl_free(text);
    fl_free(resolved);
}

static void seed_of(const struct fl_plan *plan, uint32_t site, uint64_t round, struct fl_seed *ret)
{
    struct fl_seed job, own;

    fl_seed_from_u64(plan->seed, &job); /* noise that anybody can repeat: an experiment's */
    fl_seed_derive(&job, "federate.site", site, &own);
    fl_seed_derive(&own, "federate.round", round, ret);
}

/* What site i sends in this round, added to the sum. */
static void add_site(struct federation *f, uint32_t i, uint64_t round)
{
    static const atomic_bool never;
    const struct fl_grid g = {f->plan->grid.bits, f->plan->grid.step};
    float none;
    struct fl_train_task task = {.plan = f->quiet,
                                 .data = &f->data[i],
                                 .base = f->model,
                                 .private_in = &none,
                                 .round = round,
                                 .cancel = &never};
    struct fl_train_result made = {.delta = f->delta, .private_out = &none};
    struct fl_sealed sealed;
    struct fl_err e;

    seed_of(f->plan, i, round, &task.seed);
    if (fl_train(&task, &made, &e) ||
        fl_outbox_seal(f->plan, f->delta,
                       f->plan->privacy.unit == FL_UNIT_EXAMPLE ? &made.event : NULL, &task.seed, 0,
                       &sealed, &e) ||
        fl_grid_unpack(&g, sealed.bytes, sealed.size, 0, f->count, f->q, &e)) {
        die(f->plan->name, &e);
    }
    for (size_t k = 0; k < f->count; k++) {
        f->sum[k] += f->q[k];
    }
    fl_sealed_fini(&sealed);
}

static void step(struct federation *f, uint64_t round)
{
    struct fl_server_opt opt = fl_server_opt_of(&f->plan->server);
    const struct fl_moments moments = {.m = f->momentum}, after = {.m = f->moved};
    struct fl_err e;

    memset(f->sum, 0, f->count * sizeof *f->sum);
    for (uint32_t i = 0; i < f->sites; i++) {
        add_site(f, i, round);
    }
    for (size_t k = 0; k < f->count; k++) {
        f->mean[k] = ldexp((double)f->sum[k], f->plan->grid.step) / f->sites;
    }
    if (fl_server_opt_step(&opt, f->model, f->mean, 0, f->count, &moments, f->next, &after, &e)) {
        die(f->plan->name, &e);
    }
    memcpy(f->model, f->next, f->count * sizeof *f->model);
    memcpy(f->momentum, f->moved, f->count * sizeof *f->momentum);
}

static void serve(const struct federation *f, uint32_t i, double cpu)
{
    static const atomic_bool never;
    float none;
    struct fl_train_task task = {.plan = f->plan,
                                 .data = &f->data[i],
                                 .base = f->model,
                                 .private_in = &none,
                                 .cancel = &never};
    struct fl_train_report x;
    struct fl_err e;

    seed_of(f->plan, i, f->plan->rounds + 1, &task.seed);
    if (fl_train_serve(&task, &x, &e)) {
        die(f->plan->name, &e);
    }
    printf("{\"site\": \"site-%02u\", \"final\": true, \"round\": %llu, \"loss\": %.6g, \"cpu_s\": "
           "%.4f, \"accuracy_received\": %.6f",
           i + 1, (unsigned long long)f->plan->rounds, x.loss, cpu, x.accuracy_received);
    if (isfinite(x.accuracy_served)) {
        printf(", \"accuracy_served\": %.6f", x.accuracy_served);
    }
    printf("}\n");
}

int main(int argc, char **argv)
{
    struct federation *f = fl_new(1, sizeof *f);
    struct options o;
    struct fl_seed job;

    parse_options(argc, argv, &o);
    f->plan = fl_new(1, sizeof *f->plan);
    f->quiet = fl_new(1, sizeof *f->quiet);
    read_plan(argv[optind], f->plan);
    read_plan(argv[optind], f->quiet);
    f->quiet->train.serve_epochs = 0;
    f->sites = o.sites;
    f->count = f->plan->layout.shared.elements;
    if (f->plan->layout.private_.elements > 0 || f->plan->round.members != f->sites) {
        fprintf(stderr, "federate: %s: a model of which all is shared, and all sites in a round\n",
                argv[optind]);
        return 1;
    }
    f->model = fl_new(f->count, sizeof *f->model);
    f->next = fl_new(f->count, sizeof *f->next);
    f->momentum = fl_new(f->count, sizeof *f->momentum);
    f->moved = fl_new(f->count, sizeof *f->moved);
    f->delta = fl_new(f->count, sizeof *f->delta);
    f->sum = fl_new(f->count, sizeof *f->sum);
    f->q = fl_new(f->count, sizeof *f->q);
    f->mean = fl_new(f->count, sizeof *f->mean);
    for (uint32_t i = 0; i < f->sites; i++) {
        load(&o, i, &f->data[i]);
    }
    fl_seed_from_u64(f->plan->seed, &job);
    fl_layout_init_shared(&f->plan->layout, &job, f->model);
    clock_t from = clock();
    for (uint64_t round = 1; round <= f->plan->rounds; round++) {
        step(f, round);
    }
    double cpu = (double)(clock() - from) / CLOCKS_PER_SEC / f->sites;
    for (uint32_t i = 0; i < f->sites; i++) {
        serve(f, i, cpu);
        fl_dataset_fini(&f->data[i]);
    }
    fl_free(f->model);
    fl_free(f->next);
    fl_free(f->momentum);
    fl_free(f->moved);
    fl_free(f->delta);
    fl_free(f->sum);
    fl_free(f->q);
    fl_free(f->mean);
    fl_free(f->plan);
    fl_free(f->quiet);
    fl_free(f);
    return 0;
}
