#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/io/spool.h"
#include "tests/lib/check_main.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BIG = 9 * 1024 * 1024 };

static char dir[64];
static uint8_t *object;
static struct fl_digest digest;

static void given_a_folder_and_an_object(size_t size)
{
    memcpy(dir, "/tmp/spool-XXXXXX", 18);
    ck_assert_ptr_nonnull(mkdtemp(dir));
    object = fl_new(size, 1);
    for (size_t i = 0; i < size; i++) {
        object[i] = (uint8_t)(i * 2654435761u >> 24);
    }
    fl_digest_of(object, size, &digest);
}

static void in_dir(const char *name, char ret[128])
{
    snprintf(ret, 128, "%s/%s", dir, name);
}

static void clean_up(void)
{
    const char *const names[] = {"u",    "u.part", "u.mark", "f", "f.new",
                                 "lock", "a/b/c",  "a/b",    "a"};
    char path[128];

    for (size_t i = 0; i < FL_COUNT(names); i++) {
        in_dir(names[i], path);
        remove(path);
    }
    ck_assert_int_eq(rmdir(dir), 0);
    fl_free(object);
}

static struct fl_spool *open_at(size_t size, uint64_t expected)
{
    struct fl_spool *s = NULL;
    struct fl_err e = {0};
    uint64_t offset = UINT64_MAX;

    ck_assert_msg(fl_spool_open(dir, "u", &digest, size, &s, &offset, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(offset, expected);
    return s;
}

static void write_range(struct fl_spool *s, size_t from, size_t to)
{
    for (size_t at = from; at < to;) {
        size_t n = to - at < 100000 ? to - at : 100000;
        struct fl_err e = {0};
        ck_assert_msg(fl_spool_write(s, at, object + at, n, &e) == 0, "%s", e.msg);
        at += n;
    }
}

static bool exists(const char *name)
{
    char path[128];

    in_dir(name, path);
    return access(path, F_OK) == 0;
}

START_TEST(test_an_object_becomes_whole)
{
    given_a_folder_and_an_object(BIG);
    struct fl_spool *s = open_at(BIG, 0);
    struct fl_err e = {0};
    uint8_t *back;
    size_t size;
    char path[128];

    write_range(s, 0, BIG);
    ck_assert_msg(fl_spool_seal(s, &e) == 0, "%s", e.msg);
    fl_spool_close(s);
    ck_assert(!exists("u.part") && !exists("u.mark"));
    in_dir("u", path);
    ck_assert_int_eq(fl_file_read(path, BIG, &back, &size, &e), 0);
    ck_assert_uint_eq(size, BIG);
    ck_assert_mem_eq(back, object, BIG);
    fl_free(back);
    clean_up();
}
END_TEST

START_TEST(test_a_small_object_needs_no_mark)
{
    given_a_folder_and_an_object(5000);
    struct fl_spool *s = open_at(5000, 0);

    write_range(s, 0, 5000);
    ck_assert(!exists("u.mark"));
    ck_assert_int_eq(fl_spool_seal(s, NULL), 0);
    fl_spool_close(s);
    clean_up();
}
END_TEST

START_TEST(test_goes_on_from_the_mark_never_past_it)
{
    given_a_folder_and_an_object(BIG);
    const uint64_t marked = 5000000;

    /* A process that dies without closing: what it wrote after its last mark does not count. */
    pid_t child = fork();
    if (child == 0) {
        struct fl_spool *s = open_at(BIG, 0);
        write_range(s, 0, marked);
        ck_assert_int_eq(fl_spool_sync(s, NULL), 0);
        write_range(s, marked, marked + 777777);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, NULL, 0), child);

    struct fl_spool *s = open_at(BIG, marked);
    char path[128];
    struct stat st;
    in_dir("u.part", path);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq((uint64_t)st.st_size, marked);
    write_range(s, marked, marked + 1000);
    fl_spool_close(s); /* an orderly close keeps everything */
    s = open_at(BIG, marked + 1000);
    write_range(s, marked + 1000, BIG);
    ck_assert_int_eq(fl_spool_seal(s, NULL), 0);
    fl_spool_close(s);
    clean_up();
}
END_TEST

START_TEST(test_the_mark_moves_by_itself)
{
    given_a_folder_and_an_object(BIG);
    pid_t child = fork();
    if (child == 0) {
        struct fl_spool *s = open_at(BIG, 0);
        write_range(s, 0, BIG - 1);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    struct fl_spool *s = NULL;
    uint64_t offset;
    ck_assert_int_eq(fl_spool_open(dir, "u", &digest, BIG, &s, &offset, NULL), 0);
    ck_assert_uint_ge(offset, 2 * (uint64_t)FL_SPOOL_MARK_EVERY);
    fl_spool_close(s);
    clean_up();
}
END_TEST

START_TEST(test_another_object_starts_from_nothing)
{
    given_a_folder_and_an_object(BIG);
    struct fl_spool *s = open_at(BIG, 0);
    struct fl_digest first = digest;

    write_range(s, 0, 100000);
    fl_spool_close(s);
    digest.bytes[0] ^= 1;
    s = open_at(BIG, 0);
    write_range(s, 0, 50000);
    fl_spool_close(s);
    digest = first;
    s = open_at(BIG, 0);
    fl_spool_close(s);
    s = open_at(BIG - 1, 0);
    fl_spool_close(s);
    clean_up();
}
END_TEST

START_TEST(test_a_torn_or_foreign_mark_is_not_believed)
{
    given_a_folder_and_an_object(300000);
    char path[128];
    in_dir("u.mark", path);

    /* Two marks are written, at 100000 and 200000. Damage every byte of the newer slot in turn: the
     * older one stands. Damage both: from 0. */
    for (int byte = 0; byte < 96; byte += 5) {
        struct fl_spool *s = open_at(300000, 0);
        write_range(s, 0, 100000);
        ck_assert_int_eq(fl_spool_sync(s, NULL), 0);
        write_range(s, 100000, 200000);
        ck_assert_int_eq(fl_spool_sync(s, NULL), 0);
        fl_spool_close(s);
        int fd = open(path, O_RDWR);
        uint8_t c;
        ck_assert_int_eq(pread(fd, &c, 1, byte), 1);
        c ^= 0x40;
        ck_assert_int_eq(pwrite(fd, &c, 1, byte), 1);
        s = open_at(300000, 100000);
        fl_spool_close(s);
        ck_assert_int_eq(pread(fd, &c, 1, 512 + byte), 1);
        c ^= 0x40;
        ck_assert_int_eq(pwrite(fd, &c, 1, 512 + byte), 1);
        close(fd);
        s = open_at(300000, 0);
        fl_spool_close(s);
    }
    clean_up();
}
END_TEST

START_TEST(test_a_mark_over_a_shorter_part_is_not_believed)
{
    given_a_folder_and_an_object(300000);
    struct fl_spool *s = open_at(300000, 0);
    char path[128];

    write_range(s, 0, 200000);
    fl_spool_close(s);
    in_dir("u.part", path);
    ck_assert_int_eq(truncate(path, 199999), 0);
    s = open_at(300000, 0);
    fl_spool_close(s);
    clean_up();
}
END_TEST

START_TEST(test_gaps_repeats_and_excess_are_refused)
{
    given_a_folder_and_an_object(1000);
    struct fl_spool *s = open_at(1000, 0);

    ck_assert_int_eq(fl_spool_write(s, 1, object, 10, NULL), -FL_R_OFFSET);
    write_range(s, 0, 500);
    ck_assert_int_eq(fl_spool_write(s, 0, object, 10, NULL), -FL_R_OFFSET);
    ck_assert_int_eq(fl_spool_write(s, 500, object, 501, NULL), -FL_R_OFFSET);
    ck_assert_int_eq(fl_spool_seal(s, NULL), -FL_R_OFFSET);
    fl_spool_close(s);
    clean_up();
}
END_TEST

START_TEST(test_wrong_bytes_are_found_at_the_seal_and_thrown_away)
{
    given_a_folder_and_an_object(300000);
    struct fl_spool *s = open_at(300000, 0);
    struct fl_err e = {0};

    object[70000] ^= 1;
    write_range(s, 0, 200000);
    fl_spool_close(s);
    s = open_at(300000, 200000);
    write_range(s, 200000, 300000);
    ck_assert_int_eq(fl_spool_seal(s, &e), -FL_R_UPDATE_DIGEST);
    fl_spool_close(s);
    ck_assert(!exists("u") && !exists("u.mark"));
    object[70000] ^= 1;
    s = open_at(300000, 0);
    write_range(s, 0, 300000);
    ck_assert_int_eq(fl_spool_seal(s, &e), 0);
    fl_spool_close(s);
    clean_up();
}
END_TEST

START_TEST(test_a_full_disk_is_said_and_final)
{
    given_a_folder_and_an_object(300000);
    struct rlimit was, small = {200000, 0};
    struct fl_err e = {0};

    /* A file size limit: write() fails in the middle as on a full disk (EFBIG). */
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &was), 0);
    small.rlim_max = was.rlim_max;
    struct fl_spool *s = open_at(300000, 0);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    int r = fl_spool_write(s, 0, object, 300000, &e);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &was), 0);
    ck_assert_int_eq(r, -FL_R_STORE_IO);
    ck_assert_ptr_nonnull(strstr(e.msg, "write "));
    ck_assert_int_eq(fl_spool_write(s, 0, object, 1, &e), -FL_R_STORE_IO);
    ck_assert_int_eq(fl_spool_sync(s, &e), -FL_R_STORE_IO);
    fl_spool_close(s);
    ck_assert_int_eq(fl_file_reason(28), FL_R_DISK_FULL);
    s = open_at(300000, 0);
    fl_spool_close(s);
    clean_up();
}
END_TEST

START_TEST(test_memory_failures_at_every_call)
{
    given_a_folder_and_an_object(1000);
    for (uint64_t nth = 1;; nth++) {
        struct fl_spool *s = NULL;
        uint64_t offset;
        fl_mem_fail_at(nth);
        int r = fl_spool_open(dir, "u", &digest, 1000, &s, &offset, NULL);
        if (r == 0) {
            write_range(s, offset, 1000);
            r = fl_spool_seal(s, NULL);
            fl_spool_close(s);
        }
        bool hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert_int_eq(r, hit ? -FL_R_NOMEM : 0);
        if (!hit) {
            break;
        }
    }
    clean_up();
}
END_TEST

START_TEST(test_file_replace_and_read)
{
    given_a_folder_and_an_object(10);
    char path[128];
    struct fl_err e = {0};
    struct stat st;
    uint8_t *back;
    size_t size;

    in_dir("f", path);
    ck_assert_int_eq(fl_file_replace(path, "old", 3, 0600, &e), 0);
    ck_assert_int_eq(fl_file_replace(path, "newer", 5, 0600, &e), 0);
    ck_assert_int_eq(fl_file_read(path, 5, &back, &size, &e), 0);
    ck_assert_str_eq((char *)back, "newer"); /* the zero behind the end */
    fl_free(back);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    ck_assert_int_eq(fl_file_check_private(path, FL_R_TLS_KEYMODE, &e), 0);
    ck_assert_int_eq(chmod(path, 0644), 0);
    ck_assert_int_eq(fl_file_check_private(path, FL_R_TLS_KEYMODE, &e), -FL_R_TLS_KEYMODE);
    ck_assert_int_eq(fl_file_read(path, 4, &back, &size, &e), -FL_R_LIMIT);
    ck_assert_int_eq(fl_file_read(dir, 4, &back, &size, &e), -FL_R_SYS);
    ck_assert_int_eq(fl_file_remove(path, &e), 0);
    ck_assert_int_eq(fl_file_remove(path, &e), 0);
    ck_assert_int_eq(fl_file_read(path, 4, &back, &size, &e), -FL_R_SYS);
    ck_assert_int_eq(fl_file_replace("/nowhere/at/all", "x", 1, 0600, &e), -FL_R_STORE_IO);
    clean_up();
}
END_TEST

START_TEST(test_folders_and_their_lock)
{
    given_a_folder_and_an_object(10);
    char path[128];
    struct fl_err e = {0};
    int fd, second = -1, status;

    in_dir("a/b/c", path);
    ck_assert_int_eq(fl_file_make_dirs(path, &e), 0);
    ck_assert_int_eq(fl_file_make_dirs(path, &e), 0);
    in_dir("f", path);
    ck_assert_int_eq(fl_file_replace(path, "x", 1, 0600, &e), 0);
    ck_assert_int_eq(fl_file_make_dirs(path, &e), -FL_R_STORE_IO);

    ck_assert_int_eq(fl_file_lock_dir(dir, &fd, &e), 0);
    pid_t child = fork();
    if (child == 0) {
        char want[32];
        snprintf(want, sizeof want, "process %ld", (long)getppid());
        int r = fl_file_lock_dir(dir, &second, &e);
        _exit(r == -FL_R_STORE_LOCKED && strstr(e.msg, want) ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    close(fd);
    ck_assert_int_eq(fl_file_lock_dir(dir, &fd, &e), 0);
    close(fd);
    clean_up();
}
END_TEST

TESTS_MAIN("spool", test_an_object_becomes_whole, test_a_small_object_needs_no_mark,
           test_goes_on_from_the_mark_never_past_it, test_the_mark_moves_by_itself,
           test_another_object_starts_from_nothing, test_a_torn_or_foreign_mark_is_not_believed,
           test_a_mark_over_a_shorter_part_is_not_believed,
           test_gaps_repeats_and_excess_are_refused,
           test_wrong_bytes_are_found_at_the_seal_and_thrown_away,
           test_a_full_disk_is_said_and_final, test_memory_failures_at_every_call,
           test_file_replace_and_read, test_folders_and_their_lock)
