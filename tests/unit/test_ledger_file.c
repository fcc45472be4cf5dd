/* The file itself: the chain of its entries, exports, copies, and what somebody changed in it. */
#include "client/core/ledger.h"
#include "tests/lib/ledger_bench.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* SQL on the closed file, as somebody with another program would. */
static void tamper(const char *sql)
{
    sqlite3 *db;
    char *why = NULL;

    shut();
    ck_assert_int_eq(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
    int rc = sqlite3_exec(db, sql, NULL, NULL, &why);
    ck_assert_msg(rc == SQLITE_OK, "%s: %s", sql, why ? why : "");
    sqlite3_close(db);
}

static void refused(const char *expected, int code)
{
    struct fl_ledger *none = NULL;

    shut();
    memset(&e, 0, sizeof e);
    int r = fl_ledger_open(path, owner, &none, &e);
    ck_assert_msg(r == code, "for \"%s\" the answer is %d: %s", expected, r, e.msg);
    ck_assert_ptr_null(none);
    ck_assert_msg(strstr(e.msg, expected) != NULL, "\"%s\" does not say \"%s\"", e.msg, expected);
    ck_assert_msg(strstr(e.msg, path) != NULL, "\"%s\" does not name the file", e.msg);
}

START_TEST(test_every_change_of_an_entry_breaks_the_chain)
{
    const char *changes[] = {
        "UPDATE entry SET sigma = 100 WHERE kind = 3 AND round = 2",
        "UPDATE entry SET count = 0 WHERE seq = 2",
        "UPDATE entry SET wall_ms = wall_ms + 1 WHERE seq = 1",
        "UPDATE entry SET job = 'x' WHERE seq = 4",
        "UPDATE entry SET q = NULL WHERE seq = 2",
        "UPDATE entry SET chain = zeroblob(32) WHERE seq = 6",
        "UPDATE entry SET chain = x'00' WHERE seq = 3",
        "DELETE FROM entry WHERE seq = 3",
        "DELETE FROM entry WHERE seq = 1",
        "UPDATE entry SET seq = 20 WHERE seq = 6",
        "UPDATE entry SET data = zeroblob(32) WHERE kind = 3",
    };

    for (size_t i = 0; i < FL_COUNT(changes); i++) {
        fresh();
        for (uint64_t round = 1; round <= 3; round++) {
            ck_ok(spend(round, 8, &client_budget));
        }
        ck_ok(fl_ledger_verify(l, &e));
        tamper(changes[i]);
        refused("was changed", -FL_R_LEDGER);
    }
}
END_TEST

START_TEST(test_a_rolled_back_file_has_another_head)
{
    struct fl_digest before, after;
    uint64_t n = 0;

    fresh();
    ck_ok(fl_ledger_head(l, &n, &before, &e));
    ck_assert_uint_eq(n, 0);
    ck_assert(fl_digest_is_zero(&before));
    ck_ok(spend(1, 8, &client_budget));
    ck_ok(spend(2, 8, &client_budget));
    ck_ok(fl_ledger_head(l, &n, &before, &e));
    ck_assert_uint_eq(n, 4);
    tamper("DELETE FROM entry WHERE seq > 2");
    reopen(); /* a shorter chain is a sound chain: only somebody who remembers the head can tell */
    ck_ok(fl_ledger_head(l, &n, &after, &e));
    ck_assert_uint_eq(n, 2);
    ck_assert(!fl_digest_equal(&before, &after));
    shut();
}
END_TEST

/* The same story as a coordinator tells it: what it has seen is echoed. */
START_TEST(test_an_old_copy_does_not_hold_the_echo)
{
    const uint8_t coordinator[16] = {5, 6}, another[16] = {8};
    struct fl_ledger_mark none = {0}, first, second, now;

    fresh();
    ck_ok(fl_ledger_mark(l, coordinator, &now, &e));
    ck_assert_uint_eq(now.releases, 0);
    ck_ok(fl_ledger_holds(l, coordinator, &none, &e));
    ck_ok(spend(1, 8, &client_budget));
    ck_ok(fl_ledger_mark(l, coordinator, &first, &e));
    ck_assert_uint_eq(first.releases, 1);
    ck_ok(spend(2, 8, &client_budget));
    struct fl_key key = key_of(2);
    ck_ok(fl_ledger_acknowledged(l, &key, 99, &e)); /* other entries do not count */
    ck_ok(fl_ledger_mark(l, coordinator, &second, &e));
    ck_assert_uint_eq(second.releases, 2);
    ck_assert(!fl_digest_equal(&first.head, &second.head));
    ck_ok(fl_ledger_mark(l, another, &now, &e));
    ck_assert_uint_eq(now.releases, 0);
    /* An echo from any time before is held, also after a restart. */
    reopen();
    ck_ok(fl_ledger_holds(l, coordinator, &first, &e));
    ck_ok(fl_ledger_holds(l, coordinator, &second, &e));
    /* Of another coordinator, of a future, or with another digest it is not. */
    ck_assert_int_eq(fl_ledger_holds(l, another, &first, &e), -FL_R_LEDGER);
    now = second;
    now.releases = 3;
    ck_assert_int_eq(fl_ledger_holds(l, coordinator, &now, &e), -FL_R_LEDGER);
    ck_assert_ptr_nonnull(strstr(e.msg, "holds 2 releases"));
    now.releases = UINT64_MAX;
    ck_assert_int_eq(fl_ledger_holds(l, coordinator, &now, &e), -FL_R_MSG_FIELD);
    now = second;
    now.releases = 1;
    ck_assert_int_eq(fl_ledger_holds(l, coordinator, &now, &e), -FL_R_LEDGER);
    ck_assert_ptr_nonnull(strstr(e.msg, "another history"));
    /* The copy from before round 2, a sound chain in itself; then spent again on something else. */
    tamper("DELETE FROM entry WHERE seq > 2; DELETE FROM seed");
    reopen();
    ck_ok(fl_ledger_verify(l, &e));
    ck_ok(fl_ledger_holds(l, coordinator, &first, &e));
    ck_assert_int_eq(fl_ledger_holds(l, coordinator, &second, &e), -FL_R_LEDGER);
    ck_assert_ptr_nonnull(strstr(e.msg, "old copy"));
    ck_ok(spend(7, 8, &client_budget));
    ck_assert_int_eq(fl_ledger_holds(l, coordinator, &second, &e), -FL_R_LEDGER);
    ck_assert_ptr_nonnull(strstr(e.msg, "another history"));
    shut();
}
END_TEST

/* The chain as the documentation states it, computed from what is exported. */
struct recomputed {
    struct fl_digest head;
    uint64_t entries;
};

static void put_u64(struct fl_hash *h, uint64_t v)
{
    uint8_t le[8];

    for (int i = 0; i < 8; i++) {
        le[i] = (uint8_t)(v >> (8 * i));
    }
    fl_hash_add(h, le, sizeof le);
}

static int recompute(void *arg, const struct fl_ledger_column *c, int count)
{
    struct recomputed *to = arg;
    struct fl_hash h;
    uint64_t bits;

    fl_hash_init(&h);
    fl_hash_add(&h, to->head.bytes, sizeof to->head.bytes);
    for (int i = 0; i < count - 1; i++) {
        static const uint64_t types[] = {[FL_LEDGER_NONE] = 5,
                                         [FL_LEDGER_COUNT] = 1,
                                         [FL_LEDGER_REAL] = 2,
                                         [FL_LEDGER_TEXT] = 3,
                                         [FL_LEDGER_BYTES] = 4};
        put_u64(&h, types[c[i].type]);
        if (c[i].type == FL_LEDGER_COUNT) {
            put_u64(&h, (uint64_t)c[i].count);
        } else if (c[i].type == FL_LEDGER_REAL) {
            memcpy(&bits, &c[i].real, sizeof bits);
            put_u64(&h, bits);
        } else if (c[i].type != FL_LEDGER_NONE) {
            put_u64(&h, c[i].size);
            if (c[i].size) {
                fl_hash_add(&h, c[i].data, c[i].size);
            }
        }
    }
    fl_hash_end(&h, &to->head);
    ck_assert_str_eq(c[0].name, "seq");
    ck_assert_int_eq(c[0].count, (int64_t)++to->entries);
    ck_assert_str_eq(c[count - 1].name, "chain");
    ck_assert_mem_eq(c[count - 1].data, to->head.bytes, sizeof to->head.bytes);
    return 0;
}

START_TEST(test_an_export_can_be_checked_by_anybody)
{
    struct recomputed mine = {.entries = 0};
    struct fl_digest head;
    uint64_t n = 0;

    fresh();
    for (uint64_t round = 1; round <= 5; round++) {
        ck_ok(spend(round, 20, &client_budget));
    }
    ck_ok(fl_ledger_withdraw(l, "fmnist", true, 77, &e));
    fl_ledger_genesis(l, &mine.head);
    for (uint64_t after = UINT64_MAX; after != mine.entries;) { /* in pages of four */
        after = mine.entries;
        ck_ok(fl_ledger_entries(l, after, 4, recompute, &mine, &e));
    }
    ck_ok(fl_ledger_head(l, &n, &head, &e));
    ck_assert_uint_eq(n, 11);
    ck_assert_uint_eq(mine.entries, 11);
    ck_assert(fl_digest_equal(&head, &mine.head));
    shut();
}
END_TEST

START_TEST(test_a_changed_seed_is_noticed)
{
    struct fl_key key = key_of(1);
    struct fl_intent_inputs in = inputs_of(1);
    struct fl_seed seed;

    fresh();
    ck_ok(fl_ledger_intent(l, &key, &in, 1, &seed, &e));
    tamper("UPDATE seed SET seed = zeroblob(32)");
    ck_ok(fl_ledger_open(path, owner, &l, &e));
    ck_assert_int_eq(fl_ledger_intent(l, &key, &in, 2, &seed, &e), -FL_R_LEDGER);
    shut();
}
END_TEST

static void write_file(const void *bytes, size_t size, off_t at, bool cut)
{
    int fd = open(path, O_RDWR | O_CREAT | (cut ? O_TRUNC : 0), 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, bytes, size, at), (ssize_t)size);
    close(fd);
}

START_TEST(test_foreign_corrupt_and_shared_files_are_refused_untouched)
{
    static const char text[] = "this is a letter, not a ledger; it is long enough to be looked at "
                               "as the header of a database, which has one hundred bytes";
    uint8_t noise[3000];
    char back[sizeof text];

    fresh();
    ck_ok(spend(1, 8, &client_budget));
    shut();
    struct fl_ledger *none = NULL;
    ck_assert_int_eq(fl_ledger_open(path, other_owner, &none, &e), -FL_R_LEDGER);
    ck_assert_ptr_nonnull(strstr(e.msg, "belongs to another agent"));

    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0600);
    chmod(path, 0640);
    refused("chmod 600", -FL_R_FILE_MODE);
    chmod(path, 0600);

    ck_ok(fl_ledger_open(path, owner, &l, &e));
    ck_assert_int_eq(fl_ledger_open(path, owner, &none, &e), -FL_R_LEDGER);
    ck_assert_ptr_nonnull(strstr(e.msg, "in use"));
    ck_assert_int_eq(spend(2, 8, &client_budget), 0); /* the owner is not disturbed */
    shut();

    tamper("PRAGMA user_version = 2");
    refused("version 2", -FL_R_LEDGER);
    tamper("PRAGMA user_version = 1; PRAGMA application_id = 5");
    refused("another program", -FL_R_LEDGER);
    tamper("PRAGMA application_id = 1178815559; DELETE FROM meta");
    refused("names no owner", -FL_R_LEDGER);

    memset(noise, 0x5a, sizeof noise);
    fresh();
    for (uint64_t round = 1; round <= 20; round++) {
        ck_ok(spend(round, 80, &client_budget));
    }
    shut();
    write_file(noise, sizeof noise, 2 * 4096, false);
    refused("damaged", -FL_R_LEDGER);

    write_file(text, sizeof text, 0, true);
    refused("not a database", -FL_R_LEDGER);
    int fd = open(path, O_RDONLY);
    ck_assert_int_eq(read(fd, back, sizeof back), sizeof back);
    close(fd);
    ck_assert_str_eq(back, text);

    unlink(path);
    mkdir(path, 0700);
    refused("not a regular file", -FL_R_LEDGER);
    rmdir(path);
    char whole[96];
    memcpy(whole, path, sizeof whole);
    snprintf(path, sizeof path, "%s/no/such/folder", folder);
    refused("cannot be created", -FL_R_LEDGER);
    memcpy(path, whole, sizeof path);
}
END_TEST

/* In a child without privileges, whom the file's mode binds. */
START_TEST(test_a_read_only_file_is_refused)
{
    if (geteuid() != 0) {
        fresh();
        shut();
        chmod(path, 0400);
        refused("read-only", -FL_R_LEDGER);
        return;
    }
    fresh();
    shut();
    ck_assert_int_eq(chown(path, 65534, 65534), 0);
    ck_assert_int_eq(chmod(folder, 0755), 0);
    chmod(path, 0400);
    pid_t child = fork();
    if (child == 0) {
        struct fl_ledger *none = NULL;
        bool told = seteuid(65534) == 0 && fl_ledger_open(path, owner, &none, &e) == -FL_R_LEDGER &&
                    strstr(e.msg, "read-only") != NULL;
        _exit(told ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ck_assert_int_eq(status, 0);
}
END_TEST

TESTS_MAIN("ledger_file", test_every_change_of_an_entry_breaks_the_chain,
           test_a_rolled_back_file_has_another_head, test_an_old_copy_does_not_hold_the_echo,
           test_an_export_can_be_checked_by_anybody, test_a_changed_seed_is_noticed,
           test_foreign_corrupt_and_shared_files_are_refused_untouched,
           test_a_read_only_file_is_refused, gone)
