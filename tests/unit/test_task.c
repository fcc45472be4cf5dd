/*
 * One agent's folder and one task in it, call by call, with a trainer that only pretends: crashes
 * are a vault that is closed and opened again. What must hold: a release is found again with the
 * same bytes; without a debit the same seed makes the same bytes; other inputs make none. And
 * nothing private reaches a frame: that test must fail with a leak on purpose (-Dseeded_leaks).
 */
#include "client/core/outbox.h"
#include "client/talk.h"
#include "client/task.h"
#include "client/task_in.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/math/grid.h"
#include "common/nn/tensors.h"
#include "tests/lib/check_main.h"
#include "tests/lib/pretend_trainer.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- a site ---------------------------------------------------------------------------------- */

static const char plan_none[] = "name: demo\n"
                                "strategy: fedrep\n"
                                "rounds: 3\n"
                                "model:\n"
                                "  input: [4]\n"
                                "  classes: 3\n"
                                "  layers:\n"
                                "    - linear: {out: 5}\n"
                                "    - leaky_relu:\n"
                                "    - linear: {out: 3}\n"
                                "train: {lr: 0.1}\n"
                                "round: {members: 2}\n";
#define PLAN_CLIENT "privacy: {unit: client, clip: 0.1, noise_multiplier: 2, delta: 1e-5}\n"

enum { SHARED = 4 * 5 + 5, PRIVATE = 5 * 3 + 3 };

struct site {
    char dir[64];
    struct fl_config config;
    struct fl_config_agent agent;
    struct fl_policy policy;
    uint8_t owner[32], coordinator[16];
    char plan[1024];
    uint8_t *base; /* safetensors */
    size_t base_size;
    struct fl_agent_task what;
    struct fl_vault *vault;
};

static struct fl_err e;

static void write_file(const char *path, const void *data, size_t size)
{
    ck_assert_msg(fl_file_replace(path, data, size, 0600, &e) == 0, "%s", e.msg);
}

static void write_data(struct site *s, int shift)
{
    char text[4096] = "a,b,c,d,class\n";
    size_t at = strlen(text);

    for (int i = 0; i < 60; i++) {
        at += (size_t)snprintf(text + at, sizeof text - at, "%d,%d,%d,%d,%d\n", i, i % 7, i % 5, 1,
                               (i + shift) % 3);
    }
    write_file(s->agent.data.train_x, text, at);
}

static void site_open(struct site *s)
{
    ck_assert_msg(fl_vault_open(&s->config, &s->agent, s->owner, &s->vault, &e) == 0, "%s", e.msg);
}

/* The model a round starts from; with `bad`, one value of it (NAN: all are good). */
static void make_base(struct site *s, size_t plan_size, float bad)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    float values[SHARED];

    ck_assert_msg(fl_plan_parse(plan, "plan", s->plan, plan_size, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(plan->layout.shared.elements, SHARED);
    ck_assert_uint_eq(plan->layout.private_.elements, PRIVATE);
    for (int i = 0; i < SHARED; i++) {
        values[i] = (float)i / SHARED;
    }
    values[1] = isnan(bad) ? values[1] : bad;
    fl_free(s->base);
    ck_assert_int_eq(fl_tensors_write(&plan->layout.shared, values, &s->base, &s->base_size, &e),
                     0);
    fl_free(plan);
}

static void site_init(struct site *s, const char *privacy)
{
    memset(s, 0, sizeof *s);
    snprintf(s->dir, sizeof s->dir, "/tmp/cohort-task-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(s->dir));
    snprintf(s->config.state, sizeof s->config.state, "%s/state", s->dir);
    s->config.limits.cache = 1 << 20;
    s->config.agents = &s->agent;
    s->config.agent_count = 1;
    snprintf(s->agent.name, sizeof s->agent.name, "site-01");
    s->agent.policy = &s->policy;
    s->policy.job_count = 1;
    snprintf(s->policy.jobs[0].name, FL_PLAN_NAME_MAX, "demo");
    s->agent.data = (struct fl_data_source){
        .format = FL_DATA_CSV, .of = 1, .classes = 3, .train = 40, .test = 20, .seed = 1};
    snprintf(s->agent.data.train_x, sizeof s->agent.data.train_x, "%s/data.csv", s->dir);
    snprintf(s->agent.data.target, sizeof s->agent.data.target, "class");
    write_data(s, 0);
    memset(s->owner, 7, sizeof s->owner);
    memset(s->coordinator, 9, sizeof s->coordinator);
    size_t size = (size_t)snprintf(s->plan, sizeof s->plan, "%s%s", plan_none, privacy);
    make_base(s, size, NAN);
    s->what = (struct fl_agent_task){.key = {.incarnation = {1}, .round = 1},
                                     .job = "demo",
                                     .exchange = "update",
                                     .plan_size = size,
                                     .base_size = s->base_size,
                                     .update_size = 2 * SHARED};
    fl_digest_of(s->plan, size, &s->what.plan);
    fl_digest_of(s->base, s->base_size, &s->what.base);
    site_open(s);
}

static void site_reopen(struct site *s)
{
    fl_vault_close(s->vault);
    site_open(s);
}

static void site_fini(struct site *s)
{
    char command[128];

    fl_vault_close(s->vault);
    fl_free(s->base);
    snprintf(command, sizeof command, "rm -rf %s", s->dir);
    ck_assert_int_eq(system(command), 0);
}

static void put_object(struct site *s, const struct fl_digest *digest, const void *data,
                       size_t size)
{
    struct fl_spool *spool;
    uint64_t offset;

    ck_assert_int_eq(fl_vault_spool(s->vault, digest, size, &spool, &offset, &e), 0);
    ck_assert_int_eq(
        fl_spool_write(spool, offset, (const uint8_t *)data + offset, size - offset, &e), 0);
    ck_assert_int_eq(fl_spool_seal(spool, &e), 0);
    fl_spool_close(spool);
}

static void fetch(struct site *s)
{
    put_object(s, &s->what.plan, s->plan, s->what.plan_size);
    put_object(s, &s->what.base, s->base, s->base_size);
}

/* Files in a folder of the vault whose name has this end. */
static int files(const struct site *s, const char *folder, const char *end)
{
    char path[FL_VAULT_PATH_MAX];
    struct dirent *d;
    int n = 0;

    snprintf(path, sizeof path, "%s/site-01/%s", s->config.state, folder);
    DIR *dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    while ((d = readdir(dir)) != NULL) {
        size_t have = strlen(d->d_name), want = strlen(end);
        n += d->d_name[0] != '.' && have >= want && strcmp(d->d_name + have - want, end) == 0;
    }
    closedir(dir);
    return n;
}

static void read_report(const struct site *s, char *ret, size_t size)
{
    char path[FL_VAULT_PATH_MAX];

    snprintf(path, sizeof path, "%s/site-01/report.jsonl", s->config.state);
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    size_t n = fread(ret, 1, size - 1, f);
    ret[n] = '\0';
    fclose(f);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void to_intent(struct site *s, struct fl_task *t)
{
    bool costs;

    fl_task_init(t, s->vault, &s->what, s->coordinator);
    ck_assert_msg(fl_task_judge(t, &costs, &e) == 0, "%s", e.msg);
    ck_assert_msg(fl_task_intent(t, &e) == 0, "%s", e.msg);
}

static void to_sealed(struct site *s, struct fl_task *t, struct fl_agent_offer *offer)
{
    to_intent(s, t);
    ck_assert_msg(fl_task_train(t, &e) == 0, "%s", e.msg);
    ck_assert_msg(fl_task_seal(t, offer, &e) == 0, "%s", e.msg);
}

START_TEST(test_one_round)
{
    struct site s;
    struct fl_task t;
    struct fl_agent_offer offer, again;
    char report[4096];
    unsigned have;
    int fd;

    site_init(&s, PLAN_CLIENT);
    ck_assert_int_eq(fl_vault_look(s.vault, &s.what, &have, &offer, &e), 0);
    ck_assert_uint_eq(have, 0);
    fetch(&s);
    ck_assert_int_eq(fl_vault_look(s.vault, &s.what, &have, &offer, &e), 0);
    ck_assert_uint_eq(have, FL_AGENT_HAVE_PLAN | FL_AGENT_HAVE_BASE);
    to_sealed(&s, &t, &offer);
    ck_assert_int_eq(fl_vault_pending(s.vault, s.coordinator, &again, &e), 0);
    ck_assert_msg(fl_task_debit(&t, &e) == 0, "%s", e.msg);
    fl_task_fini(&t);
    ck_assert_int_eq(fl_vault_pending(s.vault, s.coordinator, &again, &e), 1);
    ck_assert(fl_digest_equal(&again.digest, &offer.digest));
    uint8_t other[16] = {0};
    ck_assert_int_eq(fl_vault_pending(s.vault, other, &again, &e), 0); /* another coordinator's */
    ck_assert_int_eq(fl_vault_update(s.vault, &offer, &fd, &e), 0);
    close(fd);
    ck_assert_int_eq(files(&s, "private", ""), 1);
    ck_assert_int_eq(files(&s, "outbox", ""), 2);
    ck_assert_msg(fl_vault_mark(s.vault, &offer, 0, 111, 222, &e) == 0, "%s", e.msg);
    ck_assert_int_eq(files(&s, "outbox", ""), 0);
    ck_assert_int_eq(fl_vault_look(s.vault, &s.what, &have, &offer, &e), 0);
    ck_assert_uint_eq(have, FL_AGENT_HAVE_SETTLED);
    read_report(&s, report, sizeof report);
    static const char *const facts[] = {"\"event\":\"round\"",
                                        "\"outcome\":\"acknowledged\"",
                                        "\"accuracy_received\":0.25",
                                        "\"accuracy_served\":null",
                                        "\"bytes_down\":111",
                                        "\"bytes_up\":222",
                                        "\"unit\":\"client\"",
                                        "\"neighbours\":\"this whole site added or removed\"",
                                        "\"delta\":1e-5"};
    for (size_t i = 0; i < FL_COUNT(facts); i++) {
        ck_assert_msg(strstr(report, facts[i]) != NULL, "%s is not in %s", facts[i], report);
    }
    /* The private tensors of round 1 go into round 2, and are then replaced. */
    s.what.key.round = 2;
    to_sealed(&s, &t, &offer);
    ck_assert(!fl_digest_equal(&t.inputs.private_state, &t.release.private_state));
    ck_assert_int_eq(fl_task_debit(&t, &e), 0);
    fl_task_fini(&t);
    ck_assert_int_eq(files(&s, "private", ""), 1);
    site_fini(&s);
}
END_TEST

START_TEST(test_crashes)
{
    struct site s;
    struct fl_task t;
    struct fl_agent_offer first, offer;
    unsigned have;

    site_init(&s, PLAN_CLIENT);
    fetch(&s);
    to_sealed(&s, &t, &first);
    fl_task_fini(&t);
    /* Before the debit: what was sealed is litter; the same seed makes the same bytes. */
    site_reopen(&s);
    ck_assert_int_eq(files(&s, "outbox", ""), 0);
    ck_assert_int_eq(files(&s, "private", ""), 0);
    to_sealed(&s, &t, &offer);
    ck_assert(fl_digest_equal(&offer.digest, &first.digest));
    ck_assert_int_eq(fl_task_debit(&t, &e), 0);
    fl_task_fini(&t);
    /* After it: the very same bytes are offered, with all an Offer says. */
    site_reopen(&s);
    ck_assert_int_eq(fl_vault_look(s.vault, &s.what, &have, &offer, &e), 0);
    ck_assert_uint_eq(have, FL_AGENT_HAVE_RELEASE);
    ck_assert_int_eq(fl_vault_pending(s.vault, s.coordinator, &offer, &e), 1);
    ck_assert(fl_digest_equal(&offer.digest, &first.digest));
    ck_assert(fl_digest_equal(&offer.plan, &s.what.plan));
    ck_assert(fl_digest_equal(&offer.base, &s.what.base));
    ck_assert_uint_eq(offer.weight, 1);
    ck_assert_uint_eq(offer.size, 2 * SHARED);
    ck_assert_str_eq(offer.job, "demo");
    ck_assert_int_eq(files(&s, "private", ""), 1);
    /* Bytes that rot in the outbox are not offered, and not lost silently. */
    char path[FL_VAULT_PATH_MAX];
    fl_vault_digest_path(s.vault, "outbox", &offer.digest, "", path);
    uint8_t zeros[2 * SHARED] = {0};
    write_file(path, zeros, sizeof zeros);
    ck_assert_int_eq(fl_vault_pending(s.vault, s.coordinator, &offer, &e), 0);
    char report[4096];
    read_report(&s, report, sizeof report);
    ck_assert_ptr_nonnull(strstr(report, "\"outcome\":\"store-mismatch\""));
    site_fini(&s);
}
END_TEST

START_TEST(test_other_inputs_make_nothing)
{
    struct site s;
    struct fl_task t;
    bool costs;

    site_init(&s, PLAN_CLIENT);
    fetch(&s);
    to_intent(&s, &t);
    fl_task_fini(&t);
    /* The data changed between two attempts at one round. */
    write_data(&s, 1);
    site_reopen(&s);
    fl_task_init(&t, s.vault, &s.what, s.coordinator);
    ck_assert_int_eq(fl_task_judge(&t, &costs, &e), 0);
    ck_assert_int_eq(fl_task_intent(&t, &e), -FL_R_INTENT);
    fl_task_fini(&t);
    /* The next round is a new one. */
    s.what.key.round = 2;
    to_intent(&s, &t);
    fl_task_fini(&t);
    site_fini(&s);
}
END_TEST

/* Fewer of the same rows: one data set to the ledger, but not what the seed was drawn for. */
START_TEST(test_another_choice_of_the_same_rows)
{
    struct site s;
    struct fl_task t;
    bool costs;

    site_init(&s, PLAN_CLIENT);
    fetch(&s);
    to_intent(&s, &t);
    struct fl_digest before = t.inputs.data;
    fl_task_fini(&t);
    s.agent.data.train = 38;
    site_reopen(&s);
    fl_task_init(&t, s.vault, &s.what, s.coordinator);
    ck_assert_int_eq(fl_task_judge(&t, &costs, &e), 0);
    ck_assert_int_eq(fl_task_intent(&t, &e), -FL_R_INTENT);
    ck_assert_ptr_nonnull(strstr(e.msg, "choice of examples"));
    ck_assert(fl_digest_equal(&before, &t.vault->data.identity));
    fl_task_fini(&t);
    site_fini(&s);
}
END_TEST

static void write_pictures(const struct site *s, unsigned char add)
{
    unsigned char x[12 + 60 * 4] = {0, 0, 8, 2, 0, 0, 0, 60, 0, 0, 0, 4},
                              y[8 + 60] = {0, 0, 8, 1, 0, 0, 0, 60};

    for (unsigned i = 0; i < 240; i++) {
        x[12 + i] = (unsigned char)(i + add);
    }
    for (unsigned i = 0; i < 60; i++) {
        y[8 + i] = (unsigned char)(i % 3);
    }
    FILE *f = fopen(s->agent.data.train_x, "r+b"); /* in place */
    f = f ? f : fopen(s->agent.data.train_x, "wb");
    ck_assert_uint_eq(fwrite(x, 1, sizeof x, f), sizeof x);
    fclose(f);
    write_file(s->agent.data.train_y, y, sizeof y);
}

/* Examples that stay in their file, which is rewritten between two rounds: the second is refused
 * before anything is debited to the first's data, and the third charges what is there now. */
START_TEST(test_data_rewritten_in_place)
{
    struct site s;
    struct fl_task t;
    struct fl_digest before;

    site_init(&s, PLAN_CLIENT);
    s.agent.data.format = FL_DATA_IDX;
    s.agent.data.memory = 1;
    snprintf(s.agent.data.train_x, sizeof s.agent.data.train_x, "%s/x", s.dir);
    snprintf(s.agent.data.train_y, sizeof s.agent.data.train_y, "%s/y", s.dir);
    write_pictures(&s, 0);
    site_reopen(&s);
    fetch(&s);
    to_intent(&s, &t);
    ck_assert_ptr_nonnull(s.vault->data.train.stored);
    ck_assert_msg(fl_task_train(&t, &e) == 0, "%s", e.msg);
    before = t.inputs.data;
    fl_task_fini(&t);
    write_pictures(&s, 1);
    s.what.key.round = 2;
    to_intent(&s, &t);
    ck_assert(fl_digest_equal(&before, &t.inputs.data)); /* nobody looked yet */
    ck_assert_int_eq(fl_task_train(&t, &e), -FL_R_DATA_CHANGED);
    fl_task_fini(&t);
    s.what.key.round = 3;
    to_intent(&s, &t);
    ck_assert(!fl_digest_equal(&before, &t.inputs.data));
    ck_assert_msg(fl_task_train(&t, &e) == 0, "%s", e.msg);
    fl_task_fini(&t);
    site_fini(&s);
}
END_TEST

static int judge(struct site *s)
{
    struct fl_task t;
    bool costs;

    fl_task_init(&t, s->vault, &s->what, s->coordinator);
    int r = fl_task_judge(&t, &costs, &e);
    fl_task_fini(&t);
    return r;
}

START_TEST(test_refusals)
{
    struct site s;

    site_init(&s, PLAN_CLIENT);
    fetch(&s);
    ck_assert_int_eq(judge(&s), 0);
    s.what.update_size++;
    ck_assert_int_eq(judge(&s), -FL_R_UPDATE_LENGTH);
    s.what.update_size--;
    s.what.base_size -= s.base_size - 4 * SHARED + 1; /* not even the values */
    ck_assert_int_eq(judge(&s), -FL_R_UPDATE_SHAPE);
    s.what.base_size = s.base_size;
    s.what.key.exchange = 1;
    ck_assert_int_eq(judge(&s), -FL_R_CAPABILITY);
    s.what.key.exchange = 0;
    snprintf(s.what.job, sizeof s.what.job, "other");
    ck_assert_int_eq(judge(&s), -FL_R_POLICY_JOB); /* the plan is of job demo */
    snprintf(s.what.job, sizeof s.what.job, "demo");
    s.policy.jobs[0].min_noise_multiplier = 3;
    ck_assert_int_eq(judge(&s), -FL_R_POLICY_NOISE);
    s.policy.jobs[0].min_noise_multiplier = 0;
    snprintf(s.policy.jobs[0].name, FL_PLAN_NAME_MAX, "fashion");
    ck_assert_int_eq(judge(&s), -FL_R_POLICY_JOB);
    snprintf(s.policy.jobs[0].name, FL_PLAN_NAME_MAX, "*");
    s.policy.jobs[0].budget =
        (struct fl_budget){.unit = FL_UNIT_CLIENT, .epsilon = 0.01, .delta = 1e-5};
    int r = judge(&s);
    ck_assert_msg(r == -FL_R_BUDGET_SPENT || r == -FL_R_POLICY_NOISE, "%d %s", r, e.msg);
    s.policy.jobs[0].budget = (struct fl_budget){.unit = FL_UNIT_NONE};
    ck_assert_int_eq(fl_ledger_withdraw(s.vault->ledger, "demo", true, 1, &e), 0);
    ck_assert_int_eq(judge(&s), -FL_R_WITHDRAWN);
    ck_assert_int_eq(fl_ledger_withdraw(s.vault->ledger, "demo", false, 2, &e), 0);
    ck_assert_int_eq(judge(&s), 0);
    /* A cached object that does not match its name is fetched again. */
    char path[FL_VAULT_PATH_MAX];
    fl_vault_digest_path(s.vault, "cache", &s.what.plan, "", path);
    write_file(path, "name: evil", 10);
    ck_assert_int_eq(judge(&s), -FL_R_STORE_MISMATCH);
    ck_assert_int_ne(access(path, F_OK), 0);
    /* Data of another shape than the model's. */
    fetch(&s);
    write_file(s.agent.data.train_x, "a,b,class\n1,2,0\n2,3,1\n3,4,2\n4,5,0\n", 34);
    s.agent.data.train = 2;
    s.agent.data.test = 2;
    fl_vault_unload(s.vault);
    ck_assert_int_eq(judge(&s), -FL_R_DATA_SHAPE);
    site_fini(&s);
}
END_TEST

START_TEST(test_cancel_and_bad_numbers)
{
    struct site s;
    struct fl_task t;
    struct fl_agent_offer offer;

    site_init(&s, PLAN_CLIENT);
    fetch(&s);
    to_intent(&s, &t);
    atomic_store(&t.cancel, true);
    ck_assert_int_eq(fl_task_train(&t, &e), -FL_R_CANCELLED);
    ck_assert_ptr_null(t.delta);
    atomic_store(&t.cancel, false);
    ck_assert_int_eq(fl_task_train(&t, &e), 0);
    t.delta[3] = NAN;
    ck_assert_int_eq(fl_task_seal(&t, &offer, &e), -FL_R_NOT_FINITE);
    ck_assert_int_eq(files(&s, "outbox", ""), 0);
    ck_assert_int_eq(files(&s, "private", ""), 0);
    fl_task_fini(&t);
    site_fini(&s);
}
END_TEST

/* A model that a coordinator spoiled is not trained from. */
START_TEST(test_spoiled_model)
{
    struct site s;
    struct fl_task t;

    site_init(&s, PLAN_CLIENT);
    make_base(&s, s.what.plan_size, INFINITY);
    fl_digest_of(s.base, s.base_size, &s.what.base);
    fetch(&s);
    to_intent(&s, &t);
    ck_assert_int_eq(fl_task_train(&t, &e), -FL_R_TENSORS);
    ck_assert_ptr_null(t.delta);
    fl_task_fini(&t);
    site_fini(&s);
}
END_TEST

START_TEST(test_folder)
{
    struct site s;
    struct stat st;
    char path[FL_VAULT_PATH_MAX];
    struct fl_vault *v = NULL;
    uint8_t stranger[32] = {1};

    site_init(&s, "");
    snprintf(path, sizeof path, "%s/site-01", s.config.state);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 077, 0);
    struct fl_seed seed = s.vault->seed;
    site_reopen(&s);
    ck_assert_mem_eq(&seed, &s.vault->seed, sizeof seed);
    fl_vault_close(s.vault);
    s.vault = NULL;
    ck_assert_int_eq(fl_vault_open(&s.config, &s.agent, stranger, &v, &e), -FL_R_LEDGER);
    snprintf(path, sizeof path, "%s/site-01/seed", s.config.state);
    ck_assert_int_eq(chmod(path, 0644), 0);
    ck_assert_int_eq(fl_vault_open(&s.config, &s.agent, s.owner, &v, &e), -FL_R_FILE_MODE);
    site_fini(&s);
}
END_TEST

START_TEST(test_cache_is_bounded)
{
    struct site s;
    struct fl_agent_offer offer;
    unsigned have;
    uint8_t big[1000];

    site_init(&s, "");
    s.vault->cache_max = 5000 + s.base_size + s.what.plan_size;
    for (int i = 0; i < 12; i++) {
        struct fl_digest d;
        memset(big, i, sizeof big);
        fl_digest_of(big, sizeof big, &d);
        put_object(&s, &d, big, sizeof big);
    }
    fetch(&s);
    ck_assert_int_eq(fl_vault_look(s.vault, &s.what, &have, &offer, &e), 0);
    ck_assert_uint_eq(have, FL_AGENT_HAVE_PLAN | FL_AGENT_HAVE_BASE);
    ck_assert_int_eq(files(&s, "cache", ""), 2 + 5);
    site_fini(&s);
}
END_TEST

START_TEST(test_final_model)
{
    struct site s;
    struct fl_task t;
    struct fl_agent_offer offer;
    char report[4096];
    unsigned have;

    site_init(&s, PLAN_CLIENT);
    fetch(&s);
    s.what.final = true;
    s.what.update_size = 0;
    ck_assert_int_eq(fl_vault_look(s.vault, &s.what, &have, &offer, &e), 0);
    ck_assert_uint_eq(have, FL_AGENT_HAVE_PLAN | FL_AGENT_HAVE_BASE);
    fl_task_init(&t, s.vault, &s.what, s.coordinator);
    ck_assert_msg(fl_task_prepare_final(&t, &e) == 0, "%s", e.msg);
    ck_assert_msg(fl_task_evaluate(&t, &e) == 0, "%s", e.msg);
    fl_task_fini(&t);
    read_report(&s, report, sizeof report);
    ck_assert_ptr_nonnull(strstr(report, "\"event\":\"final\",\"final\":true"));
    ck_assert_ptr_nonnull(strstr(report, "\"accuracy_served\":0.9"));
    ck_assert_ptr_nonnull(strstr(report, "\"epsilon\":0"));
    ck_assert_ptr_nonnull(strstr(report, "\"delta\":1e-5"));
    ck_assert_int_eq(fl_vault_look(s.vault, &s.what, &have, &offer, &e), 0);
    ck_assert_uint_eq(have & FL_AGENT_HAVE_SETTLED, FL_AGENT_HAVE_SETTLED);
    s.what.base.bytes[0] ^= 1; /* the job went on and ended again */
    ck_assert_int_eq(fl_vault_look(s.vault, &s.what, &have, &offer, &e), 0);
    ck_assert_uint_eq(have & FL_AGENT_HAVE_SETTLED, 0);
    site_fini(&s);
}
END_TEST

/* Everything that leaves for one task, as bytes: the frames before the offer, the offer, the
 * update. */
static size_t frames_of(struct site *s, float private_value, int32_t labels, uint8_t *to,
                        size_t room)
{
    struct fl_task t;
    struct fl_agent_offer offer;
    struct fl_talk talk;
    size_t n = 0;
    int fd;

    to_intent(s, &t);
    ck_assert_int_eq(fl_task_train(&t, &e), 0);
    /* The same released steps; other private tensors and other labels. */
    for (size_t i = 0; i < PRIVATE; i++) {
        t.private_out[i] = private_value;
    }
    for (uint32_t i = 0; i < s->vault->data.train.count; i++) {
        s->vault->data.train.y[i] = labels;
    }
    t.trained.loss = private_value;
    t.trained.accuracy_trained = private_value;
    ck_assert_msg(fl_task_seal(&t, &offer, &e) == 0, "%s", e.msg);
    fl_talk_accept(&talk, &s->what.key);
    n += fl_msg_packed_size(&talk.frame);
    ck_assert_uint_le(n, room);
    fl_msg_pack(&talk.frame, to);
    fl_talk_offer(&talk, &offer, &(struct fl_ledger_mark){0});
    ck_assert_int_eq(fl_msg_check(&talk.frame, &e), 0);
    size_t size = fl_msg_packed_size(&talk.frame);
    ck_assert_uint_le(n + size, room);
    fl_msg_pack(&talk.frame, to + n);
    n += size;
    ck_assert_int_eq(fl_vault_update(s->vault, &offer, &fd, &e), 0);
    ck_assert_uint_le(n + offer.size, room);
    ck_assert_int_eq(read(fd, to + n, offer.size), (ssize_t)offer.size);
    close(fd);
    fl_task_fini(&t);
    fl_vault_unload(s->vault);
    return n + offer.size;
}

START_TEST(test_nothing_private_leaves)
{
    static const char *const units[] = {"", PLAN_CLIENT};
    static uint8_t one[4096], two[4096];

    for (size_t u = 0; u < FL_COUNT(units); u++) {
        struct site s;
        site_init(&s, units[u]);
        fetch(&s);
        size_t n = frames_of(&s, 0.125f, 0, one, sizeof one);
        size_t m = frames_of(&s, -3.5f, 2, two, sizeof two);
        ck_assert_uint_eq(n, m);
        ck_assert_mem_eq(one, two, n);
        site_fini(&s);
    }
}
END_TEST

/* A decline says a number and the registry's words, whatever the site knows. */
START_TEST(test_declines_tell_nothing)
{
    struct fl_talk a, b;
    struct fl_key key = {.round = 4};
    uint8_t one[512], two[512];

    fl_fail(&e, FL_R_BUDGET_SPENT, "epsilon would reach 8.4 of 8 on /srv/patients.csv");
    fl_talk_decline(&a, &key, FL_R_BUDGET_SPENT);
    fl_fail(&e, FL_R_BUDGET_SPENT, "epsilon would reach 1.1 of 1");
    fl_talk_decline(&b, &key, FL_R_BUDGET_SPENT);
    size_t n = fl_msg_packed_size(&a.frame);
    ck_assert_uint_eq(n, fl_msg_packed_size(&b.frame));
    fl_msg_pack(&a.frame, one);
    fl_msg_pack(&b.frame, two);
    ck_assert_mem_eq(one, two, n);
}
END_TEST

START_TEST(test_memory_that_ends)
{
    struct site s;
    struct fl_agent_offer offer;
    bool hit = true;

    site_init(&s, PLAN_CLIENT);
    fetch(&s);
    for (uint64_t n = 1; hit; n++) {
        struct fl_task t;
        bool costs;
        fl_vault_unload(s.vault);
        fl_task_init(&t, s.vault, &s.what, s.coordinator);
        fl_mem_fail_at(n);
        int r = fl_task_judge(&t, &costs, &e);
        r = r ? r : fl_task_intent(&t, &e);
        r = r ? r : fl_task_train(&t, &e);
        r = r ? r : fl_task_seal(&t, &offer, &e);
        hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        fl_task_fini(&t);
        ck_assert_msg(hit ? r < 0 : r == 0, "allocation %llu: %d %s", (unsigned long long)n, r,
                      e.msg);
    }
    site_fini(&s);
}
END_TEST

#define PLAN_COUNTS PLAN_CLIENT "counts: {noise_multiplier: 0.25, bound: 20}\n"

/* The class counts that an offer's bytes in the outbox are. */
static void read_counts(const struct site *s, const struct fl_agent_offer *offer, double ret[3])
{
    const struct fl_grid g = {FL_COUNTS_BITS, FL_COUNTS_STEP};
    uint8_t bytes[12];
    int64_t q[3];
    int fd;

    ck_assert_int_eq(fl_vault_update(s->vault, offer, &fd, &e), 0);
    ck_assert_int_eq(pread(fd, bytes, sizeof bytes, 0), sizeof bytes);
    close(fd);
    ck_assert_int_eq(fl_grid_unpack(&g, bytes, sizeof bytes, 0, 3, q, &e), 0);
    for (int i = 0; i < 3; i++) {
        ret[i] = (double)q[i] / 16;
    }
}

/* Another exchange of the round goes the same way: intent, outbox, debit; a key of its own. */
START_TEST(test_counts)
{
    struct site s;
    struct fl_task t;
    struct fl_agent_offer first, offer;
    double counts[3], truth[3] = {0}, norm = 0;
    bool costs;

    site_init(&s, PLAN_COUNTS);
    s.what.base_size = 0;
    s.what.update_size = 12;
    fetch(&s);
    fl_task_init(&t, s.vault, &s.what, s.coordinator); /* the plan's exchange 0 is another one */
    ck_assert_int_eq(fl_task_judge(&t, &costs, &e), -FL_R_CAPABILITY);
    fl_task_fini(&t);
    snprintf(s.what.exchange, sizeof s.what.exchange, "counts");
    to_sealed(&s, &t, &first);
    fl_task_fini(&t);
    site_reopen(&s);
    to_sealed(&s, &t, &offer);
    ck_assert(fl_digest_equal(&offer.digest, &first.digest));
    ck_assert_uint_eq(offer.size, 12);
    ck_assert_double_eq(t.release.event.sigma, 0.25);
    ck_assert_uint_eq(t.release.event.count, 1);
    ck_assert_double_eq_tol(t.release.noise_std, 0.25 * 20, 1e-6);
    ck_assert_double_le(t.norm_after, 20);
    ck_assert_int_eq(fl_task_debit(&t, &e), 0);
    for (uint32_t i = 0; i < s.vault->data.train.count; i++) {
        truth[s.vault->data.train.y[i]]++;
    }
    for (int i = 0; i < 3; i++) {
        norm += truth[i] * truth[i];
    }
    read_counts(&s, &offer, counts);
    for (int i = 0; i < 3; i++) { /* clipped to 20, then noise of 5 */
        ck_assert_double_eq_tol(counts[i], truth[i] * 20 / sqrt(norm), 8 * 5);
        ck_assert(counts[i] != truth[i] * 20 / sqrt(norm));
    }
    fl_task_fini(&t);
    ck_assert_int_eq(files(&s, "private", ""), 0); /* nothing was trained yet */

    /* The update of the same round: exchange 1 now, with its model. */
    s.what.key.exchange = 1;
    s.what.base_size = s.base_size;
    s.what.update_size = 2 * SHARED;
    snprintf(s.what.exchange, sizeof s.what.exchange, "update");
    to_sealed(&s, &t, &offer);
    ck_assert_int_eq(fl_task_debit(&t, &e), 0);
    fl_task_fini(&t);
    ck_assert_int_eq(files(&s, "outbox", ""), 4);
    /* Round 2 has no counts. */
    s.what.key.round = 2;
    fl_task_init(&t, s.vault, &s.what, s.coordinator);
    ck_assert_int_eq(fl_task_judge(&t, &costs, &e), -FL_R_CAPABILITY);
    fl_task_fini(&t);
    site_fini(&s);
}
END_TEST

/* What a job's text decides for ever is neither written nor hashed again each round. */
START_TEST(test_frozen_tensors_are_not_kept)
{
    static const char text[] = "name: demo\nstrategy: fedrep\nrounds: 3\nmodel:\n  input: [4]\n"
                               "  classes: 3\n  layers:\n    - linear: {out: 100}\n"
                               "    - linear: {out: 5}\n    - linear: {out: 3}\n"
                               "  parameters: [{layers: [fc1], kind: frozen}]\n"
                               "train: {lr: 0.1}\nround: {members: 2}\n";
    enum { FROZEN = 4 * 100 + 100, HEAD = 5 * 3 + 3 };
    struct fl_digest before, after;
    char path[FL_VAULT_PATH_MAX];
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    float *read, kept[FROZEN + HEAD];
    struct stat st;
    struct site s;

    site_init(&s, "");
    ck_assert_msg(fl_plan_parse(plan, "plan", text, sizeof text - 1, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(plan->layout.private_.elements, FROZEN + HEAD);
    struct fl_task t = {.plan = plan, .vault = s.vault, .what = s.what, .private_out = kept};
    ck_assert_int_eq(fl_task_private_digest(&t, &before, &e), 0);
    ck_assert_int_eq(fl_task_load_private(&t, &before, &read, &e), 0);
    memcpy(kept, read, sizeof kept);
    fl_free(read);
    kept[FROZEN + HEAD - 1] += 1;
    ck_assert_msg(fl_task_write_private(&t, &after, &e) == 0, "%s", e.msg);
    ck_assert(!fl_digest_equal(&before, &after));
    fl_vault_private_path(s.vault, s.what.key.incarnation, &after, path);
    ck_assert(stat(path, &st) == 0 && st.st_size == 4 * HEAD);
    ck_assert_msg(fl_task_load_private(&t, &after, &read, &e) == 0, "%s", e.msg);
    ck_assert_mem_eq(read, kept, sizeof kept);
    fl_free(read);
    fl_free(plan);
    site_fini(&s);
}
END_TEST

TESTS_MAIN("task", test_one_round, test_counts, test_crashes, test_other_inputs_make_nothing,
           test_another_choice_of_the_same_rows, test_data_rewritten_in_place, test_refusals,
           test_cancel_and_bad_numbers, test_spoiled_model, test_folder, test_cache_is_bounded,
           test_final_model, test_frozen_tensors_are_not_kept, test_nothing_private_leaves,
           test_declines_tell_nothing, test_memory_that_ends)
