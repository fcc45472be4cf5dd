#include "server/checkpoint.h"

#include "common/base/le.h"
#include "common/base/mem.h"
#include "common/nn/tensors.h"

#include <stdio.h>
#include <string.h>

enum { TRAILER = 48, SECTION_HEAD = FL_CHECKPOINT_NAME + 8, PLACED = 12 };
#define SECTION_MAX ((uint64_t)16 << 20)
static const char magic[8] = "COHCKPT2";

/* ---- writing ---- */

static uint64_t sections_size(const struct fl_checkpoint_end *end)
{
    uint64_t size = 0;

    for (uint32_t i = 0; i < end->section_count; i++) {
        size += SECTION_HEAD + end->section[i].size;
    }
    return size;
}

static void put_trailer(const struct fl_checkpoint_end *end, uint8_t *to)
{
    memcpy(to, magic, sizeof magic);
    fl_put_u64(to + 8, end->round);
    fl_put_u64(to + 16, end->model_size);
    fl_put_u64(to + 24, end->state_size);
    fl_put_u64(to + 32, sections_size(end));
    fl_put_u32(to + 40, end->slots);
    fl_put_u32(to + 44, end->placed_count);
}

int fl_checkpoint_end(const struct fl_checkpoint_end *end, uint8_t **ret, size_t *ret_size,
                      struct fl_err *e)
{
    bool ok = end->slots > 0 && end->slots <= FL_CHECKPOINT_SLOTS_MAX &&
              end->section_count <= FL_CHECKPOINT_SECTIONS_MAX &&
              end->placed_count <= FL_CHECKPOINT_PLACED_MAX;

    for (uint32_t i = 0; ok && i < end->section_count; i++) {
        ok = end->section[i].size <= SECTION_MAX;
    }
    if (!ok) {
        return fl_fail(e, FL_R_LIMIT, "a checkpoint of %u slots, %u sections, %u agents",
                       end->slots, end->section_count, end->placed_count);
    }
    size_t size = (size_t)sections_size(end) + (size_t)end->slots * FL_DIGEST_SIZE +
                  (size_t)end->placed_count * PLACED + TRAILER;
    uint8_t *bytes = fl_try(size, 1), *to = bytes;
    if (!bytes) {
        return fl_fail(e, FL_R_NOMEM, "the end of a checkpoint, %zu bytes", size);
    }
    for (uint32_t i = 0; i < end->section_count; i++) {
        const struct fl_section *s = &end->section[i];
        memcpy(to, s->name, FL_CHECKPOINT_NAME);
        fl_put_u64(to + FL_CHECKPOINT_NAME, s->size);
        memcpy(to + SECTION_HEAD, s->bytes, s->size);
        to += SECTION_HEAD + s->size;
    }
    for (uint32_t i = 0; i < end->slots; i++, to += FL_DIGEST_SIZE) {
        memcpy(to, end->model[i].bytes, FL_DIGEST_SIZE);
    }
    for (uint32_t i = 0; i < end->placed_count; i++, to += PLACED) {
        fl_put_u64(to, end->placed[i].agent);
        fl_put_u32(to + 8, end->placed[i].slot);
    }
    put_trailer(end, to);
    *ret = bytes;
    *ret_size = size;
    return 0;
}

/* ---- opening ---- */

static int foreign(struct fl_err *e, const char *what)
{
    return fl_fail(e, FL_R_STORE_MISMATCH, "not a checkpoint of this round: %s", what);
}

/* The trailer, and that all parts together are the file. */
static int read_trailer(struct fl_checkpoint *c, uint64_t round, uint64_t *ret_sections,
                        struct fl_err *e)
{
    uint64_t size = fl_object_size(c->file), left = size;
    uint8_t t[TRAILER];
    int r = size < TRAILER ? foreign(e, "too short")
                           : fl_object_read(c->file, size - TRAILER, t, TRAILER, e);

    if (r) {
        return r;
    }
    if (memcmp(t, magic, sizeof magic) != 0 || fl_get_u64(t + 8) != round) {
        return foreign(e, "its end says another");
    }
    c->round = round;
    c->model_size = fl_get_u64(t + 16);
    c->state_size = fl_get_u64(t + 24);
    *ret_sections = fl_get_u64(t + 32);
    c->slots = fl_get_u32(t + 40);
    c->placed_count = fl_get_u32(t + 44);
    if (c->slots == 0 || c->slots > FL_CHECKPOINT_SLOTS_MAX ||
        c->placed_count > FL_CHECKPOINT_PLACED_MAX || c->model_size > size / c->slots) {
        return foreign(e, "its parts are longer than the file");
    }
    left -= c->slots * c->model_size;
    const uint64_t parts[] = {c->state_size, *ret_sections, (uint64_t)c->slots * FL_DIGEST_SIZE,
                              (uint64_t)c->placed_count * PLACED, TRAILER};
    for (size_t i = 0; i < FL_COUNT(parts); i++) {
        if (parts[i] > left) {
            return foreign(e, "its parts are longer than the file");
        }
        left -= parts[i];
    }
    return left ? foreign(e, "its parts are shorter than the file") : 0;
}

static int read_sections(struct fl_checkpoint *c, uint64_t at, uint64_t size, struct fl_err *e)
{
    uint8_t head[SECTION_HEAD];

    while (size > 0) {
        if (size < SECTION_HEAD || c->section_count == FL_CHECKPOINT_SECTIONS_MAX) {
            return foreign(e, "sections");
        }
        int r = fl_object_read(c->file, at, head, sizeof head, e);
        if (r) {
            return r;
        }
        uint64_t n = fl_get_u64(head + FL_CHECKPOINT_NAME);
        if (n > SECTION_MAX || n > size - SECTION_HEAD || head[FL_CHECKPOINT_NAME - 1] != 0) {
            return foreign(e, "sections");
        }
        memcpy(c->section[c->section_count].name, head, FL_CHECKPOINT_NAME);
        c->section[c->section_count].at = at + SECTION_HEAD;
        c->section[c->section_count++].size = n;
        at += SECTION_HEAD + n;
        size -= SECTION_HEAD + n;
    }
    return 0;
}

static int read_slots(struct fl_checkpoint *c, uint64_t at, struct fl_err *e)
{
    uint8_t row[PLACED];
    int r = 0;

    c->model = fl_try(c->slots, sizeof *c->model);
    c->placed = fl_try(c->placed_count ? c->placed_count : 1, sizeof *c->placed);
    if (!c->model || !c->placed) {
        return fl_fail(e, FL_R_NOMEM, "%u slots", c->slots);
    }
    for (uint32_t i = 0; r == 0 && i < c->slots; i++, at += FL_DIGEST_SIZE) {
        r = fl_object_read(c->file, at, c->model[i].bytes, FL_DIGEST_SIZE, e);
    }
    for (uint32_t i = 0; r == 0 && i < c->placed_count; i++, at += PLACED) {
        r = fl_object_read(c->file, at, row, PLACED, e);
        c->placed[i] = (struct fl_placed){fl_get_u64(row), fl_get_u32(row + 8)};
        if (r == 0 && (c->placed[i].slot >= c->slots ||
                       (i > 0 && c->placed[i].agent <= c->placed[i - 1].agent))) {
            r = foreign(e, "agents");
        }
    }
    return r;
}

int fl_checkpoint_open(const char *path, uint64_t round, struct fl_checkpoint **ret,
                       struct fl_err *e)
{
    struct fl_checkpoint *c = fl_try(1, sizeof *c);
    uint64_t sections = 0, at;

    if (!c) {
        return fl_fail(e, FL_R_NOMEM, "%s", path);
    }
    int r = fl_object_from_file(path, &c->file, e);
    r = r ? r : read_trailer(c, round, &sections, e);
    if (r == 0) {
        at = c->slots * c->model_size + c->state_size;
        r = read_sections(c, at, sections, e);
        r = r ? r : read_slots(c, at + sections, e);
    }
    if (r) {
        fl_checkpoint_close(c);
        return fl_wrap(e, r, "%s", path);
    }
    *ret = c;
    return 0;
}

void fl_checkpoint_close(struct fl_checkpoint *c)
{
    if (c) {
        fl_object_unref(c->file);
        fl_free(c->model);
        fl_free(c->placed);
        fl_free(c);
    }
}

/* ---- looking in ---- */

struct fl_object *fl_checkpoint_model(const struct fl_checkpoint *c, uint32_t slot)
{
    return fl_object_part(c->file, slot * c->model_size, c->model_size, &c->model[slot]);
}

uint32_t fl_checkpoint_slot(const struct fl_checkpoint *c, uint64_t agent)
{
    uint32_t low = 0, high = c->placed_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (c->placed[middle].agent < agent) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < c->placed_count && c->placed[low].agent == agent ? c->placed[low].slot : 0;
}

static int read_part(const struct fl_checkpoint *c, uint64_t at, uint64_t size, uint8_t **ret,
                     struct fl_err *e)
{
    uint8_t *bytes = fl_try(size ? (size_t)size : 1, 1);
    int r = bytes ? fl_object_read(c->file, at, bytes, (size_t)size, e)
                  : fl_fail(e, FL_R_NOMEM, "%llu bytes", (unsigned long long)size);

    if (r) {
        fl_free(bytes);
        return r;
    }
    *ret = bytes;
    return 0;
}

int fl_checkpoint_models(const struct fl_checkpoint *c, size_t most, struct fl_object **ret,
                         struct fl_err *e)
{
    struct fl_digest digest;
    uint8_t *bytes;

    if (c->model_size > most / c->slots) {
        return fl_fail(e, FL_R_LIMIT, "%u models of %llu bytes", c->slots,
                       (unsigned long long)c->model_size);
    }
    size_t size = (size_t)c->model_size * c->slots;
    int r = read_part(c, 0, size, &bytes, e);
    if (r) {
        return r;
    }
    fl_digest_of(bytes, size, &digest);
    fl_free(bytes);
    *ret = fl_object_part(c->file, 0, size, &digest);
    return *ret ? 0 : fl_fail(e, FL_R_NOMEM, "the models of a round");
}

int fl_checkpoint_state(const struct fl_checkpoint *c, uint8_t **ret, struct fl_err *e)
{
    return read_part(c, c->slots * c->model_size, c->state_size, ret, e);
}

int fl_checkpoint_section(const struct fl_checkpoint *c, const char *name, struct fl_section *ret,
                          struct fl_err *e)
{
    for (uint32_t i = 0; i < c->section_count; i++) {
        if (strcmp(c->section[i].name, name) == 0) {
            memset(ret, 0, sizeof *ret);
            snprintf(ret->name, sizeof ret->name, "%s", name);
            ret->size = (size_t)c->section[i].size;
            int r = read_part(c, c->section[i].at, c->section[i].size, &ret->bytes, e);
            return r ? r : 1;
        }
    }
    return 0;
}

int fl_checkpoint_head(const struct fl_checkpoint *c, const struct fl_tensors *table,
                       size_t *ret_head, struct fl_err *e)
{
    uint8_t *want = NULL, *have = NULL;
    size_t size = 0;
    int r = fl_tensors_header(table, NULL, 0, &want, &size, e);

    if (r == 0 && c->model_size != size + 4 * (uint64_t)table->elements) {
        r = fl_fail(e, FL_R_STORE_MISMATCH, "models of %llu bytes; the plan's have %zu",
                    (unsigned long long)c->model_size, size + 4 * table->elements);
    }
    r = r ? r : read_part(c, 0, size, &have, e);
    for (uint32_t i = 0; r == 0 && i < c->slots; i++) {
        r = fl_object_read(c->file, i * c->model_size, have, size, e);
        if (r == 0 && memcmp(have, want, size) != 0) {
            r = fl_fail(e, FL_R_STORE_MISMATCH, "the model of slot %u has other tensors", i);
        }
    }
    fl_free(want);
    fl_free(have);
    *ret_head = size;
    return r;
}

int fl_checkpoint_values(const struct fl_checkpoint *c, size_t head, uint32_t slot, size_t first,
                         size_t count, float *to, struct fl_err *e)
{
    uint8_t bytes[16 * 1024];

    while (count > 0) {
        size_t n = count < sizeof bytes / 4 ? count : sizeof bytes / 4;
        int r = fl_object_read(c->file, slot * c->model_size + head + 4 * (uint64_t)first, bytes,
                               4 * n, e);
        if (r) {
            return r;
        }
        for (size_t i = 0; i < n; i++) {
            to[i] = fl_get_float(bytes + 4 * i);
        }
        to += n;
        first += n;
        count -= n;
    }
    return 0;
}
