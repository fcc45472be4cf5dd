#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/io/file.h"
#include "tests/lib/store_fixture.h"

#include <sys/wait.h>

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
    if (a->id >= 1 && a->id <= 3) {
        ret[a->id - 1] = *a;
    }
    return 0;
}

static int last_audit(void *arg, uint64_t wall_ms, const char *who, const char *what)
{
    snprintf(arg, 64, "%d %s %s", (int)wall_ms, who, what);
    return 1;
}

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

/* A folder as version 1 left it gains what came later, and keeps what it has. */
START_TEST(test_an_older_folder_is_brought_up)
{
    struct fl_store_agent a[3] = {0};

    fresh();
    ck_ok(try_open(&quota));
    add_agents(2);
    fl_store_close(store);
    store = NULL;
    ck_assert_int_eq(sql("DROP TABLE mark; DROP INDEX member_in; "
                         "ALTER TABLE member DROP COLUMN base; PRAGMA user_version = 1"),
                     0);
    ck_ok(try_open(&quota));
    ck_ok(fl_store_agents(store, get_agent, a, &err));
    ck_assert_str_eq(a[1].name, "site-1");
    ck_assert_uint_eq(a[0].releases, 0);
    fl_store_close(store);
    store = NULL;
    ck_assert_int_eq(sql("INSERT INTO mark VALUES(1, 3, zeroblob(32))"), 0);
    ck_ok(try_open(&quota));
    ck_ok(fl_store_agents(store, get_agent, a, &err));
    ck_assert_uint_eq(a[0].releases, 3);
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
    fl_store_upload_path(store, inc, &a, path);
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

static int walk_round(void *arg, const struct fl_store_round_row *r)
{
    (void)arg;
    (void)r;
    return 0;
}

/* Everything that can be read, whatever it says. */
static void read_all(void)
{
    struct fl_store_agent agents[64];
    struct fl_store_job job;
    struct fl_store_round round;
    struct fl_digest d;

    if (fl_store_agents(store, get_agent, agents, &err) == 0 &&
        fl_store_jobs(store, get_job, &job, &err) == 0 &&
        fl_store_rounds(store, 1, 9, walk_round, NULL, &err) == 0 &&
        fl_store_update_find(store, 1, 1, 0, 1, &d, &err) >= 0 &&
        fl_store_round_load(store, 1, &round, &err) == 1) {
        fl_free(round.text);
    }
}

START_TEST(test_random_damage_is_an_error_or_nothing)
{
    struct fl_rng rng;
    struct fl_seed seed;
    char path[200];
    uint8_t *whole;
    size_t size;
    int found = 0;

    start();
    accept_update(1, 1, "aaaa");
    fl_store_close(store);
    store = NULL;
    snprintf(path, sizeof path, "%s/cohortd.db", dir);
    ck_ok(fl_file_read(path, 1 << 24, &whole, &size, &err));
    for (uint64_t n = 0; n < 150; n++) {
        fl_seed_from_u64(n, &seed);
        fl_rng_init(&rng, &seed, 0);
        ck_ok(fl_file_replace(path, whole, size, 0600, &err));
        int fd = open(path, O_WRONLY);
        for (uint64_t hits = 1 + fl_rng_below(&rng, 8); hits > 0; hits--) {
            uint8_t byte = (uint8_t)fl_rng_u64(&rng);
            ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)fl_rng_below(&rng, size)), 1);
        }
        close(fd);
        int r = try_open(&quota);
        found += r == -FL_R_STORE_CORRUPT || r == -FL_R_STORE_FOREIGN;
        if (r == 0) {
            read_all();
            fl_store_close(store);
            store = NULL;
        }
    }
    ck_assert_int_gt(found, 15);
    fl_free(whole);
    gone();
}
END_TEST

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
           test_what_is_not_our_database_is_named, test_an_older_folder_is_brought_up,
           test_damage_is_found_at_open, test_a_folder_in_the_place_of_the_database_is_refused,
           test_a_read_only_folder_is_refused, test_agents_are_enrolled_once_and_revoked,
           test_a_job_is_recorded_with_its_first_checkpoint, test_damaged_bytes_fail_their_job_only,
           test_random_damage_is_an_error_or_nothing, test_the_audit_is_kept)
