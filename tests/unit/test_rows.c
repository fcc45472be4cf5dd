/* What deals a site's rows: what its configuration says, and else what its folder tells of its age.
 */
#include "client/rows.h"
#include "common/base/mem.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct fl_config config;
static struct fl_config_agent agent;
static struct fl_err err;

static const char *file(const char *name)
{
    static char path[FL_CONFIG_PATH_MAX + 64];

    snprintf(path, sizeof path, "%s/site/%s", config.state, name);
    return path;
}

/* A folder with or without a ledger and a key of 32 times the byte 7. */
static void site(bool ledger, bool key)
{
    static const char *const names[] = {"ledger.db", "rows.key"};
    const char bytes[32] = {7};

    if (!config.state[0]) {
        strcpy(config.state, "/tmp/cohort-rows-XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(config.state));
        ck_assert_int_eq(mkdir(file(""), 0700), 0);
    }
    memset(&agent, 0, sizeof agent);
    strcpy(agent.name, "site");
    strcpy(agent.data.train_x, "x");
    agent.data.deal = FL_DEAL_UNSAID;
    for (int i = 0; i < 2; i++) {
        unlink(file(names[i]));
        FILE *f = (i ? key : ledger) ? fopen(file(names[i]), "w") : NULL;
        if (f) {
            ck_assert_uint_eq(fwrite(bytes, 1, sizeof bytes, f), sizeof bytes);
            ck_assert_int_eq(fclose(f) | chmod(file(names[i]), 0600), 0);
        }
    }
}

static struct fl_data_source settled(enum fl_rows_use use)
{
    struct fl_data_source s;

    ck_assert_msg(fl_rows_settle(&config, &agent, use, &s, &err) == 0, "%s", err.msg);
    return s;
}

START_TEST(test_new_sites_hash_and_older_ones_stay)
{
    for (int ledger = 0; ledger < 2; ledger++) {
        for (int key = 0; key < 2; key++) {
            unsigned want = ledger && !key ? FL_DEAL_PLACED : FL_DEAL_HASHED;
            site(ledger, key);
            agent.data.validation = 0.2;
            ck_assert_uint_eq(settled(FL_ROWS_LOOK).deal, want);
            ck_assert_int_eq(access(file("rows.key"), F_OK), key ? 0 : -1);
            ck_assert_uint_eq(settled(FL_ROWS_KEEP).deal, want);
            ck_assert_int_eq(access(file("rows.key"), F_OK), key || !ledger ? 0 : -1);
            /* what cannot be dealt by hash never is, where nobody said it should be */
            site(ledger, key);
            agent.data.test = 20;
            ck_assert_uint_eq(settled(FL_ROWS_KEEP).deal, FL_DEAL_PLACED);
            site(ledger, key);
            agent.data.partition = FL_PARTITION_DIRICHLET;
            ck_assert_uint_eq(settled(FL_ROWS_KEEP).deal, FL_DEAL_PLACED);
            /* what is said is done */
            site(ledger, key);
            agent.data.deal = FL_DEAL_PLACED;
            ck_assert_uint_eq(settled(FL_ROWS_KEEP).deal, FL_DEAL_PLACED);
            site(ledger, key);
            agent.data.deal = FL_DEAL_HASHED;
            ck_assert_uint_eq(settled(FL_ROWS_KEEP).deal, FL_DEAL_HASHED);
            ck_assert_int_eq(access(file("rows.key"), F_OK), 0);
        }
    }
}
END_TEST

START_TEST(test_the_key_is_made_once_and_nobody_elses)
{
    site(false, false);
    agent.data.test_part = 0.5;
    agent.data.deal = FL_DEAL_HASHED;
    ck_assert_int_eq(
        fl_rows_settle(&config, &agent, FL_ROWS_EXACT, &(struct fl_data_source){0}, &err),
        -FL_R_CONF_CONFLICT);
    struct fl_data_source look = settled(FL_ROWS_LOOK), first = settled(FL_ROWS_KEEP);
    ck_assert_mem_ne(look.role_key.bytes, first.role_key.bytes, FL_SEED_SIZE);
    for (int use = FL_ROWS_KEEP; use <= FL_ROWS_EXACT; use++) {
        struct fl_data_source again = settled((enum fl_rows_use)use);
        ck_assert_mem_eq(again.role_key.bytes, first.role_key.bytes, FL_SEED_SIZE);
    }
    ck_assert_int_eq(chmod(file("rows.key"), 0644), 0);
    ck_assert_int_eq(fl_rows_settle(&config, &agent, FL_ROWS_KEEP, &first, &err), -FL_R_FILE_MODE);
    ck_assert_int_eq(chmod(file("rows.key"), 0600) | truncate(file("rows.key"), 31), 0);
    ck_assert_int_eq(fl_rows_settle(&config, &agent, FL_ROWS_KEEP, &first, &err),
                     -FL_R_STORE_MISMATCH);
    site(false, false);
    rmdir(file(""));
    rmdir(config.state);
}
END_TEST

TESTS_MAIN("rows", test_new_sites_hash_and_older_ones_stay,
           test_the_key_is_made_once_and_nobody_elses)
