#include "tests/lib/store_fixture.h"

#include <stdarg.h>

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

static int count_any(void *arg, uint64_t agent, uint64_t base, bool closed_in)
{
    uint64_t *n = arg;
    n[0]++;
    n[1] += closed_in;
    n[2] += agent;
    n[3] += base;
    return 0;
}

static int get_job(void *arg, const struct fl_store_job *j)
{
    struct fl_store_job *ret = arg;
    *ret = *j;
    ret->text = NULL;
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

static int stop_at_once(void *arg, uint64_t agent, uint64_t base, bool closed_in)
{
    (void)arg;
    (void)agent;
    (void)base;
    (void)closed_in;
    return 42;
}

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

static int get_releases(void *arg, const struct fl_store_agent *a)
{
    ((uint64_t *)arg)[a->id] = a->releases;
    return 0;
}

START_TEST(test_a_mark_is_kept_with_its_update_and_only_grows)
{
    struct fl_store_update u;
    uint64_t releases[4] = {0};

    start();
    u = update_of(1, 1, "aaaa");
    u.releases = 7;
    u.head.bytes[0] = 1;
    upload(&u, "aaaa", true);
    ck_assert_int_eq(commit_one(&u), 0);
    u = update_of(1, 2, "bbbb"); /* tells nothing */
    upload(&u, "bbbb", true);
    ck_assert_int_eq(commit_one(&u), 0);
    u = update_of(1, 3, "cccc"); /* is not accepted */
    u.releases = 5;
    ck_assert_int_eq(commit_one(&u), -FL_R_STORE_MISMATCH);
    reopen();
    ck_ok(fl_store_agents(store, get_releases, releases, &err));
    ck_assert_uint_eq(releases[1], 7);
    ck_assert_uint_eq(releases[2], 0);
    ck_assert_uint_eq(releases[3], 0);
    gone();
}
END_TEST

static int get_containing(void *arg, const struct fl_store_containing *m)
{
    char *text = arg;
    size_t n = strlen(text);

    snprintf(text + n, 200 - n, "%s %llu %s;", m->job, (unsigned long long)m->round,
             m->own ? "own" : "inherited");
    return 0;
}

/* Agent 1 is in round 1, agent 2 in 1 and 2, agent 3 was invited only. */
START_TEST(test_which_models_an_agent_is_in)
{
    struct fl_store_update u;
    uint64_t in_1[] = {1, 2}, in_2[] = {2};
    char text[200] = "";

    start();
    for (uint64_t agent = 1; agent <= 2; agent++) {
        u = update_of(1, agent, "aaaa");
        upload(&u, "aaaa", true);
        ck_assert_int_eq(commit_one(&u), 0);
    }
    ck_ok(fl_store_members_add(store, 1, 1, 0, 1, (uint64_t[]){1, 2, 3}, 3, &err));
    ck_ok(fl_store_close_exchange(store, 1, 1, 0, in_1, 2, 1, &err));
    ck_ok(fl_store_models_with(store, 1, 10, get_containing, text, &err));
    ck_assert_str_eq(text, ""); /* nothing is published yet */
    struct fl_digest checkpoint = write_model(1, "model 1"), model = digest_of("mo");
    ck_ok(fl_store_publish(store, 1, 1, &checkpoint, &model, 2, 3, &err));
    open_round(2);
    u = update_of(2, 2, "bbbb");
    upload(&u, "bbbb", true);
    ck_assert_int_eq(commit_one(&u), 0);
    ck_ok(fl_store_close_exchange(store, 1, 2, 0, in_2, 1, 1, &err));
    checkpoint = write_model(2, "model 2");
    ck_ok(fl_store_publish(store, 1, 2, &checkpoint, &model, 2, 3, &err));
    ck_ok(fl_store_models_with(store, 1, 10, get_containing, text, &err));
    ck_assert_str_eq(text, "demo 2 inherited;demo 1 own;");
    text[0] = 0;
    ck_ok(fl_store_models_with(store, 2, 1, get_containing, text, &err));
    ck_assert_str_eq(text, "demo 2 own;");
    text[0] = 0;
    ck_ok(fl_store_models_with(store, 3, 10, get_containing, text, &err));
    ck_assert_str_eq(text, "");
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
    fl_store_upload_path(store, inc, &a, path);
    ck_assert_int_eq(access(path, F_OK), 0);
    ck_ok(fl_store_upload_place(store, &b, folder, name, &err));
    ck_assert_int_ne(access(path, F_OK), 0); /* the first one is gone */
    ck_assert_uint_eq(fl_store_bytes(store), 7 + 6);
    upload(&b, "bbbbbb", true);
    ck_assert_int_eq(commit_one(&b), 0);
    ck_assert_int_eq(fl_store_upload_place(store, &a, folder, name, &err), -FL_R_UPDATE_CONFLICT);
    ck_ok(fl_store_upload_drop(store, &b, &err)); /* committed: stays */
    fl_store_upload_path(store, inc, &b, path);
    ck_assert_int_eq(access(path, F_OK), 0);
    a = update_of(1, 2, "cc");
    upload(&a, "cc", true);
    ck_ok(fl_store_upload_drop(store, &a, &err));
    fl_store_upload_path(store, inc, &a, path);
    ck_assert_int_ne(access(path, F_OK), 0);
    ck_assert_uint_eq(fl_store_bytes(store), 7 + 6);
    gone();
}
END_TEST

/* Of a buffer: by which task an agent knows its update, in whichever round that counts. */
START_TEST(test_a_member_has_its_task_of_an_earlier_round)
{
    uint64_t agents[] = {1, 2}, n[4] = {0};
    struct fl_digest d;

    start();
    ck_ok(fl_store_members_add(store, 1, 1, 0, 1, agents, 2, &err));
    accept_update(1, 1, "aaaa");
    publish(1, agents, 1, 3);
    open_round(2);
    ck_ok(fl_store_members_add(store, 1, 2, 0, 1, &agents[1], 1, &err));
    ck_assert_int_eq(fl_store_update_made(store, 1, 1, 0, 2, &d, &err), 0);
    accept_update(2, 2, "bbbb");
    ck_assert_int_eq(fl_store_update_made(store, 1, 1, 0, 2, &d, &err), 1);
    struct fl_digest made = digest_of("bbbb"), first = digest_of("aaaa");
    ck_assert(fl_digest_equal(&d, &made));
    ck_assert_int_eq(fl_store_update_made(store, 1, 2, 0, 2, &d, &err), 0);
    ck_assert_int_eq(fl_store_update_made(store, 1, 1, 0, 1, &d, &err), 1);
    ck_assert(fl_digest_equal(&d, &first));
    /* Whoever came back with nothing has a task of this round now; what is committed keeps its. */
    ck_ok(fl_store_members_add(store, 1, 2, 0, 1, agents, 1, &err));
    ck_ok(fl_store_members_add(store, 1, 2, 0, 2, agents, 2, &err));
    ck_ok(fl_store_members(store, 1, 2, 0, count_any, n, &err));
    ck_assert_uint_eq(n[0], 2);
    ck_assert_uint_eq(n[3], 2 + 1);
    ck_assert_int_eq(fl_store_update_made(store, 1, 1, 0, 2, &d, &err), 1);
    gone();
}
END_TEST

START_TEST(test_a_closed_exchange_is_final)
{
    uint64_t both[] = {1, 2}, one[] = {1}, wrong[] = {2, 1}, more[] = {1, 3}, n[4] = {0};
    uint64_t invited[] = {1, 2, 3};
    struct fl_store_update late;
    char folder[FL_STORE_PATH_MAX], name[FL_STORE_NAME_MAX];

    start();
    ck_ok(fl_store_members_add(store, 1, 1, 0, 1, invited, 3, &err));
    ck_ok(fl_store_members_add(store, 1, 1, 0, 1, invited, 2, &err));
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
    ck_assert_uint_eq(n[3], 3); /* all have their task of this round */
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
    fl_store_upload_path(store, inc, &a, pa);
    fl_store_upload_path(store, inc, &b, pb);
    fl_store_upload_path(store, inc, &c, pc);
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

/* The export, terminated; its head. */
static struct fl_digest export(char *text, size_t size, uint64_t *ret_round)
{
    struct fl_digest head;
    uint64_t bytes = 0;
    FILE *f = tmpfile();

    ck_assert_ptr_nonnull(f);
    ck_ok(fl_store_transcript(store, 1, fileno(f), &bytes, ret_round, &head, &err));
    ck_assert_uint_lt(bytes, size);
    rewind(f);
    ck_assert_uint_eq(fread(text, 1, size, f), bytes);
    text[bytes] = 0;
    fclose(f);
    return head;
}

START_TEST(test_a_transcript_is_a_chain_with_a_ceiling)
{
    static const uint64_t two[] = {1, 3};
    const struct fl_store_quota small = {.keep_models = 2, .transcript_rows = 6};
    char text[8192], line[256], hex[FL_DIGEST_HEX];
    struct fl_digest head, digest;
    uint64_t round = 9;

    start();
    export(text, sizeof text, &round);
    ck_assert_uint_eq(round, 0);
    ck_assert_str_eq(text, "");
    for (uint64_t r = 1; r <= 3; r++) {
        if (r > 1) {
            open_round(r);
        }
        accept_update(r, 1, "one");
        accept_update(r, 2, "who is not in the close");
        accept_update(r, 3, "three");
        publish(r, two, 2, 1);
    }
    head = export(text, sizeof text, &round);
    ck_assert_uint_eq(round, 3);
    /* The last record's text is what the head is a digest of; members are those of the close. */
    char *last = strstr(text, "round 3\n"), *end = strstr(last, "digest ");
    for (last--; strncmp(last, "cohort-transcript 1\n", 20) != 0; last--) {
    }
    fl_digest_of(last, (size_t)(end - last), &digest);
    ck_assert(fl_digest_equal(&digest, &head));
    digest = digest_of("three");
    fl_digest_hex(&digest, hex);
    snprintf(line, sizeof line, "member 0 02%062d %s 1 5\n", 0, hex);
    ck_assert_ptr_nonnull(strstr(last, line));
    ck_assert_ptr_null(strstr(text, "member 0 01"));
    /* One member's line by itself, for a receipt. */
    struct fl_store_inclusion in;
    bool recorded = false;
    ck_assert_int_eq(fl_store_inclusion(store, 1, 3, 0, 3, &in, &recorded, &err), 1);
    ck_assert(fl_digest_equal(&in.record, &head) && fl_digest_equal(&in.update, &digest));
    ck_assert(in.weight == 1 && in.size == 5);
    fl_digest_hex(&in.model, hex);
    snprintf(line, sizeof line, "model %s\n", hex);
    ck_assert_ptr_nonnull(strstr(last, line));
    ck_assert_int_eq(fl_store_inclusion(store, 1, 3, 0, 2, &in, &recorded, &err), 0);
    ck_assert(recorded); /* it is in the round's uploads, not in its close */
    ck_assert_int_eq(fl_store_inclusion(store, 1, 3, 1, 3, &in, &recorded, &err), 0);
    ck_assert_int_eq(fl_store_inclusion(store, 1, 4, 0, 3, &in, &recorded, &err), 0);
    ck_assert(!recorded);
    reopen();
    digest = export(text, sizeof text, &round);
    ck_assert(fl_digest_equal(&digest, &head));
    /* Three rows a round: of six, two rounds stay, and the chain goes on. */
    fl_store_close(store);
    ck_ok(try_open(&small));
    open_round(4);
    accept_update(4, 1, "one");
    accept_update(4, 3, "three");
    publish(4, two, 2, 1);
    export(text, sizeof text, &round);
    ck_assert_uint_eq(round, 4);
    ck_assert_ptr_null(strstr(text, "round 2\n"));
    ck_assert_ptr_nonnull(strstr(text, "round 3\n"));
    fl_digest_hex(&head, hex);
    snprintf(line, sizeof line, "previous %s\n", hex);
    ck_assert_ptr_nonnull(strstr(text, line));
    gone();
}
END_TEST

static bool has_bytes(const struct fl_store_update *u)
{
    char path[FL_STORE_PATH_MAX];

    fl_store_upload_path(store, inc, u, path);
    return access(path, R_OK) == 0;
}

/* With keep_rounds 2: of rounds 1 to 4 the updates of 3 and 4 stay, the checkpoints they begin with
 * too, over a restart and the end of the job; told to keep less, the store lets go. */
START_TEST(test_rounds_that_can_be_replayed)
{
    const struct fl_store_quota two = {.keep_models = 2, .keep_rounds = 2},
                                one = {.keep_models = 2, .keep_rounds = 1};
    const uint64_t members[] = {1, 3};
    struct fl_store_replay x;
    struct fl_store_update u[5];

    fresh();
    ck_ok(try_open(&two));
    add_agents(3);
    add_job();
    for (uint64_t round = 1; round <= 4; round++) {
        char bytes[3][16];
        open_round(round);
        for (uint64_t a = 1; a <= 3; a++) {
            snprintf(bytes[a - 1], sizeof bytes[0], "%d of %d", (int)a, (int)round);
        }
        accept_update(round, 1, bytes[0]);
        accept_update(round, 3, bytes[2]);
        struct fl_store_update late = update_of(round, 2, bytes[1]);
        upload(&late, bytes[1], false); /* begun, never committed */
        u[round] = update_of(round, 1, bytes[0]);
        publish(round, members, 2, 0);
        ck_assert(has_bytes(&u[round]));
    }
    uint64_t kept = fl_store_bytes(store);
    ck_assert_uint_eq(kept, 3 * strlen("model 0") + 4 * strlen("1 of 1"));
    for (int turn = 0; turn < 2; turn++) {
        ck_assert(!has_bytes(&u[1]) && !has_bytes(&u[2]) && has_bytes(&u[3]) && has_bytes(&u[4]));
        ck_assert_int_eq(fl_store_replay(store, 1, 2, &x, &err), -FL_R_NO_OBJECT);
        ck_assert_int_eq(fl_store_replay(store, 1, 5, &x, &err), -FL_R_NO_OBJECT);
        ck_ok(fl_store_replay(store, 1, 3, &x, &err));
        struct fl_digest before = digest_of("model 2"), after = digest_of("model 3");
        ck_assert(fl_digest_equal(&x.before, &before) && fl_digest_equal(&x.checkpoint, &after));
        ck_assert(x.text_size == 4 && memcmp(x.text, "plan", 4) == 0 && x.update_count == 2);
        ck_assert(x.updates[0].agent == 1 && x.updates[1].agent == 3 && x.updates[0].weight == 1);
        ck_assert(fl_digest_equal(&x.updates[0].digest, &u[3].digest));
        fl_store_replay_fini(&x);
        ck_ok(fl_store_job_state(store, 1, FL_JOB_DONE, "", &err));
        fl_store_close(store);
        ck_ok(try_open(&two));
        ck_assert_uint_eq(fl_store_bytes(store), kept);
    }
    fl_store_close(store);
    ck_ok(try_open(&one));
    ck_assert(!has_bytes(&u[3]) && has_bytes(&u[4]));
    reopen();
    ck_assert(!has_bytes(&u[4]));
    gone();
}
END_TEST

TESTS_MAIN("store rounds", test_a_transcript_is_a_chain_with_a_ceiling,
           test_rounds_that_can_be_replayed, test_a_round_opens_in_order_and_survives,
           test_a_commit_answers_each_update_for_itself,
           test_a_mark_is_kept_with_its_update_and_only_grows, test_which_models_an_agent_is_in,
           test_an_agent_has_one_upload_and_a_committed_one_stays, test_a_closed_exchange_is_final,
           test_a_member_has_its_task_of_an_earlier_round,
           test_publishing_moves_the_job_and_forgets_what_is_not_needed,
           test_quota_is_set_aside_when_an_upload_begins,
           test_the_sweep_keeps_what_is_named_or_resumable)
