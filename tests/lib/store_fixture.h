/*
 * A state folder with one job, agents 1..3 and round 1 open, for the tests of the store. Included
 * by one test program each; whoever includes it has its own folder.
 */
#ifndef TESTS_LIB_STORE_FIXTURE_H
#define TESTS_LIB_STORE_FIXTURE_H

#include "common/base/mem.h"
#include "common/io/spool.h"
#include "server/store/store.h"
#include "tests/lib/check_main.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[128];
static struct fl_store *store;
static struct fl_err err;
static const uint8_t inc[FL_INCARNATION_SIZE] = {1, 2, 3};
static const struct fl_store_quota quota = {.keep_models = 2};

static inline int rm_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void fresh(void)
{
    snprintf(dir, sizeof dir, "/tmp/test_store.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    err = (struct fl_err){0};
}

static inline void gone(void)
{
    fl_store_close(store);
    store = NULL;
    nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline int try_open(const struct fl_store_quota *q)
{
    uint8_t id[16];
    return fl_store_open(dir, q, &store, id, &err);
}

#define ck_ok(call) ck_assert_msg((call) == 0, "%s", err.msg)

static inline void reopen(void)
{
    fl_store_close(store);
    store = NULL;
    ck_ok(try_open(&quota));
}

static inline struct fl_digest digest_of(const char *text)
{
    struct fl_digest d;
    fl_digest_of(text, strlen(text), &d);
    return d;
}

static inline struct fl_digest write_model(uint64_t round, const char *text)
{
    struct fl_piece pieces[2] = {{text, 2}, {text + 2, strlen(text) - 2}};
    struct fl_digest d, whole = digest_of(text);

    ck_ok(fl_store_checkpoint_write(store, inc, round, pieces, 2, &d, &err));
    ck_assert(fl_digest_equal(&d, &whole));
    return d;
}

static inline uint64_t add_job(void)
{
    struct fl_store_job job = {.name = "demo", .text = "plan", .text_size = 4, .model_size = 3};
    uint64_t id = 0;

    memcpy(job.incarnation, inc, sizeof inc);
    job.checkpoint = write_model(0, "model 0");
    job.model = digest_of("mod");
    ck_ok(fl_store_job_add(store, &job, &id, &err));
    return id;
}

static inline void add_agents(int count)
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

static inline void open_round(uint64_t round)
{
    struct fl_digest plan = digest_of("plan"), base = digest_of("mod");
    ck_ok(fl_store_round_open(store, 1, round, "plan", 4, &plan, &base, &err));
}

static inline void start(void)
{
    fresh();
    ck_ok(try_open(&quota));
    add_agents(3);
    ck_assert_uint_eq(add_job(), 1);
    open_round(1);
}

static inline struct fl_store_update update_of(uint64_t round, uint64_t agent, const char *bytes)
{
    return (struct fl_store_update){.job = 1,
                                    .round = round,
                                    .agent = agent,
                                    .weight = 1,
                                    .size = strlen(bytes),
                                    .digest = digest_of(bytes)};
}

/* Places, spools and seals. */
static inline void upload(const struct fl_store_update *u, const char *bytes, bool seal)
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

static inline int commit_one(const struct fl_store_update *u)
{
    int status = 1;
    ck_ok(fl_store_commit(store, u, 1, &status, &err));
    return status;
}

static inline void accept_update(uint64_t round, uint64_t agent, const char *bytes)
{
    struct fl_store_update u = update_of(round, agent, bytes);
    upload(&u, bytes, true);
    ck_assert_int_eq(commit_one(&u), 0);
}

static inline void publish(uint64_t round, const uint64_t *members, uint32_t count, uint32_t late)
{
    char text[32];
    snprintf(text, sizeof text, "model %d", (int)round);
    struct fl_digest d = write_model(round, text), model = digest_of("mod");

    ck_ok(fl_store_close_exchange(store, 1, round, 0, members, count, 5, &err));
    ck_ok(fl_store_publish(store, 1, round, &d, &model, 3, late, &err));
}

#endif
