#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/io/spool.h"
#include "server/store/store.h"
#include "tests/lib/check_main.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[128];
static struct fl_store *store;
static struct fl_err err;
static const uint8_t inc[FL_INCARNATION_SIZE] = {1, 2, 3};
static const struct fl_store_quota quota = {.keep_models = 2};

/* ---- helpers: a state folder with one job, agents 1..3 and round 1 open ---- */

static int rm_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void fresh(void)
{
    snprintf(dir, sizeof dir, "/tmp/test_store.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    err = (struct fl_err){0};
}

static void gone(void)
{
    fl_store_close(store);
    store = NULL;
    nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int try_open(const struct fl_store_quota *q)
{
    uint8_t id[16];
    return fl_store_open(dir, q, &store, id, &err);
}

#define ck_ok(call) ck_assert_msg((call) == 0, "%s", err.msg)

static void reopen(void)
{
    fl_store_close(store);
    store = NULL;
    ck_ok(try_open(&quota));
}

static bool exists(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static bool exists(const char *fmt, ...)
{
    char path[512];
    va_list ap;

    va_start(ap, fmt);
    int n = snprintf(path, sizeof path, "%s/", dir);
    vsnprintf(path + n, sizeof path - (size_t)n, fmt, ap);
    va_end(ap);
    return access(path, F_OK) == 0;
}

static struct fl_digest digest_of(const char *text)
{
    struct fl_digest d;
    fl_digest_of(text, strlen(text), &d);
    return d;
}

static struct fl_digest write_model(uint64_t round, const char *text)
{
    struct fl_piece pieces[2] = {{text, 2}, {text + 2, strlen(text) - 2}};
    struct fl_digest d, whole = digest_of(text);

    ck_ok(fl_store_checkpoint_write(store, inc, round, pieces, 2, &d, &err));
    ck_assert(fl_digest_equal(&d, &whole));
    return d;
}

static uint64_t add_job(void)
{
    struct fl_store_job job = {.name = "demo", .text = "plan", .text_size = 4, .model_size = 3};
    uint64_t id = 0;

    memcpy(job.incarnation, inc, sizeof inc);
    job.checkpoint = write_model(0, "model 0");
    job.model = digest_of("mod");
    ck_ok(fl_store_job_add(store, &job, &id, &err));
    return id;
}

static void add_agents(int count)
{
    for (int i = 0; i < count; i++) {
        uint8_t key[32] = {(uint8_t)i};
        char name[16];
        uint64_t id;
        snprintf(name, sizeof name, "site-%d", i);
        ck_ok(fl_store_agent_add(store, key, name, "", &id, &err));
        ck_assert_uint_eq(id, (uint64_t)i + 1);
    }
}

static void open_round(uint64_t round)
{
    struct fl_digest plan = digest_of("plan"), base = digest_of("mod");
    ck_ok(fl_store_round_open(store, 1, round, "plan", 4, &plan, &base, &err));
}

static void start(void)
{
    fresh();
    ck_ok(try_open(&quota));
    add_agents(3);
    ck_assert_uint_eq(add_job(), 1);
    open_round(1);
}

static struct fl_store_update update_of(uint64_t round, uint64_t agent, const char *bytes)
{
    return (struct fl_store_update){.job = 1,
                                    .round = round,
                                    .agent = agent,
                                    .weight = 1,
                                    .size = strlen(bytes),
                                    .digest = digest_of(bytes)};
}

/* Places, spools and seals. */
static void upload(const struct fl_store_update *u, const char *bytes, bool seal)
{
    char folder[FL_STORE_PATH_MAX], name[FL_STORE_NAME_MAX];
    struct fl_spool *spool;
    uint64_t at;

    ck_ok(fl_store_upload_place(store, u, folder, name, &err));
    ck_ok(fl_spool_open(folder, name, &u->digest, u->size, &spool, &at, &err));
    size_t n = seal ? u->size : u->size / 2;
    ck_ok(fl_spool_write(spool, at, (const uint8_t *)bytes + at, n - at, &err));
    if (seal) {
        ck_ok(fl_spool_seal(spool, &err));
    }
    fl_spool_close(spool);
}

static int commit_one(const struct fl_store_update *u)
{
    int status = 1;
    ck_ok(fl_store_commit(store, u, 1, &status, &err));
    return status;
}

static void accept_update(uint64_t round, uint64_t agent, const char *bytes)
{
    struct fl_store_update u = update_of(round, agent, bytes);
    upload(&u, bytes, true);
    ck_assert_int_eq(commit_one(&u), 0);
}

static void publish(uint64_t round, const uint64_t *members, uint32_t count, uint32_t late)
{
    char text[32];
    snprintf(text, sizeof text, "model %d", (int)round);
    struct fl_digest d = write_model(round, text), model = digest_of("mod");

    ck_ok(fl_store_close_exchange(store, 1, round, 0, members, count, 5, &err));
    ck_ok(fl_store_publish(store, 1, round, &d, &model, 3, late, &err));
}

static void spoil(const char *file, off_t at)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = open(path, O_RDWR);
    ck_assert_int_ge(fd, 0);
    uint8_t junk[200];
    memset(junk, 0xa5, sizeof junk);
    ck_assert_int_eq(pwrite(fd, junk, sizeof junk, at), sizeof junk);
    close(fd);
}

static int sql(const char *text)
{
    char command[800];
    snprintf(command, sizeof command, "sqlite3 %s/cohortd.db \"%s\" >/dev/null", dir, text);
    return system(command);
}

static int count_any(void *arg, uint64_t agent, bool closed_in)
{
    uint64_t *n = arg;
    n[0]++;
    n[1] += closed_in;
    n[2] += agent;
    return 0;
}

static int get_job(void *arg, const struct fl_store_job *j)
{
    struct fl_store_job *ret = arg;
    *ret = *j;
    ret->text = NULL;
    return 0;
}

static int get_agent(void *arg, const struct fl_store_agent *a)
{
    struct fl_store_agent *ret = arg;
    ret[a->id - 1] = *a;
    return 0;
}

static int get_update(void *arg, const struct fl_store_update *u)
{
    struct fl_store_update *ret = arg;
    ret[u->agent - 1] = *u;
    return 0;
}

static int get_row(void *arg, const struct fl_store_round_row *r)
{
    struct fl_store_round_row *ret = arg;
    ret[r->round - 1] = *r;
    return 0;
}

static int stop_at_once(void *arg, uint64_t agent, bool closed_in)
{
    (void)arg;
    (void)agent;
    (void)closed_in;
    return 42;
}

/* ---- the tests ---- */

START_TEST(test_a_new_folder_keeps_its_identity_and_is_private)
{
    uint8_t first[16], second[16];
    struct stat st;
    char path[200];

    fresh();
    ck_ok(fl_store_open(dir, &quota, &store, first, &err));
    fl_store_close(store);
    ck_ok(fl_store_open(dir, &quota, &store, second, &err));
    ck_assert_mem_eq(first, second, 16);
    snprintf(path, sizeof path, "%s/cohortd.db", dir);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    gone();
}
END_TEST

START_TEST(test_a_second_coordinator_is_told_who_holds_the_folder)
{
    struct fl_store *other = NULL;
    uint8_t id[16];
    char pid[32];

    fresh();
    ck_ok(try_open(&quota));
    ck_assert_int_eq(fl_store_open(dir, &quota, &other, id, &err), -FL_R_STORE_LOCKED);
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    ck_assert_msg(strstr(err.msg, pid) && strstr(err.msg, dir), "%s", err.msg);
    gone();
}
END_TEST

START_TEST(test_what_is_not_our_database_is_named)
{
    fresh();
    ck_ok(try_open(&quota));
    fl_store_close(store);
    store = NULL;

    ck_assert_int_eq(sql("PRAGMA user_version = 9"), 0);
    ck_assert_int_eq(try_open(&quota), -FL_R_STORE_FOREIGN);
    ck_assert_msg(strstr(err.msg, "newer") && strstr(err.msg, "9"), "%s", err.msg);

    ck_assert_int_eq(sql("PRAGMA user_version = 1; PRAGMA application_id = 7"), 0);
    ck_assert_int_eq(try_open(&quota), -FL_R_STORE_FOREIGN);
    ck_assert_ptr_nonnull(strstr(err.msg, "another program"));
    gone();

    fresh();
    ck_assert_int_eq(sql("CREATE TABLE t(x)"), 0);
    ck_assert_int_eq(try_open(&quota), -FL_R_STORE_FOREIGN);
    gone();
}
END_TEST

START_TEST(test_damage_is_found_at_open)
{
    /* The header, and then a page inside. */
    fresh();
    ck_ok(try_open(&quota));
    fl_store_close(store);
    store = NULL;
    spoil("cohortd.db", 0);
    ck_assert_int_eq(try_open(&quota), -FL_R_STORE_CORRUPT);
    gone();

    fresh();
    ck_ok(try_open(&quota));
    fl_store_close(store);
    store = NULL;
    spoil("cohortd.db", 2 * 4096);
    ck_assert_int_eq(try_open(&quota), -FL_R_STORE_CORRUPT);
    gone();

    /* A file cut short. */
    start();
    fl_store_close(store);
    store = NULL;
    char path[200];
    snprintf(path, sizeof path, "%s/cohortd.db", dir);
    ck_assert_int_eq(truncate(path, 9000), 0);
    ck_assert_int_eq(try_open(&quota), -FL_R_STORE_CORRUPT);
    gone();
}
END_TEST

START_TEST(test_a_folder_in_the_place_of_the_database_is_refused)
{
    char path[200];

    fresh();
    snprintf(path, sizeof path, "%s/cohortd.db", dir);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_eq(try_open(&quota), -FL_R_STORE_OPEN);
    gone();
}
END_TEST

START_TEST(test_a_read_only_folder_is_refused)
{
    fresh();
    ck_ok(try_open(&quota));
    fl_store_close(store);
    store = NULL;
    if (geteuid() == 0) { /* root may write anywhere; somebody else may not */
        pid_t pid = fork();
        if (pid == 0) {
            ck_assert_int_eq(chmod(dir, 0755), 0);
            ck_assert_int_eq(setuid(65534), 0);
            int r = try_open(&quota);
            _exit(r == -FL_R_STORE_OPEN && strstr(err.msg, "Permission denied") ? 0 : 1);
        }
        int status;
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_int_eq(status, 0);
    } else {
        ck_assert_int_eq(chmod(dir, 0500), 0);
        ck_assert_int_eq(try_open(&quota), -FL_R_STORE_OPEN);
        ck_assert_int_eq(chmod(dir, 0700), 0);
    }
    gone();
}
END_TEST

START_TEST(test_agents_are_enrolled_once_and_revoked)
{
    uint8_t key[32] = {9};
    uint64_t id = 0;
    struct fl_store_agent a[3] = {0};

    fresh();
    ck_ok(try_open(&quota));
    add_agents(2);
    ck_assert_int_eq(fl_store_agent_add(store, key, "site-1", "", &id, &err), -FL_R_CTL_EXISTS);
    key[0] = 1;
    ck_assert_int_eq(fl_store_agent_add(store, key, "site-9", "", &id, &err), -FL_R_CTL_EXISTS);
    ck_assert_int_eq(fl_store_agent_add(store, key, "a\nb", "", &id, &err), -FL_R_ARG);
    ck_assert_int_eq(fl_store_agent_add(store, key, "", "", &id, &err), -FL_R_LIMIT);
    ck_assert_uint_eq(id, 0);
    ck_ok(fl_store_agent_revoke(store, "site-1", &err));
    ck_assert_int_eq(fl_store_agent_revoke(store, "nobody", &err), -FL_R_NOT_ENROLLED);
    key[0] = 9;
    ck_ok(fl_store_agent_add(store, key, "site-9", "0a:1b", &id, &err));
    reopen();
    ck_ok(fl_store_agents(store, get_agent, a, &err));
    ck_assert(!a[0].revoked && a[1].revoked);
    ck_assert_str_eq(a[2].name, "site-9");
    ck_assert_str_eq(a[2].serial, "0a:1b");
    ck_assert_uint_eq(a[2].key[0], 9);
    gone();
}
END_TEST

START_TEST(test_a_job_is_recorded_with_its_first_checkpoint)
{
    struct fl_store_job job = {.name = "demo", .text = "plan", .text_size = 4, .model_size = 3};
    struct fl_store_job got = {0};
    uint64_t id;

    fresh();
    ck_ok(try_open(&quota));
    ck_assert_int_eq(fl_store_job_add(store, &job, &id, &err), -FL_R_STORE_MISMATCH);
    add_job();
    memcpy(job.incarnation, inc, sizeof inc);
    job.checkpoint = digest_of("model 0");
    ck_assert_int_eq(fl_store_job_add(store, &job, &id, &err), -FL_R_CTL_EXISTS);
    ck_ok(fl_store_job_text(store, 1, "other", 5, &err));
    ck_ok(fl_store_job_state(store, 1, FL_JOB_PAUSED, "because", &err));
    ck_assert_int_eq(fl_store_job_state(store, 2, FL_JOB_PAUSED, "", &err), -FL_R_NO_JOB);
    reopen();
    ck_ok(fl_store_jobs(store, get_job, &got, &err));
    ck_assert_str_eq(got.name, "demo");
    ck_assert_str_eq(got.why, "because");
    ck_assert_int_eq(got.state, FL_JOB_PAUSED);
    ck_assert_uint_eq(got.text_size, 5);
    ck_assert(fl_digest_equal(&got.checkpoint, &job.checkpoint));
    /* When it is over it is over, and its name is free. */
    ck_ok(fl_store_job_state(store, 1, FL_JOB_DONE, "", &err));
    ck_assert_int_eq(fl_store_job_state(store, 1, FL_JOB_RUNNING, "", &err), -FL_R_JOB_STATE);
    job.incarnation[0] = 77;
    struct fl_piece piece = {"model 0", 7};
    ck_ok(fl_store_checkpoint_write(store, job.incarnation, 0, &piece, 1, &job.checkpoint, &err));
    ck_ok(fl_store_job_add(store, &job, &id, &err));
    ck_assert_uint_eq(id, 2);
    gone();
}
END_TEST

START_TEST(test_a_round_opens_in_order_and_survives)
{
    struct fl_digest plan = digest_of("plan"), base = digest_of("mod"), no = digest_of("no");
    struct fl_store_round round;

    start();
    open_round(1); /* again, the same */
    ck_assert_int_eq(fl_store_round_open(store, 1, 1, "plan", 4, &plan, &no, &err),
                     -FL_R_STORE_MISMATCH);
    ck_assert_int_eq(fl_store_round_open(store, 1, 1, "plaN", 4, &plan, &base, &err),
                     -FL_R_STORE_MISMATCH);
    ck_assert_int_eq(fl_store_round_open(store, 1, 2, "plan", 4, &plan, &base, &err),
                     -FL_R_JOB_STATE);
    ck_assert_int_eq(fl_store_round_open(store, 7, 1, "plan", 4, &plan, &base, &err), -FL_R_NO_JOB);
    reopen();
    ck_assert_int_eq(fl_store_round_load(store, 1, &round, &err), 1);
    ck_assert_uint_eq(round.round, 1);
    ck_assert_uint_eq(round.closed, 0);
    ck_assert_str_eq(round.text, "plan");
    ck_assert(fl_digest_equal(&round.base, &base) && fl_digest_equal(&round.plan, &plan));
    fl_free(round.text);
    ck_assert_int_eq(fl_store_round_load(store, 2, &round, &err), 0);
    gone();
}
END_TEST

START_TEST(test_a_commit_answers_each_update_for_itself)
{
    struct fl_store_update u[6];
    int status[6];
    struct fl_digest there;

    start();
    for (int i = 0; i < 6; i++) {
        u[i] = update_of(1, 1, "aaaa");
    }
    upload(&u[0], "aaaa", true);
    u[1] = update_of(1, 2, "bbbb");
    upload(&u[1], "bbbb", true);
    u[2] = update_of(1, 3, "cccc"); /* not uploaded */
    u[3] = update_of(1, 1, "dddd"); /* another one of agent 1 */
    u[4] = update_of(1, 9, "eeee"); /* nobody */
    u[5].round = 3;
    ck_ok(fl_store_commit(store, u, 6, status, &err));
    ck_assert_int_eq(status[0], 0);
    ck_assert_int_eq(status[1], 0);
    ck_assert_int_eq(status[2], -FL_R_STORE_MISMATCH);
    ck_assert_int_eq(status[3], -FL_R_UPDATE_CONFLICT);
    ck_assert_int_eq(status[4], -FL_R_NOT_ENROLLED);
    ck_assert_int_eq(status[5], -FL_R_NO_ROUND);
    reopen();
    ck_assert_int_eq(commit_one(&u[0]), 0); /* again */
    ck_assert_int_eq(fl_store_update_find(store, 1, 1, 0, 2, &there, &err), 1);
    ck_assert(fl_digest_equal(&there, &u[1].digest));
    ck_assert_int_eq(fl_store_update_find(store, 1, 1, 0, 3, &there, &err), 0);
    struct fl_store_update got[3] = {0};
    ck_ok(fl_store_updates(store, 1, 1, 0, get_update, got, &err));
    ck_assert_uint_eq(got[1].size, 4);
    ck_assert_uint_eq(got[2].agent, 0);
    ck_assert_uint_eq(fl_store_bytes(store), 7 + 4 + 4);
    gone();
}
END_TEST

START_TEST(test_an_agent_has_one_upload_and_a_committed_one_stays)
{
    struct fl_store_update a, b;
    char folder[FL_STORE_PATH_MAX], name[FL_STORE_NAME_MAX], path[FL_STORE_PATH_MAX];

    start();
    a = update_of(1, 1, "aaaa");
    b = update_of(1, 1, "bbbbbb");
    upload(&a, "aaaa", true);
    ck_ok(fl_store_upload_path(store, &a, path, &err));
    ck_assert_int_eq(access(path, F_OK), 0);
    ck_ok(fl_store_upload_place(store, &b, folder, name, &err));
    ck_assert_int_ne(access(path, F_OK), 0); /* the first one is gone */
    ck_assert_uint_eq(fl_store_bytes(store), 7 + 6);
    upload(&b, "bbbbbb", true);
    ck_assert_int_eq(commit_one(&b), 0);
    ck_assert_int_eq(fl_store_upload_place(store, &a, folder, name, &err), -FL_R_UPDATE_CONFLICT);
    ck_ok(fl_store_upload_drop(store, &b, &err)); /* committed: stays */
    ck_ok(fl_store_upload_path(store, &b, path, &err));
    ck_assert_int_eq(access(path, F_OK), 0);
    a = update_of(1, 2, "cc");
    upload(&a, "cc", true);
    ck_ok(fl_store_upload_drop(store, &a, &err));
    ck_ok(fl_store_upload_path(store, &a, path, &err));
    ck_assert_int_ne(access(path, F_OK), 0);
    ck_assert_uint_eq(fl_store_bytes(store), 7 + 6);
    gone();
}
END_TEST

START_TEST(test_a_closed_exchange_is_final)
{
    uint64_t both[] = {1, 2}, one[] = {1}, wrong[] = {2, 1}, more[] = {1, 3}, n[3] = {0};
    uint64_t invited[] = {1, 2, 3};
    struct fl_store_update late;
    char folder[FL_STORE_PATH_MAX], name[FL_STORE_NAME_MAX];

    start();
    ck_ok(fl_store_members_add(store, 1, 1, 0, invited, 3, &err));
    ck_ok(fl_store_members_add(store, 1, 1, 0, invited, 2, &err));
    accept_update(1, 1, "aaaa");
    accept_update(1, 2, "bbbb");
    late = update_of(1, 3, "cccc");
    upload(&late, "cccc", true);
    ck_assert_int_eq(fl_store_close_exchange(store, 1, 1, 0, wrong, 2, 5, &err),
                     -FL_R_STORE_MISMATCH);
    ck_assert_int_eq(fl_store_close_exchange(store, 1, 1, 0, more, 2, 5, &err),
                     -FL_R_STORE_MISMATCH);
    ck_assert_int_eq(fl_store_close_exchange(store, 1, 1, 1, one, 1, 5, &err),
                     -FL_R_STORE_MISMATCH);
    ck_ok(fl_store_close_exchange(store, 1, 1, 0, both, 2, 5, &err));
    ck_ok(fl_store_close_exchange(store, 1, 1, 0, both, 2, 6, &err));
    ck_assert_int_eq(fl_store_close_exchange(store, 1, 1, 0, one, 1, 5, &err),
                     -FL_R_STORE_MISMATCH);
    ck_assert_int_eq(commit_one(&late), -FL_R_ROUND_OVER);
    ck_assert_int_eq(fl_store_upload_place(store, &late, folder, name, &err), -FL_R_ROUND_OVER);
    ck_ok(fl_store_members(store, 1, 1, 0, count_any, n, &err));
    ck_assert_uint_eq(n[0], 3);
    ck_assert_uint_eq(n[1], 2);
    ck_assert_uint_eq(n[2], 6);
    ck_assert_int_eq(fl_store_members(store, 1, 1, 0, stop_at_once, NULL, &err), 42);
    /* The next exchange takes uploads of the same agents. */
    struct fl_store_update second = update_of(1, 1, "xxxx");
    second.exchange = 1;
    upload(&second, "xxxx", true);
    ck_assert_int_eq(commit_one(&second), 0);
    ck_ok(fl_store_close_exchange(store, 1, 1, 1, one, 1, 7, &err));
    reopen();
    struct fl_store_round round;
    ck_assert_int_eq(fl_store_round_load(store, 1, &round, &err), 1);
    ck_assert_uint_eq(round.closed, 2);
    fl_free(round.text);
    gone();
}
END_TEST

START_TEST(test_publishing_moves_the_job_and_forgets_what_is_not_needed)
{
    uint64_t one[] = {1};
    char path[FL_STORE_PATH_MAX];
    struct fl_digest d, no = digest_of("no");
    struct fl_store_job job = {0};
    struct fl_store_round_row rows[4] = {0};

    start();
    d = write_model(1, "model 1");
    ck_assert_int_eq(fl_store_publish(store, 1, 1, &d, &no, 3, 1, &err), -FL_R_STORE_MISMATCH);
    for (uint64_t round = 1; round <= 4; round++) {
        open_round(round);
        accept_update(round, 1, "aaaa");
        publish(round, one, 1, 2);
        ck_assert(!exists("spool/01020300000000000000000000000000/%d-0", (int)round));
    }
    ck_ok(fl_store_jobs(store, get_job, &job, &err));
    ck_assert_uint_eq(job.round, 4);
    d = digest_of("model 4");
    ck_assert(fl_digest_equal(&job.checkpoint, &d));
    ck_ok(fl_store_publish(store, 1, 4, &d, &no, 3, 1, &err)); /* again: nothing happens */
    ck_assert_int_eq(fl_store_publish(store, 1, 4, &no, &no, 3, 1, &err), -FL_R_STORE_MISMATCH);
    /* Two checkpoints are kept, digests for late offers of two rounds, and all rows. */
    for (uint64_t round = 0; round <= 4; round++) {
        char text[16];
        snprintf(text, sizeof text, "model %d", (int)round);
        d = digest_of(text);
        fl_store_checkpoint_path(store, inc, round, &d, path);
        ck_assert_int_eq(access(path, F_OK) == 0, round >= 3);
        ck_assert_int_eq(fl_store_update_find(store, 1, round, 0, 1, &d, &err), round >= 3);
    }
    ck_ok(fl_store_rounds(store, 1, 10, get_row, rows, &err));
    ck_assert_uint_eq(rows[0].committed, 1);
    ck_assert_uint_eq(rows[3].invited, 1);
    ck_assert_uint_eq(rows[1].closed_ms, 5);
    ck_assert_uint_ne(rows[1].published_ms, 0);
    ck_assert_uint_eq(fl_store_bytes(store), 14);
    reopen();
    ck_assert_uint_eq(fl_store_bytes(store), 14);
    gone();
}
END_TEST

START_TEST(test_quota_is_set_aside_when_an_upload_begins)
{
    struct fl_store_quota small = {.state_bytes = 20, .keep_models = 2};
    struct fl_store_update a, b, c;
    char folder[FL_STORE_PATH_MAX], name[FL_STORE_NAME_MAX];
    struct fl_piece piece = {"0123456789", 10};
    struct fl_digest d;

    start(); /* 7 bytes of model */
    fl_store_close(store);
    ck_ok(try_open(&small));
    a = update_of(1, 1, "aaaaaaaa");
    b = update_of(1, 2, "bbbbbbbb");
    c = update_of(1, 2, "cccc");
    ck_ok(fl_store_upload_place(store, &a, folder, name, &err));
    ck_assert_int_eq(fl_store_upload_place(store, &b, folder, name, &err), -FL_R_QUOTA);
    ck_assert_msg(strstr(err.msg, "20"), "%s", err.msg);
    ck_assert_int_eq(fl_store_checkpoint_write(store, inc, 1, &piece, 1, &d, &err), -FL_R_QUOTA);
    ck_ok(fl_store_upload_place(store, &c, folder, name, &err));
    ck_assert_int_eq(fl_store_room(store, 2, &err), -FL_R_QUOTA);
    ck_ok(fl_store_room(store, 1, &err));
    ck_ok(fl_store_upload_drop(store, &a, &err));
    ck_assert_int_eq(fl_store_upload_place(store, &b, folder, name, &err), 0);
    gone();
}
END_TEST

START_TEST(test_the_sweep_keeps_what_is_named_or_resumable)
{
    struct fl_store_update a, b, c;
    char pa[FL_STORE_PATH_MAX], pb[FL_STORE_PATH_MAX], pc[FL_STORE_PATH_MAX], path[600];
    struct fl_digest d;

    start();
    accept_update(1, 1, "aaaa");
    a = update_of(1, 1, "aaaa");
    b = update_of(1, 2, "bbbbbbbb");
    c = update_of(1, 3, "cccc");
    upload(&b, "bbbbbbbb", false); /* half of it */
    upload(&c, "cccc", true);      /* sealed, never committed */
    d = write_model(1, "model 1"); /* never published */
    fl_store_upload_path(store, &a, pa, &err);
    fl_store_upload_path(store, &b, pb, &err);
    fl_store_upload_path(store, &c, pc, &err);
    strncat(pb, ".part", sizeof pb - strlen(pb) - 1);
    static const char *const junk[] = {"spool/junk", "models/junk", "models/.new"};
    for (size_t i = 0; i < FL_COUNT(junk); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, junk[i]);
        ck_assert_int_eq(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
    }
    snprintf(path, sizeof path, "%s/spool/ffffffffffffffffffffffffffffffff", dir);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/models/link", dir);
    ck_assert_int_eq(symlink("/etc", path), 0);
    reopen();
    ck_assert_int_eq(access(pa, F_OK), 0);
    ck_assert_int_eq(access(pb, F_OK), 0);
    ck_assert_int_ne(access(pc, F_OK), 0);
    fl_store_checkpoint_path(store, inc, 1, &d, path);
    ck_assert_int_ne(access(path, F_OK), 0);
    ck_assert(!exists("spool/junk") && !exists("models/junk") && !exists("models/.new"));
    ck_assert(!exists("spool/ffffffffffffffffffffffffffffffff"));
    ck_assert_int_eq(access("/etc/passwd", F_OK), 0);
    ck_assert_uint_eq(fl_store_bytes(store), 7 + 4 + 4);
    /* The half upload goes on where it was, and counts whole. */
    upload(&b, "bbbbbbbb", true);
    ck_assert_int_eq(commit_one(&b), 0);
    ck_assert_uint_eq(fl_store_bytes(store), 7 + 4 + 8);
    gone();
}
END_TEST

START_TEST(test_damaged_bytes_fail_their_job_only)
{
    struct fl_store_job other = {.name = "other", .text = "p", .text_size = 1, .model_size = 1};
    struct fl_store_job got = {0};
    struct fl_piece piece = {"model x", 7};
    struct fl_store_update a;
    char path[FL_STORE_PATH_MAX];
    uint64_t id;

    start();
    accept_update(1, 1, "aaaa");
    other.incarnation[0] = 9;
    ck_ok(
        fl_store_checkpoint_write(store, other.incarnation, 0, &piece, 1, &other.checkpoint, &err));
    ck_ok(fl_store_job_add(store, &other, &id, &err));
    a = update_of(1, 1, "aaaa");
    ck_ok(fl_store_upload_path(store, &a, path, &err));
    int fd = open(path, O_WRONLY);
    ck_assert_int_eq(pwrite(fd, "x", 1, 2), 1);
    close(fd);
    reopen();
    ck_ok(fl_store_jobs(store, get_job, &got, &err)); /* the last one */
    ck_assert_str_eq(got.name, "other");
    ck_assert_int_eq(got.state, FL_JOB_RUNNING);
    ck_ok(fl_store_job_state(store, 2, FL_JOB_DONE, "", &err));
    fl_store_checkpoint_path(store, other.incarnation, 0, &other.checkpoint, path);
    ck_assert_int_eq(truncate(path, 3), 0); /* of a job that is over: nobody reads it */
    reopen();
    gone();

    start();
    struct fl_digest d = digest_of("model 0");
    fl_store_checkpoint_path(store, inc, 0, &d, path);
    ck_assert_int_eq(truncate(path, 3), 0);
    reopen();
    ck_ok(fl_store_jobs(store, get_job, &got, &err));
    ck_assert_int_eq(got.state, FL_JOB_FAILED);
    ck_assert_msg(strstr(got.why, "3 bytes, not 7"), "%s", got.why);
    gone();
}
END_TEST

static int last_audit(void *arg, uint64_t wall_ms, const char *who, const char *what)
{
    snprintf(arg, 64, "%d %s %s", (int)wall_ms, who, what);
    return 1;
}

START_TEST(test_the_audit_is_kept)
{
    char line[64];

    fresh();
    ck_ok(try_open(&quota));
    ck_ok(fl_store_audit(store, 3, "uid 0", "job submit", &err));
    ck_ok(fl_store_audit(store, 4, "uid 1", "job cancel", &err));
    reopen();
    ck_assert_int_eq(fl_store_audits(store, 5, last_audit, line, &err), 1);
    ck_assert_str_eq(line, "4 uid 1 job cancel");
    gone();
}
END_TEST

TESTS_MAIN("store", test_a_new_folder_keeps_its_identity_and_is_private,
           test_a_second_coordinator_is_told_who_holds_the_folder,
           test_what_is_not_our_database_is_named, test_damage_is_found_at_open,
           test_a_folder_in_the_place_of_the_database_is_refused,
           test_a_read_only_folder_is_refused, test_agents_are_enrolled_once_and_revoked,
           test_a_job_is_recorded_with_its_first_checkpoint,
           test_a_round_opens_in_order_and_survives, test_a_commit_answers_each_update_for_itself,
           test_an_agent_has_one_upload_and_a_committed_one_stays, test_a_closed_exchange_is_final,
           test_publishing_moves_the_job_and_forgets_what_is_not_needed,
           test_quota_is_set_aside_when_an_upload_begins,
           test_the_sweep_keeps_what_is_named_or_resumable, test_damaged_bytes_fail_their_job_only,
           test_the_audit_is_kept)
