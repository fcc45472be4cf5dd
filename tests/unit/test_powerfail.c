/* The pessimist's disk: what its model says must be what POSIX promises, no more. */
#include "tests/lib/check_main.h"
#include "tests/lib/powerfail/model.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROOT = 1, FILE_A = 10, FILE_B = 11, FOLDER = 20 };

static struct pf_model *model;
static char dir[64];

static void apply(struct pf_record r, const char *name, const char *name2, const void *data)
{
    pf_model_apply(model, &r, name ? name : "", name2 ? name2 : "", data);
}

static void create(uint64_t parent, const char *name, uint64_t inode, bool folder)
{
    apply((struct pf_record){.op = PF_CREATE, .parent = parent, .inode = inode, .offset = folder},
          name, NULL, NULL);
}

static void put(uint64_t inode, uint64_t offset, const char *text)
{
    apply(
        (struct pf_record){.op = PF_WRITE, .inode = inode, .offset = offset, .size = strlen(text)},
        NULL, NULL, text);
}

static void sync_of(uint64_t inode, bool works)
{
    apply((struct pf_record){.op = works ? PF_SYNC : PF_SYNC_FAILED, .inode = inode}, NULL, NULL,
          NULL);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

/* The text of a file after a power failure; NULL when there is none. */
static const char *after(enum pf_mode mode, uint64_t seed, const char *name)
{
    static char text[4096];
    char path[128];

    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    pf_model_rebuild(model, mode, seed, dir);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        return NULL;
    }
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void begin(void)
{
    snprintf(dir, sizeof dir, "/tmp/test_powerfail.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    model = pf_model_new(ROOT);
}

static void end(void)
{
    pf_model_free(model);
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

START_TEST(test_a_file_needs_its_folder_synced_too)
{
    begin();
    create(ROOT, "a", FILE_A, false);
    put(FILE_A, 0, "hello");
    sync_of(FILE_A, true);
    ck_assert_ptr_null(after(PF_DROP, 0, "a"));
    ck_assert_str_eq(after(PF_KEEP, 0, "a"), "hello");
    sync_of(ROOT, true);
    ck_assert_str_eq(after(PF_DROP, 0, "a"), "hello");
    put(FILE_A, 1, "ipp");
    ck_assert_str_eq(after(PF_DROP, 0, "a"), "hello");
    ck_assert_str_eq(after(PF_KEEP, 0, "a"), "hippo");
    sync_of(FILE_A, true);
    ck_assert_str_eq(after(PF_DROP, 0, "a"), "hippo");
    end();
}
END_TEST

START_TEST(test_a_folder_is_lost_with_what_is_in_it)
{
    begin();
    create(ROOT, "f", FOLDER, true);
    create(FOLDER, "a", FILE_A, false);
    put(FILE_A, 0, "x");
    sync_of(FILE_A, true);
    sync_of(FOLDER, true);
    ck_assert_ptr_null(after(PF_DROP, 0, "f/a"));
    sync_of(ROOT, true);
    ck_assert_str_eq(after(PF_DROP, 0, "f/a"), "x");
    end();
}
END_TEST

START_TEST(test_a_rename_is_old_or_new)
{
    int old = 0, new = 0;

    begin();
    create(ROOT, "a", FILE_A, false);
    put(FILE_A, 0, "old");
    sync_of(FILE_A, true);
    create(ROOT, "b", FILE_B, false);
    sync_of(ROOT, true);
    put(FILE_B, 0, "new");
    apply((struct pf_record){.op = PF_RENAME, .parent = ROOT, .parent2 = ROOT}, "b", "a", NULL);
    /* Renamed before it was synced: the name without the bytes. */
    ck_assert_str_eq(after(PF_META, 0, "a"), "");
    sync_of(FILE_B, true);
    for (uint64_t seed = 0; seed < 64; seed++) {
        const char *text = after(PF_SUBSET, seed, "a");
        ck_assert_ptr_nonnull(text);
        old += strcmp(text, "old") == 0;
        new += strcmp(text, "new") == 0;
        bool was_old = strcmp(text, "old") == 0;
        ck_assert_int_eq(after(PF_SUBSET, seed, "b") != NULL, was_old);
    }
    ck_assert_int_eq(old + new, 64);
    ck_assert_int_gt(old, 5);
    ck_assert_int_gt(new, 5);
    end();
}
END_TEST

START_TEST(test_a_write_is_torn_at_sectors)
{
    char ones[1025], zeros[1025];
    bool seen[8] = {false};

    begin();
    memset(zeros, '0', 1024);
    memset(ones, '1', 1024);
    zeros[1024] = ones[1024] = '\0';
    create(ROOT, "a", FILE_A, false);
    put(FILE_A, 0, zeros);
    sync_of(FILE_A, true);
    sync_of(ROOT, true);
    put(FILE_A, 256, ones + 256); /* 256..1024: half a sector and a whole one */
    for (uint64_t seed = 0; seed < 100; seed++) {
        const char *t = after(PF_SUBSET, seed, "a");
        ck_assert_uint_eq(strlen(t), 1024);
        ck_assert_int_eq(t[0], '0');
        ck_assert_int_eq(t[256], t[511]);
        ck_assert_int_eq(t[512], t[1023]);
        seen[(t[256] == '1') + 2 * (t[512] == '1')] = true;
    }
    ck_assert(seen[0] && seen[1] && seen[2] && seen[3]);
    end();
}
END_TEST

START_TEST(test_what_a_failed_sync_dropped_no_later_one_saves)
{
    begin();
    create(ROOT, "a", FILE_A, false);
    sync_of(ROOT, true);
    put(FILE_A, 0, "gone");
    sync_of(FILE_A, false);
    put(FILE_A, 0, "G");
    sync_of(FILE_A, true);
    ck_assert_str_eq(after(PF_DROP, 0, "a"), "G");
    end();
}
END_TEST

START_TEST(test_an_inode_may_be_used_again)
{
    begin();
    create(ROOT, "a", FILE_A, false);
    put(FILE_A, 0, "first");
    sync_of(FILE_A, true);
    sync_of(ROOT, true);
    apply((struct pf_record){.op = PF_UNLINK, .parent = ROOT}, "a", NULL, NULL);
    create(ROOT, "b", FILE_A, false);
    put(FILE_A, 0, "second");
    sync_of(FILE_A, true);
    ck_assert_str_eq(after(PF_DROP, 0, "a"), "first");
    sync_of(ROOT, true);
    ck_assert_ptr_null(after(PF_DROP, 0, "a"));
    ck_assert_str_eq(after(PF_DROP, 0, "b"), "second");
    end();
}
END_TEST

TESTS_MAIN("powerfail", test_a_file_needs_its_folder_synced_too,
           test_a_folder_is_lost_with_what_is_in_it, test_a_rename_is_old_or_new,
           test_a_write_is_torn_at_sectors, test_what_a_failed_sync_dropped_no_later_one_saves,
           test_an_inode_may_be_used_again)
