/* A checkpoint file: what was written is found again; an end that lies is refused. */
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/nn/tensors.h"
#include "server/checkpoint.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SLOTS = 3, VALUES = 5, STATE = 7 };

static struct fl_err e;
static struct fl_tensors table;

struct file {
    char path[64];
    uint8_t *bytes;
    size_t size, model_size, head;
    struct fl_digest digest[SLOTS];
};

static void write_out(const struct file *f)
{
    ck_assert_msg(fl_file_replace(f->path, f->bytes, f->size, 0600, &e) == 0, "%s", e.msg);
}

static void make(struct file *f)
{
    static uint8_t counts[] = "some counts", masks[] = "";
    struct fl_section section[2] = {{"counts", counts, sizeof counts}, {"masks", masks, 0}};
    struct fl_placed placed[3] = {{4, 2}, {9, 0}, {70000000000, 1}};
    uint8_t *model, *end;
    size_t end_size, header;

    memset(f, 0, sizeof *f);
    memset(&table, 0, sizeof table);
    table.count = 1;
    table.elements = VALUES;
    table.at[0] = (struct fl_tensor){.name = "w", .rank = 1, .shape = {VALUES}, .count = VALUES};
    snprintf(f->path, sizeof f->path, "/tmp/cohort-checkpoint-%d", (int)getpid());
    f->bytes = fl_new(1, 65536);
    for (int k = 0; k < SLOTS; k++) {
        float values[VALUES];
        for (int i = 0; i < VALUES; i++) {
            values[i] = (float)(10 * k + i);
        }
        ck_assert_int_eq(fl_tensors_write(&table, values, &model, &f->model_size, &e), 0);
        fl_digest_of(model, f->model_size, &f->digest[k]);
        memcpy(f->bytes + f->size, model, f->model_size);
        f->size += f->model_size;
        fl_free(model);
    }
    ck_assert_int_eq(fl_tensors_header(&table, NULL, 0, &model, &header, &e), 0);
    fl_free(model);
    memset(f->bytes + f->size, 0x5a, STATE);
    f->size += STATE;
    struct fl_checkpoint_end about = {.round = 12,
                                      .model_size = f->model_size,
                                      .state_size = STATE,
                                      .slots = SLOTS,
                                      .section_count = 2,
                                      .placed_count = 3,
                                      .model = f->digest,
                                      .section = section,
                                      .placed = placed};
    ck_assert_int_eq(fl_checkpoint_end(&about, &end, &end_size, &e), 0);
    memcpy(f->bytes + f->size, end, end_size);
    f->size += end_size;
    fl_free(end);
    write_out(f);
}

static void drop(struct file *f)
{
    unlink(f->path);
    fl_free(f->bytes);
}

START_TEST(test_what_was_written_is_found)
{
    struct file f;
    struct fl_checkpoint *c;
    struct fl_section section;
    size_t head;
    float values[2];
    uint8_t *state, bytes[4096];

    make(&f);
    ck_assert_msg(fl_checkpoint_open(f.path, 12, &c, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(c->slots, SLOTS);
    ck_assert_uint_eq(c->model_size, f.model_size);
    ck_assert_uint_eq(c->state_size, STATE);
    ck_assert_int_eq(fl_checkpoint_state(c, &state, &e), 0);
    ck_assert_int_eq(state[STATE - 1], 0x5a);
    fl_free(state);
    ck_assert_int_eq(fl_checkpoint_section(c, "counts", &section, &e), 1);
    ck_assert_str_eq((const char *)section.bytes, "some counts");
    fl_free(section.bytes);
    ck_assert_int_eq(fl_checkpoint_section(c, "masks", &section, &e), 1);
    ck_assert_uint_eq(section.size, 0);
    fl_free(section.bytes);
    ck_assert_int_eq(fl_checkpoint_section(c, "votes", &section, &e), 0);
    ck_assert_uint_eq(fl_checkpoint_slot(c, 4), 2);
    ck_assert_uint_eq(fl_checkpoint_slot(c, 70000000000), 1);
    ck_assert_uint_eq(fl_checkpoint_slot(c, 5), 0); /* a newcomer */
    ck_assert_int_eq(fl_checkpoint_head(c, &table, &head, &e), 0);
    ck_assert_int_eq(fl_checkpoint_values(c, head, 2, 3, 2, values, &e), 0);
    ck_assert_float_eq(values[1], 24);

    /* A slot's model is a part with a digest of its own, and outlives the rest. */
    struct fl_object *model = fl_checkpoint_model(c, 1);
    fl_checkpoint_close(c);
    struct fl_digest found;
    ck_assert_uint_eq(fl_object_size(model), f.model_size);
    ck_assert_int_eq(fl_object_read(model, 0, bytes, f.model_size, &e), 0);
    fl_digest_of(bytes, f.model_size, &found);
    ck_assert(fl_digest_equal(&found, fl_object_digest(model)));
    ck_assert(fl_digest_equal(&found, &f.digest[1]));
    ck_assert_int_eq(fl_object_read(model, 1, bytes, f.model_size, &e), -FL_R_OFFSET);
    fl_object_unref(model);
    drop(&f);
}
END_TEST

/* Every byte of the end may be anything: never more than a refusal. */
START_TEST(test_an_end_that_lies)
{
    struct file f;
    struct fl_checkpoint *c;
    size_t end, refused = 0;

    make(&f);
    ck_assert_int_eq(fl_checkpoint_open(f.path, 11, &c, &e), -FL_R_STORE_MISMATCH);
    end = SLOTS * f.model_size + STATE;
    for (size_t i = end; i < f.size; i++) {
        for (int bit = 0; bit < 8; bit += 7) {
            f.bytes[i] ^= (uint8_t)(1 << bit);
            write_out(&f);
            int r = fl_checkpoint_open(f.path, 12, &c, &e);
            ck_assert(r == 0 || r == -FL_R_STORE_MISMATCH);
            refused += r != 0;
            if (r == 0) {
                fl_checkpoint_close(c);
            }
            f.bytes[i] ^= (uint8_t)(1 << bit);
        }
    }
    ck_assert_uint_gt(refused, 2 * 40);
    for (size_t n = 0; n < f.size; n += 13) {
        struct file cut = f;
        cut.size = n;
        write_out(&cut);
        ck_assert_int_eq(fl_checkpoint_open(f.path, 12, &c, &e), -FL_R_STORE_MISMATCH);
    }
    /* A model of other tensors is noticed before its values are used. */
    size_t head;
    write_out(&f);
    ck_assert_int_eq(fl_checkpoint_open(f.path, 12, &c, &e), 0);
    table.elements++;
    ck_assert_int_eq(fl_checkpoint_head(c, &table, &head, &e), -FL_R_STORE_MISMATCH);
    fl_checkpoint_close(c);
    drop(&f);
}
END_TEST

START_TEST(test_memory_may_end)
{
    struct file f;
    bool hit = true;

    make(&f);
    for (uint64_t n = 1; hit; n++) {
        struct fl_checkpoint *c;
        fl_mem_fail_at(n);
        int r = fl_checkpoint_open(f.path, 12, &c, &e);
        hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert_int_eq(r, hit ? -FL_R_NOMEM : 0);
        if (r == 0) {
            fl_checkpoint_close(c);
        }
    }
    drop(&f);
}
END_TEST

TESTS_MAIN("checkpoint", test_what_was_written_is_found, test_an_end_that_lies, test_memory_may_end)
